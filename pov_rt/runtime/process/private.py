"""Files that are nobody else's, whatever the umask, which usually lets all read."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

MODE = 0o600
_OTHERS = 0o077


def open_private(path: str, flags: int) -> int:
    """Open a file for `open(..., opener=)`; one that is made is its owner's alone."""
    return os.open(path, flags, MODE)


def make_private(path: Path) -> None:
    """Make an empty file unless there is one. What cannot be made is for its user to tell of.

    One that is there is not opened: to close it would end all locks that this process has on it,
    as those of a SQLite database that another thread writes to.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE))


def narrow(paths: Sequence[Path]) -> None:
    """Take those of the files that there are from all but their owner; one line says so."""
    narrowed: list[str] = []
    for path in paths:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & _OTHERS:
                path.chmod(mode & ~_OTHERS)
                narrowed.append(f"{path} ({mode:04o})")
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("%s can be read by others, and stays so: %s", path, error.strerror)
    if narrowed:
        log.warning("others could get at %s; now only the owner can", ", ".join(narrowed))


def warn_of_folder(path: Path) -> None:
    """Log it if users of other groups may enter a folder."""
    with suppress(OSError):  # a missing folder is told of by whoever needs it
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o003:
            log.warning(
                "all users of this machine may enter %s (%04o), which has data; run: chmod o= %s",
                path,
                mode,
                path,
            )

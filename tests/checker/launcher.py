"""The server with a wall clock that can be moved: `python -m tests.checker.launcher serve`.

Its sockets have small buffers, as towards clients far away: else the system takes megabytes for one
that does not read, and no client would be slow within a run.

With `bug=NAME` before the command it has one of the bugs of `planted` as well.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys
import time
from pathlib import Path

from pov_rt.cli.main import main
from pov_rt.runtime.clock import SystemClock
from tests.checker.planted import BUGS

CLOCK = "CHECKER_CLOCK"
"""The variable that names the file with the seconds by which the clock is moved."""
LAUNCHER = (sys.executable, "-m", "tests.checker.launcher")

SEND_BYTES = 64 * 1024
"""SO_SNDBUF of what is accepted; Linux takes twice that."""

_seconds = struct.Struct("d")


def set_clock(file: Path, seconds: float) -> None:
    """Move the clock of the servers that follow the file: at once, also of those that run."""
    if not file.exists():
        file.write_bytes(bytes(_seconds.size))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), _seconds.size) as shared:
        _seconds.pack_into(shared, 0, seconds)


def follow_clock(file: Path) -> None:
    """Have this process's wall clock be moved by what the file says."""
    with file.open("r+b") as opened:
        shared = mmap.mmap(opened.fileno(), _seconds.size)

    def moved() -> float:
        return float(time.time() + _seconds.unpack_from(shared)[0])

    setattr(SystemClock, "time", staticmethod(moved))  # noqa: B010  (mypy refuses the assignment)


def shrink_buffers() -> None:
    """Have the sockets that are accepted inherit a small buffer."""
    listen = socket.socket.listen

    def listen_small(listener: socket.socket, *backlog: int) -> None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        listen(listener, *backlog)

    setattr(socket.socket, "listen", listen_small)  # noqa: B010


if __name__ == "__main__":
    shrink_buffers()
    if CLOCK in os.environ:
        follow_clock(Path(os.environ[CLOCK]))
    if sys.argv[1:2] and sys.argv[1].startswith("bug="):
        BUGS[sys.argv.pop(1).partition("=")[2]].plant()
    main()

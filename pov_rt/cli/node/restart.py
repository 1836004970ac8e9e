"""Under --dev the process starts anew when one of its files changes, if that can be loaded."""

from __future__ import annotations

import asyncio
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from pov_rt.config.settings import ServerSettings
from pov_rt.registry.problem import Problem

LOOK_S = 0.2
_INSTALLED = tuple(
    sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
CHANGED = "_POV_RT_CHANGED"
"""The variable in which a process tells the next one what changed."""


class Watch:
    """The files that a server is made of: loaded modules, settings, and a folder of plugins.

    Make it before those are loaded, so that nothing changes unseen in between. `wanted` tells
    whether a change matters: under --dev.
    """

    def __init__(self, settings_file: Path, *, wanted: bool) -> None:
        self.wanted = wanted
        self.server: ServerSettings | None = None
        """Where the server is to listen, once the settings have been loaded."""
        self._settings_file = settings_file
        self._folders: list[Path] = []
        self._loaded = 0
        self._sources: list[Path] = []
        self._files: list[Path] = []
        self._times = self._look()

    def add_folder(self, folder: Path) -> None:
        """Watch a folder: Python files that come or go in it are changes, too."""
        self._folders.append(folder)
        self._times = self._look()

    def add_files(self, files: Iterable[Path]) -> None:
        """Watch further files, as those of schemas."""
        self._files += files
        self._times = self._look()

    async def changed(self) -> list[Path]:
        """Wait for files to change, come or go, and then for a moment's quiet; return them."""
        found: dict[Path, None] = {}
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._look()
            named = set(self._named())
            new = [
                path
                for path in self._times | now
                if self._times.get(path) != now.get(path)
                # A module that was loaded only now was always there.
                and (path in self._times or path in named)
            ]
            self._times = now
            # Editors write in several steps: a file can be half there, or gone for an instant.
            if found and not new:
                return list(found)
            found |= dict.fromkeys(new)

    def _look(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in (*self._modules(), *self._named()):
            try:
                status = path.stat()
            except OSError:
                continue
            found[path] = (status.st_mtime_ns, status.st_size)
        return found

    def _named(self) -> Iterator[Path]:
        yield self._settings_file
        yield from self._settings_file.parent.joinpath("conf.d").glob("*.toml")
        yield from self._files
        for folder in self._folders:
            yield from folder.glob("*.py")

    def _modules(self) -> Iterable[Path]:
        if len(sys.modules) != self._loaded:
            self._loaded = len(sys.modules)
            files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
            self._sources = [Path(file) for file in files if file and not is_installed(file)]
        return self._sources


def is_installed(file: str) -> bool:
    """Tell whether a module is Python's own or was installed: nobody writes those, and most are."""
    return file.startswith(_INSTALLED)


TRIAL = "_POV_RT_TRIAL"
"""The variable that makes a process load everything and say what is wrong, instead of serving."""
TRIAL_S = 30.0


async def find_problem() -> Problem | None:
    """Return why a process with the same arguments could not start now; None: it could.

    Everything is loaded, in a process of its own: this one goes on as it was.
    """
    trial = await asyncio.create_subprocess_exec(
        sys.executable,
        *sys.orig_argv[1:],
        env={**os.environ, TRIAL: "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(TRIAL_S):
            said, _ = await trial.communicate()
    except TimeoutError:
        return Problem(f"the files take more than {TRIAL_S:g} s to load", is_running=True)
    finally:
        if trial.returncode is None:
            trial.kill()
            await trial.wait()
    return None if trial.returncode == 0 else _read_problem(said, trial.returncode)


def _read_problem(said: bytes, status: int | None) -> Problem:
    for line in reversed(said.splitlines()):  # plugins may print something, too
        try:
            return replace(msgspec.json.decode(line, type=Problem), is_running=True)
        except msgspec.DecodeError:
            continue
    return Problem(f"loading the files ended with status {status}", is_running=True)


def start_anew(changed: Iterable[Path]) -> None:
    """Replace this process by a new one with the same arguments. Does not return."""
    os.environ[CHANGED] = ", ".join(sorted({path.name for path in changed}))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  (what was started)

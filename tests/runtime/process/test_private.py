"""Files of the server are its own: those it makes, and those that it finds open to others."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pov_rt.runtime.process.private import make_private, narrow, open_private, warn_of_folder
from tests.processes import environment, running


def mode_of(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


@pytest.fixture(params=[0, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


def test_what_is_made_is_the_owners_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_private(tmp_path / "a")
        open(tmp_path / "b", "wb", opener=open_private).close()
        make_private(tmp_path / "none" / "c")
    finally:
        os.umask(before)
    assert [mode_of(path) for path in sorted(tmp_path.iterdir())] == ["0600", "0600"]


def test_what_others_could_get_at_is_narrowed_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, mode in (("a", 0o644), ("b", 0o600), ("c", 0o640), ("d", 0o400)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    narrow([tmp_path / name for name in "abcd-"])
    assert [mode_of(tmp_path / name) for name in "abcd"] == ["0600", "0600", "0600", "0400"]
    (line,) = caplog.records
    assert line.getMessage() == (
        f"others could get at {tmp_path}/a (0644), {tmp_path}/c (0640); now only the owner can"
    )
    narrow([tmp_path / "a"])
    assert len(caplog.records) == 1


def test_a_folder_that_all_may_enter_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for mode in (0o700, 0o750, 0o755, 0o711, 0o702):
        tmp_path.chmod(mode)
        caplog.clear()
        warn_of_folder(tmp_path)
        warns = bool(mode & 0o003)
        assert ("all users" in caplog.text) == warns, oct(mode)
        assert len(caplog.records) == warns
    warn_of_folder(tmp_path / "none")


WORK = """
import asyncio, sys
from pathlib import Path
from pov_rt.config.load import dev_secret
from pov_rt.config.settings import EngineSettings, ServerSettings, Settings
from pov_rt.engine.base import NewEntry
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.engine.sqlite.backups import back_up, restore
from pov_rt.runtime.clock import SystemClock

class Nobody:
    def __getattr__(self, name):
        return lambda *_: None

async def work(folder):
    path = folder / "log.db"
    for step in range(2):
        engine = SqliteEngine(path, EngineSettings(), SystemClock(), "n")
        await engine.start(Nobody())
        await engine.log.append([NewEntry("pov/a", "p", str(step), b"{}")])
        await engine.log.read("pov/a", 0, 10)
        back_up(path, folder / f"copy{step}.db")
        for each in sorted(folder.iterdir()):
            print(each.name, oct(each.stat().st_mode & 0o777))
        await engine.close()
    restore(path, folder / "copy0.db")
    dev_secret(Settings(dev=True, server=ServerSettings(data=str(folder))))
    for each in sorted(folder.iterdir()):
        print(each.name, oct(each.stat().st_mode & 0o777))

asyncio.run(work(Path(sys.argv[1])))
"""


def test_all_files_of_the_data_are_the_owners_alone_in_any_folder(
    tmp_path: Path, umask: int
) -> None:
    """The umask is a process's: so this is one."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    with running(
        [sys.executable, "-c", WORK, str(folder)],
        env=environment(tmp_path),
        umask=umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    files = dict(line.split() for line in output.splitlines())
    assert set(files) >= {
        "log.db", "log.db-wal", "log.db-shm", "log.db.lock", "log.db.before-restore",
        "copy0.db", "copy1.db", "dev-secret",
    }  # fmt: skip
    assert set(files.values()) == {"0o600"}, output
    assert errors.count("all users of this machine may enter") == 2

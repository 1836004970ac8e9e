"""What is acknowledged is on the disk: shown by the system calls of a process, in their order."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BATCHES = 5
CALLS = "trace=fdatasync,fsync,pwrite64,write"

CHILD = """
import asyncio, os, sqlite3, sys
from pathlib import Path
from pov_rt.runtime.clock import SystemClock
from pov_rt.engine.base import NewEntry
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.config.settings import EngineSettings
from pov_rt.suites import Recorder

async def main(path, synchronous, batches):
    engine = SqliteEngine(Path(path), EngineSettings(), SystemClock(), "child")
    await engine.start(Recorder())
    if synchronous:
        engine.writer.connection.execute(f"PRAGMA synchronous = {synchronous}")
    for number in range(int(batches)):
        await engine.log.append([NewEntry("pov/a", "p", f"{number}-{k}", b"{}") for k in range(50)])
        os.write(1, b"acknowledged\\n")
    await engine.close()

asyncio.run(main(*sys.argv[1:]))
"""


def why_not() -> str | None:
    """Return why no process can be traced here."""
    if shutil.which("strace") is None:
        return "strace is missing; install it (scripts/test does, as root: apt-get install strace)"
    done = subprocess.run(
        ["strace", "-f", "-e", CALLS, "true"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return (
            f"strace may trace nothing here ({done.stderr.strip()}); in a container, start it with "
            "--cap-add=SYS_PTRACE; else see kernel.yama.ptrace_scope"
        )
    return None


REASON = why_not()


def trace(tmp_path: Path, synchronous: str) -> list[tuple[str, str]]:
    """Return the finished calls of a child that appends, in order: the call's and file's names."""
    output = tmp_path / "trace"
    child = [sys.executable, "-c", CHILD, str(tmp_path / "pov-rt.db"), synchronous, str(BATCHES)]
    done = subprocess.run(
        ["strace", "-f", "-y", "-o", str(output), "-e", CALLS, *child],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "acknowledged\n" * BATCHES
    return list(finished(output.read_text().splitlines()))


def finished(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the calls where they return; one that began while another thread was at it is split."""
    begun: dict[str, tuple[str, str]] = {}
    for line in lines:
        pid, _, rest = line.partition(" ")
        if call := re.match(r"\s*(\w+)\(\d+<(.*?)>(.*)", rest):
            name, file, arguments = call.groups()
            found = ("acknowledge" if '"acknowledged' in arguments else name, Path(file).name)
            if arguments.endswith("<unfinished ...>"):
                begun[pid] = found
            else:
                yield found
        elif "resumed>" in rest and pid in begun:
            yield begun.pop(pid)


def flushed(calls: list[tuple[str, str]]) -> list[bool]:
    """Tell of each acknowledgement whether the log was written and then flushed before it."""
    answers, state = [], "nothing"
    for name, file in calls:
        if name == "acknowledge":
            answers.append(state == "flushed")
            state = "nothing"
        elif file.endswith("-wal"):
            if name in ("pwrite64", "write"):
                state = "written"
            elif state == "written":
                state = "flushed"
    return answers


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize(("synchronous", "expected"), [("", True), ("NORMAL", False)])
def test_the_log_is_flushed_before_an_append_is_acknowledged(
    tmp_path: Path, synchronous: str, expected: bool
) -> None:
    """The second case plants the mistake that this must find."""
    assert flushed(trace(tmp_path, synchronous)) == [expected] * BATCHES

"""Programs that tests start: all of them begin and end here, so that none outlives its test.

Of our commands each has an environment and a folder of its own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

COMMAND = [sys.executable, "-m", "pov_rt.cli"]
# The last one makes coverage measure the processes, too.
KEPT = ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG")
SECRET = "an environment's secret of more than 32 bytes"
LAST_LINE = "Ctrl-C ends the server. It starts anew when a source or plugin file changes."


CACHE = Path(__file__).parent.parent / ".mypy_cache"

OUTLIVING: set[int] = set()
"""Programs that a test started, and that a fixture of the whole session ends."""

HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def mypy(options: str) -> list[str]:
    """Return how `python -m` checks types of files outside of the checkout, with these options.

    What it has read of ours is kept, for each worker alone and for each set of options: it takes
    seconds, and is read anew where it has changed.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    kept = CACHE / f"outside{options}".replace(" ", "") / worker
    return ["mypy", f"--cache-dir={kept}", *options.split()]


def with_socket(number: int, command: Sequence[str]) -> list[str]:
    """Return a command that finds a listening socket as a service of a socket unit does.

    It has to be passed on to the program (`pass_fds`) under its number.
    """
    return [sys.executable, "-I", "-S", "-c", HAND_OVER, str(number), *command]


def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {
        **kept,
        "POV_RT_SERVER__DATA": str(tmp_path / "data"),
        "POV_RT_AUTH__DEFAULT_POVS": "*",
    }


def run(
    tmp_path: Path, *arguments: str, given: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=given,
        env=environment(tmp_path) | more,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def launch(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
    """Start a program, in a session of its own: what it starts ends with it. For `end`."""
    return subprocess.Popen(command, start_new_session=True, **options)


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a program, if it runs, and what it started; wait for it and close its pipes."""
    if process.returncode is None:  # else its number may be another's by now
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(BrokenPipeError):  # of what it was still to be given
                pipe.close()


def take_pipe(process: subprocess.Popen[str], name: str) -> IO[str]:
    """Take `stdout` or `stderr` over for a thread that reads it to its end, and closes it then.

    `end` would close it under who reads.
    """
    pipe: IO[str] = getattr(process, name)
    setattr(process, name, None)
    return pipe


@contextmanager
def running(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program in the block; however that ends, the program is gone after it."""
    process = launch(command, text=True, **options)
    try:
        yield process
    finally:
        end(process)


def children() -> set[int]:
    """Return this process's children, dead ones that nobody waited for included."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError):  # the thread has ended since
            found.update(map(int, path.read_text().split()))
    return found


def end_children(numbers: Iterable[int]) -> list[str]:
    """Kill children of this process; return what they were."""
    ended = []
    for number in numbers:
        with suppress(OSError):  # it has ended meanwhile, or a thread waits for it
            command = Path(f"/proc/{number}/cmdline").read_text()
            ended.append(command.replace("\0", " ").strip())
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
    return ended


def read_until(stream: IO[str] | None, words: str) -> str:
    """Return a program's output up to the first line with the words. Raises EOFError."""
    assert stream is not None
    text = ""
    for line in stream:
        text += line
        if words in line:
            return text
    raise EOFError(f"it ended without a line with {words!r}: {text}")


class Served:
    """A development server as a process, with its folder as home and what it printed first."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.text = read_until(process.stdout, LAST_LINE)
        self.url = self.text.split("listens on ")[1].split()[0]
        self.socket_url = self.url.replace("http", "ws") + "/ws/"
        (self.token,) = re.findall(r"^  (eyJ\S+)$", self.text, re.M)

    def stop(self) -> str:
        """End it, and return its log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=20)
        assert self.process.returncode == 0
        return log or ""


@contextmanager
def serve(
    tmp_path: Path, *flags: str, program: Sequence[str] = (*COMMAND, "serve", "--dev"), **more: str
) -> Iterator[Served]:
    """Run a development server on free ports, unless the flags say others."""
    with running(
        [*program, "--port", "0", "--admin-port", "0", *flags],
        env=environment(tmp_path) | {"PYTHONUNBUFFERED": "1"} | more,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield Served(process)

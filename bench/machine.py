"""What the operating system says about processes and disks: CPU, memory, cores, sockets."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1
STOP_S = 15.0
SPARE_FILES = 500
"""What a server keeps of its open files for other things than clients; pov-rt keeps 64."""
QUIET_S, QUIET_SHARE = 0.05, 0.05
"""A process that uses less than this share of a core for so long has nothing to do."""
IN_MEMORY = ("tmpfs", "ramfs")


def most_files() -> int:
    """Return how many files a process may open here."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def check(sockets: int) -> None:
    """Let this process and its children open what the system allows.

    Raises unless server and load get a core each and so many sockets fit into one process.
    """
    cores = os.sched_getaffinity(0)
    if not {SERVER_CORE, LOAD_CORE} <= cores:
        raise SystemExit(f"the benchmark needs the cores 0 and 1; this process has {cores}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most, needed = most_files(), sockets + SPARE_FILES
    if most < needed:
        raise SystemExit(
            f"the benchmark opens {sockets:,} sockets to one server, for which it needs "
            f"{needed:,} open files; {most:,} are allowed here. As root: `ulimit -n {needed}`; "
            f"under systemd: LimitNOFILE={needed}; in a container: --ulimit nofile={needed}. Or "
            "take --quick, which opens a tenth."
        )


def spawn(
    command: Sequence[str], *, cores: Sequence[int], log: Path, **more: object
) -> subprocess.Popen[str]:
    """Start a process on these cores; its output goes to `log`."""
    with log.open("ab") as file:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            ["taskset", "-c", ",".join(map(str, cores)), *command],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **more,
        )


class Adopted:
    """A process that another one has started, in a process group of a server's."""

    stdin = None

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        """Return None while it runs."""
        try:
            ended = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return 0
        watched = select.poll()
        watched.register(ended, select.POLLIN)
        try:
            return 0 if watched.poll(0) else None
        finally:
            os.close(ended)

    def wait(self) -> None:
        """Do nothing: who has started it is gone, and the system sees to what is left."""


def stop(process: subprocess.Popen[str] | Adopted, how: signal.Signals = signal.SIGTERM) -> None:
    """Stop a process and its children; kill what does not listen."""
    if process.poll() is None:
        # `wait` with a limit looks 20 times a second, which would count as the server's time.
        ended, watched = os.pidfd_open(process.pid), select.poll()
        watched.register(ended, select.POLLIN)
        try:
            _signal(process, how)
            if not watched.poll(STOP_S * 1000):
                _signal(process, signal.SIGKILL)
        finally:
            os.close(ended)
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _signal(process: subprocess.Popen[str] | Adopted, how: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(os.getpgid(process.pid), how)


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Return the seconds that the processes ran so far, all threads, from the scheduler (in ns)."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the resident memory of the processes, shared pages divided among their users."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def busy(*groups: Sequence[int]) -> Callable[[], tuple[float, list[float]]]:
    """Begin to watch groups of processes.

    The returned function tells the seconds since then, and how busy each group was meanwhile, in
    percent of a core.
    """
    began, before = time.monotonic(), [cpu_s(pids) for pids in groups]

    def since() -> tuple[float, list[float]]:
        seconds = time.monotonic() - began
        after = [cpu_s(pids) for pids in groups]
        return seconds, [100 * (b - a) / seconds for a, b in zip(before, after, strict=True)]

    return since


def rest(pids: Sequence[int]) -> None:
    """Wait until the processes are done with what they were given."""
    used = -1.0
    while (now := cpu_s(pids)) - used > QUIET_SHARE * QUIET_S:
        used = now
        time.sleep(QUIET_S)


def filesystem(folder: Path) -> str:
    """Return the type of the filesystem that holds a folder."""
    best, found = "", ""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, found = point, kind
    return found


def flush_s(folder: Path) -> float:
    """Return how long 4 KiB take to the disk at the end of a file, as most commits do."""
    with (folder / "flush").open("wb", buffering=0) as file:
        began = time.monotonic()
        file.write(bytes(4096))
        os.fdatasync(file.fileno())
        return time.monotonic() - began

"""What the operating system says about processes: CPU, memory, cores."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1
STOP_S = 15.0


def check() -> None:
    """Raise unless server and load get a core each and 10,000 sockets fit."""
    cores = os.sched_getaffinity(0)
    if not {SERVER_CORE, LOAD_CORE} <= cores:
        raise SystemExit(f"the benchmark needs the cores 0 and 1; this process has {cores}")


def spawn(command: Sequence[str], *, core: int, log: Path, **more: object) -> subprocess.Popen[str]:
    """Start a process on one core; its output goes to `log`."""
    with log.open("ab") as file:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            ["taskset", "-c", str(core), *command],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **more,
        )


def stop(process: subprocess.Popen[str]) -> None:
    """Stop a process and its children; kill what does not listen."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


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

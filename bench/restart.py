"""What a restart and a hand-over do to 2,000 clients and a publisher, beside what a crash does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.load import LoadError
from bench.machine import Adopted, cpu_s
from bench.ours import OursOnDisk
from bench.peers import SECRET, START_S
from bench.report import Check, Result
from bench.run import Run
from bench.storm import Crowd, place_of, play
from pov_rt.cli.node.succession import SIGNAL
from tests.processes import with_socket

CLIENTS = 2000
SOURCES = 100
"""The addresses they have: of so many from one, some are dropped (`connections_per_address`)."""
FIGURES = (
    *("down_p50_s", "down_p95_s", "down_max_s", "publishing_stopped_s", "busiest_second"),
    *("server_cpu_s", "load_cpu_s"),
)
"""The CPU is that of the server since it was started anew, and of the clients since before that:
both share two cores."""


class OursActivated(OursOnDisk):
    """pov-rt as behind its socket unit: the port is open while it restarts."""

    name = "pov-rt, socket unit"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.passed = (self.listening.fileno(),)
        # As pip leaves a program: or Python compiles all of this checkout at each start.
        bytecode = str(self.folder / "bytecode")
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind("")  # a name of the system's choice, without a file
        self._manager.settimeout(START_S)
        name = self._manager.getsockname().decode()
        self.variables = {
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": bytecode,
            "NOTIFY_SOCKET": name.replace("\0", "@"),
        }

    def _hear(self, name: str) -> str:
        while True:
            for line in self._manager.recv(1000).decode().splitlines():
                if line.startswith(f"{name}="):
                    return line.partition("=")[2]

    def start(self) -> None:
        """Start it, and wait until it listens."""
        super().start()
        self._hear("READY")

    def restart(self) -> None:
        """Stop it as a service manager does, and start it."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Kill it, and start it."""
        self.stop(signal.SIGKILL)
        self.start()

    def hand_over(self) -> None:
        """Have it hand over to another process, and wait until that listens."""
        assert self._process is not None
        os.kill(self._process.pid, SIGNAL)
        pid = int(self._hear("MAINPID"))
        self._hear("READY")
        self._process.wait()
        self._process = Adopted(pid)

    def choose_port(self) -> int:
        """Return the port of the socket."""
        return int(self.listening.getsockname()[1])

    def command(self) -> list[str]:
        """Return what to run."""
        return with_socket(self.listening.fileno(), super().command())

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.listening.close()
        self._manager.close()


WAYS: dict[str, Callable[[OursActivated], None]] = {
    "restart": OursActivated.restart,
    "hand over": OursActivated.hand_over,
    "kill -9": OursActivated.kill,
}


def restart(run: Run) -> Result:
    """Restart a server, have it hand over, kill it: its clients come back as they are asked."""
    clients = run.scaled(CLIENTS)
    result = Result("restart", f"{clients} clients, a publisher", plots=("down_p95_s",))
    seen: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with OursActivated(run.folder / "restart") as ours:
        for way in run.in_rounds([*WAYS]):
            seen[way].append(_once(ours, clients, WAYS[way]))
    medians = {way: _medians(found) for way, found in seen.items()}
    for way, figures in medians.items():
        result.add(way, ours.name, **figures)
    killed, down, stopped = medians["kill -9"], "down_p95_s", "publishing_stopped_s"
    for way in ("restart", "hand over"):
        found = medians[way]
        result.checks += [
            Check(f"{way}, clients down, p95", found[down], 3, 1.5, unit="s"),
            Check(f"{way}, publishing stopped", found[stopped], 0.5, 0.3, unit="s"),
            Check(f"{way} to kill -9, clients down", found[down] / killed[down], 1, 0.5),
            Check(f"{way} to kill -9, publishing", found[stopped] / killed[stopped], 1, 1),
        ]
    return result


def _once(
    ours: OursActivated, clients: int, act: Callable[[OursActivated], None]
) -> dict[str, Any]:
    place = place_of(f"ws://127.0.0.1:{ours.port}", sources=SOURCES)
    began = 0.0

    async def act_once() -> None:
        nonlocal began
        began = time.process_time()
        await asyncio.to_thread(act, ours)

    found = asyncio.run(play(Crowd([place], SECRET, clients), act_once))
    found |= {"server_cpu_s": cpu_s(ours.pids), "load_cpu_s": time.process_time() - began}
    if found["lost"] or found["doubled"] or found["gaps"]:
        raise LoadError(f"a restart lost or repeated something: {found}")
    return found


def _medians(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in found) for name in FIGURES}

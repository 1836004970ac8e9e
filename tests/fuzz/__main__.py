"""`scripts/fuzz`: many mutated connections to a server of its own, and what is left of them."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from websockets.sync.client import connect

from bench import machine
from bench.ours import Ours
from bench.peers import SECRET, token
from tests.fuzz.answers import Failure
from tests.fuzz.fuzzer import Tally, run

DRIFT_BYTES = 8 * 1024 * 1024
"""By how much memory may end above the highest that was seen while warming up.

The allocators' pools come and go by 5 MB; over 48,000 connections the bytes in use grew by none.
"""
WARM_CONNECTIONS = 5000
SOCKETS = 8
"""What the server has open without clients."""
END_S = 2.5
"""The longest that a connection may take to end after its client is gone."""
PROGRESS_S = 5.0


class Server(Ours):
    """pov-rt with its usual limits, but for a short patience, short logs, and faster clients."""

    name = "fuzzed"

    def command(self) -> list[str]:
        """Return what to run."""
        command = super().command()
        Path(command[-1]).write_text(
            f"[server]\nport = {self.port}\nadmin_port = 0\n"
            f'[auth]\nsecrets = ["{SECRET}"]\ndefault_povs = "*"\n'
            '[limits]\nhandshake_s = 1.0\nmessage_rate = "150/s"\n'
            '[engine]\nurl = "memory://"\nmax_entries = 1000\nmax_ids = 1000\n'
        )
        return command

    def sockets(self) -> int:
        """Return how many sockets it has open."""
        files = Path(f"/proc/{self.pids[-1]}/fd").iterdir()
        return sum(os.readlink(file).startswith("socket:") for file in files)


class Progress:
    """Prints how far it is, every few seconds. `highest` is the most memory that was seen."""

    def __init__(self, server: Server) -> None:
        self.highest = 0
        self._server = server
        self._began = self._printed = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return how long it goes on."""
        return time.monotonic() - self._began

    def show(self, tally: Tally) -> None:
        """Look at the memory; print a line if it is time."""
        memory = machine.resident_bytes(self._server.pids)
        self.highest = max(self.highest, memory)
        if time.monotonic() - self._printed >= PROGRESS_S:
            self._printed = time.monotonic()
            print(f"{describe(tally, self.seconds)}, {memory / 1e6:.1f} MB", file=sys.stderr)


def describe(tally: Tally, seconds: float) -> str:
    """Return what was done so far."""
    return (
        f"{tally.connections:,} connections, {tally.frames:,} frames sent "
        f"({tally.frames / seconds:,.0f}/s), {tally.answers:,} received"
    )


def main() -> int:
    """Return 0 if the server took it all."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument("--connections", type=int, default=10_000)
    how_much.add_argument("--frames", type=int, default=0, help="until so many were sent")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    connections = 0 if given.frames else given.connections
    with tempfile.TemporaryDirectory() as name, Server(Path(name)) as server:
        # Caches grow at first; what is above that afterwards leaks.
        warm, _ = fuzz(
            server, given.seed + 1, max(connections // 5, WARM_CONNECTIONS), given.frames // 5
        )
        progress, tally = fuzz(server, given.seed, connections, given.frames)
        seconds = progress.seconds
        time.sleep(END_S)
        drift = machine.resident_bytes(server.pids) - warm.highest
        sockets = server.sockets()
        problems = problems_of(server.log)
    answers = ", ".join(f"{status}: {number:,}" for status, number in tally.statuses.most_common())
    print(f"seed {given.seed}: {describe(tally, seconds)}")
    print(f"answered {answers}; memory {drift / 1e6:+.1f} MB")
    if drift > DRIFT_BYTES:
        problems.append(f"memory grew by {drift:,} bytes")
    if sockets > SOCKETS:
        problems.append(f"{sockets} sockets are still open")
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


def fuzz(server: Server, seed: int, connections: int, frames: int) -> tuple[Progress, Tally]:
    """Send that much, beside a client that is served all the time."""
    progress = Progress(server)
    url = f"ws://127.0.0.1:{server.port}/ws/?token={token('bystander', ['quiet'])}"
    with connect(url, proxy=None) as bystander:

        def between(tally: Tally) -> None:
            bystander.send('{"type":"ping"}')
            if bystander.recv(timeout=5) != '{"type":"pong"}':
                raise Failure("the bystander was not answered")
            progress.show(tally)

        fuzz_token = token("fuzz", ["acme"], can=["subscribe", "publish"])
        tally = run(
            server.port, fuzz_token, seed, connections=connections, frames=frames, between=between
        )
    return progress, tally


def problems_of(log: Path) -> list[str]:
    """Return the first line of a log that has a traceback."""
    with log.open(errors="replace") as lines:
        found = next((line for line in lines if "Traceback" in line), None)
    return [] if found is None else [f"a traceback in the log:\n{found[:3000]}"]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"{failure}")

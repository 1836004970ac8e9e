"""`scripts/fuzz`: many mutated connections to a server of its own, and what is left of them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from websockets.sync.client import connect

from bench import machine
from bench.ours import Ours
from bench.peers import SECRET, token
from tests.fuzz.fuzzer import Failure, run

DRIFT_BYTES = 5 * 1024 * 1024


class Server(Ours):
    """pov-rt with its usual limits, but for a short patience with half requests."""

    name = "fuzzed"
    settings = ""

    def command(self) -> list[str]:
        """Return what to run."""
        command = super().command()
        config = Path(command[-1])
        config.write_text(
            f'[server]\nport = {self.port}\nadmin_port = 0\n[auth]\nsecrets = ["{SECRET}"]\n'
            '[limits]\nhandshake_s = 1.0\n[engine]\nurl = "memory://"\nmax_entries = 1000\n'
        )
        return command


def main() -> int:
    """Return 0 if the server took it all."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Server(Path(name)) as server:
        pov = token("bystander", ["quiet"])
        with connect(f"ws://127.0.0.1:{server.port}/ws/?token={pov}", proxy=None) as bystander:

            def between(done: int) -> None:
                bystander.send('{"type":"ping"}')
                if bystander.recv(timeout=5) != '{"type":"pong"}':
                    raise Failure("the bystander was not answered")
                if done % 1000 == 0:
                    memory = machine.resident_bytes(server.pids) / 1e6
                    print(f"{done} connections, {memory:.1f} MB", file=sys.stderr, flush=True)

            fuzz_token = token("fuzz", ["acme"])
            warm = max(200, given.connections // 5)
            run(server.port, fuzz_token, given.seed + 1, warm, between=between)
            before = machine.resident_bytes(server.pids)
            answers = run(server.port, fuzz_token, given.seed, given.connections, between=between)
            time.sleep(2.5)  # the longest that a connection may take to end
            drift = machine.resident_bytes(server.pids) - before
            sockets = sum(
                os.readlink(fd).startswith("socket:")
                for fd in Path(f"/proc/{server.pids[-1]}/fd").iterdir()
            )
            log = server.log.read_text()
    print(f"seed {given.seed}: {dict(answers.most_common())}, memory {drift / 1e6:+.1f} MB")
    problems = []
    if "Traceback" in log:
        problems.append(f"a traceback in the log:\n{log[log.index('Traceback') :][:2000]}")
    if drift > DRIFT_BYTES:
        problems.append(f"memory grew by {drift} bytes")
    if sockets > 8:
        problems.append(f"{sockets} sockets are still open")
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failure, subprocess.SubprocessError) as error:
        sys.exit(f"{type(error).__name__}: {error}")

"""What one member at its limits, and strangers, can do to everybody else."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from bench import machine
from bench.attack import Crowd
from bench.load import LoadError, text_frame
from bench.mixes import POVS, Case, encoded, member, strangers, upgrade
from bench.ours import Ours
from bench.peers import activity, encode, free_port
from bench.report import Check, Result, show
from bench.run import Run

MIB = 1024 * 1024
ATTACK_S, REST_S = 10.0, 10.0
EVERY_S = 0.04
"""How often the bystander asks: pings, and every fifth time a subscription."""
PATIENCE_S = 20.0
MISSED, LARGE = 10_000, 4000
"""Activities of the large PoV, and bytes of each."""
STRANGERS = 5000


class OursByDefault(Ours):
    """pov-rt with its default engine and its default limits."""

    name = "pov-rt, defaults"
    engine = "sqlite://"
    limits = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.admin_port = free_port()

    def budget(self) -> str:
        """Return nothing: the default budget is what is measured."""
        return ""

    def pss(self) -> int:
        """Return its memory in bytes."""
        return machine.resident_bytes(self.pids)


@contextmanager
def under(peer: OursByDefault, crowds: Sequence[Crowd]) -> Iterator[None]:
    """Attack a server for as long as the block runs."""
    if not crowds:
        yield
        return
    # Nice: the attacker must not keep the core from those who measure.
    command = ["nice", "-n", "19", "taskset", "-c", str(machine.LOAD_CORE)]
    command += [sys.executable, "-m", "bench.attack", str(peer.port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as attacker:
        assert attacker.stdin is not None
        assert attacker.stdout is not None
        attacker.stdin.write(encoded(crowds) + "\n")
        attacker.stdin.flush()
        try:
            if attacker.stdout.readline() != "ready\n":
                raise LoadError("the attacker ended")
            yield
        finally:
            attacker.kill()


class Bystander:
    """Another member, who pings and subscribes to one PoV after the other."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(bytes.fromhex(upgrade("bo")))
        self._received = b""
        self._numbers = count()
        self.refused = 0
        """Answers that were errors: an ordinary user gets none."""
        self.wait(b"welcome")

    def wait(self, what: bytes) -> None:
        """Read until something has come."""
        while what not in self._received:
            more = self._sock.recv(1 << 16)
            if not more:
                raise LoadError("the bystander was thrown out")
            self._received += more
        self.refused += b'"type":"error"' in self._received
        self._received = b""

    def ask(self, message: Mapping[str, object]) -> float:
        """Send a message; return the milliseconds to its answer."""
        name = f"q{next(self._numbers)}."
        began = time.monotonic()
        self._sock.sendall(text_frame(encode({**message, "id": name})))
        self.wait(f'"{name}"'.encode())
        return 1000 * (time.monotonic() - began)

    def live(self, seconds: float) -> tuple[list[float], list[float]]:
        """Ask for so long; return the milliseconds of pings, and of subscriptions."""
        pings: list[float] = []
        subscriptions: list[float] = []
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            if len(pings) % 5 == 4:
                pov_id = f"pov-{len(subscriptions) % POVS}"
                subscriptions.append(self.ask({"type": "subscribe", "povId": pov_id}))
                self.ask({"type": "unsubscribe", "povId": pov_id})
            pings.append(self.ask({"type": "ping"}))
            time.sleep(max(0.0, now + EVERY_S - time.monotonic()))
        return pings, subscriptions

    def close(self) -> None:
        """Go."""
        self._sock.close()


def p99(values: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return sorted(values)[int(0.99 * (len(values) - 1))]


def fill(peer: OursByDefault, run: Run) -> dict[str, str]:
    """Publish what is read later; return the epochs of the PoVs."""
    numbers = count(1)
    for pov, total, pad in [
        ("large", run.scaled(MISSED), "x" * LARGE),
        *((f"pov-{n}", run.scaled(2000), "x" * 60) for n in range(POVS)),
    ]:
        size = min(500, total)
        for _ in range(total // size):
            peer.publish([activity(pov, next(numbers), 0, pad) for _ in range(size)])
    return {pov: epoch_of(peer, pov) for pov in ("large", "pov-0")}


def warm(peer: OursByDefault) -> None:
    """Fill the database's caches, which have bounds of their own: they are nobody's attack."""
    numbers, pad = count(), "x" * LARGE
    at_ms = int(1000 * time.time())  # other ids than the last time
    for _ in range(16):
        peer.publish([activity("warm", next(numbers), at_ms, pad) for _ in range(500)])
    for page in range(40):
        ask(peer, f"/api/povs/large/activities?limit=1000&after={250 * page}")


def ask(peer: OursByDefault, path: str) -> dict[str, Any]:
    """Return the answer to a service."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{peer.port}{path}",
        headers={"Authorization": f"Bearer {peer.service_token}"},
    )
    with urllib.request.urlopen(asked) as answer:  # noqa: S310  (our own server)
        return dict(json.load(answer))


def epoch_of(peer: OursByDefault, pov: str) -> str:
    """Return the epoch of a PoV's log."""
    return str(ask(peer, f"/api/povs/{pov}/activities?limit=1")["epoch"])


def hostile(run: Run) -> Result:
    """Attack: one member at its limits in every way, then strangers; see what the others notice."""
    result = Result("hostile", "what bystanders notice", plots=("ping_p99_ms", "more_MiB"))
    with OursByDefault(run.folder) as peer:
        epochs = fill(peer, run)
        bystander = Bystander(peer.port)
        _note(result, "nobody", *bystander.live(ATTACK_S / 2))
        bystander.close()
    for case in member(epochs):
        if run.wants(case.name):
            run.progress(case.name)
            _member(run, result, case)
    for case in strangers(run.scaled(STRANGERS)):
        if run.wants(case.name):
            run.progress(f"strangers: {case.name}")
            _strangers(run, result, case)
    return result


def _member(run: Run, result: Result, case: Case) -> None:
    with OursByDefault(run.folder) as peer, under(peer, case.audience):
        warm(peer)
        bystander = Bystander(peer.port)
        bystander.live(1.0)
        before = peer.pss()
        most = before
        pings: list[float] = []
        subscriptions: list[float] = []
        with under(peer, case.crowds):
            busy = machine.busy(peer.pids)
            for _ in range(int(ATTACK_S)):
                some = bystander.live(1.0)
                pings += some[0]
                subscriptions += some[1]
                most = max(most, peer.pss())
            _, (server,) = busy()
        bystander.live(REST_S)
        kept = peer.pss() - before
        bystander.close()
    name = case.name
    memory = {"more_MiB": (most - before) / MIB, "kept_MiB": kept / MIB, "server_%": server}
    _note(result, name, pings, subscriptions, **memory)
    _tell(run, result)
    checks = result.checks
    checks.append(Check(f"{name}: ping p99", p99(pings), 50, 20, unit="ms"))
    checks.append(Check(f"{name}: subscribe p99", p99(subscriptions), 100, 50, unit="ms"))
    checks.append(Check(f"{name}: more memory", memory["more_MiB"], 64, 32, unit="MiB"))
    checks.append(Check(f"{name}: of it after 10 s", memory["kept_MiB"], 16, 4, unit="MiB"))
    checks.append(Check(f"{name}: bystander refused", bystander.refused, 0, 0, unit="times"))


def _tell(run: Run, result: Result) -> None:
    values = result.rows[-1].values.items()
    run.progress("    " + ", ".join(f"{name} {show(value)}" for name, value in values))


def _note(
    result: Result,
    case: str,
    pings: Sequence[float],
    subscriptions: Sequence[float],
    **memory: float,
) -> None:
    result.add(
        case,
        OursByDefault.name,
        ping_p99_ms=p99(pings),
        ping_max_ms=max(pings),
        subscribe_p99_ms=p99(subscriptions),
        **memory,
    )


def _strangers(run: Run, result: Result, attack: Case) -> None:
    number = sum(crowd.connections for crowd in attack.crowds)
    with OursByDefault(run.folder) as peer:
        before = peer.pss()
        most: float = before
        connects: list[float] = []
        ready: list[float] = []
        with under(peer, attack.crowds):
            for _ in range(5):
                began = time.monotonic()
                Bystander(peer.port).close()
                connects.append(time.monotonic() - began)
                began = time.monotonic()
                url = f"http://127.0.0.1:{peer.admin_port}/readyz"
                with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                    answer.read()
                ready.append(time.monotonic() - began)
                most = max(most, peer.pss())
                time.sleep(1.0)
    each = (most - before) / number / 1024
    case = f"{number} strangers, {attack.name}"
    result.add(
        case,
        OursByDefault.name,
        KiB_each=each,
        connect_max_s=max(connects),
        readyz_max_s=max(ready),
    )
    _tell(run, result)
    result.checks.append(Check(f"{case}: memory of each", each, 64, 16, unit="KiB"))
    result.checks.append(Check(f"{case}: connect, longest", max(connects), 1, 0.1, unit="s"))
    result.checks.append(Check(f"{case}: readyz, longest", max(ready), 1, 0.1, unit="s"))

"""What is measured, and the bars."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bench import machine, peers
from bench.load import Delays, Load, LoadError
from bench.peers import Ours, Peer, activity
from bench.report import Check, Result


@dataclass
class Run:
    """How much to do, and where."""

    folder: Path
    rounds: int
    quick: bool

    def scaled(self, number: int) -> int:
        """Return the work to do, a tenth of it when it has to be quick."""
        return max(1, number // 10) if self.quick else number

    def clients(self, peer: Peer, number: int, topics: Sequence[str], ping: str = "") -> Load:
        """Return a load of so many clients, spread over the topics, each its own user."""
        prefix = f"{time.monotonic_ns():x}"
        given = [
            peer.client(f"u-{prefix}-{index}", topics[index % len(topics)])
            for index in range(number)
        ]
        return Load(peer.folder, peer.port, given, ping)

    def progress(self, text: str) -> None:
        """Say on the terminal what is being done."""
        print(f"  {text}", file=sys.stderr, flush=True)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the rounds' ratios: both of a round saw the same noise."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


class Feed:
    """Publishes to one topic with sequence numbers, and waits until everybody has it."""

    def __init__(self, peer: Peer, load: Load, topic: str, subscribers: int) -> None:
        self._peer = peer
        self._load = load
        self._topic = topic
        self._subscribers = subscribers
        self._numbers = count(1)

    def publish(self, publications: int, burst: int) -> float:
        """Publish in bursts; return the server's CPU per delivered message in microseconds."""
        self._load.reset()
        before = machine.cpu_s(self._peer.pids)
        for done in range(burst, publications + 1, burst):
            at = time.monotonic_ns()
            self._peer.publish(
                [activity(self._topic, next(self._numbers), at) for _ in range(burst)]
            )
            self._load.expect(done * self._subscribers)
        used = machine.cpu_s(self._peer.pids) - before
        return 1e6 * used / (publications * self._subscribers)


FANOUT_PEERS: Sequence[tuple[type[Peer], int]] = (
    (peers.OursBySocket, 1),
    (peers.NodeWs, 1),
    (peers.Ours, 1),
    (peers.Ours, 8),
    (peers.Ours, 32),
    (peers.Nchan, 1),
    (peers.Nchan, 8),
    (peers.Nchan, 32),
    (peers.NodeWs, 32),
    (peers.Broadcast, 1),
    (peers.Picows, 1),
    (peers.SocketIo, 1),
    (peers.PythonSocketIo, 1),
)


def fanout(run: Run) -> Result:
    """One PoV with many subscribers: CPU per delivered message."""
    result = Result("fanout", "server CPU per delivered message")
    for subscribers in (500,) if run.quick else (500, 5000):
        used = _fan_out(run, subscribers)
        for (kind, burst), values in used.items():
            case = f"{subscribers} subscribers, {burst} per turn"
            result.add(case, kind.name, us=statistics.median(values))
        base = used[peers.NodeWs, 1]
        nchan = used[peers.Nchan, 1]
        if subscribers != 500:
            continue
        # One by one, both are published to in the same way. Bursts come as a batch over HTTP.
        for kind, burst, bar, aim in (
            (peers.OursBySocket, 1, 0.7, 0.55),
            (Ours, 8, 0.12, 0.08),
            (Ours, 32, 0.05, 0.035),
        ):
            ratio = median_ratio(used[kind, burst], base)
            what = f"{burst} per turn against node ws one by one"
            result.checks.append(Check(what, ratio, bar, aim))
            if burst > 1:
                ratio = median_ratio(used[kind, burst], nchan)
                what = f"{burst} per turn against nchan one by one"
                result.checks.append(Check(what, ratio, 1.0, 1.0))
    return result


def _fan_out(run: Run, subscribers: int) -> dict[tuple[type[Peer], int], list[float]]:
    used: dict[tuple[type[Peer], int], list[float]] = {key: [] for key in FANOUT_PEERS}
    with ExitStack() as stack:
        feeds: dict[type[Peer], Feed] = {}
        for kind in dict.fromkeys(kind for kind, _ in FANOUT_PEERS):
            peer = stack.enter_context(kind(run.folder))
            load = stack.enter_context(run.clients(peer, subscribers, ["acme"]))
            load.open()
            feeds[kind] = Feed(peer, load, "acme", subscribers)
            feeds[kind].publish(32, 1)  # warm
        for number in range(run.rounds):
            run.progress(f"{subscribers} subscribers, round {number + 1} of {run.rounds}")
            for kind, burst in FANOUT_PEERS:
                # About half a second of work for the slower ones.
                publications = run.scaled(100 if burst == 1 else 320) * 500 // subscribers
                publications = max(burst, publications // burst * burst)
                used[kind, burst].append(feeds[kind].publish(publications, burst))
    return used


def topics(run: Run) -> Result:
    """Many PoVs with few subscribers: what a publication costs must not depend on the others."""
    result = Result("topics", "server CPU per publication")
    many = run.scaled(10_000)
    used: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        cases = []
        for kind, number in ((Ours, many), (Ours, 100), (peers.NodeWs, many), (peers.NodeWs, 100)):
            peer = stack.enter_context(kind(run.folder / str(number)))
            names = [f"pov-{index}" for index in range(number // 10)]
            load = stack.enter_context(run.clients(peer, number, names))
            load.open()
            cases.append((peer, load, number, names))
        for round_number in range(run.rounds):
            run.progress(f"round {round_number + 1} of {run.rounds}")
            for peer, load, number, names in cases:
                publications = run.scaled(1000 if peer.name == Ours.name else 200)
                load.reset()
                before = machine.cpu_s(peer.pids)
                for index in range(publications):
                    # Sequence numbers are per PoV, and a round visits each in turn.
                    name = names[index % len(names)]
                    seq = 1 + index // len(names)
                    peer.publish([activity(name, seq, time.monotonic_ns())])
                    load.expect(10 * (index + 1))
                cost = 1e6 * (machine.cpu_s(peer.pids) - before) / publications
                used.setdefault((peer.name, number), []).append(cost)
    for (name, number), values in used.items():
        result.add(f"10 of {number} connections", name, us=statistics.median(values))
    ratio = median_ratio(used[Ours.name, many], used[Ours.name, 100])
    result.checks.append(Check(f"10 of {many} against 10 of 100 connections", ratio, 1.2, 1.0))
    return result


def inbound(run: Run) -> Result:
    """Ping and pong through the full dispatch."""
    result = Result("inbound", "server CPU per ping answered")
    kinds = (Ours, peers.NodeWs, peers.Broadcast, peers.Picows, peers.SocketIo, peers.StockTornado)
    used: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    clients, pings = 100, run.scaled(300)
    with ExitStack() as stack:
        loads = []
        for kind in kinds:
            peer = stack.enter_context(kind(run.folder))
            load = stack.enter_context(run.clients(peer, clients, ["acme"], peer.ping))
            load.open()
            load.ask("echo 20")
            loads.append((peer, load))
        for number in range(run.rounds):
            run.progress(f"round {number + 1} of {run.rounds}")
            for peer, load in loads:
                load.reset()
                before = machine.cpu_s(peer.pids)
                load.ask(f"echo {pings}")
                used_s = machine.cpu_s(peer.pids) - before
                load.expect(clients * pings)
                used[peer.name].append(1e6 * used_s / (clients * pings))
    for name, values in used.items():
        result.add("100 clients in turn", name, us=statistics.median(values))
    ratio = median_ratio(used[Ours.name], used[peers.NodeWs.name])
    result.checks.append(Check("against node ws", ratio, 1.0, 0.8))
    return result


def connect(run: Run) -> Result:
    """Handshake, token and subscription; then everybody at once."""
    result = Result("connect", "server CPU per connection")
    kinds = (Ours, peers.StockTornado, peers.NodeWs)
    used: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    number = run.scaled(1000)
    with ExitStack() as stack:
        started = [stack.enter_context(kind(run.folder)) for kind in kinds]
        for index in range(run.rounds):
            run.progress(f"round {index + 1} of {run.rounds}")
            for peer in started:
                with run.clients(peer, number, ["a", "b", "c"]) as load:
                    before = machine.cpu_s(peer.pids)
                    load.open()
                    used[peer.name].append(1e6 * (machine.cpu_s(peer.pids) - before) / number)
                    load.ask("close")
    for name, values in used.items():
        result.add("handshake, token, subscribe", name, us=statistics.median(values))
    ratio = median_ratio(used[Ours.name], used[peers.StockTornado.name])
    result.checks.append(Check("against stock Tornado", ratio, 0.7, 0.5))
    many = run.scaled(10_000)
    run.progress(f"storm of {many}")
    names = [f"pov-{index}" for index in range(many // 10)]
    with Ours(run.folder) as peer, run.clients(peer, many, names) as load:
        load.open()
        load.ask("close")
        seconds = load.open(window=many)
        result.add(f"{many} at once, again", peer.name, seconds=seconds, per_second=many / seconds)
    return result


def idle(run: Run) -> Result:
    """Idle connections with pings: their memory and CPU."""
    result = Result("idle", "resident memory per connection")
    number, seconds = run.scaled(10_000), 5 if run.quick else 55
    names = [f"pov-{index}" for index in range(number // 10)]
    memory: dict[str, float] = {}
    for kind in (Ours, peers.NodeWs, peers.StockTornado):
        run.progress(f"{kind.name}: {number} connections for {seconds} s")
        with kind(run.folder) as peer:
            with run.clients(peer, 100, names) as warm:
                warm.open()
            before = machine.resident_bytes(peer.pids)
            with run.clients(peer, number, names) as load:
                load.open()
                time.sleep(1.0)
                memory[kind.name] = (machine.resident_bytes(peer.pids) - before) / number / 1024
                began, used = time.monotonic(), machine.cpu_s(peer.pids)
                load.ask(f"wait 1 {seconds * 1000}")  # nothing comes but pings, which it answers
                used = machine.cpu_s(peer.pids) - used
                share = 100 * used / (time.monotonic() - began)
                load.expect(0)
        result.add(
            f"{number} subscribed, pings", kind.name, KiB=memory[kind.name], percent_of_a_core=share
        )
        if kind is Ours:
            result.checks.append(
                Check("memory per connection", memory[Ours.name], 6, 4, unit="KiB")
            )
            result.checks.append(Check("CPU of idle with pings", share, 5, 2, unit="% of a core"))
    ratio = memory[Ours.name] / memory[peers.NodeWs.name]
    result.checks.append(Check("memory against node ws", ratio, 1.0, 0.6))
    return result


def publish(run: Run) -> Result:
    """Publish over HTTP, one by one and in batches."""
    result = Result("publish", "activities per second")
    with Ours(run.folder) as peer:
        numbers = count(1)

        def bodies(size: int, requests: int) -> Iterator[bytes]:
            for _ in range(requests):
                at = time.monotonic_ns()
                yield peer.request(
                    [
                        activity(f"pov-{n % 100}", n, at)
                        for n in (next(numbers) for _ in range(size))
                    ]
                )

        best: dict[int, list[float]] = {}
        for number in range(run.rounds):
            run.progress(f"round {number + 1} of {run.rounds}")
            for size, total in ((1, 1000), (100, 20_000), (1000, 50_000)):
                ready = list(bodies(size, max(2, run.scaled(total) // size)))
                began = time.monotonic()
                peer.publisher.sendall(ready[0])
                for body in ready[1:]:
                    # The next request waits in the server's buffer while it works on one.
                    peer.publisher.sendall(body)
                    peer.answers(1)
                peer.answers(1)
                best.setdefault(size, []).append(len(ready) * size / (time.monotonic() - began))
        for size, rates in best.items():
            result.add(f"batches of {size}", peer.name, per_second=statistics.median(rates))
        rate = statistics.median(best[1000])
        result.checks.append(
            Check("batched", rate, 50_000, 100_000, at_most=False, unit="activities/s")
        )
    return result


def _publish_at(peer: Peer, topic: str, rate: float, seconds: float, pad: str) -> int:
    """Publish at fixed instants, whatever the server does; return how many.

    Each activity carries the instant at which it should have left, so that a server that holds up
    the publisher cannot hide its delays (Tene's coordinated omission).
    """
    total = int(rate * seconds)
    began = time.monotonic_ns() + 10_000_000
    for index in range(total):
        due = began + int(index * 1e9 / rate)
        while (left := due - time.monotonic_ns()) > 0:
            time.sleep(left / 1e9)
        peer.publish([activity(topic, index + 1, due, pad)])
    return total


def latency(run: Run) -> Result:
    """Delay from publishing to arrival, at fixed rates."""
    result = Result("latency", "microseconds from publisher to subscriber")
    subscribers, seconds = 100, 2.0 if run.quick else 10.0
    with Ours(run.folder) as peer, run.clients(peer, subscribers, ["acme"]) as load:
        load.open()
        Feed(peer, load, "acme", subscribers).publish(50, 1)
        load.reset()
        number = run.scaled(2000)
        began = time.monotonic()
        for seq in range(1, number + 1):
            peer.publish([activity("acme", seq, time.monotonic_ns())])
        load.expect(number * subscribers)
        saturation = number / (time.monotonic() - began)
        for part in (0.1, 0.5, 0.8):
            rate = saturation * part
            run.progress(f"{rate:.0f} publications a second to {subscribers} subscribers")
            load.reset()
            total = _publish_at(peer, "acme", rate, seconds, peers.PAD)
            load.expect(total * subscribers)
            delays = load.delays()
            result.add(
                f"{100 * part:.0f} % of {saturation:.0f}/s",
                peer.name,
                p50=delays.p50,
                p99=delays.p99,
                p999=delays.p999,
            )
            if part == 0.5:
                check = Check("p99 at half of saturation", delays.p99 / 1000, 10, 5, unit="ms")
                result.checks.append(check)
    return result


def slow(run: Run) -> Result:
    """One client in a hundred stops reading: nobody else may notice."""
    result = Result("slow", "microseconds from publisher to subscriber")
    number, stalled, rate, seconds = 1000, 10, 50.0, 12.0
    reading = number - stalled
    delays: dict[int, list[Delays]] = {0: [], stalled: []}
    closed = 0
    for index in range(min(3, run.rounds)):
        for silent in (0, stalled):
            run.progress(f"{silent} stalled beside {reading}, round {index + 1}")
            clients = reading + silent
            with Ours(run.folder) as peer, run.clients(peer, clients, ["acme"]) as load:
                load.open(small=silent)
                load.ask(f"stall {silent}")
                load.reset()
                total = _publish_at(peer, "acme", rate, seconds, "y" * 2000)
                load.expect(total * reading)
                delays[silent].append(load.delays())
            closed = peer.log.read_text().count("slow consumer")
            peer.log.unlink()
            if closed != silent:
                raise LoadError(f"{closed} clients were closed as slow, of {silent} that are")
    for silent, found in delays.items():
        values = {
            name: statistics.median(getattr(each, name) for each in found)
            for name in ("p99", "p50", "p999")
        }
        result.add(f"{silent} stalled beside {reading}", Ours.name, **values)
    p99 = [statistics.median(each.p99 for each in found) / 1000 for found in delays.values()]
    bar = max(2.0, 0.1 * p99[0])
    result.checks.append(Check("p99 of the others, more by", p99[1] - p99[0], bar, 0.5, unit="ms"))
    return result


SCENARIOS: dict[str, Callable[[Run], Result]] = {
    each.__name__: each for each in (fanout, topics, inbound, connect, idle, publish, latency, slow)
}

"""How much a server takes, and how long the clients wait for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

from bench.centrifugo import Centrifugo, CentrifugoBySocket, find_centrifugo, with_centrifugo
from bench.load import Delays, LoadError
from bench.ours import Ours, OursBySocket
from bench.peers import Broadcast, HttpPublisher, Nchan, NodeWs, Peer, Picows, SocketIo, activity
from bench.report import Check, Result
from bench.run import Flow, Run, delays_ms, flow, median_difference, medians


def publish(run: Run) -> Result:
    """Publish: over HTTP one by one and in batches; over sockets without waiting."""
    result = Result("publish", "activities per second")
    rates: dict[tuple[int, str], list[float]] = {}
    flows: dict[str, list[Flow]] = {}
    with ExitStack() as stack:
        by_http: list[HttpPublisher] = [stack.enter_context(Ours(run.folder))]
        if find_centrifugo():
            by_http.append(stack.enter_context(Centrifugo(run.folder)))
        by_request = stack.enter_context(Nchan(run.folder))  # it has no batches
        by_socket = []
        for kind in by_sockets(run):
            peer: Peer = stack.enter_context(kind(run.folder))
            load = stack.enter_context(run.clients(peer, 1, ["acme"], publishers=kind.publishers))
            load.open()
            by_socket.append((peer, load))
        numbers = count(1)
        for number in range(run.rounds):
            run.progress(f"round {number + 1} of {run.rounds}")
            for size, total in ((1, 1000), (100, 20_000), (1000, 50_000)):
                for server in [*by_http, by_request] if size == 1 else by_http:
                    ready = list(_bodies(server, numbers, size, max(2, run.scaled(total) // size)))
                    found = rates.setdefault((size, server.name), [])
                    found.append(size * _post(server, ready, size))
            for peer, load in by_socket:
                flows.setdefault(peer.name, []).append(flow(peer, load, 1, run.scaled(20_000)))
    for (size, name), found in rates.items():
        result.add(f"HTTP, batches of {size}", name, per_second=statistics.median(found))
    for name, runs in flows.items():
        rate = statistics.median(each.rate for each in runs)
        result.add("sockets, one subscriber", name, per_second=rate)
    by_one = OursBySocket.name
    for what, rate, bar, aim in (
        ("HTTP, one by one", statistics.median(rates[1, Ours.name]), 8000, 12_000),
        ("HTTP, batched", statistics.median(rates[1000, Ours.name]), 180_000, 250_000),
        ("sockets", statistics.median(each.rate for each in flows[by_one]), 35_000, 50_000),
    ):
        result.checks.append(Check(what, rate, bar, aim, at_most=False, unit="activities/s"))
    return result


def by_sockets(run: Run) -> list[type[Peer]]:
    """Return what takes publications over sockets."""
    kinds = with_centrifugo([OursBySocket, NodeWs], CentrifugoBySocket)
    return kinds if run.quick else [*kinds, Broadcast, Picows, SocketIo]


def _bodies(
    server: HttpPublisher, numbers: Iterator[int], size: int, requests: int
) -> Iterator[bytes]:
    for _ in range(requests):
        at = time.monotonic_ns()
        some = [next(numbers) for _ in range(size)]
        yield server.request([activity(f"pov-{n % 100}", n, at) for n in some])


def _post(server: HttpPublisher, requests: list[bytes], size: int) -> float:
    """Return how many requests a second the server took."""
    began = time.monotonic()
    answers = []
    server.publisher.sendall(requests[0])
    for request in requests[1:]:
        # The next request waits in the server's buffer while it works on one.
        server.publisher.sendall(request)
        answers += server.answers(1)
    answers += server.answers(1)
    rate = len(requests) / (time.monotonic() - began)
    server.check(answers, len(requests) * size)
    return rate


def latency(run: Run) -> Result:
    """Delay from publishing to arrival, at fixed rates up to what saturates the server."""
    result = Result("latency", "delay from publisher to subscriber", plots=("p99_ms",))
    readers, seconds = 100, 1.0 if run.quick else 2.0
    parts = (1.0, 0.1, 0.5, 0.8)
    flows: dict[tuple[str, float], list[Flow]] = {}
    saturation: dict[str, float] = {}
    with ExitStack() as stack:
        cases = []
        for kind in by_sockets(run):
            peer: Peer = stack.enter_context(kind(run.folder))
            load = stack.enter_context(
                run.clients(peer, readers, ["acme"], publishers=kind.publishers)
            )
            load.open()
            flow(peer, load, readers, 500)  # warm
            guess = flow(peer, load, readers, 500).rate
            floods = [flow(peer, load, readers, int(guess * seconds)) for _ in range(run.rounds)]
            flows[peer.name, 1.0] = floods
            saturation[peer.name] = statistics.median(each.rate for each in floods)
            cases.append((peer, load))
        for index in range(run.rounds):
            run.progress(f"round {index + 1} of {run.rounds}")
            for part in parts[1:]:
                for peer, load in cases:
                    rate = saturation[peer.name] * part
                    found = flow(peer, load, readers, int(rate * seconds), rate)
                    flows.setdefault((peer.name, part), []).append(found)
    for part in parts:
        for peer, _ in cases:
            name = peer.name
            values = medians(flows[name, part])
            case = f"{100 * part:.0f} % of {saturation[name]:,.0f}/s to {readers}"
            if part == 1.0:  # nothing waits, so what is measured is how much was in flight
                values = {key: value for key, value in values.items() if "_ms" not in key}
            result.add(case, name, **values)
    half = [each.delays.p99 / 1000 for each in flows[OursBySocket.name, 0.5]]
    check = Check("p99 at half of saturation", statistics.median(half), 5, 3, unit="ms")
    result.checks.append(check)
    return result


def slow(run: Run) -> Result:
    """One client in a hundred stops reading: nobody else may notice."""
    result = Result("slow", "delay from publisher to the clients that read")
    reading, stalled, rate, seconds = 495, 5, 40.0, 7.5
    for kind in (OursBySocket, NodeWs):
        delays: dict[int, list[Delays]] = {0: [], stalled: []}
        with kind(run.folder) as peer:
            for index in range(run.rounds):
                run.progress(f"{kind.name}, pair {index + 1} of {run.rounds}")
                for silent, found in delays.items():
                    found.append(_beside(run, peer, reading, silent, int(rate * seconds), rate))
        for silent, found in delays.items():
            result.add(f"{silent} stalled beside {reading}", kind.name, **delays_ms(found))
        if kind is OursBySocket:
            alone, beside = ([each.p99 / 1000 for each in found] for found in delays.values())
            bar = max(2.0, 0.1 * statistics.median(alone))
            more = median_difference(beside, alone)
            check = Check("p99 of the others, more by", more, bar, 0.5, unit="ms")
            result.checks.append(check)
    return result


def _beside(run: Run, peer: Peer, reading: int, silent: int, number: int, rate: float) -> Delays:
    """Return the delays of clients that read, beside such as don't: ours must close these.

    At 8 KB forty times a second too much waits for a client after 1 s; 5 s later it is closed.
    """
    closed_before = peer.log.read_text().count("slow consumer")
    topic = f"acme-{time.monotonic_ns()}"
    with run.clients(peer, reading + silent, [topic], publishers=1, pad="y" * 8000) as load:
        load.open(small=silent)
        load.ask(f"stall {silent}")
        load.reset()
        load.publish(number, rate)
        load.expect(number * reading)
        delays = load.delays()
    closed = peer.log.read_text().count("slow consumer") - closed_before
    if isinstance(peer, Ours) and closed != silent:
        raise LoadError(f"{closed} clients were closed as slow, of {silent} that are")
    return delays

"""What a unit of work costs the server: CPU, and memory of those who do nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from bench import machine, peers
from bench.centrifugo import Centrifugo, CentrifugoBySocket, find_centrifugo, with_centrifugo
from bench.load import Load
from bench.ours import Ours, OursBySocket
from bench.peers import NodeWs, Peer, StockTornado, activity
from bench.report import Check, Result
from bench.run import Feed, Run, median_ratio

Case = tuple[type[Peer], int]

WITH_BARS: Sequence[Case] = (
    (OursBySocket, 1),
    (NodeWs, 1),
    (peers.SendAlone, 1),
    (Ours, 1),
    (Ours, 8),
    (Ours, 32),
    (peers.Nchan, 1),
    (peers.Nchan, 8),
    (peers.Nchan, 32),
)
BESIDE_CENTRIFUGO: Sequence[Case] = ((CentrifugoBySocket, 1), (Centrifugo, 8), (Centrifugo, 32))
IDLE = 10_000
"""Connections that do nothing."""
WITHOUT_TOKENS: Sequence[type[Peer]] = (peers.Broadcast, peers.Picows, peers.SocketIo, peers.Nchan)
"""Further peers that check no token."""
OTHERS: Sequence[Case] = (
    (NodeWs, 32),
    (peers.Broadcast, 1),
    (peers.Picows, 1),
    (peers.SocketIo, 1),
    (peers.PythonSocketIo, 1),
)


def fanout(run: Run) -> Result:
    """One PoV with many subscribers: CPU per delivered message."""
    result = Result("fanout", "server CPU per delivered message")
    cases = [*WITH_BARS]
    if find_centrifugo():
        cases += BESIDE_CENTRIFUGO
    if not run.quick:
        cases += OTHERS
    for subscribers in (500,) if run.quick else (500, 5000):
        used = fan_out(run, cases, subscribers)

        def ratio(case: Case, other: Case, used: dict[Case, list[float]] = used) -> float | str:
            return median_ratio(used[case], used[other]) if other in used else ""

        for kind, burst in cases:
            result.add(
                f"{subscribers} subscribers, {burst} per turn",
                kind.name,
                us=statistics.median(used[kind, burst]),
                of_node_ws_one_by_one=ratio((kind, burst), (NodeWs, 1)),
                of_nchan_one_by_one=ratio((kind, burst), (peers.Nchan, 1)),
                of_nchan_same_burst=ratio((kind, burst), (peers.Nchan, burst)),
                of_centrifugo_same_burst=ratio((kind, burst), (Centrifugo, burst)),
            )
        if subscribers != 500:
            continue
        # One by one, both are published to in the same way. Bursts come as a batch over HTTP.
        for kind, burst, bar, aim in (
            (OursBySocket, 1, 0.6, median_ratio(used[peers.SendAlone, 1], used[NodeWs, 1])),
            (Ours, 8, 0.12, 0.08),
            (Ours, 32, 0.05, 0.035),
        ):
            against = median_ratio(used[kind, burst], used[NodeWs, 1])
            what = f"{burst} per turn against node ws one by one"
            result.checks.append(Check(what, against, bar, aim))
            if burst == 1:
                against = median_ratio(used[kind, burst], used[peers.Nchan, burst])
                aim = median_ratio(used[peers.SendAlone, 1], used[peers.Nchan, 1])
                result.checks.append(Check("1 per turn against nchan", against, 0.9, aim))
            else:
                against = median_ratio(used[kind, burst], used[peers.Nchan, burst])
                what = f"{burst} per turn against nchan in the same bursts"
                result.checks.append(Check(what, against, 1.0, 1.0))
        if (Centrifugo, 8) in used:
            against = median_ratio(used[Ours, 8], used[Centrifugo, 8])
            what = "8 per turn against centrifugo in the same bursts"
            result.checks.append(Check(what, against, 0.5, 0.25))
    return result


def fan_out(run: Run, cases: Sequence[Case], subscribers: int) -> dict[Case, list[float]]:
    """Return microseconds per delivered message, of each round; a case is a server and a burst."""
    used: dict[Case, list[float]] = {case: [] for case in cases}
    with ExitStack() as stack:
        feeds: dict[type[Peer], Feed] = {}
        for kind in dict.fromkeys(kind for kind, _ in cases):
            peer = stack.enter_context(kind(run.folder))
            load = stack.enter_context(run.clients(peer, subscribers, ["acme"]))
            load.open()
            feeds[kind] = Feed(peer, load, "acme", subscribers)
            feeds[kind].publish(32, 1)  # warm
        for kind, burst in run.in_rounds(cases, f"{subscribers} subscribers, "):
            # About half a second of work for the slower ones.
            publications = run.scaled(100 if burst == 1 else 320) * 500 // subscribers
            publications = max(burst, publications // burst * burst)
            used[kind, burst].append(feeds[kind].publish(publications, burst))
    return used


def topics(run: Run) -> Result:
    """Many PoVs with few subscribers: what a publication costs must not depend on the others."""
    result = Result("topics", "server CPU per publication")
    many = run.scaled(10_000)
    cases = [(kind, number) for kind in (Ours, NodeWs) for number in (many, 100)]
    used = per_publication(run, cases)
    for (kind, number), values in used.items():
        result.add(f"10 of {number} connections", kind.name, us=statistics.median(values))
    ratio = median_ratio(used[Ours, many], used[Ours, 100])
    result.checks.append(Check(f"10 of {many} against 10 of 100 connections", ratio, 1.2, 1.0))
    return result


def per_publication(run: Run, cases: Sequence[Case]) -> dict[Case, list[float]]:
    """Return microseconds per publication to ten; a case is a server and its connections."""
    used: dict[Case, list[float]] = {case: [] for case in cases}
    with ExitStack() as stack:
        ready = {}
        for kind, number in cases:
            peer: Peer = stack.enter_context(kind(run.folder / str(number)))
            names = [f"pov-{index}" for index in range(number // 10)]
            load = stack.enter_context(run.clients(peer, number, names))
            load.open()
            ready[kind, number] = peer, load, names
        for case in run.in_rounds(cases):
            peer, load, names = ready[case]
            publications = run.scaled(1000 if isinstance(peer, Ours) else 200)
            load.reset()
            before = machine.cpu_s(peer.pids)
            for index in range(publications):
                # Sequence numbers are per PoV, and a round visits each in turn.
                name = names[index % len(names)]
                seq = 1 + index // len(names)
                peer.publish([activity(name, seq, time.monotonic_ns())])
                load.expect(10 * (index + 1))
            used[case].append(1e6 * (machine.cpu_s(peer.pids) - before) / publications)
    return used


def inbound(run: Run) -> Result:
    """Ping and pong through the full dispatch."""
    result = Result("inbound", "server CPU per ping answered")
    kinds = with_centrifugo([Ours, NodeWs], Centrifugo)
    if not run.quick:
        kinds += [peers.Broadcast, peers.Picows, peers.SocketIo, StockTornado]
    used = per_ping(run, kinds)
    for kind, values in used.items():
        result.add("100 clients in turn", kind.name, us=statistics.median(values))
    ratio = median_ratio(used[Ours], used[NodeWs])
    result.checks.append(Check("against node ws", ratio, 0.8, 0.7))
    return result


def per_ping(run: Run, kinds: Sequence[type[Peer]]) -> dict[type[Peer], list[float]]:
    """Return microseconds per ping answered."""
    used: dict[type[Peer], list[float]] = {kind: [] for kind in kinds}
    clients, pings = 100, run.scaled(300)
    with ExitStack() as stack:
        loads = {}
        for kind in kinds:
            peer = stack.enter_context(kind(run.folder))
            load = stack.enter_context(run.clients(peer, clients, ["acme"]))
            load.open()
            load.ask("echo 20")
            loads[kind] = peer, load
        for kind in run.in_rounds(kinds):
            peer, load = loads[kind]
            used[kind].append(answered(peer, load, pings))
    return used


def answered(peer: Peer, load: Load, pings: int) -> float:
    """Let each client ping so often; return microseconds per ping answered."""
    load.reset()
    before = machine.cpu_s(peer.pids)
    load.ask(f"echo {pings}")
    used = machine.cpu_s(peer.pids) - before
    load.expect(load.clients * pings)
    return 1e6 * used / (load.clients * pings)


def connect(run: Run) -> Result:
    """Handshake, token and subscription; then everybody at once."""
    result = Result("connect", "server CPU per connection")
    kinds = with_centrifugo([Ours, StockTornado, NodeWs], Centrifugo)
    if not run.quick:
        kinds += WITHOUT_TOKENS
    used = per_connection(run, kinds)
    for kind, values in used.items():
        has_token = kind not in (NodeWs, *WITHOUT_TOKENS)
        case = "handshake, token, subscribe" if has_token else "handshake, subscribe"
        result.add(case, kind.name, us=statistics.median(values))
    ratio = median_ratio(used[Ours], used[StockTornado])
    result.checks.append(Check("against stock Tornado", ratio, 0.7, 0.5))
    ratio = median_ratio(used[Ours], used[NodeWs])
    result.checks.append(Check("against node ws", ratio, 1.0, 0.8))
    many = run.scaled(10_000)
    names = [f"pov-{index}" for index in range(many // 10)]
    with Ours(run.folder) as ours, run.clients(ours, many, names) as load:
        load.open()
        storms = []
        for index in range(run.rounds):
            run.progress(f"storm of {many}, round {index + 1} of {run.rounds}")
            load.ask("close")
            storms.append(load.open(window=many))
        seconds = statistics.median(storms)
        result.add(f"{many} at once, again", Ours.name, seconds=seconds, per_second=many / seconds)
    return result


def per_connection(run: Run, kinds: Sequence[type[Peer]]) -> dict[type[Peer], list[float]]:
    """Return microseconds per connection that is opened and subscribed."""
    used: dict[type[Peer], list[float]] = {kind: [] for kind in kinds}
    number = run.scaled(1000)
    with ExitStack() as stack:
        started = [stack.enter_context(kind(run.folder)) for kind in kinds]
        for peer in run.in_rounds(started):
            machine.rest(peer.pids)  # or it would still part from those of the round before
            with run.clients(peer, number, ["a", "b", "c"]) as load:
                before = machine.cpu_s(peer.pids)
                load.open()
                used[type(peer)].append(1e6 * (machine.cpu_s(peer.pids) - before) / number)
                load.ask("close")
    return used


def idle(run: Run) -> Result:
    """Idle connections with pings: their memory and CPU."""
    result = Result("idle", "resident memory per connection")
    # The CPU is an absolute figure and takes two intervals between pings: once.
    kinds = with_centrifugo([Ours, NodeWs, StockTornado], Centrifugo)
    if not run.quick:
        kinds += WITHOUT_TOKENS
    found = while_idle(run, kinds, 5 if run.quick else 55, each_round=False)
    memory = {kind: [each.kib for each in rounds] for kind, rounds in found.items()}
    for kind, values in memory.items():
        result.add(
            f"{run.scaled(IDLE):,} subscribed, pings",
            kind.name,
            KiB=statistics.median(values),
            percent_of_a_core=found[kind][-1].percent,
        )
    ratio = median_ratio(memory[Ours], memory[NodeWs])
    result.checks += [
        Check("memory per connection", statistics.median(memory[Ours]), 3.9, 3, unit="KiB"),
        Check("memory against node ws", ratio, 1.0, 0.6),
        Check("CPU of idle with pings", found[Ours][-1].percent, 5, 2, unit="% of a core"),
    ]
    if Centrifugo in memory:
        ratio = median_ratio(memory[Ours], memory[Centrifugo])
        result.checks.append(Check("memory against centrifugo", ratio, 0.25, 0.15))
    return result


class Idle(NamedTuple):
    """What connections take that do nothing: memory each, and of a core all together."""

    kib: float
    percent: float


def while_idle(
    run: Run, kinds: Sequence[type[Peer]], seconds: int, *, each_round: bool
) -> dict[type[Peer], list[Idle]]:
    """Return what idle connections take; the CPU in so many seconds, or only of the last round."""
    found: dict[type[Peer], list[Idle]] = {kind: [] for kind in kinds}
    for kind in run.in_rounds(kinds):
        is_watched = each_round or len(found[kind]) == run.rounds - 1
        with kind(run.folder) as peer:
            found[kind].append(_idle(run, peer, seconds if is_watched else 0))
    return found


def _idle(run: Run, peer: Peer, seconds: int) -> Idle:
    number = run.scaled(IDLE)
    names = [f"pov-{index}" for index in range(number // 10)]
    with run.clients(peer, 100, names) as warm:
        warm.open()
    before = machine.resident_bytes(peer.pids)
    with run.clients(peer, number, names) as load:
        load.open()
        time.sleep(1.0)
        kib = (machine.resident_bytes(peer.pids) - before) / number / 1024
        since = machine.busy(peer.pids)
        load.ask(f"wait 1 {seconds * 1000}")  # nothing comes but pings, which it answers
        _, (share,) = since()
        load.expect(0)
    return Idle(kib, share)

"""Compares this checkout with another one of pov-rt: what a change made better, or worse."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

from bench.collaboration import PEOPLE, OursWithoutGrace, beside_crowd, visits
from bench.cost import Case, fan_out, per_connection, per_ping, per_publication, while_idle
from bench.durability import back_at_once, live, percentile, posted
from bench.ours import Ours, OursBySocket, OursOnDisk
from bench.peers import Peer
from bench.report import Check, Result
from bench.run import Run

K = TypeVar("K", bound=Peer)
T = TypeVar("T")

WORSE = 0.03
"""Above this a change counts; what is below it is noise."""
IDLE_S = 30
"""Every connection is pinged once within it."""


class Pairs(NamedTuple):
    """What the two checkouts took, round by round."""

    case: str
    server: str
    other: Sequence[float]
    this: Sequence[float]
    is_rate: bool = False
    """More is better."""
    is_noisy: bool = False
    """Only shown: it says more about the machine than about the server."""


Both = Callable[[type[Ours]], Sequence[type[Ours]]]
"""Returns a sort of server from the other checkout, and from this one."""


def python_of(checkout: Path) -> Path:
    """Return the interpreter that has a checkout installed."""
    return checkout / ".venv/bin/python"


def scenarios(checkout: Path) -> dict[str, Callable[[Run], Result]]:
    """Return what can be compared with a checkout, by name."""
    checkout = checkout.resolve()

    def both(kind: type[Ours]) -> Sequence[type[Ours]]:
        other = {
            "name": f"{kind.name} of {checkout.name}",
            "checkout": checkout,
            "python": str(python_of(checkout)),
        }
        return type(f"Other{kind.__name__}", (kind,), other), kind

    return {
        each.__name__: partial(_compare, each, both)
        for each in (fanout, topics, inbound, connect, idle, durable, recover, presence)
    }


def _compare(measure: Callable[[Run, Both], Iterator[Pairs]], both: Both, run: Run) -> Result:
    result = Result(measure.__name__, "this checkout / the other one", plots=("ratio",))
    rounds = []
    for index in range(run.rounds):
        # Servers of their own in each round: two processes of the same code differ by some percent.
        with TemporaryDirectory(dir=run.folder) as folder:
            once = replace(run, folder=Path(folder), rounds=1, first=index)
            rounds.append(list(measure(once, both)))
    for same in zip(*rounds, strict=True):
        case, server, *_, is_rate, is_noisy = same[0]
        other = [each for pairs in same for each in pairs.other]
        this = [each for pairs in same for each in pairs.this]
        ratios = [a / b for a, b in zip(this, other, strict=True)]
        ratio = statistics.median(ratios)
        bar = 1 / (1 + WORSE) if is_rate else 1 + WORSE
        check = Check(f"{server}: {case}", ratio, bar, 1.0, at_most=not is_rate)
        if not is_noisy:
            result.checks.append(check)
        word = "noisy" if is_noisy else "" if check.met else f"worse by more than {100 * WORSE:g} %"
        result.add(
            case,
            server,
            other=statistics.median(other),
            this=statistics.median(this),
            ratio=ratio,
            least=min(ratios),
            most=max(ratios),
            verdict=word,
        )
    return result


def fanout(run: Run, both: Both) -> Iterator[Pairs]:
    """Microseconds per delivered message."""
    by_socket, by_http = both(OursBySocket), both(Ours)
    pairs = [(by_socket, 1), *((by_http, burst) for burst in (1, 8, 32))]
    for subscribers in (500,) if run.quick else (500, 5000):
        cases: list[Case] = [(kind, burst) for pair, burst in pairs for kind in pair]
        used = fan_out(run, cases, subscribers)
        for (other, this), burst in pairs:
            case = f"us to {subscribers} subscribers, {burst} per turn"
            yield Pairs(case, this.name, used[other, burst], used[this, burst])


def topics(run: Run, both: Both) -> Iterator[Pairs]:
    """Microseconds per publication."""
    other, this = both(Ours)
    numbers = (run.scaled(10_000), 100)
    used = per_publication(run, [(kind, number) for number in numbers for kind in (other, this)])
    for number in numbers:
        case = f"us to 10 of {number} connections"
        yield Pairs(case, this.name, used[other, number], used[this, number])


def inbound(run: Run, both: Both) -> Iterator[Pairs]:
    """Microseconds per ping answered."""
    yield _pairs("us per ping answered", per_ping(run, both(Ours)), float)


def connect(run: Run, both: Both) -> Iterator[Pairs]:
    """Microseconds per connection."""
    yield _pairs("us per handshake, token, subscribe", per_connection(run, both(Ours)), float)


def idle(run: Run, both: Both) -> Iterator[Pairs]:
    """Memory and CPU of connections that do nothing."""
    found = while_idle(run, both(Ours), 5 if run.quick else IDLE_S, each_round=True)
    yield _pairs("KiB per connection", found, lambda each: each.kib)
    yield _pairs("% of a core for all, with pings", found, lambda each: each.percent)


def durable(run: Run, both: Both) -> Iterator[Pairs]:
    """Everything on disk: what is posted, and what is fanned out."""
    names = {"most": "batches", "single": "one by one", "fixed": "batches at a fixed rate"}
    for what, found in posted(run, both(OursOnDisk)).items():
        name = names[what]
        if what != "fixed":
            yield _pairs(f"activities/s, {name}", found, lambda each: each.rate, is_rate=True)
        yield _pairs(f"us per activity, {name}", found, lambda each: each.server_us)
        p99 = f"ms to the acknowledgement, p99, {name}"
        yield _pairs(p99, found, lambda each: percentile(each.ms, 0.99), is_noisy=True)
    flows = live(run, both(OursOnDisk))
    yield _pairs("% of a core, live", flows, lambda each: each.server_percent)
    yield _pairs("us live, p99", flows, lambda each: each.delays.p99, is_noisy=True)


def recover(run: Run, both: Both) -> Iterator[Pairs]:
    """Everybody is back at once."""
    storms = back_at_once(run, both(OursOnDisk))
    yield _pairs("s until all have what they missed", storms, lambda each: each.seconds)
    cpu = "s of the server for it"
    yield _pairs(cpu, storms, lambda each: each.seconds * each.beside.server_percent / 100)
    p99 = "us live beside it, p99"
    yield _pairs(p99, storms, lambda each: each.beside.delays.p99, is_noisy=True)


def presence(run: Run, both: Both) -> Iterator[Pairs]:
    """People come and go."""
    openings = visits(run.scaled(PEOPLE))
    flows = beside_crowd(run, both(OursWithoutGrace), openings, ["come"])
    yield _pairs("% of a core, beside the crowd", flows, lambda each: each[1].server_percent)
    p99 = "us of the others, p99"
    yield _pairs(p99, flows, lambda each: each[1].delays.p99, is_noisy=True)


def _pairs(
    case: str,
    found: Mapping[type[K], Sequence[T]],
    value: Callable[[T], float],
    *,
    is_rate: bool = False,
    is_noisy: bool = False,
) -> Pairs:
    other, this = ([value(each) for each in rounds] for rounds in found.values())
    _, kind = found
    return Pairs(case, kind.name, other, this, is_rate, is_noisy)

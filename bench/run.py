"""What the scenarios share: how much to do, and how work is given to a server and measured."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

from bench import machine
from bench.load import Delays, Load
from bench.peers import PAD, Peer, activity

Case = TypeVar("Case")


@dataclass
class Run:
    """How much to do, and where."""

    folder: Path
    rounds: int
    quick: bool
    first: int = 0
    """The number of the first round."""
    cases: frozenset[str] = frozenset()
    """Of a scenario that has named cases, those to run; empty: all."""
    seed: int = 1
    """What is random follows from it."""
    kills: int = 40
    """How often `screen` kills something."""

    def wants(self, case: str) -> bool:
        """Tell whether a case is to be run."""
        return not self.cases or case in self.cases

    def scaled(self, number: int) -> int:
        """Return the work to do, a tenth of it when it has to be quick."""
        return max(1, number // 10) if self.quick else number

    def clients(
        self,
        peer: Peer,
        number: int,
        topics: Sequence[str],
        *,
        publishers: int = 0,
        pad: str = PAD,
    ) -> Load:
        """Return a load of so many clients, spread over the topics, each its own user.

        Before them come `publishers`, which publish to the first topic.
        """
        prefix = f"{time.monotonic_ns():x}"
        given = [peer.client(f"p-{index}", "none") for index in range(publishers)]
        given += [
            peer.client(f"u-{prefix}-{index}", topics[index % len(topics)])
            for index in range(number)
        ]
        return Load(peer.folder, peer.port, given, peer.speech(topics[0], pad), publishers)

    def in_rounds(self, cases: Sequence[Case], what: str = "") -> Iterator[Case]:
        """Yield all cases once a round; every second round goes through them backwards.

        So what is compared is measured one after the other, and neither always comes first.
        """
        for index in range(self.first, self.first + self.rounds):
            self.progress(f"{what}round {index + 1}")
            yield from cases if index % 2 == 0 else reversed(cases)

    def progress(self, text: str) -> None:
        """Say on the terminal what is being done."""
        print(f"  {text}", file=sys.stderr, flush=True)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the rounds' ratios: both of a round saw the same noise."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def median_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the rounds' differences."""
    return statistics.median(a - b for a, b in zip(ours, theirs, strict=True))


class Receivers(Protocol):
    """Those who get what a `Feed` publishes."""

    def reset(self) -> object:
        """Count from zero again."""

    def expect(self, number: int, /) -> object:
        """Wait until so many have arrived since then, all receivers together."""


class Feed:
    """Publishes to one topic with sequence numbers, and waits until everybody has it."""

    def __init__(self, peer: Peer, load: Receivers, topic: str, subscribers: int) -> None:
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


@dataclass
class Flow:
    """What came of publishing for a while: publications a second, and who was how busy."""

    rate: float
    server_percent: float
    load_percent: float
    delays: Delays


def flow(peer: Peer, load: Load, readers: int, number: int, rate: float = 0) -> Flow:
    """Let the load's publishers publish to so many readers, and wait until these have all.

    At fixed instants, `rate` times a second; with 0 nothing waits for anything, so that either the
    server's core is busy or the load generator's is.
    """
    load.reset()
    since = machine.busy(peer.pids, load.pids)
    load.publish(number, rate)
    load.expect(number * readers)
    seconds, (server, generator) = since()
    return Flow(number / seconds, server, generator, load.delays())


def delays_ms(delays: Iterable[Delays]) -> dict[str, float | str]:
    """Return the medians of several runs' percentiles in milliseconds, as values of a row."""
    found = list(delays)
    return {
        f"{name}_ms": statistics.median(getattr(each, name) / 1000 for each in found)
        for name in ("p99", "p50", "p999")
    }


def medians(flows: Iterable[Flow]) -> dict[str, float | str]:
    """Return the medians of several runs, as values of a row."""
    found = list(flows)

    return {
        **delays_ms(each.delays for each in found),
        "server_%": statistics.median(each.server_percent for each in found),
        "load_%": statistics.median(each.load_percent for each in found),
    }

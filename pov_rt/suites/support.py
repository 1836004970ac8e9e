"""What the suites share: a fresh engine for each test, and a follower that keeps what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar

from pov_rt.config.settings import PovSettings
from pov_rt.engine.base import (
    Engine,
    Entry,
    Lease,
    Log,
    NewEntry,
)
from pov_rt.runtime.clock import ManualClock

A, B, FEED = "pov/a", "pov/b", "team/main"
ODD = (
    "pov/" + "x" * 128,
    "pov/*",
    "pov/é\u0301\u202e{}[]?\\",
    "pov/../b",
    "pov/ ",
    "pov/\U0001f600",
)
BODIES = (b"", b"{}", bytes(range(256)), b"x" * 100_000)
HOUR_S, DAY_S = 3601.0, 86400.0
WAIT_S, LOOK_S = 20.0, 0.01
"""How long an engine may take to do what it does in its own time, and how often that is looked for
(real seconds)."""


Povs = Mapping[str, PovSettings]
SuiteT = TypeVar("SuiteT", bound="Suite")


def stub(body: bytes) -> bytes:
    """Return what is left of a body."""
    return b"stub of %d bytes" % len(body)


class Recorder:
    """A follower that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int, bytes]] = []
        self.changed: list[str] = []
        """The topics that were told to be rewritten, and `? ` with those that are uncertain."""
        self.ended: list[tuple[str, str]] = []
        """The topics and members of the leases that were told to have ended."""

    def entries(self, topic: str, epoch: str, entries: Sequence[Entry]) -> None:
        """Keep the entries."""
        self.told.extend((topic, epoch, entry.offset, entry.body) for entry in entries)

    def signal(self, topic: str, body: bytes, origin: str) -> None:
        """Fail: a node's own signals do not come back to it."""
        raise AssertionError(f"a signal came back: {topic}")

    def uncertain(self, topic: str) -> None:
        """Keep it, but allow it: an engine may always ask for a comparison."""
        self.changed.append(f"? {topic}")

    def left(self, topic: str, leases: Sequence[Lease]) -> None:
        """Keep who it was."""
        self.ended += [(topic, lease.member) for lease in leases]

    def rewritten(self, topic: str) -> None:
        """Keep the topic, in its order among the entries."""
        self.changed.append(topic)
        self.told.append((topic, "", 0, b""))

    def offsets(self, topic: str) -> list[int]:
        """Return the offsets told of a topic."""
        return [offset for name, _, offset, _ in self.told if name == topic]


def new(
    topic: str, key: str, body: bytes = b"{}", feed: str = "", publisher: str = "p"
) -> NewEntry:
    """Return an entry to append."""
    return NewEntry(topic, publisher, key, body, feed)


async def all_topics(log: Log, prefix: str, limit: int = 1000) -> list[str]:
    """Return the names of all topics that begin so, each once, sorted."""
    names: set[str] = set()
    after: str | None = ""
    while after is not None:
        found, after = await log.topics(prefix, after, limit)
        names.update(found)
    return sorted(names)


def on_engine(
    **settings: Any,
) -> Callable[[Callable[[SuiteT], Awaitable[None]]], Callable[[SuiteT], None]]:
    """Run a test of a suite on a fresh engine with these settings, and close that in the end."""

    def decorate(test: Callable[[SuiteT], Awaitable[None]]) -> Callable[[SuiteT], None]:
        async def work(suite: SuiteT) -> None:
            suite.clock, suite.told = ManualClock(), Recorder()
            suite.engine = suite.make(suite.clock, **settings)
            await suite.engine.start(suite.told)
            try:
                await test(suite)
            finally:
                await suite.engine.close()

        return wraps(test)(lambda suite: asyncio.run(work(suite)))

    return decorate


class Suite:
    """Tests on an engine: each has a fresh one, and a clock that stands still."""

    engine: Engine
    clock: ManualClock
    told: Recorder

    def make(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
        """Return a new engine, not started, that makes a `stub` of what is to be hidden.

        `settings` are those of `EngineSettings`, `povs` those of the settings' table `pov`.
        """
        raise NotImplementedError

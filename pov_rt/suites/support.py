"""What the suites share: a fresh engine for each test, and a follower that keeps what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from pov_rt.engine.base import (
    Engine,
    Entry,
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


SuiteT = TypeVar("SuiteT", bound="Suite")


class Recorder:
    """A follower that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int, bytes]] = []

    def entries(self, topic: str, epoch: str, entries: Sequence[Entry]) -> None:
        """Keep the entries."""
        self.told.extend((topic, epoch, entry.offset, entry.body) for entry in entries)

    def signal(self, topic: str, body: bytes, origin: str) -> None:
        """Fail: a node's own signals do not come back to it."""
        raise AssertionError(f"a signal came back: {topic}")

    def uncertain(self, topic: str) -> None:
        """Allow it: an engine may always ask for a comparison."""

    def offsets(self, topic: str) -> list[int]:
        """Return the offsets told of a topic."""
        return [offset for name, _, offset, _ in self.told if name == topic]


def new(
    topic: str, key: str, body: bytes = b"{}", feed: str = "", publisher: str = "p"
) -> NewEntry:
    """Return an entry to append."""
    return NewEntry(topic, publisher, key, body, feed)


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

    def make(self, clock: ManualClock, **settings: Any) -> Engine:
        """Return a new engine, not started; `settings` are those of `EngineSettings`."""
        raise NotImplementedError

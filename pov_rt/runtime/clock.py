"""Time and randomness, passed in so that a test can hold both still."""

from __future__ import annotations

import math
import os
import random
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Where everything that needs the time gets it."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; never goes back. For deadlines and ages."""

    def time(self) -> float:
        """Return seconds since 1970 (UTC): for token claims and people, never for order."""

    def random(self) -> float:
        """Return a float in [0, 1). For spreading load, not for secrets."""

    def new_id(self) -> str:
        """Return an id nobody else has: 32 hexadecimal digits."""


def new_id() -> str:
    """Return 48 bits of the time in milliseconds and 80 random ones, as ULID has them, in hex.

    What is made together stands together in an index, so that it changes fewer pages of the log's
    database than with random ids (docs/measurements.md, ids).
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


class SystemClock:
    """The machine's clocks. Without a function of its own for each, for every message asks."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    random = staticmethod(random.random)  # spreads pings, hides nothing
    new_id = staticmethod(new_id)


STEP_S = 30.0
"""The wall clock goes this much faster or slower than the other at most, between two looks."""
DOUBT_S = 3600.0
"""How long the wall clock must stay ahead after a step until that is believed."""


class SteadyTime:
    """The wall clock for ages: what leaves when it is old must not leave by a wrong clock.

    A step back is believed at once: things stay longer. A step forward is believed only after the
    clock has stayed there for an hour (`DOUBT_S`): until then time goes on as if it had not come.
    Where the clock stands at the start is believed. May be asked from several threads.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead = self._measure()[0]
        """How far the wall clock, as it is believed, is ahead of the monotonic one."""
        self._doubted: tuple[float, float] | None = None
        """How far it says it is ahead, and since when (`Clock.monotonic`)."""

    def now(self) -> float:
        """Return seconds since 1970 (UTC)."""
        ahead, at = self._measure()
        doubted = self._doubted
        if ahead <= self._ahead + STEP_S:
            self._ahead, self._doubted = ahead, None
        elif doubted is None or abs(ahead - doubted[0]) > STEP_S:
            self._doubted = ahead, at
        elif at - doubted[1] >= DOUBT_S:
            self._ahead, self._doubted = ahead, None
        return at + self._ahead

    def stamp(self) -> float:
        """Return when something is that happens now: rather too late, so that it stays longer."""
        return max(self.now(), self._clock.time())

    def _measure(self) -> tuple[float, float]:
        at = self._clock.monotonic()
        return self._clock.time() - at, at


class ManualClock:
    """A clock that moves when told to. Owner: the test."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.now = start
        self.ahead = 0.0
        self._ids = 0

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self.now += seconds

    def step(self, seconds: float) -> None:
        """Put the wall clock forward, or back, as NTP does; the other goes on as if nothing was."""
        self.ahead += seconds

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + self.ahead

    def random(self) -> float:
        """Return 0.5: the middle of every spread."""
        return 0.5

    def new_id(self) -> str:
        """Return 1, 2, 3, ... as 32 hexadecimal digits."""
        self._ids += 1
        return f"{self._ids:032x}"


YEAR_1, YEAR_9999_END = -62_135_596_800.0, 253_402_300_799.0
"""The first and the last second that can be written, in seconds since 1970."""


def rfc3339(seconds: float) -> str:
    """Format seconds since 1970 as RFC 3339 in UTC with milliseconds.

    What lies before the year 1 or behind 9999 there, as an instant that a client names with an
    offset may, is said to be at that end.
    """
    if not YEAR_1 <= seconds <= YEAR_9999_END:
        seconds = min(max(seconds, YEAR_1), YEAR_9999_END)
    # As `datetime` rounds; the second is that of the last one nearly always.
    second = math.floor(seconds)
    microseconds = round((seconds - second) * 1e6)
    if microseconds == 1_000_000:
        second, microseconds = second + 1, 0
    return f"{_to_the_second(second)}.{microseconds // 1000:03d}Z"


@lru_cache(maxsize=64)
def _to_the_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).replace(tzinfo=None).isoformat()


def full_jitter(failures: int, first_s: float, last_s: float, chance: float) -> float:
    """Return how many seconds to wait after a number of failures, for a chance in [0, 1).

    A random part of a limit that doubles from `first_s` to `last_s` ("full jitter", AWS, 2015).
    """
    return chance * min(last_s, first_s * 2.0 ** min(failures - 1, 30))

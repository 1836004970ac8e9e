"""Rates: how often something may happen, for one and by key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Rate(NamedTuple):
    """How often something may happen: `per_second` in the long run, `burst` at once."""

    per_second: float
    burst: float


def parse_rate(text: str, burst_factor: float = 2.0) -> Rate:
    """Read `5/s`, `100/m` or `1/h`; the burst is `burst_factor` times the number, at least 1.

    Raises ValueError for anything else.
    """
    number, slash, unit = text.partition("/")
    if not slash or unit not in SECONDS:
        raise ValueError(f"{text!r} is no rate; write it like '5/s', '100/m' or '1/h'")
    try:
        count = float(number)
    except ValueError:
        count = 0.0
    if not 0 < count < 1e9:
        raise ValueError(f"{text!r} is no rate; its number must be above 0")
    return Rate(count / SECONDS[unit], max(1.0, count * burst_factor))


class Bucket:
    """A token bucket: full at first, refilled by time."""

    __slots__ = ("_at", "_level")

    def __init__(self, rate: Rate, now: float) -> None:
        self._level = rate.burst
        self._at = now

    def take(self, rate: Rate, now: float, count: float = 1.0) -> float:
        """Take some; return 0.0, or the seconds until they are there (nothing is taken then)."""
        level = min(rate.burst, self._level + (now - self._at) * rate.per_second)
        self._at = now
        if level >= count:
            self._level = level - count
            return 0.0
        self._level = level
        return (count - level) / rate.per_second

    def wait_s(self, rate: Rate, now: float) -> float:
        """Return the seconds until one could be taken, without taking it; 0.0: now."""
        level = self._level + (now - self._at) * rate.per_second
        return max(0.0, (1.0 - level) / rate.per_second)


class KeyedBuckets:
    """Token buckets by key, such as an address; at most `capacity` of them.

    When full, the oldest half is forgotten, and those keys begin with a full bucket again.
    """

    def __init__(self, rate: Rate, capacity: int = 10_000) -> None:
        self.rate = rate
        self._capacity = capacity
        self._buckets: dict[str, Bucket] = {}

    def wait_s(self, key: str, now: float) -> float:
        """Return the seconds until the key could take one, without taking it."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.wait_s(self.rate, now)

    def take(self, key: str, now: float) -> float:
        """Take one for the key; return 0.0 or the seconds to wait."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._capacity:
                for old in list(self._buckets)[: self._capacity // 2]:
                    del self._buckets[old]
            bucket = self._buckets[key] = Bucket(self.rate, now)
        return bucket.take(self.rate, now)


class Terms(NamedTuple):
    """What budgets have in common: the seconds of a unit, a full one, and the longest debt."""

    unit_s: float
    burst_s: float
    debt_s: float

    @classmethod
    def of(cls, rate: Rate, debt_s: float) -> Terms:
        """Return those of a rate."""
        return cls(1 / rate.per_second, rate.burst / rate.per_second, debt_s)


class Budget:
    """What one owner may cost. It may go into debt, and then nothing more may be begun.

    So what is not known before it is done, such as the rows of a page, can be charged afterwards.
    `paid_at` is when all that was charged is paid for: with it alone a charge is one addition.
    `users` is by how many it is held (`connections/budgets`).
    """

    __slots__ = ("_burst_s", "_debt_s", "_line", "_unit_s", "owner", "paid_at", "users")

    def __init__(self, owner: str, terms: Terms, now: float) -> None:
        self.owner = owner
        self.users = 0
        self._unit_s, self._burst_s, self._debt_s = terms
        self._line: asyncio.Lock | None = None
        self.paid_at = now - self._burst_s

    def pay(self, cost: float, now: float) -> float:
        """Charge and return 0.0, or the seconds until the debt is paid; nothing is charged then."""
        if self.paid_at > now:
            return self.paid_at - now
        self.charge(cost, now)
        return 0.0

    def charge(self, cost: float, now: float) -> None:
        """Charge what was done. No debt is for longer than `debt_s`: whoever asks comes back."""
        paid_at, full_at = self.paid_at, now - self._burst_s
        paid_at = (paid_at if paid_at > full_at else full_at) + cost * self._unit_s
        most = now + self._debt_s
        self.paid_at = paid_at if paid_at < most else most

    def used(self, now: float) -> float:
        """Return which part of it is used up: 0 of a full one, 1 and more of one in debt."""
        return max(0.0, self.paid_at - now + self._burst_s) / self._burst_s

    def is_full(self, now: float) -> bool:
        """Tell whether it is as a new one."""
        return self.paid_at <= now - self._burst_s

    def has_spare(self, now: float) -> bool:
        """Tell whether a quarter of it is there: then nobody has to wait in `spare`."""
        return self.paid_at <= now - self._burst_s / 4

    async def spare(self, now: Callable[[], float]) -> None:
        """Wait until a quarter of it is there: for what can wait, so that messages need not.

        Those that wait go on one by one, each after it has seen what the one before was charged.
        """
        if self.has_spare(now()):
            return
        if self._line is None:
            self._line = asyncio.Lock()
        async with self._line:
            while (wait := self.paid_at - now() + self._burst_s / 4) > 0:  # noqa: ASYNC110  (time)
                await asyncio.sleep(wait)

"""Rates: how often something may happen, for one and by key."""

from __future__ import annotations

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


class KeyedBuckets:
    """Token buckets by key, such as an address; at most `capacity` of them.

    When full, the oldest half is forgotten, and those keys begin with a full bucket again.
    """

    def __init__(self, rate: Rate, capacity: int = 10_000) -> None:
        self.rate = rate
        self._capacity = capacity
        self._buckets: dict[str, Bucket] = {}

    def take(self, key: str, now: float) -> float:
        """Take one for the key; return 0.0 or the seconds to wait."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._capacity:
                for old in list(self._buckets)[: self._capacity // 2]:
                    del self._buckets[old]
            bucket = self._buckets[key] = Bucket(self.rate, now)
        return bucket.take(self.rate, now)

"""How long things took: a histogram of Prometheus that costs a search in a short tuple."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

FAST_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Bounds for what is done in memory, in seconds."""
SLOW_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0)
"""Bounds for what waits for a disk or for a client, in seconds."""


class Times:
    """How long something took each time, counted by bounds: a histogram of Prometheus."""

    __slots__ = ("_bounds_s", "_counts", "sum_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.sum_s = 0.0
        self._bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(bounds_s) + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self.sum_s += seconds

    def within_s(self, part: float) -> float | None:
        """Return the bound that this part of them stayed within; None without any.

        Of what took longer than all bounds the last one is told.
        """
        counts = list(accumulate(self._counts))
        if not counts[-1]:
            return None
        index = bisect_left(counts, part * counts[-1])
        return self._bounds_s[min(index, len(self._bounds_s) - 1)]

    def buckets(self) -> list[tuple[str, int]]:
        """Return how many took no longer than each bound, and how many there were."""
        return list(zip([*map(str, self._bounds_s), "+Inf"], accumulate(self._counts), strict=True))

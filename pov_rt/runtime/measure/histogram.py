"""How long things took, or how many they were: a histogram of Prometheus, cheap to add to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

FAST_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Bounds for what is done in memory, in seconds."""
SLOW_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0)
"""Bounds for what waits for a disk or for a client, in seconds."""


class Histogram:
    """Values, such as seconds, counted by bounds; all buckets are there from the start, at 0."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.sum = 0.0
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def within(self, part: float) -> float | None:
        """Return the bound that this part of them stayed within; None without any.

        Of what was above all bounds the last one is told.
        """
        counts = list(accumulate(self._counts))
        if not counts[-1]:
            return None
        index = bisect_left(counts, part * counts[-1])
        return self._bounds[min(index, len(self._bounds) - 1)]

    def buckets(self) -> list[tuple[str, int]]:
        """Return how many were no more than each bound, and how many there were."""
        return list(zip([*map(str, self._bounds), "+Inf"], accumulate(self._counts), strict=True))

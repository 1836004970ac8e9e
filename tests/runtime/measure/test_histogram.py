"""What took how long, as Prometheus wants it."""

from __future__ import annotations

import pytest

from pov_rt.runtime.measure.histogram import SLOW_S, Histogram


def test_what_took_long_is_counted_up_to_each_bound() -> None:
    times = Histogram(SLOW_S)
    for seconds in (0.0, 0.001, 0.0011, 0.3, 5.0, 60.0):
        times.add(seconds)
    found = dict(times.buckets())
    bounds = ("0.001", "0.0025", "0.25", "0.5", "2.5", "5.0", "30.0", "+Inf")
    assert [found[bound] for bound in bounds] == [
        2, 3, 3, 4, 4, 5, 5, 6,
    ]  # fmt: skip
    assert times.sum == pytest.approx(65.3021)


def test_a_part_of_them_stayed_within_a_bound() -> None:
    times = Histogram((0.1, 1.0, 5.0))
    assert times.within(0.5) is None
    for seconds in (0.05, 0.1, 0.5, 2.0):
        times.add(seconds)
    assert [times.within(part) for part in (0.25, 0.5, 0.75, 0.99)] == [0.1, 0.1, 1.0, 5.0]
    for _ in range(10):
        times.add(60.0)
    assert times.within(0.99) == 5.0

"""Rates, and buckets that do not grow in number."""

from __future__ import annotations

import pytest

from pov_rt.runtime.limits import Bucket, KeyedBuckets, Rate, parse_rate


@pytest.mark.parametrize("text", ["5", "5/d", "x/s", "0/s", "-1/s", "/s", "inf/s", "nan/s"])
def test_what_is_no_rate_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        parse_rate(text)


def test_a_bucket_lets_a_burst_through_and_then_the_rate() -> None:
    rate = parse_rate("2/s")
    bucket = Bucket(rate, 0.0)
    assert [bucket.take(rate, 0.0) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert bucket.take(rate, 0.5) == 0
    assert bucket.take(rate, 0.5) == pytest.approx(0.5)


def test_keyed_buckets_do_not_grow_without_end() -> None:
    buckets = KeyedBuckets(Rate(1, 1), capacity=4)
    assert [buckets.take(str(n), 0.0) for n in range(50)] == [0.0] * 50
    assert buckets.take("49", 0.0) == 1.0

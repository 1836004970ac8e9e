"""Rates, and buckets that do not grow in number."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.runtime.limits import Bucket, Budget, KeyedBuckets, Rate, Terms, parse_rate


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


def test_to_look_at_a_keys_bucket_takes_nothing() -> None:
    buckets = KeyedBuckets(Rate(2, 1))
    assert (buckets.wait_s("a", 0.0), buckets.take("a", 0.0)) == (0.0, 0.0)
    waits = [buckets.wait_s("a", now) for now in (0.0, 0.0, 0.25, 0.5, 9.0)]
    assert waits == [0.5, 0.5, 0.25, 0, 0]
    assert buckets.take("a", 0.5) == 0.0


def test_what_can_wait_leaves_a_quarter_of_a_budget_to_what_cannot() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        budget = Budget("ana", Terms.of(Rate(100, 100), 10), loop.time())
        done: list[int] = []

        async def take(number: int) -> None:
            await budget.spare(loop.time)
            done.append(number)
            assert budget.pay(0, loop.time()) == 0, "messages are never refused for it"
            budget.charge(20, loop.time())

        began = loop.time()
        await asyncio.gather(*(take(number) for number in range(6)))
        assert done == list(range(6))
        # 75 are there to begin with, of which the fourth takes what it wants.
        assert loop.time() - began >= 0.2

    asyncio.run(work())

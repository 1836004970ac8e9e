"""A question is asked once at a time; its answer is believed for a while, a failure never."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pov_rt.plugin import Host, lookup
from pov_rt.plugin.lookup import Lookup
from pov_rt.protocol.errors import RateLimited, Unavailable
from pov_rt.runtime.bounds import Shares, payer
from pov_rt.runtime.clock import ManualClock


class Oracle:
    """Answers once it is let, and counts what it is asked. Raises for questions below 0."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.at_once = self.most_at_once = 0
        self.go = asyncio.Event()
        self.charged = Counter[str]()

    def charge(self, cost: float) -> None:
        assert cost == lookup.PRICE
        self.charged[payer.get()] += 1

    async def answer(self, question: int) -> int:
        self.asked.append(question)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.go.wait()
        finally:
            self.at_once -= 1
        if question < 0:
            raise ValueError(question)
        return 2 * question


def run(
    test: Callable[[Lookup[int, int], Oracle, ManualClock], Awaitable[None]], **options: Any
) -> None:
    async def work() -> None:
        oracle, clock = Oracle(), ManualClock()
        shares = partial(Shares, "lookup", "plugins.lookup")
        parts = SimpleNamespace(
            clock=clock, shares=lambda _, *numbers: shares(*numbers), charge=oracle.charge
        )
        asking = Lookup(cast("Host[Any]", parts), oracle.answer, ttl_s=10, **options)
        try:
            await test(asking, oracle, clock)
        finally:
            await asking.close()

    asyncio.run(work())


def test_many_who_ask_the_same_share_one_question_and_its_answer_for_a_while() -> None:
    async def test(asking: Lookup[int, int], oracle: Oracle, clock: ManualClock) -> None:
        many = [asyncio.create_task(asking.get(1, "ana")) for _ in range(5)]
        await asyncio.sleep(0)
        oracle.go.set()
        assert await asyncio.gather(*many) == [2] * 5
        clock.advance(8.9)
        assert await asking.get(1, "ana") == 2
        assert oracle.asked == [1]
        clock.advance(0.1)
        assert await asking.get(1, "ana") == 2
        assert oracle.asked == [1, 1]
        assert oracle.charged == {"ana": 2}

    run(test)


def test_a_failure_reaches_all_who_asked_and_is_not_remembered() -> None:
    async def test(asking: Lookup[int, int], oracle: Oracle, _: ManualClock) -> None:
        oracle.go.set()
        both = await asyncio.gather(
            asking.get(-1, "ana"), asking.get(-1, "ana"), return_exceptions=True
        )
        assert [type(each) for each in both] == [ValueError, ValueError]
        with pytest.raises(ValueError, match="-1"):
            await asking.get(-1, "ana")
        assert oracle.asked == [-1, -1]

    run(test)


def test_one_who_goes_away_takes_no_answer_from_the_others() -> None:
    async def test(asking: Lookup[int, int], oracle: Oracle, _: ManualClock) -> None:
        gone, stays = (asyncio.create_task(asking.get(1, "ana")) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        oracle.go.set()
        assert await stays == 2
        assert (gone.cancelled(), oracle.asked) == (True, [1])

    run(test)


def test_so_many_are_asked_at_once_and_no_more() -> None:
    async def test(asking: Lookup[int, int], oracle: Oracle, clock: ManualClock) -> None:
        many = [asyncio.create_task(asking.get(n, "ana")) for n in range(7)]
        while len(oracle.asked) < 3:  # noqa: ASYNC110  (nobody is told that a question is asked)
            await asyncio.sleep(0)
        oracle.go.set()
        assert await asyncio.gather(*many) == [2 * n for n in range(7)]
        assert oracle.most_at_once == 3

    run(test, at_once=3)


def test_of_too_many_answers_the_oldest_is_forgotten() -> None:
    async def test(asking: Lookup[int, int], oracle: Oracle, _: ManualClock) -> None:
        oracle.go.set()
        for question in (1, 2, 3, 3, 2, 1):
            await asking.get(question, "ana")
        assert oracle.asked == [1, 2, 3, 1]

    run(test, capacity_each=2)


def test_owners_are_served_by_turns_each_with_a_part_of_all_places() -> None:
    async def test(asking: Lookup[int, int], oracle: Oracle, _: ManualClock) -> None:
        flood = [asyncio.create_task(asking.get(n, "eve")) for n in range(100, 120)]
        await asyncio.sleep(0)
        others = [asyncio.create_task(asking.get(n, f"user{n}")) for n in range(3)]
        while len(oracle.asked) < 4:  # noqa: ASYNC110  (nobody is told that a question is asked)
            await asyncio.sleep(0)
        assert oracle.asked == [100, 101, 0, 1]
        oracle.go.set()
        await asyncio.gather(*flood, *others)
        assert oracle.asked.index(2) < 6
        eves = [question for question in oracle.asked if question >= 100]
        assert eves == sorted(eves)
        assert oracle.most_at_once == 4
        assert oracle.charged == {"eve": 20, "user0": 1, "user1": 1, "user2": 1}

    run(test, at_once=4, at_once_each=2)


def test_whoever_has_too_many_questions_is_refused_and_nobody_else() -> None:
    async def test(asking: Lookup[int, int], oracle: Oracle, _: ManualClock) -> None:
        flood = [asyncio.create_task(asking.get(n, "eve")) for n in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited):
            await asking.get(5, "eve")
        waits = asyncio.create_task(asking.get(5, "ana"))
        oracle.go.set()
        assert await waits == 10
        await asyncio.gather(*flood)
        assert await asking.get(5, "eve") == 10

    run(test, waiting_each=5)


def test_a_full_memory_forgets_what_its_own_owner_asked() -> None:
    async def test(asking: Lookup[int, int], oracle: Oracle, _: ManualClock) -> None:
        oracle.go.set()
        await asking.get(1, "ana")
        for question in range(10, 20):
            await asking.get(question, "eve")
        assert asking.remembered == 3
        await asking.get(1, "ana")
        assert oracle.asked.count(1) == 1
        await asking.get(1, "new")
        assert (asking.remembered, oracle.asked.count(1)) == (3, 2)

    run(test, capacity=3)


def test_what_nobody_waits_for_any_more_gives_its_place_back() -> None:
    async def test(asking: Lookup[int, int], oracle: Oracle, _: ManualClock) -> None:
        for question in range(3):
            task = asyncio.create_task(asking.get(question, "eve"))
            await asyncio.sleep(0)
            task.cancel()
        oracle.go.set()
        assert await asking.get(7, "ana") == 14
        while asking.asking:  # noqa: ASYNC110  (nobody waits for them any more)
            await asyncio.sleep(0)
        assert (sorted(oracle.asked), oracle.most_at_once) == ([0, 1, 2, 7], 1)

    run(test, at_once=1, at_once_each=1)


def test_one_that_takes_too_long_is_not_waited_for_and_is_ended_with_the_plugin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookup, "WAIT_S", 0.01)

    async def test(asking: Lookup[int, int], oracle: Oracle, clock: ManualClock) -> None:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await asking.get(1, "ana")
        assert (oracle.asked, oracle.at_once) == ([1], 1)
        await asking.close()
        assert oracle.at_once == 0

    run(test)

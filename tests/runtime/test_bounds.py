"""Bounds that users share: what one may hold, what is said of it, and to whom."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pov_rt.runtime.bounds import Bound, Bounds, FairQueue, FairSlots, Shares, payer


def test_one_owner_gets_a_share_and_leaves_the_rest_to_others() -> None:
    shares = Shares("slots", "limits.slots", 10, 4)
    assert [shares.take("ana") for _ in range(6)] == [True] * 4 + [False] * 2
    assert [shares.take("bo") for _ in range(4)] == [True] * 4
    assert shares.take("cy") is shares.take("cy") is True
    assert shares.take("cy") is False, "all ten are in use"
    assert (shares.used, shares.bound.refused) == (10, 3)
    shares.give("ana")
    assert shares.take("cy")


def test_what_is_larger_than_the_bound_gets_through_alone() -> None:
    shares = Shares("bytes", "limits.bytes", 100, 40)
    assert shares.take("ana", 300)
    assert not shares.take("bo", 1)
    shares.give("ana", 300)
    assert (shares.used, shares.held("ana")) == (0, 0)


def test_a_bound_that_fills_is_warned_of_once_until_it_empties(
    caplog: pytest.LogCaptureFixture,
) -> None:
    used, bounds = 0, Bounds()
    bounds.add(Bound("marks", "engine.max_marks", 100, lambda: used))
    caplog.set_level(logging.WARNING)
    for level, lines in [(79, 0), (80, 1), (100, 1), (75, 1), (85, 1), (69, 1), (80, 2)]:
        used = level
        bounds.sweep()
        assert len(caplog.records) == lines, level
    assert "marks: 80 of 100" in caplog.text
    assert "engine.max_marks" in caplog.text


def test_who_is_refused_is_named_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    shares = Shares("slots", "limits.slots", 10, 1)
    shares.take("ana")
    shares.take("ana")
    (line,) = caplog.records
    assert "one owner may hold 1 of slots" in line.getMessage()
    assert line.__dict__["owner"] == "ana"


def test_owners_take_turns_and_each_ones_items_keep_their_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "a4", "c1", "b2"):
        queue.put(item[0], item)
    assert queue.waiting("a") == 4
    assert [queue.take() for _ in range(len(queue))] == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    assert (len(queue), queue.waiting("a")) == (0, 0)


def test_an_owner_who_is_served_is_passed_over() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "b1", "a2"):
        queue.put(item[0], item)
    assert queue.longest() == 2
    assert [queue.take({"a"}), queue.take({"a"}), queue.take(), queue.take()] == [
        "b1", None, "a1", "a2"
    ]  # fmt: skip
    assert (queue.take(), queue.longest()) == (None, 0)


def test_one_owner_has_no_more_slots_than_a_share_though_others_are_free() -> None:
    async def work() -> None:
        slots, hold, inside = FairSlots(4, 2), asyncio.Event(), list[str]()

        async def use(owner: str) -> None:
            payer.set(owner)
            async with slots:
                inside.append(owner)
                await hold.wait()

        greedy = [asyncio.create_task(use("a")) for _ in range(5)]
        await asyncio.sleep(0)
        assert inside == ["a", "a"]
        others = [asyncio.create_task(use(owner)) for owner in "bc"]
        await asyncio.sleep(0)
        assert inside == ["a", "a", "b", "c"]
        hold.set()
        await asyncio.gather(*greedy, *others)
        assert inside[4:] == ["a"] * 3

    asyncio.run(work())


def test_slots_are_given_to_owners_in_turn_and_none_is_lost_when_a_waiter_goes() -> None:
    async def work() -> None:
        slots, done = FairSlots(2), list[str]()

        async def use(owner: str, hold: asyncio.Event) -> None:
            payer.set(owner)
            async with slots:
                done.append(owner)
                await hold.wait()

        hold, free = asyncio.Event(), asyncio.Event()
        free.set()
        first = [asyncio.create_task(use("x", hold)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(use(owner, free)) for owner in "aaaab"]
        await asyncio.sleep(0)
        assert done == ["x", "x"]
        assert slots.has_queue()
        waiting[0].cancel()
        first[0].cancel()  # its slot goes to one who is still there, though the first is gone
        await asyncio.sleep(0)
        hold.set()
        await asyncio.gather(*first, *waiting, return_exceptions=True)
        assert done[2:4] in (["b", "a"], ["a", "b"])
        assert done.count("a") == 3
        assert not slots.has_queue()
        # All slots are free again.
        again = [asyncio.create_task(use("z", free)) for _ in range(2)]
        await asyncio.wait_for(asyncio.gather(*again), 5)

    asyncio.run(work())

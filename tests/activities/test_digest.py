"""What was missed, in numbers: all of it up to a bound, and nothing that was not missed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pov_rt.activities import digest as digest_module
from pov_rt.activities.digest import (
    MAX_COUNTED,
    MOST,
    REMEMBERED_S,
    Author,
    Digest,
    Digests,
    Sort,
    bucket,
    head_of,
)
from pov_rt.config.settings import EngineSettings
from pov_rt.connections.budgets import Budgets
from pov_rt.engine.base import NewEntry, Tally, Top
from pov_rt.engine.memory import MemoryLog
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.messages import Activity
from pov_rt.runtime.bounds import payer
from pov_rt.runtime.clock import ManualClock

A = "pov/a"
LONG_S = 60.0
"""How long a digest is waited for that has to come."""


def body(number: int, action: str, user: str) -> NewEntry:
    made = Activity(id=str(number), type="t", action=action, pov_id="a", user_id=user)
    return NewEntry(A, "p", str(number), encode(made))


def digest_of(activities: list[tuple[str, str]], after: int) -> Digest:
    """Return the digest of a log with these actions and users."""

    async def work() -> Digest:
        clock = ManualClock()
        log = MemoryLog(EngineSettings(), clock)
        await log.append([body(n, action, user) for n, (action, user) in enumerate(activities)])
        found = await Digests(log, Budgets("1000/s", clock), clock).get(A, after, LONG_S)
        assert found is not None
        return found

    return asyncio.run(work())


def test_only_what_came_after_is_counted() -> None:
    activities = [("old", "zoe"), *[("done", "ana")] * 3, ("done", "ben"), ("opened", "ana")]
    found = digest_of(activities, 1)
    assert (found.counted, found.people) == (5, 2)
    assert found.activities == [
        Sort(type="t", action="done", count=4),
        Sort(type="t", action="opened", count=1),
    ]
    assert found.users == [Author(user_id="ana", count=4), Author(user_id="ben", count=1)]
    assert digest_of(activities, 6) == Digest(counted=0, people=0, activities=[], users=[])


def test_the_newest_are_counted_up_to_the_bound_and_the_most_frequent_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(digest_module, "MAX_COUNTED", 50)
    monkeypatch.setattr(digest_module, "BLOCK", 10)
    often = [(f"a{n % 25}", f"u{n % 25}") for n in range(45)]
    found = digest_of([("old", "old")] * 30 + often + [("last", "last")] * 5, 0)
    assert (found.counted, found.people) == (50, 26), "the old ones are beyond the bound"
    assert len(found.activities) == len(found.users) == MOST
    assert found.users[0] == Author(user_id="last", count=5)


def test_a_head_says_what_is_counted_and_what_cannot_be_read_has_none() -> None:
    made = Activity(id="1", type="t.x", action="a-b", pov_id="a", user_id="zoë b c")
    assert head_of(encode(made)) == "t.x a-b zoë b c".encode()
    assert head_of(b'{"type": 1}') == head_of(b"") == b""


@pytest.mark.parametrize("block", [1, 3, 4, 100])
def test_whole_blocks_are_counted_once_and_every_count_is_right(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_module, "BLOCK", block)
    monkeypatch.setattr(digest_module, "MAX_HEADS", 6)

    async def work() -> None:
        clock = ManualClock()
        log = MemoryLog(EngineSettings(max_entries=17), clock)
        digests = Digests(log, Budgets("1000/s", clock), clock)
        for number in range(40):
            await log.append([body(number, f"a{number % 3}", f"u{number % 2}")])
            top = await log.top(A)
            for after in range(0, number + 1, 5):
                found = await digests.get(A, after, LONG_S)
                clock.advance(REMEMBERED_S)
                expected = range(max(after, top.oldest - 1), number + 1)
                assert found is not None
                assert found.counted == len(expected)
                assert {each.action: each.count for each in found.activities} == Counter(
                    f"a{each % 3}" for each in expected
                )

    asyncio.run(work())


@given(st.integers(0, 30_000), st.integers(0, 30_000), st.integers(1, 30_000))
def test_those_who_missed_nearly_as_much_share_a_digest_that_counts_nothing_they_did_not_miss(
    after: int, top: int, oldest: int
) -> None:
    state = Top("e", top, min(oldest, top + 1))
    found, missed = bucket(after, state), top - after
    if missed >= MAX_COUNTED or after < state.oldest:
        assert found == 0, "the newest are counted, whatever they missed"
    elif missed > 0:
        assert after <= found <= top
        assert found - after <= missed / 32
        assert len({bucket(each, state) for each in range(after, min(after + 100, top))}) <= 100
    else:
        assert found >= after


class SlowLog(MemoryLog):
    """Counts when it is let."""

    def __init__(self) -> None:
        super().__init__(EngineSettings(), ManualClock())
        self.go = asyncio.Event()
        self.tallies = 0

    async def tally(self, *arguments: Any) -> Tally:
        self.tallies += 1
        await self.go.wait()
        return await super().tally(*arguments)


def with_slow_log(test: Callable[[SlowLog, Digests, ManualClock], Awaitable[None]]) -> None:
    async def work() -> None:
        log, clock = SlowLog(), ManualClock()
        await log.append([body(n, "a", "u") for n in range(3000)])
        digests = Digests(log, Budgets("1000/s", clock), clock)
        await test(log, digests, clock)
        await digests.close()

    asyncio.run(work())


def test_a_digest_that_is_not_there_in_time_is_left_out_and_there_for_the_next_one() -> None:
    async def test(log: SlowLog, digests: Digests, clock: ManualClock) -> None:
        assert await digests.get(A, 0, within_s=0.01) is None
        assert await digests.get(A, 1000, within_s=0.01) is None, "one of a topic at a time"
        assert log.tallies == 1
        log.go.set()
        found = await digests.get(A, 0, LONG_S)
        tallies = log.tallies
        assert found is not None
        assert found.counted == 3000
        assert await digests.get(A, 0, within_s=0) is found, "it is remembered"
        clock.advance(REMEMBERED_S)
        assert await digests.get(A, 0, LONG_S) == found
        assert log.tallies == tallies == 3000 // 500, "and so are whole blocks"

    with_slow_log(test)


def test_a_crowd_that_missed_as_much_has_one_digest_made_and_who_asked_first_pays() -> None:
    async def test(log: SlowLog, digests: Digests, clock: ManualClock) -> None:
        budgets = Budgets("1000/s", clock)
        digests = Digests(log, budgets, clock)

        async def ask(owner: str) -> Digest | None:
            payer.set(owner)
            return await digests.get(A, 10, LONG_S)

        log.go.set()
        found = await asyncio.gather(*(ask(f"u{n}") for n in range(50)))
        assert log.tallies == 3000 // 500
        assert all(each is not None and each == found[0] for each in found)
        assert [n for n in range(50) if not budgets.of(f"u{n}").is_full(clock.monotonic())] == [0]
        budgets.charge_owner("poor", 1e6)
        payer.set("poor")
        assert await digests.get(A, 0, LONG_S) is None, "an owner in debt goes without"
        await digests.close()

    with_slow_log(test)

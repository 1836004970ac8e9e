"""Which activity a change is about, what plugins say to it, and several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import wraps
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from pov_rt.activities.changes import PAGE, Change, Changes
from pov_rt.activities.publishing import Publisher, Publishing
from pov_rt.config.settings import EngineSettings, LimitSettings
from pov_rt.connections.budgets import Budgets
from pov_rt.engine.memory import MemoryEngine
from pov_rt.protocol.bodies import Published
from pov_rt.protocol.errors import (
    Forbidden,
    InvalidActivity,
    NotFound,
    Rejected,
    Retracted,
)
from pov_rt.protocol.messages import Activity, NewActivity
from pov_rt.runtime.clock import ManualClock

ANA = Publisher("user:ana", "ana", "main")
BOSS = Publisher("user:boss", "boss", "main")


def on_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test on a loop of its own."""
    return wraps(test)(lambda: asyncio.run(test()))


class Plugins:
    """Hooks that keep what they are told."""

    before_publish: Callable[[Activity], Awaitable[Activity]] | None = None

    def __init__(self) -> None:
        self.seen: list[tuple[Activity, Published]] = []
        self.topics: list[str] = []

    def published(self, activity: Activity, done: Published) -> None:
        """Keep it."""
        self.seen.append((activity, done))

    def appended(self, topic: str) -> None:
        """Keep it."""
        self.topics.append(topic)


class World:
    """An engine in memory with what changes activities in it."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.engine = MemoryEngine(EngineSettings(**settings), self.clock, "node")
        self.publishing = Publishing(self.engine, LimitSettings(), self.clock)
        self.plugins = Plugins()
        self.publishing.hooks = self.plugins
        budgets = Budgets("1000000/s", self.clock)
        self.changes = Changes(self.engine, self.publishing, budgets, self.clock)

    async def publish(self, *ids: str, publisher: Publisher = ANA) -> None:
        batch = [
            NewActivity(id=each, type="t", action="a", pov_id="acme", details={"text": each})
            for each in ids
        ]
        await self.publishing.publish(batch, publisher)

    async def change(
        self,
        activity_id: str,
        details: dict[str, Any] | None = None,
        publisher: Publisher = ANA,
        *,
        any_ones: bool = False,
        **more: Any,
    ) -> Published:
        change = Change("acme", activity_id, details, **more)
        return await self.changes.make(change, publisher, any_ones=any_ones)

    async def activities(self, topic: str = "pov/acme") -> Sequence[Activity]:
        page = await self.engine.log.read(topic, 0, 10_000)
        return [msgspec.json.decode(each.body, type=Activity) for each in page.entries]


@on_loop
async def test_a_publishers_own_is_meant_and_an_operator_says_which() -> None:
    world = World()
    await world.publish("1", publisher=BOSS)
    await world.publish("1", "2")
    await world.change("1", {"text": "mine"})
    texts = [each.details for each in await world.activities()]
    assert texts[:2] == [{"text": "1"}, {"text": "mine"}]
    other = Publisher("user:eve", "eve", "main")
    with pytest.raises(Forbidden):
        await world.change("1", {}, other)
    with pytest.raises(InvalidActivity, match="send its offset"):
        await world.change("1", {}, other, any_ones=True)
    await world.change("1", {"text": "first"}, other, any_ones=True, offset=1)
    assert (await world.activities())[0].details == {"text": "first"}
    for offset in (0, 3, 99):
        with pytest.raises(NotFound):
            await world.change("1", {}, other, any_ones=True, offset=offset)


@on_loop
async def test_an_old_one_is_found_by_who_may_change_anybodys() -> None:
    world = World(id_window_s=60.0)
    await world.publish("old", "older")
    await world.publish(*(str(number) for number in range(PAGE + 10)))
    world.clock.advance(61)
    with pytest.raises(NotFound):
        await world.change("old")
    done = await world.change("old", publisher=BOSS, any_ones=True, user_id="boss")
    first = (await world.activities())[0]
    assert (first.id, first.retracted, first.by, first.details) == ("old", True, "boss", UNSET)
    assert done.offset == PAGE + 13
    with pytest.raises(NotFound):
        await world.change("none", publisher=BOSS, any_ones=True)


@on_loop
async def test_what_retention_took_cannot_be_changed() -> None:
    world = World(max_entries=2)
    await world.publish("1", "2", "3")
    with pytest.raises(NotFound):
        await world.change("1", {})
    assert len(await world.activities()) == 2


@on_loop
async def test_of_amendments_only_the_last_has_details() -> None:
    world = World()
    await world.publish("1", "2")
    for number in range(3):
        await world.change("1", {"n": number})
        await world.change("2", {"m": number})
    first, second, *told = await world.activities()
    assert (first.details, second.details) == ({"n": 2}, {"m": 2})
    assert [each.details for each in told] == [UNSET] * 4 + [{"n": 2}, {"m": 2}]
    assert all(each.amended is True for each in told)
    await world.change("1")
    first, second, *told = await world.activities("team/main")
    assert (first.details, first.amended, first.retracted) == (UNSET, UNSET, True)
    assert [each.details for each in told] == [UNSET] * 5 + [{"m": 2}, UNSET]


@on_loop
async def test_of_many_at_once_all_are_made_in_some_order_and_none_after_a_retraction() -> None:
    world = World()
    await world.publish("1")
    work = [world.change("1", {"n": number}) for number in range(5)]
    done = await asyncio.gather(*work, world.change("1"), return_exceptions=True)
    made = [each for each in done if isinstance(each, Published)]
    assert {type(each) for each in done} <= {Published, Retracted}
    first, *told = await world.activities()
    assert first.retracted is True
    assert [each.retracted for each in told].index(True) == len(told) - 1
    assert sorted(each.offset for each in made) == list(range(2, len(made) + 2))
    assert [each.details for each in told] == [UNSET] * len(told)


@on_loop
async def test_plugins_are_asked_about_new_details_and_told_of_changes() -> None:
    world = World()
    await world.publish("1")
    world.plugins.seen.clear()
    world.plugins.topics.clear()

    async def before(activity: Activity) -> Activity:
        if activity.details == {"text": "bad"}:
            raise Rejected("rude", "Mind your words")
        return msgspec.structs.replace(
            activity, details={"text": "clean"}, user_id="eve", retracted=True
        )

    world.plugins.before_publish = before
    with pytest.raises(Rejected):
        await world.change("1", {"text": "bad"})
    done = await world.change("1", {"text": "dirty"}, id="c1")
    first, told = await world.activities()
    assert (first.details, first.user_id, first.retracted) == ({"text": "clean"}, "ana", UNSET)
    assert world.plugins.seen == [(told, done)]
    assert world.plugins.topics == ["pov/acme", "team/main"]
    assert (await world.change("1", {"text": "dirty"}, id="c1")).duplicate
    assert len(world.plugins.seen) == 1
    await world.change("1")
    assert (await world.activities())[0].details is UNSET


@on_loop
async def test_a_caller_that_is_cancelled_leaves_a_change_to_finish() -> None:
    world = World()
    await world.publish("1")
    going, gone = asyncio.Event(), asyncio.Event()

    async def before(activity: Activity) -> Activity:
        going.set()
        await gone.wait()
        return activity

    world.plugins.before_publish = before
    asking = asyncio.create_task(world.change("1", {"text": "new"}))
    await going.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    gone.set()
    await world.publishing.close()
    assert (await world.activities())[0].details == {"text": "new"}

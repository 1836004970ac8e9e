"""Durable subscriptions are a user's own, bounded, and keep their filters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import pytest

from pov_rt.activities.durable import MAX_DURABLE, Durable, Kept
from pov_rt.delivery.filters import Only
from pov_rt.engine.base import Engine
from pov_rt.engine.state import MemorySets
from pov_rt.protocol.errors import LimitExceeded, Unavailable
from pov_rt.runtime.clock import ManualClock


class SlowSets(MemorySets):
    """Sets that let others run before they answer, as those of a disk or a network do."""

    async def members(self, name: str) -> Mapping[str, bytes]:
        found = dict(await super().members(name))
        await asyncio.sleep(0)
        return found


@pytest.fixture
def durable() -> Durable:
    class Fake:
        sets = SlowSets(ManualClock())

    return Durable(cast("Engine", Fake()))


def test_what_is_added_is_there_with_its_filter_until_it_is_removed(durable: Durable) -> None:
    only = Only(types=frozenset({"task"}), not_users=frozenset({"bo"}))

    async def work() -> None:
        await durable.add("ana", "b", only)
        await durable.add("ana", "a")
        await durable.add("ben", "a", Only())
        assert list((await durable.of("ana")).items()) == [("a", None), ("b", only)]
        assert await durable.of("ben") == {"a": None}
        assert set(await durable.followers("a")) == {"ana", "ben"}
        await durable.remove("ana", "a")
        await durable.remove("ana", "a")
        assert list(await durable.of("ana")) == ["b"]
        assert set(await durable.followers("a")) == {"ben"}

    asyncio.run(work())


def test_several_at_a_time_do_not_get_past_the_limit(durable: Durable) -> None:
    async def work() -> None:
        adding = [durable.add("ana", f"pov{number}") for number in range(MAX_DURABLE + 30)]
        adding.append(durable.add("ben", "pov0"))
        *anas, bens = await asyncio.gather(*adding, return_exceptions=True)
        assert sum(isinstance(each, LimitExceeded) for each in anas) == 30
        assert bens == Kept(None)
        assert len(await durable.of("ana")) == MAX_DURABLE
        await durable.add("ana", "pov0")  # which it has already

    asyncio.run(work())


def test_who_may_not_see_a_pov_is_no_follower_but_keeps_the_subscription(
    durable: Durable,
) -> None:
    async def work() -> None:
        await durable.add("ana", "a")
        await durable.add("ben", "a")
        for _ in range(2):
            await durable.unfollow("ana", ["a", "b"])
            assert [*await durable.followers("a")] == ["ben"]
        assert await durable.of("ana") == {"a": None}
        await durable.add("ana", "a")
        assert sorted(await durable.followers("a")) == ["ana", "ben"]

    asyncio.run(work())


def test_a_subscription_and_who_follows_the_pov_are_written_together_or_not_at_all() -> None:
    class Broken(MemorySets):
        """Sets of which the second thing that is written fails."""

        writes = 0

        async def add(self, *arguments: Any, **more: Any) -> None:
            self.writes += 1
            if self.writes == 2:
                raise Unavailable("killed")
            await super().add(*arguments, **more)

    class Fake:
        sets = Broken(ManualClock())

    durable = Durable(cast("Engine", Fake()))

    async def work() -> None:
        for pov_id in ("a", "b"):
            with suppress(Unavailable):
                await durable.add("ana", pov_id)
            assert (pov_id in await durable.of("ana")) == bool(await durable.followers(pov_id))
        await durable.remove("ana", "a")
        assert "a" not in await durable.of("ana")
        assert not await durable.followers("a")

    asyncio.run(work())


def test_what_was_added_can_be_put_back(durable: Durable) -> None:
    async def work() -> None:
        new, only = await durable.add("ana", "a"), Only(types=frozenset({"t"}))
        await durable.put_back("ana", "a", new)
        assert await durable.of("ana") == {}
        for before in (None, only):
            await durable.add("ana", "a", before)
            kept = await durable.add("ana", "a", Only(types=frozenset({"other"})))
            await durable.put_back("ana", "a", kept)
            assert await durable.of("ana") == {"a": before}

    asyncio.run(work())


def test_all_of_a_user_or_to_a_pov_are_forgotten_and_no_other(durable: Durable) -> None:
    async def work() -> None:
        # A user may be called as a PoV is.
        for user, pov_id in (("a", "a"), ("a", "b"), ("ben", "a"), ("ben", "b")):
            await durable.add(user, pov_id)
        await durable.unfollow("a", ["b"])
        assert await durable.clear("a") == 2
        assert await durable.of("a") == {}
        assert await durable.of("ben") == {"a": None, "b": None}
        assert [*await durable.followers("a")] == [*await durable.followers("b")] == ["ben"]
        await durable.unfollow("ben", ["a"])
        assert await durable.drop("a") == 1
        assert await durable.of("ben") == {"b": None}
        assert await durable.drop("a") == await durable.clear("a") == 0

    asyncio.run(work())

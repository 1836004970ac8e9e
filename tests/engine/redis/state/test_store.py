"""What plugins keep in Redis: its room is that of all nodes, and what goes leaves nothing."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Stored
from pov_rt.engine.bounds import size_of
from pov_rt.engine.redis.state.store import RedisStore
from pov_rt.protocol.errors import Unavailable
from tests.engine.redis_parts import calling, keys
from tests.redis_servers import RedisServer


def test_the_room_is_that_of_all_nodes_together(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        settings = EngineSettings(store_bytes=1000)
        async with calling(shared_redis, prefix) as one, calling(shared_redis, prefix) as two:
            here, there = RedisStore(one, settings), RedisStore(two, settings)
            await here.put("poll", "a", b"x" * 400, "ana")
            with pytest.raises(Unavailable, match="its share"):
                await there.put("poll", "b", b"x" * 400)
            await there.put("hands", "a", b"x" * 400)
            with pytest.raises(Unavailable, match="of 1000"):
                await here.put("third", "a", b"x" * 400)
            assert (here.rules.used, here.rules.bound.refused) == (there.rules.used, 1)
            assert there.rules.used == size_of("a", "ana", b"x" * 400) + size_of(
                "a", "", b"x" * 400
            )
            assert await there.erase("ana") == 1
            await here.put("third", "a", b"x" * 400)
            await there.count()
            assert there.rules.used == here.rules.used == 2 * size_of("a", "", b"x" * 400)

    asyncio.run(work())


def test_values_that_go_leave_nothing(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            store = RedisStore(functions, EngineSettings())
            for number in range(300):
                await store.put(f"space-{number % 7}", str(number), b"x", "ana")
            await store.put("space-0", "0", b"y", "ben")
            await store.put("space-0", "7", b"z")
            after: tuple[str, str] = ("", "")
            found: list[Stored] = []
            while page := await store.owned("ana", after):
                found += page
                after = page[-1][:2]
            assert len(found) == 298
            assert found == sorted(found)
            assert await store.erase("ana") == 298
            assert await store.swap("space-0", "0", b"y", None)
            assert await store.remove("space-0", "7")
            assert store.rules.used == 0
            assert set(await keys(functions, prefix)) == {b"kn"}, "counters, which are 0"

    asyncio.run(work())


def test_of_many_that_swap_at_once_each_counts_once(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as one, calling(shared_redis, prefix) as two:
            stores = [RedisStore(each, EngineSettings()) for each in (one, two)]

            async def add(store: RedisStore) -> None:
                while True:
                    old = await store.get("poll", "n")
                    if await store.swap("poll", "n", old, b"%d" % (int(old or b"0") + 1)):
                        return

            await asyncio.gather(*(add(store) for store in stores for _ in range(20)))
            assert await stores[0].get("poll", "n") == b"40"

    asyncio.run(work())

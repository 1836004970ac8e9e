"""Ids and producers of many topics and publishers, found and forgotten everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Found, Located, NewEntry
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.appending import Appending
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.layout import id_of
from pov_rt.engine.redis.past.disowning import MOST_LOCATED, Disowning
from tests.engine.redis_parts import calling
from tests.redis_servers import RedisServer

WINDOW_S = 100.0
SETTINGS = EngineSettings(id_window_s=WINDOW_S, producer_age_s=WINDOW_S)


async def append(functions: Functions, *batch: NewEntry) -> None:
    """Append entries."""
    appending = Appending(SETTINGS, Keeping(SETTINGS), functions.partitions)
    calls = [
        functions.pack(
            "append", functions.partitions.of(new.topic), "node", 1, at, *appending.args(new)
        )
        for at, new in enumerate(batch)
    ]
    replies = await functions.call_all(calls)
    assert {reply[0] for reply in replies} <= {b"a", b"d"}


def disowning(functions: Functions) -> Disowning:
    async def find(topic: str, key: str) -> Sequence[Found]:
        window = round(WINDOW_S * 1e6)
        found = await functions.call("find", topic, topic, id_of(topic, key), window)
        return [Found(name.decode(), at) for name, at in zip(*[iter(found)] * 2, strict=True)]

    return Disowning(functions, SETTINGS, find)


def entry(topic: str, publisher: str, key: str, producer: str = "", seq: int = 0) -> NewEntry:
    return NewEntry(topic, publisher, key, b"{}", producer=producer, seq=seq)


def test_a_key_is_found_in_every_topic(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            batch = [entry(f"pov/{n % 50}", "p", f"key {n}") for n in range(1500)]
            # Of ids of before this window as well.
            functions.now = lambda: round(WINDOW_S * 1e6 * 7.9)
            await append(functions, *batch, entry("pov/9", "q", "wanted"))
            functions.now = lambda: round(WINDOW_S * 1e6 * 8.1)
            await append(functions, entry("pov/3", "p", "wanted"), entry("pov/3", "q", "wanted"))
            found = await disowning(functions).locate("wanted")
            assert found == [
                Located("pov/3", "p", 31),
                Located("pov/3", "q", 32),
                Located("pov/9", "q", 31),
            ]
            assert await disowning(functions).locate("want") == []

    asyncio.run(work())


def test_of_a_key_that_all_topics_have_some_places_are_found(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            topics = range(MOST_LOCATED + 20)
            await append(functions, *(entry(f"pov/{n}", "p", "1") for n in topics))
            assert len(await disowning(functions).locate("1")) == MOST_LOCATED

    asyncio.run(work())


def test_ids_and_producers_of_one_publisher_are_forgotten_and_no_others(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            for publisher in ("p", "pp", "q"):
                # The same ids of several publishers stand together.
                numbered = (
                    entry(f"pov/{n % 20}", publisher, str(n), "spool", n // 20 + 1)
                    for n in range(700)
                )
                await append(functions, *numbered)
            mine = disowning(functions)
            assert await mine.disown("p") == 700
            assert await mine.disown("p") == 0
            assert {each.publisher for each in await mine.locate("7")} == {"pp", "q"}
            assert (await functions.call("count", "", 128))[1] == 40
            await append(functions, entry("pov/7", "p", "7", "spool", 1))
            assert {each.publisher for each in await mine.locate("7")} == {"p", "pp", "q"}

    asyncio.run(work())

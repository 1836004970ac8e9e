"""Looking through many topics and entries, whose number is not that of a step."""

from __future__ import annotations

import asyncio

from pov_rt.engine.base import Entry, Match, Page, Top
from pov_rt.engine.redis.past.looking import SEARCHED, Looking
from tests.engine.redis_parts import ask, calling, plant
from tests.redis_servers import RedisServer

A, B, FEED = "pov/a", "pov/b", "team/main"


async def unread(topic: str, after: int, limit: int) -> Page:
    """Fail: nothing is read."""
    raise AssertionError((topic, after, limit))


async def search(looking: Looking, prefix: str, needle: bytes) -> tuple[list[Match], int]:
    """Search to the end; return what was found, and in how many pages."""
    found: list[Match] = []
    after: str | None = ""
    pages = 0
    while after is not None:
        page = await looking.search(prefix, lambda body: needle in body, after)
        found += page.found
        after = page.next
        pages += 1
    return found, pages


def test_each_entry_is_looked_at_once_in_pages(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            number = SEARCHED * 3
            await plant(functions, A, [(b"%d." % n, FEED, n) for n in range(1, number + 1)])
            await plant(functions, FEED, [(b"%d." % n, A, n) for n in range(1, number + 1)])
            await plant(functions, B, [(b"7.", "", 0)], first=40)
            # The source of this one has left its topic.
            await plant(functions, "team/other", [(b"7.", B, 3)])
            for n in range(100):
                await plant(functions, f"pov/{n}", [(b"none", "", 0)])
            looking = Looking(functions, unread)
            found, pages = await search(looking, "", b"7.")
            assert pages >= 3
            assert sorted((each.topic, each.entry.offset) for each in found) == sorted(
                [
                    *((A, n) for n in range(1, number + 1) if n % 10 == 7),
                    (B, 40),
                    ("team/other", 1),
                ]
            )
            assert (await search(looking, B, b""))[0] == [Match(B, Entry(40, b"7.", 0.04, "o"))]

    asyncio.run(work())


def test_large_bodies_are_looked_at_a_few_at_a_time(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            await plant(functions, A, [(b"%d" % n * 100_000, "", 0) for n in range(10)])
            found, _ = await search(Looking(functions, unread), "pov/", b"")
            assert [each.entry.offset for each in found] == list(range(1, 11))

    asyncio.run(work())


def test_topics_are_named_in_pages(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            names = {f"pov/{n}" for n in range(300)}
            for name in (*names, "team/x"):
                await plant(functions, name, [(b"", "", 0)])
            own = functions.partitions.of("pov/watched") + b"m"
            await ask(functions, "HSET", own, "pov/watched", "0 epoch 0123456789ab 1")
            looking = Looking(functions, unread)
            found: list[str] = []
            after: str | None = ""
            pages = 0
            while after is not None:
                page = await looking.topics("pov/", after, 50)
                found += page.names
                after = page.next
                pages += 1
            assert sorted(found) == sorted(names)
            assert pages > 3
            assert (await looking.topics("none")).names == []

    asyncio.run(work())


def test_entries_are_counted_however_few_each_page_has(
    shared_redis: RedisServer, prefix: str
) -> None:
    asked: list[tuple[int, int]] = []

    async def read(topic: str, after: int, limit: int) -> Page:
        asked.append((after, limit))
        entries = [Entry(n, b"%d" % (n % 3), 0.0) for n in range(after + 1, 11)][: min(limit, 4)]
        return Page(Top("e", 10, 1), entries)

    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            looking = Looking(functions, read)
            tally = await looking.tally(A, 2, 9, lambda body: body)
            assert (dict(tally.counts), tally.size) == ({b"0": 3, b"1": 2, b"2": 3}, 8)
            assert asked == [(1, 8), (5, 4)]
            assert (await looking.tally(A, 9, 99, bytes)).size == 2

    asyncio.run(work())

"""Reading logs in steps, over changes of their epoch, and what is left of entries in a feed."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.config.settings import PovSettings
from pov_rt.engine.base import NewEntry, Position
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis import log as module
from pov_rt.engine.redis.layout import Partitions
from pov_rt.runtime.clock import ManualClock
from pov_rt.suites import stub
from tests.engine.redis.engines import FEED, A, B, entries, make, opened
from tests.redis_servers import RedisServer, Start


def test_a_page_of_much_is_read_in_steps(
    shared_redis: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP_BYTES", 1000)

    async def work() -> None:
        async with opened(shared_redis, prefix, max_entries=200) as (engine, _):
            bodies = [b"%d." % n + b"x" * (n % 300) for n in range(1, 301)]
            await engine.log.append(
                [NewEntry(A, "p", str(n), body) for n, body in enumerate(bodies)]
            )
            page = await engine.log.read(A, 0, 1000)
            assert [entry.body for entry in page.entries] == bodies[100:]
            assert [entry.offset for entry in page.entries] == list(range(101, 301))
            assert page.top[1:] == (300, 101)
            page = await engine.log.read(A, 0, 1000, reverse=True)
            assert [entry.body for entry in page.entries] == bodies[:99:-1]
            page = await engine.log.read(A, 150, 70, reverse=True, max_bytes=5000)
            assert [entry.offset for entry in page.entries] == list(
                range(149, 149 - len(page.entries), -1)
            )
            sizes = [len(entry.body) for entry in page.entries]
            assert sum(sizes[:-1]) < 5000 <= sum(sizes)

    asyncio.run(work())


def test_one_entry_larger_than_a_step_is_read(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix) as (engine, _):
            bodies = [bytes([n]) * 3_000_000 for n in range(3)]
            await engine.log.append(
                [NewEntry(A, "p", str(n), body) for n, body in enumerate(bodies)]
            )
            page = await engine.log.read(A, 0, 9)
            assert [entry.body for entry in page.entries] == bodies
            page = await engine.log.read(A, 0, 9, max_bytes=10)
            assert [entry.body for entry in page.entries] == bodies[:1]

    asyncio.run(work())


def test_places_of_many_epochs_are_told_apart(start_redis: Start) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")

    async def work() -> None:
        places: list[tuple[str, int]] = []
        for start in (1, 4, 7):
            async with opened(server) as (engine, _):
                done = await engine.log.append(entries(3, start=start))
                places.append((done[0].epoch, done[-1].offset))
            server.kill()
            server.start()
        async with opened(server) as (engine, _):
            assert [offset for _, offset in places] == [3, 6, 9]
            for epoch, offset in places:
                assert await engine.log.holds(A, Position(epoch, offset))
                assert not await engine.log.holds(A, Position(epoch, offset + 1))
            assert not await engine.log.holds(A, Position("none", 0))
            assert len({epoch for epoch, _ in places} | {(await engine.log.top(A)).epoch}) == 4
            assert (await engine.log.top(A)).offset == 9
            unknown = (await engine.log.top(B)).epoch
            assert await engine.log.holds(B, Position(unknown, 0))

    asyncio.run(work())


def test_a_feed_reads_stubs_of_what_is_too_old_where_it_was_appended(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        engine = make(shared_redis, prefix)
        own = engine.settings
        keeping = Keeping(own, {"a": PovSettings(max_age_s=1e-6)}, stub)
        async with opened(shared_redis, prefix, keeping=keeping) as (engine, _):
            await engine.log.append([*entries(1, feed=FEED), *entries(1, B, feed=FEED)])
            page = await engine.log.read(FEED, 0, 9)
            assert [entry.body for entry in page.entries] == [stub(b"1"), b"1"]
            assert (await engine.log.read(A, 0, 9)).entries == []

    asyncio.run(work())


def test_how_long_a_list_lives_is_said_twice_a_minute(
    shared_redis: RedisServer, prefix: str
) -> None:
    clock, much_s = ManualClock(), 5000
    key = Partitions(prefix, 128).of(A) + b"s:" + A.encode()

    async def work() -> None:
        async with opened(shared_redis, prefix, clock=clock, max_age_s=100.0) as (engine, _):
            told = []
            for number in range(7):
                await engine.log.append([NewEntry(A, "p", str(number), b"{}")])
                told.append(int(shared_redis.command("TTL", key)[1:]) <= 160)
                shared_redis.command("EXPIRE", key, much_s)
                clock.advance(10.0)
            assert told == [True, False, False, True, False, False, True]
            # Where the list has gone meanwhile, the next one is told as the first one was.
            shared_redis.command("DEL", key)
            await engine.log.append([NewEntry(A, "p", "again", b"{}")])
            assert 100 < int(shared_redis.command("TTL", key)[1:]) <= 160

    asyncio.run(work())

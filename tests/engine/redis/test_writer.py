"""What is appended in a turn goes out together, in its order, and is bounded while it waits."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.engine.base import Appended, NewEntry, Room
from pov_rt.engine.redis.client.connection import pack
from pov_rt.engine.redis.writer import MOST_COMMANDS
from pov_rt.protocol.errors import Unavailable
from tests.engine.redis.engines import A, B, appended, entries, opened, until
from tests.redis_servers import RedisServer, Start


def test_what_stands_behind_a_refused_entry_is_not_appended(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix, max_topics=2) as (engine, _):
            await engine.log.append(entries(1, A))
            await engine.log.append([NewEntry(B, "q", "1", b"1")])
            batch = [*entries(1, A, start=2), *entries(1, "pov/c"), *entries(9, A, start=3)]
            with pytest.raises(Unavailable, match="max_topics"):
                await engine.log.append(batch)
            assert (await engine.log.top(A)).offset == 2
            # Others in the same pipeline go on.
            many = [engine.log.append(each) for each in (batch, entries(3, B, start=2))]
            refused, done = await asyncio.gather(*many, return_exceptions=True)
            assert isinstance(refused, Unavailable)
            assert isinstance(done, list)
            assert [each.offset for each in done] == [2, 3, 4]

    asyncio.run(work())


def test_a_batch_of_more_than_a_pipeline_keeps_its_order(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix) as (engine, told):
            await engine.watch(A)
            number = 3 * MOST_COMMANDS + 1
            done = await engine.log.append(entries(number))
            assert [each.offset for each in done] == list(range(1, number + 1))
            assert told.offsets(A) == list(range(1, number + 1))
            assert await engine.log.append([]) == []

    asyncio.run(work())


def test_what_waits_is_bounded_and_given_back(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        async with opened(server, backlog_bytes=10_000) as (engine, _):
            await engine.log.append(entries(1))
            server.stop()
            try:
                waiting = asyncio.ensure_future(engine.log.append(entries(9, start=2)))
                await until(lambda: engine.waiting_bytes > 0)
                with pytest.raises(Unavailable, match="behind with writing"):
                    await engine.log.append(entries(9, start=20))
                other = [NewEntry(A, "q", str(n), b"x" * 1000) for n in range(3)]
                others = asyncio.ensure_future(engine.log.append(other))
                await asyncio.sleep(0)
                (bound,) = (each for each in engine.bounds if each.name == "backlog_bytes")
                assert bound.refused == 1
            finally:
                server.cont()
            assert [each.offset for each in await waiting] == list(range(2, 11))
            assert len(await others) == 3
            assert engine.waiting_bytes == 0

    asyncio.run(work())


def test_a_caller_that_is_cancelled_leaves_what_it_appended(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        async with opened(server) as (engine, _):
            first = asyncio.ensure_future(engine.log.append(entries(5)))
            second = asyncio.ensure_future(engine.log.append(entries(5, start=6)))
            await asyncio.sleep(0)
            first.cancel()
            assert [each.offset for each in await second] == [6, 7, 8, 9, 10]
            (again,) = await engine.log.append(entries(1))
            assert again == Appended(again.epoch, 1, duplicate=True)

    asyncio.run(work())


def test_signals_are_dropped_and_counted_where_they_cannot_go(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        async with opened(server) as (engine, _), opened(server, node="node-2") as (other, told):
            await other.watch(A)
            for _ in range(3):
                engine.signals.send(A, b"x" * 1_000_000)
            assert engine.writer.dropped == 1
            await until(lambda: len(told.signals) == 2)
            server.kill()
            await until(lambda: engine.health().state == "degraded")
            engine.signals.send(A, b"x")
            assert engine.writer.dropped == 2
            server.start()
            await appended(engine, entries(1)[0])

    asyncio.run(work())


def test_a_kind_of_signals_that_has_no_room_leaves_others_theirs(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with (
            opened(shared_redis, prefix) as (engine, _),
            opened(shared_redis, prefix, node="node-2") as (other, told),
        ):
            await other.watch(A)
            send = engine.signals.send
            for room in (Room.USERS, Room.LETTERS):
                half = bytes(room.value // 2 + 1)
                assert [send(A, half, room=room) for _ in range(3)] == [True, True, False]
            assert send(A, b"order", room=Room.ORDERS)
            assert engine.writer.dropped == 2
            await until(lambda: len(told.signals) == 5)
            assert told.signals[-1] == (A, b"order", "")
            assert send(A, b"more", room=Room.LETTERS), "room is given back"
            await until(lambda: len(told.signals) == 6)

    asyncio.run(work())


def test_what_was_accepted_is_finished_before_it_closes(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix) as (engine, _):
            waiting = asyncio.ensure_future(engine.log.append(entries(1000)))
            await asyncio.sleep(0)
            await engine.close()
            assert len(await waiting) == 1000
            with pytest.raises(Unavailable, match="closed"):
                await engine.log.append(entries(1))
        async with opened(shared_redis, prefix) as (engine, _):
            assert (await engine.log.top(A)).offset == 1000
            (reply,) = await engine.functions.link.send(pack("ECHO", "x"), 1)
            assert reply == b"x"

    asyncio.run(work())

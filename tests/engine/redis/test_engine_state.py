"""What is beside the logs outlives a crash of Redis with them."""

from __future__ import annotations

import asyncio

from pov_rt.engine.base import Amended, Amendment, NewEntry, Position, Rewrite
from tests.engine.redis.engines import FEED, A, B, appended, entries, opened
from tests.redis_servers import Start


def test_what_is_beside_the_logs_is_there_after_a_crash(start_redis: Start) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")

    async def work() -> None:
        async with opened(server) as (engine, _):
            (first, *_rest) = await engine.log.append(entries(3, feed=FEED))
            await engine.marks.advance(A, "ana", "read", Position(first.epoch, 2))
            await engine.sets.add("durable", "ana", b"x")
            await engine.store.put("poll", "votes", b"1", "ana")
            await engine.leases.put("here/a", "ana", b"here")
            server.kill()
            server.start()
            again = await appended(engine, entries(1)[0])
            assert again.epoch != first.epoch
            assert await engine.marks.get(A, "ana", "read") == (again.epoch, 2)
            # Positions of before the crash are compared as those of after it.
            old, new = Position(first.epoch, 1), Position(again.epoch, 3)
            assert await engine.marks.advance(A, "ana", "read", old) == (again.epoch, 2)
            assert await engine.marks.advance(A, "ana", "read", new) == new
            assert await engine.sets.members("durable") == {"ana": b"x"}
            assert await engine.store.owned("ana") == [("poll", "votes", b"1")]
            assert [each.body for each in await engine.leases.members("here/a")] == [b"here"]
            assert not await engine.leases.put("here/a", "ana", b"again")
            change = NewEntry("", "p", "change", b"change")
            done = await engine.log.amend(Amendment(Rewrite(A, 1, b"1", b"one"), change))
            assert isinstance(done, Amended)
            assert (done.place.epoch, done.place.offset, done.feed) == (again.epoch, 4, FEED)
            assert [each.body for each in (await engine.log.read(FEED, 0, 9)).entries] == [
                b"one",
                b"2",
                b"3",
                b"change",
            ]

    asyncio.run(work())


def test_what_is_dropped_stays_dropped_after_a_crash(start_redis: Start) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")

    async def work() -> None:
        async with opened(server) as (engine, _):
            (first, *_rest) = await engine.log.append(entries(120, feed=FEED))
            await engine.marks.advance(A, "ana", "read", Position(first.epoch, 2))
            await engine.log.drop(A, lambda body: b"-" + body)
            server.kill()
            server.start()
            await appended(engine, entries(1, topic=B)[0])
            assert (await engine.log.top(A)).offset == 0
            assert not await engine.log.holds(A, Position(first.epoch, 1))
            assert await engine.marks.of("ana") == []
            found = (await engine.log.read(FEED, 0, 200)).entries
            assert [each.body for each in found] == [b"-%d" % n for n in range(1, 121)]
            again = await appended(engine, entries(1)[0])
            assert (again.offset, again.duplicate) == (1, False)

    asyncio.run(work())

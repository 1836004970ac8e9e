"""Marks in Redis: what is bounded, what is forgotten, and what is left behind: nothing."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Position
from pov_rt.engine.redis.state.marks import RedisMarks
from pov_rt.protocol.errors import Unavailable
from tests.engine.redis_parts import ManualClock, ask, calling, keys
from tests.redis_servers import RedisServer, Start

DAY_S = 86400.0
AT = Position("e", 1)


def test_marks_of_all_nodes_are_bounded_together(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        settings = EngineSettings(max_marks=20, marks_per_user=2)
        async with calling(shared_redis, prefix) as one, calling(shared_redis, prefix) as two:
            here, there = RedisMarks(one, settings), RedisMarks(two, settings)
            for number in range(10):
                await here.advance(f"pov/{number}", f"user-{number}", "read", AT)
                await there.advance(f"pov/{number}", f"user-{number}", "seen", AT)
            assert there.rules.number == 20
            for marks in (here, there):
                with pytest.raises(Unavailable, match="max_marks"):
                    await marks.advance("pov/1", "late", "read", AT)
            # One that has as many as one may have puts a new one in the place of an old one.
            await here.advance("pov/new", "user-1", "read", AT)
            assert here.rules.number == 20
            assert await there.drop_user("user-1") == 2
            await here.advance("pov/1", "late", "read", AT)
            await here.count()
            await there.count()
            assert here.rules.number == there.rules.number == 19

    asyncio.run(work())


def test_marks_that_go_leave_nothing(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            marks = RedisMarks(functions, EngineSettings())
            for topic in ("pov/a", "pov/b", "pov/c"):
                for user in ("ana", "ben"):
                    for name in ("read", "acked:12:x", "acked:*"):
                        await marks.advance(topic, user, name, AT)
            await marks.drop("pov/a", "ana", "read")
            await marks.drop_all("ana", "acked:*")
            await marks.drop_topic("pov/b")
            assert [each[:2] for each in await marks.of("ana")] == [
                ("pov/a", "acked:12:x"),
                ("pov/c", "acked:12:x"),
                ("pov/c", "read"),
            ]
            assert await marks.drop_user("ana") == 3
            assert await marks.drop_user("ben") == 6
            assert marks.rules.number == 0
            left = await keys(functions, prefix)
            assert set(left) == {b"wn"}, "counters, which are 0"

    asyncio.run(work())


def test_many_marks_are_walked_in_steps(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            marks = RedisMarks(functions, EngineSettings())
            users = [f"user-{number}" for number in range(1500)]
            await asyncio.gather(*(marks.advance("pov/a", user, "read", AT) for user in users))
            topics = [f"pov/{number}" for number in range(700)]
            await asyncio.gather(*(marks.advance(topic, "ana", "read", AT) for topic in topics))
            assert await marks.all("pov/a", "read") == dict.fromkeys(users, AT)
            await marks.carry("pov/a", "read", AT, Position("e", 2))
            assert set((await marks.all("pov/a", "read")).values()) == {Position("e", 2)}
            assert [topic for topic, _, _ in await marks.of("ana")] == sorted(topics)
            await marks.drop_topic("pov/a")
            assert await marks.all("pov/a", "read") == {}
            assert await marks.drop_user("ana") == 700
            assert marks.rules.number == 0

    asyncio.run(work())


def test_marks_that_nobody_uses_leave_redis(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with calling(shared_redis, prefix, clock) as functions:
            marks = RedisMarks(functions, EngineSettings(mark_age_s=10 * DAY_S, max_age_s=1.0))
            for number in range(300):
                await marks.advance(f"pov/{number}", "ana", "read", AT)
                await marks.advance("pov/a", f"user-{number}", "read", AT)
            clock.advance(8 * DAY_S)
            assert await marks.get("pov/7", "ana", "read") == AT
            await marks.tidy()
            assert marks.rules.number == 600
            clock.advance(3 * DAY_S)
            await marks.tidy()
            assert marks.rules.number == 1
            assert await marks.of("ana") == [("pov/7", "read", AT)]
            clock.advance(8 * DAY_S)
            await marks.tidy()
            assert set(await keys(functions, prefix)) == {b"wn"}

    asyncio.run(work())


def test_a_mark_goes_over_to_a_new_epoch_while_the_log_holds_it(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            marks = RedisMarks(functions, EngineSettings())
            topic = "pov/a"
            for user, epoch, offset in (
                ("ana", "e1", 5),
                ("ben", "e1", 6),
                ("cem", "e2", 8),
                ("dan", "e2", 9),
                ("eve", "e1-up", 5),
                ("fay", "e3-up", 9),
                ("guy", "e1x", 1),
            ):
                await marks.advance(topic, user, "read", Position(epoch, offset))
            # It left e1 at 7 and e2 at 5, of what it has lost in between: 6 and more are gone.
            state = b"9 e3 0123456789ab 1 e2@5 e1@7"
            await ask(functions, "HSET", functions.partitions.of(topic) + b"m", topic, state)
            assert await marks.all(topic, "read") == {
                "ana": ("e3", 5),
                "ben": ("e1", 6),
                "cem": ("e2", 8),
                "dan": ("e2", 9),
                "eve": ("e3-up", 5),
                "fay": ("e3-up", 9),
                "guy": ("e1x", 1),
            }
            assert await marks.get(topic, "ana", "read") == ("e3", 5)
            assert await marks.of("eve") == [(topic, "read", ("e3-up", 5))]
            assert await marks.advance(topic, "ana", "read", Position("e2", 4)) == ("e3", 5)
            assert await marks.advance(topic, "ana", "read", Position("e3", 6)) == ("e3", 6)
            assert await marks.advance(topic, "ben", "read", Position("e2", 2)) == ("e3", 2)
            await marks.carry(topic, "read", Position("e1", 2), Position("e1", 3))
            assert await marks.get(topic, "ben", "read") == ("e3", 3)

    asyncio.run(work())


def test_a_mark_is_had_where_its_use_cannot_be_written_down(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        clock = ManualClock()
        async with calling(server, "pr", clock) as functions:
            marks = RedisMarks(functions, EngineSettings(mark_age_s=10 * DAY_S))
            await marks.advance("pov/a", "ana", "read", AT)
            clock.advance(5 * DAY_S)
            # Redis takes no changes while it has no replica.
            await ask(functions, "CONFIG", "SET", "min-replicas-to-write", 1)
            assert await marks.get("pov/a", "ana", "read") == AT
            with pytest.raises(Unavailable, match="NOREPLICAS"):
                await marks.advance("pov/a", "ana", "read", AT)
            clock.advance(4 * DAY_S)
            await ask(functions, "CONFIG", "SET", "min-replicas-to-write", 0)
            assert await marks.get("pov/a", "ana", "read") == AT
            clock.advance(9 * DAY_S)
            assert await marks.get("pov/a", "ana", "read") == AT, "that use was written down"

    asyncio.run(work())

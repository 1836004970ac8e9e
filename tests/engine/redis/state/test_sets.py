"""Sets in Redis: many members, many sets, and what has expired."""

from __future__ import annotations

import asyncio

from pov_rt.engine.base import NewMember
from pov_rt.engine.redis.state.sets import RedisSets
from tests.engine.redis_parts import ManualClock, calling, keys
from tests.redis_servers import RedisServer


def test_many_members_and_sets_are_walked_in_steps(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            sets = RedisSets(functions)
            members = {f"m{number}": b"%d" % number for number in range(2000)}
            await sets.update([NewMember("big", name, body) for name, body in members.items()])
            assert await sets.members("big") == members
            names = [f"f*[{number}" for number in range(2000)]
            await sets.update([NewMember(name, "ana") for name in names])
            await sets.add("f*", "ana")
            await sets.add("fx[1", "ana")
            assert await sets.having("ana", "f*[") == sorted(names)
            assert await sets.drop("big") == 2000

    asyncio.run(work())


def test_expired_members_leave_redis_and_the_others_stay(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        clock = ManualClock()
        now = clock.time()
        async with calling(shared_redis, prefix, clock) as functions:
            sets = RedisSets(functions)
            await sets.update(
                [
                    *(NewMember("mixed", f"m{number}", b"", now + number) for number in range(900)),
                    NewMember("mixed", "stays"),
                    NewMember("short", "a", b"", now + 5),
                    NewMember("long", "a", b"", now + 5000),
                    NewMember("long", "a", b"", now + 1000),
                ]
            )
            clock.advance(500)
            assert len(await sets.members("mixed")) == 400
            await sets.tidy()
            assert set(await keys(functions, prefix)) == {b"x:mixed", b"x:long", b"xs"}
            assert await sets.drop("mixed") == 400
            assert set(await sets.members("long")) == {"a"}
            clock.advance(500)
            await sets.tidy()
            assert await keys(functions, prefix) == []

    asyncio.run(work())

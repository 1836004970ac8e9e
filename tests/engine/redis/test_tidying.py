"""What nothing needs leaves; one node looks for it, and only once an hour."""

from __future__ import annotations

import asyncio

from pov_rt.engine.base import NewEntry
from pov_rt.runtime.clock import ManualClock
from tests.engine.redis.engines import WAIT_S, A, B, opened, until
from tests.redis_servers import RedisServer

HOUR_S = 3601.0


def test_one_of_many_nodes_looks_once_an_hour(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        clock = ManualClock()
        more = {"clock": clock, "max_age_s": 10.0, "id_window_s": 10.0, "producer_age_s": 20.0}
        async with (
            opened(shared_redis, prefix, **more) as (one, _),
            opened(shared_redis, prefix, node="node-2", **more) as (two, _),
        ):
            used = {bound.name: bound for bound in two.bounds}
            await one.log.append([NewEntry(A, "p", "1", b"", producer="spool", seq=3)])
            await one.log.append([NewEntry(B, "p", "1", b"")])
            clock.advance(HOUR_S)
            await two.log.top(A)
            async with asyncio.timeout(WAIT_S):
                while (await two.log.topics("")).names:  # noqa: ASYNC110  (it tells nobody)
                    await asyncio.sleep(0.01)
            await until(lambda: used["producers"].used() == used["topics"].used() == 0)
            # A round has just been made: the other one only counts.
            await two.log.append([NewEntry(B, "p", "1", b"")])
            await one.log.top(A)
            await until(lambda: {each.name: each.used() for each in one.bounds}["topics"] == 1)
            (done,) = await one.log.append([NewEntry(A, "p", "2", b"", producer="spool", seq=1)])
            assert done.offset == 1

    asyncio.run(work())


def test_near_the_bound_it_is_looked_for_at_once(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        clock = ManualClock()
        more = {"clock": clock, "max_age_s": 10.0, "id_window_s": 10.0, "max_topics": 4}
        async with opened(shared_redis, prefix, **more) as (engine, _):
            for n in range(4):
                await engine.log.append([NewEntry(f"pov/{n}", f"p{n}", "1", b"")])
            clock.advance(11)
            await engine.log.top(A)
            (bound,) = (each for each in engine.bounds if each.name == "topics")
            await until(lambda: bound.used() == 0)

    asyncio.run(work())

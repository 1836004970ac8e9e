"""A walk finds all that is there, in however many steps."""

from __future__ import annotations

import asyncio

from pov_rt.engine.redis.client.walking import WIDTH, walk
from tests.engine.redis_parts import ask, calling
from tests.redis_servers import RedisServer


def test_all_steps_of_all_partitions_are_taken(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            prefixes = functions.partitions.all[: WIDTH * 2 + 1]
            for number, partition in enumerate(prefixes):
                for start in range(0, number * 100, 100):
                    members = (b"%d %d" % (number, n) for n in range(start, start + 100))
                    fields = [part for each in members for part in (each, b"0 body")]
                    await ask(functions, "HSET", partition + b"x:set", *fields)
            found: dict[bytes, set[bytes]] = {partition: set() for partition in prefixes}
            steps = 0
            async for partition, page in walk(functions, "sets_members", prefixes, "set"):
                found[partition] |= set(page[::3])
                steps += 1
            assert steps > len(prefixes)
            for number, partition in enumerate(prefixes):
                assert found[partition] == {b"%d %d" % (number, n) for n in range(number * 100)}

    asyncio.run(work())

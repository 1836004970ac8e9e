"""Signals reach the other nodes that watch, byte for byte, and nobody else."""

from __future__ import annotations

import asyncio

from tests.engine.redis.engines import A, B, entries, opened, until
from tests.redis_servers import RedisServer


def test_signals_reach_the_other_nodes_that_watch(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with (
            opened(shared_redis, prefix) as (engine, told),
            opened(shared_redis, prefix, node="node-2") as (two, second),
            opened(shared_redis, prefix, node="node-3") as (three, third),
        ):
            await engine.watch(A)
            await two.watch(A)
            await three.watch(B)
            bodies = (b"", b"\0a\0b", bytes(range(256)))
            for body in bodies:
                engine.signals.send(A, body, "origin:é")
            engine.signals.send(B, b"last")
            await until(lambda: len(second.signals) == 3 and len(third.signals) == 1)
            assert second.signals == [(A, body, "origin:é") for body in bodies]
            assert third.signals == [(B, b"last", "")]
            await engine.log.append(entries(1))
            assert told.signals == []

    asyncio.run(work())

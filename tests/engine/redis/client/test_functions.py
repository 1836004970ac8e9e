"""Functions are called by name, and come back when Redis has lost them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pov_rt.engine.redis.client.address import parse_address
from pov_rt.engine.redis.client.connection import ServerError
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.library import library
from pov_rt.engine.redis.client.link import Link
from pov_rt.engine.redis.layout import Partitions
from tests.redis_servers import RedisServer, Start

WAIT_S = 20.0


@asynccontextmanager
async def functions(server: RedisServer, prefix: str) -> AsyncIterator[Functions]:
    link = Link(parse_address(server.url), "test", WAIT_S, library().load)
    link.start()
    try:
        yield Functions(link, Partitions(prefix, 16))
    finally:
        await link.close()


def test_a_function_is_called_and_loaded_again_when_it_is_gone(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with functions(shared_redis, prefix) as called:
            run, now = await called.call("probe", "pov/a")
            assert len(run) == 12
            assert int(now) > 1_700_000_000_000_000
            shared_redis.command("FUNCTION", "FLUSH")
            calls = [called.pack("probe", called.partitions.of(str(n))) for n in range(9)]
            found = await called.call_all(calls)
            assert [each[0] for each in found] == [run] * 9
            called.now = lambda: 1_800_000_000_123_456
            assert await called.call("probe", "pov/a") == [run, b"1800000000123456"]
            with pytest.raises(ServerError, match="Function not found"):
                await called.call("none", "pov/a")

    asyncio.run(work())


def test_calls_go_on_when_redis_comes_back_with_another_process(
    start_redis: Start,
) -> None:
    server = start_redis()

    async def work() -> None:
        async with functions(server, "pr") as called:
            first = await called.call("probe", "pov/a")
            server.kill()
            server.start()
            again = await called.call("probe", "pov/a")
            assert first[0] != again[0]
            assert called.link.losses == 1

    asyncio.run(work())


def test_where_a_log_has_no_epoch_of_this_process_who_only_reads_has_it_begin_one(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with functions(shared_redis, prefix) as called:
            assert await called.call("top", "pov/a", "pov/a", 10, 10) is None
            epoch, offset, oldest, _ = await called.ask("top", "pov/a", 10, 10)
            assert (len(epoch), offset, oldest) == (20, 0, 1)

    asyncio.run(work())

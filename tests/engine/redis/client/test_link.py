"""A connection comes back by itself, and whoever needs it is told in time why it is not there."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.engine.redis.client.address import Address, parse_address
from pov_rt.engine.redis.client.connection import Away, Connection, pack
from pov_rt.engine.redis.client.link import Link
from pov_rt.protocol.errors import Unavailable
from tests.redis_servers import RedisServer, Start

WAIT_S = 20.0


class Prepared:
    """Counts the connections that were prepared."""

    def __init__(self) -> None:
        self.number = 0

    async def __call__(self, connection: Connection) -> None:
        await connection.call("PING")
        self.number += 1


def test_each_new_connection_is_prepared_and_what_waited_is_repeated(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        prepared = Prepared()
        link = Link(parse_address(server.url), "test", WAIT_S, prepared)
        link.start()
        try:
            await link.ready(WAIT_S)
            blocked = asyncio.create_task(link.send(pack("BLPOP", "list", 0), 1))
            once = asyncio.create_task(link.send(pack("BLPOP", "list", 0), 1, repeats=False))
            await asyncio.sleep(0)
            server.kill()
            with pytest.raises(Away):
                await once
            server.start()
            assert server.command("RPUSH", "list", "value") == b":1\r\n"
            assert await blocked == [[b"list", b"value"]]
            assert (prepared.number, link.losses, link.problem) == (2, 1, "")
        finally:
            await link.close()
        with pytest.raises(Away, match="closed"):
            await link.ready(WAIT_S)

    asyncio.run(work())


def test_a_server_that_only_reads_is_left(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        link = Link(parse_address(server.url), "test", WAIT_S, Prepared())
        left: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        link.on_lost = left.set_result
        link.start()
        try:
            await link.send(pack("SET", "a", "b"), 1)
            server.command("REPLICAOF", "127.0.0.1", "1")
            await link.send(pack("SET", "a", "c"), 1)
            assert "READONLY" in await asyncio.wait_for(left, WAIT_S)
        finally:
            await link.close()

    asyncio.run(work())


def test_nobody_waits_for_long_where_there_is_no_redis() -> None:
    async def work() -> None:
        link = Link(Address("127.0.0.1", 1), "test", 0.05, Prepared())
        link.start()
        await link.tried()
        with pytest.raises(Unavailable, match=r"Redis at 127\.0\.0\.1:1 cannot be reached"):
            await link.send(pack("PING"), 1)
        await link.close()
        await link.close()

    asyncio.run(work())


def test_what_waits_is_bounded(start_redis: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pov_rt.engine.redis.client.link.MOST_WAITING", 2)
    server: RedisServer = start_redis()

    async def work() -> None:
        link = Link(parse_address(server.url), "test", WAIT_S, Prepared())
        link.start()
        try:
            blocked = asyncio.create_task(link.send(pack("BLPOP", "list", 0) * 2, 2))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="as many as may wait"):
                await link.send(pack("PING"), 1)
            blocked.cancel()
        finally:
            await link.close()

    asyncio.run(work())

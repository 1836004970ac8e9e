"""One connection: replies come to who asked, whatever happens to the others."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pov_rt.engine.redis.client.address import Address, parse_address
from pov_rt.engine.redis.client.connection import Away, Connection, ServerError, connect, pack
from tests.engine.redis.certificates import make_certificate
from tests.redis_servers import RedisServer, Start, free_port

WAIT_S = 20.0


@asynccontextmanager
async def connected(server: RedisServer, deadline_s: float = WAIT_S) -> AsyncIterator[Connection]:
    address = Address("127.0.0.1", server.port)
    connection = await connect(address, deadline_s, "test", WAIT_S)
    try:
        yield connection
    finally:
        await connection.close()


def test_replies_come_in_order_refusals_among_them(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with connected(shared_redis) as connection:
            commands = [
                pack("RPUSH", prefix, b"\0\r\n", "é", 7),
                pack("GET", prefix),
                pack("LRANGE", prefix, 0, -1),
                pack("GET", f"{prefix}-none"),
            ]
            many, one = await asyncio.gather(
                connection.send(b"".join(commands), len(commands)), connection.call("ECHO", "x")
            )
            assert (many[0], one) == (3, b"x")
            assert isinstance(many[1], ServerError)
            assert many[1].code == "WRONGTYPE"
            assert many[2:] == [[b"\0\r\n", "é".encode(), b"7"], None]
            with pytest.raises(ServerError, match="unknown command"):
                await connection.call("NONESUCH")

    asyncio.run(work())


def test_who_is_cancelled_takes_no_reply_from_another(shared_redis: RedisServer) -> None:
    async def work() -> None:
        async with connected(shared_redis) as connection:
            calls = [asyncio.create_task(connection.call("ECHO", at)) for at in range(100)]
            await asyncio.sleep(0)  # all of them have been sent
            for call in calls[::3]:
                call.cancel()
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert [at for at, each in enumerate(done) if each == b"%d" % at] == [
                at for at in range(100) if at % 3
            ]
            assert await connection.call("ECHO", "later") == b"later"

    asyncio.run(work())


def test_a_server_that_says_nothing_is_left_and_who_waits_learns_why(
    start_redis: Start,
) -> None:
    server = start_redis()

    async def work() -> None:
        async with connected(server, deadline_s=0.2) as connection:
            server.stop()
            try:
                waiting = asyncio.gather(
                    *(connection.call("PING") for _ in range(3)), return_exceptions=True
                )
                done = await asyncio.wait_for(waiting, WAIT_S)
            finally:
                server.cont()
            assert [str(each) for each in done] == ["Redis did not answer for 0.2 s"] * 3
            assert all(isinstance(each, Away) for each in done)
            assert not connection.is_open
            with pytest.raises(Away, match=r"did not answer for 0\.2 s"):
                await connection.call("PING")

    asyncio.run(work())


def test_a_server_that_dies_fails_who_waits(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        async with connected(server) as connection:
            blocked = asyncio.create_task(connection.call("BLPOP", "none", 0))
            await asyncio.sleep(0)
            server.kill()
            with pytest.raises(Away):
                await asyncio.wait_for(blocked, WAIT_S)
            assert await connection.ended()

    asyncio.run(work())


def test_a_password_lets_in_and_another_does_not(start_redis: Start) -> None:
    server = start_redis("--requirepass", "secret")

    async def work() -> None:
        place = Address("127.0.0.1", server.port, password="secret", database=3)
        connection = await connect(place, WAIT_S, "test", WAIT_S)
        assert b"db=3" in await connection.call("CLIENT", "INFO")
        await connection.close()
        for password in ("", "other"):
            wrong = Address("127.0.0.1", server.port, password=password)
            with pytest.raises(ServerError, match=r"NOAUTH|WRONGPASS"):
                await connect(wrong, WAIT_S, "test", WAIT_S)

    asyncio.run(work())


def test_nobody_listens_or_what_listens_is_no_redis() -> None:
    async def work() -> None:
        with pytest.raises(Away, match=r"Redis at 127\.0\.0\.1:1 cannot be reached"):
            await connect(Address("127.0.0.1", 1), 1.0, "test", WAIT_S)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            await reader.read()
            writer.close()
            await writer.wait_closed()

        other = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with other:
            port = other.sockets[0].getsockname()[1]
            with pytest.raises(Away, match="what answers is no Redis"):
                await connect(Address("127.0.0.1", port), 1.0, "test", WAIT_S)

    asyncio.run(work())


def test_a_connection_is_encrypted_and_trusts_whom_it_is_told_to(
    start_redis: Start, tmp_path: Path
) -> None:
    certificate, key = make_certificate(tmp_path)
    port = free_port()
    start_redis(
        "--tls-port", str(port), "--tls-auth-clients", "no",
        "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
        "--tls-ca-cert-file", str(certificate),
    )  # fmt: skip

    async def work() -> None:
        address = parse_address(f"rediss://127.0.0.1:{port}", str(certificate))
        connection = await connect(address, WAIT_S, "test", WAIT_S)
        assert await connection.call("ECHO", "x") == b"x"
        await connection.close()
        with pytest.raises(Away, match="certificate"):
            await connect(parse_address(f"rediss://127.0.0.1:{port}"), WAIT_S, "test", WAIT_S)

    asyncio.run(work())


def test_a_handshake_that_fails_leaves_nothing_for_the_collector(tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path)

    async def work() -> None:
        def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            address = parse_address(f"rediss://127.0.0.1:{port}", str(certificate))
            gc.collect()
            gc.disable()
            try:
                before = count_contexts()
                for _ in range(5):
                    with pytest.raises(Away, match="cannot be reached"):
                        await connect(address, WAIT_S, "test", WAIT_S)
                assert count_contexts() == before
            finally:
                gc.enable()

    asyncio.run(work())


def count_contexts() -> int:
    return sum(isinstance(each, ssl.SSLContext) for each in gc.get_objects())

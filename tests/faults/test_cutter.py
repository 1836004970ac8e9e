"""What goes through a network that is cut, far away or lossy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest

from tests.engine.redis.engines import until
from tests.faults.cutter import Cutter

FAR_S = 0.2
Echo = tuple[Cutter, asyncio.StreamReader, asyncio.StreamWriter, list[bytes]]


@asynccontextmanager
async def echoing() -> AsyncIterator[Echo]:
    """Connect through a cutter to who notes what comes, and says the same."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                came.append(data)
                writer.write(data)
        except ConnectionResetError:
            came.append(b"reset")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    cutter = Cutter(server.sockets[0].getsockname()[1], Random(1))
    await cutter.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", cutter.port)
    try:
        yield cutter, reader, writer, came
    finally:
        writer.transport.abort()
        cutter.close()
        server.close()


def ran(work: Callable[[Echo], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30), echoing() as echo:
            await work(echo)

    asyncio.run(run())


@pytest.mark.parametrize("to_redis", [True, False])
def test_what_is_sent_into_a_cut_arrives_when_it_is_healed(*, to_redis: bool) -> None:
    async def work(echo: Echo) -> None:
        cutter, reader, writer, came = echo
        writer.write(b"1")
        assert await reader.read(9) == b"1"
        cutter.cut(to_redis=to_redis, from_redis=not to_redis)
        writer.write(b"2")
        answer = asyncio.create_task(reader.read(9))
        await asyncio.wait([answer], timeout=0.1)
        assert not answer.done()
        if to_redis:
            assert came == [b"1"]
        else:
            await until(lambda: came == [b"1", b"2"])
        cutter.cut(to_redis=False, from_redis=False)
        assert await answer == b"2"

    ran(work)


def test_nobody_is_connected_through_a_cut() -> None:
    async def work(echo: Echo) -> None:
        cutter, *_, came = echo
        cutter.cut(to_redis=True, from_redis=False)
        reader, writer = await asyncio.open_connection("127.0.0.1", cutter.port)
        writer.write(b"x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(9), 0.1)
        assert came == []
        writer.transport.abort()

    ran(work)


def test_what_is_far_away_comes_later_and_in_order() -> None:
    async def work(echo: Echo) -> None:
        cutter, reader, writer, _ = echo
        cutter.slow(FAR_S, 0.5)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for at in range(20):
            writer.write(b"%02d" % at)
            await asyncio.sleep(0)
        assert await reader.readexactly(40) == b"".join(b"%02d" % at for at in range(20))
        assert loop.time() - begun >= 2 * FAR_S

    ran(work)


def test_a_reset_ends_both_sides() -> None:
    async def work(echo: Echo) -> None:
        cutter, reader, writer, came = echo
        writer.write(b"1")
        assert await reader.read(9) == b"1"
        cutter.reset()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        await until(lambda: came[-1] == b"reset")
        assert cutter.pairs == {}

    ran(work)

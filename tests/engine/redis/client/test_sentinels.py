"""The primary is where a majority of the sentinels say, by the latest failover among them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pov_rt.config.settings import RedisSettings
from pov_rt.engine.redis.client.address import Address, parse_address
from pov_rt.engine.redis.client.connection import Away, connect
from pov_rt.engine.redis.client.sentinels import Sentinels, parse_place
from tests.engine.redis.engines import WAIT_S, until
from tests.redis_sentinels import NAME, Sentinel
from tests.redis_servers import RedisServer, Start, free_port


class Starter:
    """Starts sentinels that watch a primary."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack

    def __call__(self, primary: RedisServer, *settings: str) -> Sentinel:
        """Start one."""
        folder = self._folder / f"sentinel{free_port()}"
        sentinel = Sentinel(primary.program, folder, primary, *settings)
        self._stack.callback(sentinel.kill)
        sentinel.start()
        return sentinel


@pytest.fixture
def start_sentinel(tmp_path: Path) -> Iterator[Starter]:
    """Return what starts sentinels of the test's own."""
    with ExitStack() as stack:
        yield Starter(tmp_path, stack)


@asynccontextmanager
async def asking(*ports: int, name: str = NAME, password: str = "") -> AsyncIterator[Sentinels]:
    """Ask the sentinels at some ports for the block."""
    places = ",".join(f"127.0.0.1:{port}" for port in ports)
    url = f"redis+sentinel://app:secret@{places}/{name}/3"
    sentinels = parse_place(url, RedisSettings(sentinel_password=password), "node")
    assert isinstance(sentinels, Sentinels)
    sentinels.start()
    try:
        yield sentinels
    finally:
        await sentinels.close()


def test_it_is_where_the_latest_failover_left_it(
    start_redis: Start, start_sentinel: Starter
) -> None:
    old, new = start_redis(), start_redis()
    behind = [start_sentinel(old) for _ in range(2)]
    ahead = start_sentinel(new, f"sentinel config-epoch {NAME} 7")

    async def work() -> None:
        async with asking(*(each.port for each in (*behind, ahead))) as sentinels:
            moves: list[str] = []
            sentinels.on_moved = moves.append
            address = await sentinels.find()
            assert address == Address(
                "127.0.0.1", new.port, False, "app", "secret", 3, must_lead=True
            )
            assert sentinels.is_now(address)
            # Who calls another one the primary may make that one lead again.
            named = sorted(list(view) for view in sentinels.views)
            assert named == [[], *[[f"127.0.0.1:{old.port}"]] * 2]
            # Nobody asks any more: it finds out by itself.
            ahead.kill()
            await until(lambda: bool(moves))
            assert moves == [f"the primary of {NAME} is at 127.0.0.1:{old.port} now"]
            assert not sentinels.is_now(address)
            assert sentinels.problem == ""

    asyncio.run(work())


def test_without_a_majority_nothing_is_known(start_redis: Start, start_sentinel: Starter) -> None:
    one = start_sentinel(start_redis())

    async def work() -> None:
        async with asking(one.port, free_port(), free_port()) as sentinels:
            with pytest.raises(Away, match=rf"1 of 3 sentinels say where the primary of {NAME} is"):
                await sentinels.find()
            assert "2 have to: Redis at 127.0.0.1" in sentinels.problem
        async with asking(one.port, name="other") as sentinels:
            with pytest.raises(Away, match="No such master with that name"):
                await sentinels.find()

    asyncio.run(work())


def test_sentinels_have_a_password_of_their_own(
    start_redis: Start, start_sentinel: Starter
) -> None:
    primary = start_redis()
    one = start_sentinel(primary, "requirepass hunter2")

    async def work() -> None:
        async with asking(one.port) as sentinels:
            with pytest.raises(Away, match="NOAUTH"):
                await sentinels.find()
        async with asking(one.port, password="hunter2") as sentinels:
            assert (await sentinels.find()).port == primary.port
            assert "hunter2" not in f"{sentinels} {sentinels.where!r}"

    asyncio.run(work())


def test_who_is_called_the_primary_has_to_say_so_itself(start_redis: Start) -> None:
    primary = start_redis()
    replica = start_redis("--replicaof", "127.0.0.1", str(primary.port))

    async def work() -> None:
        leading = replace(parse_address(replica.url), must_lead=True)
        with pytest.raises(Away, match="ought to be the primary, and is a slave"):
            await connect(leading, WAIT_S, "test", WAIT_S)
        leading = replace(parse_address(primary.url), must_lead=True)
        await (await connect(leading, WAIT_S, "test", WAIT_S)).close()

    asyncio.run(work())

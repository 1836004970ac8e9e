"""Nodes hear each other's beats; who hears nothing is deaf only where the others hear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from pov_rt.engine.base import Health
from pov_rt.engine.redis import reader as reader_module
from pov_rt.engine.redis.client.connection import pack
from pov_rt.engine.redis.client.link import Unfit
from pov_rt.engine.redis.engine import RedisEngine
from pov_rt.engine.redis.health import canary as module
from pov_rt.engine.redis.health.canary import BEAT_S, GONE_S, SILENT_S, Canary
from pov_rt.engine.redis.reader import BEAT
from pov_rt.runtime.clock import ManualClock
from tests.engine.redis.engines import A, Heard, entries, make, opened, until
from tests.redis_servers import RedisServer, Start

MESSAGE = b"*3\r\n$7\r\nmessage\r\n"


class Relay:
    """Between a node's ear and Redis: passes on all but what is published, while it is deaf."""

    def __init__(self, server: RedisServer) -> None:
        self._target = server.port
        self.is_deaf = False
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._listener.close()
        for writer in self._writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += (writer, up_writer)
        for source, sink, is_down in ((reader, up_writer, False), (up_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, is_down=is_down))
            self._tasks.add(task)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_down: bool
    ) -> None:
        try:
            while data := await source.read(65536):
                if is_down and self.is_deaf and MESSAGE in data:
                    # What Redis publishes comes in one piece each; what it answers goes through.
                    head, *messages = data.split(MESSAGE)
                    data = head + b"".join(_behind(each) for each in messages)
                sink.write(data)
        except OSError:
            pass  # one side has ended; so does the other
        sink.transport.abort()


def _behind(message: bytes) -> bytes:
    """Return what follows a message's channel and body."""
    for _ in range(2):
        size, _, rest = message[1:].partition(b"\r\n")
        message = rest[int(size) + 2 :]
    return message


@asynccontextmanager
async def nodes(
    server: RedisServer, prefix: str, clock: ManualClock, number: int
) -> AsyncIterator[list[tuple[RedisEngine, Heard, Relay]]]:
    """Run nodes whose ears are behind relays."""
    async with AsyncExitStack() as stack:
        found = []
        for at in range(number):
            relay = Relay(server)
            await relay.start()
            stack.push_async_callback(relay.close)
            engine, heard = make(server, prefix, f"node-{at + 1}", clock=clock), Heard()
            engine.reader.link.address = replace(await engine.address.find(), port=relay.port)
            await engine.start(heard)
            stack.push_async_callback(engine.close)
            found.append((engine, heard, relay))
        yield found


async def pass_time(
    clock: ManualClock, seconds: float, found: list[tuple[RedisEngine, Heard, Relay]]
) -> None:
    """Have all nodes beat for a while, each beat heard by all who hear."""
    for _ in range(round(seconds / BEAT_S)):
        clock.advance(BEAT_S)
        for engine, _, _ in found:
            await until(lambda link=engine.reader.link: link.is_up)  # type: ignore[misc]
            await engine.canary.beat()
        for engine, _, relay in found:
            if not relay.is_deaf:
                canary = engine.canary
                await until(lambda c=canary: c.came_back == c.sent)  # type: ignore[misc]
    for engine, _, _ in found:
        await until(lambda link=engine.reader.link: link.is_up)  # type: ignore[misc]


TWICE_S = 2 * (SILENT_S + BEAT_S)


def test_who_alone_hears_nothing_is_deaf_until_it_hears_again(
    shared_redis: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "DENIED_S", 0.05)

    async def work() -> None:
        clock = ManualClock()
        async with nodes(shared_redis, prefix, clock, 2) as found:
            (engine, told, relay), (other, _, _) = found
            await engine.watch(A)
            await pass_time(clock, BEAT_S, found)
            assert engine.health() == other.health() == Health()
            assert (engine.measures["nodes"], engine.measures["readers_replaced"]) == (2, 0)
            assert engine.measures["used_bytes"] > 0
            assert {each["id"] for each in engine.canary.entries.values()} == {"node-1", "node-2"}
            relay.is_deaf = True
            await pass_time(clock, SILENT_S + BEAT_S, found)
            assert engine.canary.replaced == 1, "another connection first"
            assert engine.health().state == "degraded"
            await pass_time(clock, SILENT_S + BEAT_S, found)
            health = engine.health()
            assert health.state == "deaf"
            assert "look at the network" in health.line
            assert other.health() == Health()
            # What is told elsewhere is looked for, and who appends here waits for no echo.
            await other.log.append(entries(1))
            await until(lambda: f"? {A}" in told.changed)
            await engine.log.append(entries(1, start=2))
            relay.is_deaf = False
            await pass_time(clock, BEAT_S, found)
            assert engine.health() == Health()
            await until(lambda: engine.reader.is_sure)

    asyncio.run(work())


def test_where_nobody_hears_redis_is_at_fault(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with nodes(shared_redis, prefix, clock, 2) as found:
            await pass_time(clock, BEAT_S, found)
            for _, _, relay in found:
                relay.is_deaf = True
            await pass_time(clock, 2 * TWICE_S, found)
            for engine, _, relay in found:
                health = engine.health()
                assert health.state == "degraded"
                assert "no node hears what is published" in health.line
                relay.is_deaf = False
            await pass_time(clock, BEAT_S, found)
            assert {engine.health() for engine, _, _ in found} == {Health()}

    asyncio.run(work())


def test_a_node_that_is_alone_listens_anew_and_is_never_deaf(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with nodes(shared_redis, prefix, clock, 1) as found:
            ((engine, _, relay),) = found
            relay.is_deaf = True
            await pass_time(clock, 2 * TWICE_S, found)
            assert engine.canary.replaced > 2
            assert engine.health().state == "degraded"
            assert "does not hear what it publishes itself" in engine.health().line
            relay.is_deaf = False
            await pass_time(clock, BEAT_S, found)
            assert engine.health() == Health()

    asyncio.run(work())


def test_who_is_gone_leaves_the_directory(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with nodes(shared_redis, prefix, clock, 1) as found:
            ((engine, _, _),) = found
            async with nodes(shared_redis, prefix, clock, 2):
                await engine.canary.beat()
                assert len(engine.canary.entries) == 3
            await engine.canary.beat()
            assert len(engine.canary.entries) == 1, "they took their leave"
            key = f"{prefix}:node"
            crashed = engine.canary.entry().replace(b'"node-1"', b'"node-9"')
            await engine.functions.link.send(pack("HSET", key, "node-9/x", crashed), 1)
            await engine.canary.beat()
            assert len(engine.canary.entries) == 2
            clock.advance(GONE_S + 1)
            await engine.canary.beat()
            assert list(engine.canary.entries) == [engine.canary.name]
            assert b"node-9" not in shared_redis.command("HGETALL", key)

    asyncio.run(work())


def test_a_node_that_talks_in_another_way_is_not_joined(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with nodes(shared_redis, prefix, clock, 1) as found:
            ((engine, _, _),) = found
            other = engine.canary.entry().replace(b'"protocol":[1,1]', b'"protocol":[7,9]')
            await engine.functions.link.send(pack("HSET", f"{prefix}:node", "later/x", other), 1)
            with pytest.raises(Unfit, match="talks in the ways 7 to 9, this version in 1 to 1"):
                async with nodes(shared_redis, prefix, clock, 1):
                    pass

    asyncio.run(work())


def test_a_beat_finds_that_all_keys_are_gone(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix) as (engine, told):
            await engine.watch(A)
            await engine.log.append(entries(3))
            await engine.canary.beat()
            assert told.changed == []
            keys = shared_redis.command("KEYS", f"{prefix}:*").split(b"\r\n")[2::2]
            shared_redis.command("UNLINK", *keys)
            await engine.canary.beat()
            await until(lambda: told.changed == [f"? {A}"])

    asyncio.run(work())


NO_MEMORY, NO_REPLICAS = ("maxmemory", "1"), ("min-replicas-to-write", "1")
"""Settings by which Redis refuses HSET and takes PUBLISH; HDEL it takes by the first alone."""


async def time_beats(canaries: list[Canary], number: int) -> float:
    """Return how long it takes until each has published so many beats more."""
    loop = asyncio.get_running_loop()
    began, ends = loop.time(), [each.sent + number for each in canaries]
    await until(lambda: all(c.sent >= end for c, end in zip(canaries, ends, strict=True)))
    return loop.time() - began


def test_nodes_that_are_not_in_the_directory_do_not_answer_each_others_beats(
    start_redis: Start, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_s = 0.5
    monkeypatch.setattr(module, "BEAT_S", every_s)
    server = start_redis()

    async def work() -> None:
        clock = ManualClock()
        async with nodes(server, prefix, clock, 2) as found:
            canaries = [engine.canary for engine, _, _ in found]
            await pass_time(clock, BEAT_S, found)
            server.command("CONFIG", "SET", *NO_MEMORY)
            clock.advance(GONE_S + 1)
            await until(lambda: all(len(each.entries) < 2 for each in canaries))
            # The first may be under way, and one may be for what was heard before.
            assert await time_beats(canaries, 4) > 2 * every_s

    asyncio.run(work())


def test_whoever_is_heard_beats_have_a_pause_between_them(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix) as (engine, _):

            async def appear() -> None:
                at = 0
                while True:
                    at += 1
                    beat = BEAT + f"other/{at}\x001".encode()
                    await engine.functions.link.send(pack("PUBLISH", f"{prefix}:all", beat), 1)

            appearing = asyncio.create_task(appear())
            took_s = await time_beats([engine.canary], 5)
            appearing.cancel()
            await asyncio.wait([appearing])
            assert 4 * BEAT_S / 10 < took_s < 4 * BEAT_S, "sooner than of itself, not at once"

    asyncio.run(work())


@pytest.mark.parametrize("setting", [NO_MEMORY, NO_REPLICAS])
def test_who_is_heard_is_there_though_redis_takes_no_writes(
    start_redis: Start, prefix: str, setting: tuple[str, str]
) -> None:
    server = start_redis()

    async def work() -> None:
        clock = ManualClock()
        async with nodes(server, prefix, clock, 2) as found:
            (engine, _, _), (other, _, _) = found
            await pass_time(clock, BEAT_S, found)
            server.command("CONFIG", "SET", *setting)
            await pass_time(clock, GONE_S + SILENT_S, found)
            await until(lambda: [each.silent_s for each in engine.peers] == [0.0])
            clock.advance(GONE_S / 2)
            assert [each.silent_s for each in other.peers] == [GONE_S / 2]

    asyncio.run(work())

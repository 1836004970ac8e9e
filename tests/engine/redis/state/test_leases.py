"""Leases in Redis: several nodes, of which one dies, and each ending is told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from pov_rt.engine.base import Lease
from pov_rt.engine.redis.client.address import parse_address
from pov_rt.engine.redis.client.connection import Reply, connect, pack
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.state import leases as leases_module
from pov_rt.engine.redis.state.leases import RedisLeases
from tests.engine.redis_parts import Heard, ManualClock, ask, calling, keys
from tests.redis_servers import RedisServer

A, B = "here/a", "here/b"
WAIT_S = 20.0


@asynccontextmanager
async def hearing(
    server: RedisServer,
    functions: Functions,
    topic: str,
    *nodes: RedisLeases,
    into: Callable[[bytes], None] | None = None,
) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Hand a topic's publications to nodes, or to a function; yield what waits for so many."""
    came, number = asyncio.Event(), 0

    def hear(message: bytes) -> None:
        for node in nodes:
            node.hear(topic, message)

    def take(replies: Sequence[Reply]) -> None:
        nonlocal number
        for kind, _, message in replies:
            if kind == b"message":
                (into or hear)(message[1:])
            number += 1
            came.set()

    async def wait(messages: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while number < messages + 1:
                came.clear()
                await came.wait()

    connection = await connect(parse_address(server.url), WAIT_S, "test")
    connection.on_message = take
    connection.write(pack("SUBSCRIBE", functions.partitions.of(topic) + b"c:" + topic.encode()))
    try:
        await wait(0)
        yield wait
    finally:
        await connection.close()


async def ended(*nodes: RedisLeases) -> list[tuple[str, str]]:
    """Have all sweep until nothing ends; return topics and members in their order."""
    found: list[tuple[str, Lease]] = []
    while page := [each for some in [await node.expire() for node in nodes] for each in some]:
        found += page
    return sorted((topic, lease.member) for topic, lease in found)


async def let_others_sweep(functions: Functions, prefix: str) -> None:
    """End the turn of the node that sweeps: it ends by Redis's clock, which goes on."""
    await ask(functions, "DEL", f"{prefix}:sweeper")


def test_a_member_is_on_the_node_that_entered_it_last(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with calling(shared_redis, prefix, clock) as functions:
            one, two = (RedisLeases(functions, clock, f"node-{n}") for n in (1, 2))
            assert not await one.renew(), "it had none"
            await two.renew()
            assert await one.put(A, "ana", b"1")
            assert await one.leave(A, "ana", 5.0)
            assert not await two.put(A, "ana", b"2")
            assert not await one.leave(A, "ana", 5.0)
            assert (dict(one.held), dict(two.held)) == ({}, {"here": 1})
            await one.put(B, "ben", b"")
            await one.leave(B, "ben", 5.0)
            await one.put(B, "ben", b"")
            await one.put(B, "cem", b"")
            await one.leave(B, "cem", 5.0)
            assert dict(one.held) == {"here": 2}
            clock.advance(6)
            assert dict(one.held) == {"here": 1}
            assert await ended(one) == [(B, "cem")]
            assert await one.remove(B, "ben")
            assert dict(one.held) == {}
            assert await ended(one) == []
            assert await one.members(A) == [Lease("ana", b"2", "node-2")]
            assert await one.remove(A, "ana")
            assert await keys(functions, prefix) == [b"nodes", b"sweeper"]

    asyncio.run(work())


def test_a_member_of_several_nodes_is_there_until_the_last_has_it_leave_or_dies(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with calling(shared_redis, prefix, clock) as functions:
            one, two, three = (RedisLeases(functions, clock, f"node-{n}") for n in (1, 2, 3))
            for node in (one, two, three):
                await node.renew()
            for node, body in ((one, b"1"), (two, b"2"), (three, b"3"), (two, b"2!")):
                await node.put(A, "ana", body)
            await one.put(B, "ben", b"")

            async def holder() -> list[tuple[str, bytes]]:
                return [(each.node, each.body) for each in await one.members(A)]

            assert await holder() == [("node-2", b"2!")]
            assert not await one.leave(A, "ana", 5.0), "others have it"
            assert await holder() == [("node-2", b"2!")]
            assert not await two.leave(A, "ana", 5.0)
            assert await holder() == [("node-3", b"3")]
            await one.put(A, "ana", b"1!")
            clock.advance(20)
            for node in (two, three):
                assert await node.renew()
            clock.advance(20)
            # The holder dies: it is another's, and nobody is told of an end but of who was there
            # alone.
            assert await ended(two, three) == [(B, "ben")]
            assert await holder() == [("node-3", b"3")]
            assert await three.leave(A, "ana", 1.0), "nobody else has it"
            clock.advance(1)
            assert await ended(two, three) == [(A, "ana")]
            assert await holder() == []
            await two.put(A, "ana", b"")
            await three.put(A, "ana", b"")
            assert await two.remove(A, "ana")
            assert await two.put(A, "ana", b""), "of what was removed nothing is left"
            assert await two.leave(A, "ana", 1.0)

    asyncio.run(work())


def test_of_a_node_that_dies_each_member_ends_once(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with calling(shared_redis, prefix, clock) as functions:
            dead, one, two = (RedisLeases(functions, clock, f"node-{n}") for n in (0, 1, 2))
            for node in (dead, one, two):
                await node.renew()
            members = [f"user-{number}" for number in range(1200)]
            await asyncio.gather(*(dead.put(A, member, b"") for member in members))
            await dead.put(B, "ana", b"")
            await one.put(B, "ben", b"")
            await two.put(A, "user-7", b"moved")
            clock.advance(20)
            assert await one.renew()
            assert await two.renew()
            clock.advance(11)
            assert await one.members(A) == [Lease("user-7", b"moved", "node-2")]
            found = await ended(one)
            lost = [(A, each) for each in members if each != "user-7"]
            assert found == sorted([*lost, (B, "ana")])
            await let_others_sweep(functions, prefix)
            assert await ended(two) == []
            assert [each.member for each in await two.members(B)] == ["ben"]

    asyncio.run(work())


def test_one_node_sweeps_at_a_time(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with calling(shared_redis, prefix, clock) as functions:
            one, two = (RedisLeases(functions, clock, f"node-{n}") for n in (1, 2))
            assert await ended(one) == []
            await one.renew()
            await one.put(A, "ana", b"")
            await one.leave(A, "ana", 1.0)
            clock.advance(1)
            assert await ended(two) == []
            assert await ended(one) == [(A, "ana")]

    asyncio.run(work())


def test_a_node_that_slept_learns_it_and_what_was_not_swept_is_its_own(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with calling(shared_redis, prefix, clock) as functions:
            one, two = (RedisLeases(functions, clock, f"node-{n}") for n in (1, 2))
            await one.renew()
            await one.put(A, "ana", b"")
            clock.advance(40)
            await two.renew()
            assert await two.members(A) == []
            assert not await one.renew()
            assert await ended(two) == []
            assert [each.member for each in await two.members(A)] == ["ana"]
            assert await one.renew()

    asyncio.run(work())


def test_what_a_node_had_before_its_restart_ends_unless_it_is_entered_again(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with calling(shared_redis, prefix, clock) as functions:
            before = RedisLeases(functions, clock, "node-1")
            await before.renew()
            await before.put(A, "ana", b"")
            await before.put(A, "ben", b"")
            after = RedisLeases(functions, clock, "node-1")
            await after.renew()
            assert len(await after.members(A)) == 2
            assert not await after.put(A, "ana", b"")
            for _ in range(4):
                clock.advance(10)
                await after.renew()
            assert await ended(after) == [(A, "ben")]

    asyncio.run(work())


def test_a_lease_that_ended_long_ago_is_forgotten_with_its_last_member(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with calling(shared_redis, prefix, clock) as functions:
            dead, one = (RedisLeases(functions, clock, f"node-{n}") for n in (0, 1))
            await dead.renew()
            await dead.put(A, "ana", b"")
            clock.advance(3600)
            assert await ended(one) == [(A, "ana")]
            assert await keys(functions, prefix) == [b"sweeper"]

    asyncio.run(work())


def test_each_node_that_follows_a_topic_hears_its_endings_once(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with calling(shared_redis, prefix, clock) as functions:
            one, two = (RedisLeases(functions, clock, f"node-{n}", {A}) for n in (1, 2))
            one.follower, two.follower = Heard(), Heard()
            async with hearing(shared_redis, functions, A, one, two):
                await one.renew()
                for topic in (A, B):
                    await two.put(topic, "ana", b"1")
                    await two.leave(topic, "ana", 1.0)
                clock.advance(1)
                assert await ended(one) == [(A, "ana"), (B, "ana")]
                assert one.follower.gone == [(A, "ana")]
                await two.put(A, "ben", b"1")
                await two.leave(A, "ben", 1.0)
                clock.advance(1)
                assert await ended(one) == [(A, "ben")]
                assert one.follower.gone == two.follower.gone == [(A, "ana"), (A, "ben")]

    asyncio.run(work())


def test_a_node_that_does_not_hear_itself_tells_of_endings_all_the_same(
    shared_redis: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "HEAR_S", 0.0)

    async def work() -> None:
        clock = ManualClock()
        async with calling(shared_redis, prefix, clock) as functions:
            one = RedisLeases(functions, clock, "node-1", {A})
            one.follower = Heard()
            late: list[bytes] = []
            async with hearing(shared_redis, functions, A, into=late.append) as has_come:
                await one.renew()
                await one.put(A, "ana", b"1")
                await one.leave(A, "ana", 1.0)
                clock.advance(1)
                assert await ended(one) == [(A, "ana")]
                assert one.follower.gone == [(A, "ana")]
                await has_come(1)
            one.hear(A, late[0])
            assert one.follower.gone == [(A, "ana")], "what comes too late was told already"

    asyncio.run(work())

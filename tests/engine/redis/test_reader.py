"""What a node hears of the topics it watches, and how it finds what it did not hear."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.engine.base import Health
from pov_rt.engine.redis import reader as module
from pov_rt.engine.redis.client.address import parse_address
from pov_rt.engine.redis.client.connection import pack
from tests.engine.redis.engines import WAIT_S, A, B, entries, opened, until
from tests.redis_servers import RedisServer, Start


def test_thousands_of_topics_are_watched_and_left(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix) as (engine, told):
            topics = [f"pov/{n}" for n in range(2000)]
            tops = await asyncio.gather(*(engine.watch(topic) for topic in topics))
            assert {(top.offset, top.oldest) for top in tops} == {(0, 1)}
            await asyncio.gather(*(engine.unwatch(topic) for topic in topics[::2]))
            await engine.watch(topics[0])  # in the same turn
            batch = [each for topic in topics for each in entries(1, topic)]
            await engine.log.append(batch)
            heard = {topic for topic, *_ in told.told}
            assert heard == {topics[0], *topics[1::2]}
            assert len(told.told) == len(heard)

    asyncio.run(work())


def test_only_those_that_have_moved_are_uncertain_after_a_time_without_hearing(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with (
            opened(shared_redis, prefix) as (engine, told),
            opened(shared_redis, prefix, node="node-2") as (other, _),
        ):
            for topic in (A, B, "pov/unknown"):
                await engine.watch(topic)
            await other.log.append([*entries(2), *entries(2, B)])
            await until(lambda: told.offsets(A) == told.offsets(B) == [1, 2])
            link = engine.reader.link
            link.address = parse_address("redis://127.0.0.1:1")
            assert link.connection is not None
            link.connection.abort("cut by the test")
            await other.log.append(entries(3, start=3))
            # One that this node appends itself is told of before it returns, or is uncertain.
            await engine.log.append(entries(1, B, start=3))
            assert told.changed == [f"? {B}"]
            assert (await engine.log.top(A)).offset == 5
            assert engine.health().state == "degraded"
            link.address = engine.address
            await until(lambda: f"? {A}" in told.changed)
            await until(lambda: engine.reader.is_sure)
            assert "? pov/unknown" not in told.changed
            assert engine.health() == Health()
            await other.log.append([*entries(1, start=6), *entries(1, B, start=4)])
            await until(lambda: told.offsets(A)[-1] == 6 and told.offsets(B)[-1] == 4)

    asyncio.run(work())


def test_what_was_lost_on_the_way_is_found_at_the_second_look(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix) as (engine, told):
            await engine.watch(A)
            await engine.log.append(entries(2))
            known = engine.reader.watched[A]
            assert known is not None
            known.offset = 1  # as if the second had not come
            await engine.reader.check([A], is_sure=False)
            assert told.changed == []
            await engine.reader.check([A], is_sure=False)
            assert told.changed == [f"? {A}"]
            assert (await engine.log.top(A)).offset == 2
            await engine.reader.check([A], is_sure=True)
            assert told.changed == [f"? {A}"]

    asyncio.run(work())


def test_an_offset_that_jumps_is_uncertain_before_it_is_told(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix) as (engine, told):
            await engine.watch(A)
            (first,) = await engine.log.append(entries(1))
            channel = engine.functions.partitions.channel(A)
            message = f"e{first.epoch} 1800000000000000 5\0\0\0body".encode()
            await engine.functions.link.send(pack("PUBLISH", channel, message), 1)
            await until(lambda: told.offsets(A) == [1, 5])
            assert told.changed == [f"? {A}"]
            await engine.functions.link.send(pack("PUBLISH", channel, b"?of later"), 1)
            await until(lambda: engine.reader.unknown == 1)

    asyncio.run(work())


def test_a_topic_that_we_may_not_hear_of_is_looked_at(
    start_redis: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DENIED_S", 0.05)
    server = start_redis()

    async def work() -> None:
        async with opened(server) as (engine, _):
            channel = engine.functions.partitions.channel(A)
        other = channel.replace(b"c:pov/a", b"c:team/*")
        rights: list[str | bytes] = ["~*", "+@all", "resetchannels", "&pr:all", b"&" + other]
        rights += [b"&" + prefix + b"c:pov/b" for prefix in engine.functions.partitions.all]
        rights.append(b"&" + engine.functions.partitions.all[0] + b"?c")  # tried at the start
        server.command("ACL", "SETUSER", "node", "on", ">secret", *rights)
        url = f"redis://node:secret@127.0.0.1:{server.port}"
        async with opened(server, url=url) as (engine, told):
            await engine.watch(B)
            assert (await engine.watch(A)).offset == 0
            async with opened(server, node="node-2") as (publisher, _):
                await publisher.log.append([*entries(1), *entries(1, B)])
            await until(lambda: told.offsets(B) == [1])
            await until(lambda: f"? {A}" in told.changed)
            assert (await engine.log.top(A)).offset == 1
            # It may not publish there either: the entry is there all the same, and only once.
            (done,) = await engine.log.append(entries(1, start=2))
            (again,) = await engine.log.append(entries(1, start=2))
            assert (done.offset, again.offset) == (2, 2)

    asyncio.run(work())


def test_what_was_missed_is_found_however_often_in_a_row_a_connection_is_lost(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with (
            opened(shared_redis, prefix) as (engine, told),
            opened(shared_redis, prefix, node="node-2") as (other, _),
        ):
            await engine.watch(A)
            link = engine.reader.link
            for times in range(1, 4):
                link.address = parse_address("redis://127.0.0.1:1")
                assert link.connection is not None
                link.connection.abort("cut by the test")
                await other.log.append(entries(1, start=times))
                link.address = engine.address
                await until(lambda: told.changed == [f"? {A}"] * times)  # noqa: B023
                page = await engine.log.read(A, times - 1, 9)  # as a follower does then
                assert page.top.offset == times

    asyncio.run(work())


def test_who_appends_does_not_wait_for_an_echo_longer_than_until_it_is_due(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix) as (engine, told):
            await engine.watch(A)
            (done,) = await engine.log.append(entries(1))
            due = asyncio.get_running_loop().time()
            async with asyncio.timeout(WAIT_S / 2):  # the deadline is twice that
                await engine.reader.echo(A, done.epoch, 1, due)
                assert told.changed == []
                await engine.reader.echo(A, done.epoch, 2, due)
            assert told.changed == [f"? {A}"]

    asyncio.run(work())

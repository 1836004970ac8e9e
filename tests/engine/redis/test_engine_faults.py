"""What the engine does when Redis dies, freezes, forgets, refuses, or comes back with less."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.engine.base import Appended, Health, NewEntry, Position
from pov_rt.protocol.errors import Unavailable
from tests.engine.redis.engines import FEED, A, B, appended, entries, opened, until
from tests.redis_servers import RedisServer, Start

# Redis dies:


def test_what_a_file_has_is_there_after_a_crash_and_places_in_it_are_held(
    start_redis: Start,
) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")

    async def work() -> None:
        async with opened(server) as (engine, told):
            assert engine.guarantee == "disk"
            await engine.watch(A)
            done = await engine.log.append(entries(5, feed=FEED))
            old = Position(done[0].epoch, 5)
            server.kill()
            server.start()
            again = await appended(engine, entries(1)[0])
            top = await engine.log.top(A)
            assert again == Appended(top.epoch, 1, duplicate=True)
            assert top.epoch != old.epoch, "nobody knows what the process that died had promised"
            assert await engine.log.holds(A, old)
            assert await engine.log.holds(A, Position(top.epoch, 5))
            assert not await engine.log.holds(A, Position(old.epoch, 6))
            await until(lambda: f"? {A}" in told.changed)
            (next_one,) = await engine.log.append(entries(1, start=6))
            assert (next_one.epoch, next_one.offset) == (top.epoch, 6)
            assert [each.body for each in (await engine.log.read(FEED, 0, 9)).entries] == [
                b"%d" % n for n in range(1, 6)
            ]
            await until(lambda: engine.health() == Health())

    asyncio.run(work())


def test_what_a_crash_took_is_never_taken_for_there(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        async with opened(server) as (engine, _):
            assert engine.guarantee == "primary"
            await engine.watch(A)
            (first, *_) = await engine.log.append(entries(5))
            unknown = await engine.log.top(B)
            server.kill()
            server.start()
            # More come than were lost, so that by their offsets alone nothing would be missing.
            again = await appended(engine, entries(1)[0])
            assert again == Appended(again.epoch, 1)
            await engine.log.append(entries(9, start=2))
            assert again.epoch != first.epoch
            for offset in (1, 5):
                assert not await engine.log.holds(A, Position(first.epoch, offset))
            assert (await engine.log.top(B)).epoch != unknown.epoch

    asyncio.run(work())


def test_a_tail_that_the_file_did_not_get_is_not_held_and_the_rest_is(start_redis: Start) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")

    async def work() -> None:
        async with opened(server) as (engine, _):
            (first, *_) = await engine.log.append(entries(5))
            (quiet,) = await engine.log.append(entries(1, B))
            (folder,) = server.folder.glob("appendonlydir")
            (file,) = folder.glob("*.incr.aof")
            size = file.stat().st_size
            await engine.log.append(entries(5, start=6))
            server.kill()
            with file.open("r+b") as cut:
                cut.truncate(size)
            server.start()
            await appended(engine, entries(1, start=20)[0])
            await engine.log.append(entries(9, start=21))
            assert (await engine.log.top(A)).offset == 15
            held = [await engine.log.holds(A, Position(first.epoch, at)) for at in range(1, 11)]
            assert held == [True] * 5 + [False] * 5
            assert await engine.log.holds(B, Position(quiet.epoch, 1))
            (lost, kept) = await engine.log.append([*entries(1, start=7), *entries(1, start=3)])
            assert lost == Appended(lost.epoch, 16), "its entry is gone, so this is none before"
            assert kept == Appended(kept.epoch, 3, duplicate=True)

    asyncio.run(work())


def test_what_was_sent_when_redis_died_is_appended_once(start_redis: Start) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")

    async def work() -> None:
        async with opened(server) as (engine, _):
            await engine.log.append(entries(1, start=0))
            batches = [entries(40, start=start) for start in range(1, 2001, 40)]
            appending = [asyncio.ensure_future(engine.log.append(batch)) for batch in batches]
            await until(lambda: any(each.done() for each in appending))
            server.kill()
            server.start()
            done = [each for batch in await asyncio.gather(*appending) for each in batch]
            page = await engine.log.read(A, 0, 10_000)
            bodies = [entry.body for entry in page.entries]
            assert sorted(map(int, bodies)) == list(range(2001))
            found = {each.offset: body for each, body in zip(done, range(1, 2001), strict=True)}
            # What was acknowledged before the crash is where it was said to be, and so is the rest.
            assert all(int(bodies[offset - 1]) == key for offset, key in found.items())

    asyncio.run(work())


# Redis is away, or says nothing:


def test_while_redis_is_away_publishers_are_told_in_time_and_it_mends_itself(
    start_redis: Start,
) -> None:
    server = start_redis()

    async def work() -> None:
        async with opened(server, redis={"deadline_s": 0.3}) as (engine, told):
            await engine.watch(A)
            server.kill()
            with pytest.raises(Unavailable, match="Redis"):
                await engine.log.append(entries(1))
            with pytest.raises(Unavailable, match="Redis"):
                await engine.log.read(A, 0, 9)
            with pytest.raises(Unavailable, match="Redis"):
                await engine.watch(B)
            health = engine.health()
            assert health.state == "degraded"
            assert str(server.port) in health.line
            assert engine.health() == health, "since when it is so"
            assert engine.waiting_bytes == 0
            server.start()
            await until(lambda: engine.health() == Health())
            assert (await appended(engine, entries(1)[0])).offset == 1
            await until(lambda: f"? {A}" in told.changed)

    asyncio.run(work())


def test_a_redis_that_is_frozen_is_left_and_found_again(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        async with opened(server, redis={"deadline_s": 0.3}) as (engine, _):
            await engine.log.append(entries(3))
            server.stop()
            try:
                with pytest.raises(Unavailable, match=r"did not answer|try again"):
                    await engine.log.append(entries(3, start=4))
                await until(lambda: engine.health().state == "degraded")
            finally:
                server.cont()
            again = await appended(engine, entries(1, start=4)[0])
            assert again.offset == 4
            await until(lambda: engine.health() == Health())

    asyncio.run(work())


def test_a_start_without_redis_waits_for_it_in_the_background(start_redis: Start) -> None:
    server = start_redis()
    server.kill()

    async def work() -> None:
        async with opened(server, redis={"deadline_s": 0.3}) as (engine, _):
            assert engine.health().state == "degraded"
            with pytest.raises(Unavailable, match="cannot be reached"):
                await engine.log.append(entries(1))
            server.start()
            assert (await appended(engine, entries(1)[0])).offset == 1

    asyncio.run(work())


# Redis forgets:


def test_functions_that_are_gone_are_loaded_and_nothing_is_lost_or_doubled(
    start_redis: Start,
) -> None:
    server = start_redis()

    async def work() -> None:
        async with opened(server) as (engine, told):
            await engine.watch(A)
            batches = [entries(20, start=start) for start in range(1, 401, 20)]
            appending = [asyncio.ensure_future(engine.log.append(batch)) for batch in batches]
            for _ in range(5):
                await asyncio.sleep(0)
                server.command("FUNCTION", "FLUSH")
            for batch in await asyncio.gather(*appending):
                offsets = [each.offset for each in batch]
                assert offsets == sorted(offsets)
            bodies = [each.body for each in (await engine.log.read(A, 0, 999)).entries]
            assert sorted(map(int, bodies)) == list(range(1, 401))
            assert told.offsets(A) == list(range(1, 401))
            assert engine.health() == Health()

    asyncio.run(work())


def test_all_keys_may_go_and_nobody_takes_the_new_log_for_the_old_one(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        async with opened(server) as (engine, told):
            await engine.watch(A)
            (old, *_) = await engine.log.append(entries(3))
            server.command("FLUSHALL")
            (new,) = await engine.log.append(entries(1))
            assert new == Appended(new.epoch, 1)
            assert new.epoch != old.epoch
            assert told.changed == [f"? {A}"]
            assert not await engine.log.holds(A, Position(old.epoch, 1))

    asyncio.run(work())


# What is told may be missed:


def test_what_was_appended_while_nothing_was_heard_is_asked_for(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        async with opened(server) as (engine, told), opened(server, node="node-2") as (other, _):
            for topic in (A, B):
                await engine.watch(topic)
            await other.log.append(entries(2))
            await until(lambda: told.offsets(A) == [1, 2])
            # It comes back and finds what it has missed, whichever of both is first.
            server.command("CLIENT", "KILL", "TYPE", "pubsub")
            await other.log.append(entries(3, start=3))
            await until(lambda: f"? {A}" in told.changed or told.offsets(A)[-1:] == [5])
            await until(lambda: engine.health() == Health())
            assert (await engine.log.top(A)).offset == 5
            await other.log.append(entries(1, start=6))
            await until(lambda: told.offsets(A)[-1:] == [6])
            assert f"? {B}" not in told.changed, "it is where it was"

    asyncio.run(work())


def test_nodes_hear_of_each_other_and_not_of_themselves(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        async with opened(server) as (engine, told), opened(server, node="node-2") as (other, its):
            for each in (engine, other):
                await each.watch(A)
            engine.signals.send(A, b"\0body", "origin")
            (done,) = await engine.log.append([NewEntry(A, "p", "1", b"x", FEED, "from")])
            await until(lambda: its.offsets(A) == [1])
            assert its.signals == [(A, b"\0body", "origin")]
            assert told.signals == []
            assert told.told == its.told == [(A, done.epoch, 1, b"x")]
            assert (await other.log.read(FEED, 0, 9)).entries[0].origin == "from"
            (again,) = await other.log.append([NewEntry(A, "p", "1", b"x")])
            assert again == Appended(done.epoch, 1, duplicate=True)
            await other.unwatch(A)
            await engine.log.append(entries(3, start=2))
            assert its.offsets(A) == [1]

    asyncio.run(work())


# Redis refuses:


def test_when_memory_is_full_publishers_are_refused_and_readers_are_not(
    start_redis: Start,
) -> None:
    server = start_redis()

    async def work() -> None:
        async with opened(server) as (engine, _):
            await engine.log.append(entries(3))
            server.command("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(Unavailable, match="OOM"):
                await engine.log.append(entries(2, start=4))
            assert len((await engine.log.read(A, 0, 9)).entries) == 3
            assert (await engine.watch(A)).offset == 3
            server.command("CONFIG", "SET", "maxmemory", "0")
            done = await engine.log.append(entries(2, start=4))
            assert [each.offset for each in done] == [4, 5]

    asyncio.run(work())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--requirepass", "secret"), "refuses us: NOAUTH"),
        (("--maxmemory-policy", "allkeys-lru"), "CONFIG SET maxmemory-policy noeviction"),
        (("--replicaof", "127.0.0.1", "1"), "name the primary in engine.url"),
    ],
)
def test_a_redis_that_will_not_do_is_refused_with_what_mends_it(
    start_redis: Start, options: tuple[str, ...], words: str
) -> None:
    server = start_redis(*options)

    async def work() -> None:
        with pytest.raises(Unavailable, match=words):
            async with opened(server):
                pass

    asyncio.run(work())


def test_a_wrong_password_is_refused_and_not_shown(start_redis: Start) -> None:
    server = start_redis("--requirepass", "secret")
    url = f"redis://:hunter2@127.0.0.1:{server.port}"

    async def work() -> None:
        with pytest.raises(Unavailable, match="refuses us: WRONGPASS") as refused:
            async with opened(server, url=url):
                pass
        assert "hunter2" not in str(refused.value)
        async with opened(server, url=url.replace("hunter2", "secret")) as (engine, _):
            assert engine.health() == Health()

    asyncio.run(work())


def test_keys_in_other_partitions_are_not_touched(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix):
            pass
        with pytest.raises(Unavailable, match=r"set engine\.redis\.partitions = 128"):
            async with opened(shared_redis, prefix, redis={"partitions": 16}):
                pass
        shared_redis.command("HSET", f"{prefix}:meta", "schema", "9")
        with pytest.raises(Unavailable, match="are of schema 9, this version knows 2"):
            async with opened(shared_redis, prefix):
                pass

    asyncio.run(work())


# What is not there in time:


def test_without_the_replicas_that_must_have_it_nothing_is_acknowledged(
    start_redis: Start,
) -> None:
    server = start_redis()

    async def work() -> None:
        replicas = {"replicas": 1, "wait_ms": 20}
        async with opened(server, redis=replicas) as (engine, _):
            assert engine.guarantee == "primary"
            assert "has 0 replicas" in engine.health().line
            with pytest.raises(Unavailable, match="fewer than 1 replicas"):
                await engine.log.append(entries(1))
            replica = start_redis(
                "--replicaof", "127.0.0.1", str(server.port), "--repl-diskless-sync-delay", "0"
            )
            await until(lambda: b"master_link_status:up" in replica.command("INFO"))
            done = await appended(engine, entries(1)[0])
            assert done == Appended(done.epoch, 1, duplicate=True)

    asyncio.run(work())

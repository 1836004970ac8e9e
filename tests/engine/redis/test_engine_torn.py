"""Half a transaction at the end of Redis's file: Redis 7.0 does it at the start after the next."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Entry, NewEntry, Position, Rewrite
from pov_rt.engine.copying import copy
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.memory import MemoryEngine
from pov_rt.engine.redis.engine import RedisEngine
from pov_rt.engine.redis.layout import Partitions
from pov_rt.runtime.clock import SystemClock
from pov_rt.suites import Recorder
from tests.engine.redis.engines import FEED, A, appended, entries, opened
from tests.redis_servers import PROGRAMS, RedisServer, Start

TRANSACTION = b"*1\r\n$5\r\nMULTI\r\n"
MOST = 6
"""How many entries are kept, so that each append takes one away, too."""


def file_of(server: RedisServer) -> Path:
    """Return the file that the server writes to."""
    (file,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    return file


def inside_the_last_transaction(data: bytes) -> Sequence[int]:
    """Return a place in the middle of each of its commands but the first."""
    start = data.rindex(TRANSACTION) + len(TRANSACTION)
    return [start + found.start() + 3 for found in re.finditer(rb"\*\d+\r\n\$", data[start:])]


def lose_power(server: RedisServer, size: int) -> None:
    """Kill a server; have its file end there."""
    server.kill()
    with file_of(server).open("r+b") as file:
        file.truncate(size)


async def logs(engine: RedisEngine) -> list[list[Entry]]:
    """Return what is in the topic and in the feed."""
    return [list((await engine.log.read(topic, 0, 99)).entries) for topic in (A, FEED)]


def placed(found: Sequence[Entry]) -> dict[int, bytes]:
    """Return the bodies by their offsets."""
    return {entry.offset: entry.body for entry in found}


async def fill(engine: RedisEngine) -> list[NewEntry]:
    """Append what is kept, and one more, whose transaction is the last one."""
    some = [
        entry._replace(producer="one", seq=at)
        for at, entry in enumerate(entries(MOST + 2, feed=FEED), 1)
    ]
    for entry in some:  # one by one: each is a transaction
        await engine.log.append([entry])
    return some


@pytest.mark.parametrize(
    ("name", "command"), [*((PROGRAMS[0], at) for at in range(10)), (PROGRAMS[1], 4)]
)
@pytest.mark.parametrize("after", ["the same", "others", "a change", "nothing"])
def test_half_a_transaction_shifts_and_doubles_nothing(
    start_redis: Start, name: str, command: int, after: str
) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always", name=name)

    async def work() -> None:
        async with opened(server, max_entries=MOST) as (engine, _):
            *_, lost = await fill(engine)
        data = file_of(server).read_bytes()
        lose_power(server, inside_the_last_transaction(data)[command])
        server.start()
        async with opened(server, max_entries=MOST) as (engine, _):
            if after == "the same":
                again = await appended(engine, lost)
                assert (again.offset, again.duplicate) == (MOST + 2, False)
            elif after != "nothing":
                for entry in entries(2, start=50, feed=FEED):
                    await appended(engine, entry)
            if after == "a change":
                done = await engine.log.edit([Rewrite(A, MOST, b"%d" % MOST, b"new")])
                assert done == [True]
            if after != "nothing":
                before = await logs(engine)
                tops = [await engine.log.top(topic) for topic in (A, FEED)]
        server.kill()
        server.start()
        async with opened(server, max_entries=MOST) as (engine, _):
            if after == "nothing":
                # It is back, or it is not: but nothing else is anywhere else.
                for found in await logs(engine):
                    offsets = [entry.offset for entry in found]
                    assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
                    assert placed(found) == {offset: b"%d" % offset for offset in offsets}
                    assert offsets[-1] in (MOST + 1, MOST + 2)
            else:
                for old, new, top in zip(before, await logs(engine), tops, strict=True):
                    # All are where they were. The lost one took the oldest with it; a change of one
                    # before it stands in another one's place, of which nothing is left.
                    assert [entry.offset for entry in new] == [
                        entry.offset for entry in old[-len(new) :]
                    ]
                    assert new[-1].offset == top.offset
                    assert len(new) >= len(old) - 1
                    changed = [
                        (was.offset, now.body)
                        for was, now in zip(old[-len(new) :], new, strict=True)
                        if was != now
                    ]
                    assert changed in ([], [(MOST + 1, b"")] if after == "a change" else [])
                for topic, top in zip((A, FEED), tops, strict=True):
                    now = await engine.log.top(topic)
                    assert now.epoch != top.epoch
                    assert await engine.log.holds(topic, Position(top.epoch, top.offset))
            last = (await logs(engine))[0][-1].offset
            again = await appended(engine, lost)
            expected = MOST + 2 if again.duplicate else last + 1
            assert again.offset == expected
            kept = placed((await logs(engine))[0])
            assert [*kept.values()].count(lost.body) == 1
            assert kept[again.offset] == lost.body

    asyncio.run(work())


def test_a_change_in_the_place_of_another_entry_costs_that_one_alone(start_redis: Start) -> None:
    server = start_redis("--appendonly", "yes")

    async def work() -> None:
        async with opened(server) as (engine, _):
            await engine.log.append(entries(7))
        key = Partitions("pr", 128).of(A) + b"s:" + A.encode()
        six = server.command("LINDEX", key, -2).split(b"\r\n")[1]
        # As two that were lost have it, and then a change of 6, and one of 4.
        four = server.command("LINDEX", key, -4).split(b"\r\n")[1]
        server.command("LSET", key, -2, four[:-1] + b"new 4")
        for stray in (8, 9):
            server.command("RPUSH", key, six.replace(b" 6\0", b" %d\0" % stray))
        server.command("LSET", key, -2, six[:-1] + b"new 6")
        server.kill()
        server.start()
        bodies = [b"1", b"2", b"3", b"new 4", b"5", b"new 6", b"7"]
        async with opened(server) as (engine, _):
            (found, _) = await logs(engine)
            assert placed(found) == dict(enumerate(bodies, 1))
        # And what it stands on, where nothing else has it.
        server.command("LSET", key, -1, six[:-1] + b"newer 6")
        server.command("RPUSH", key, six.replace(b" 6\0", b" 8\0"))
        server.kill()
        server.start()
        bodies[5:] = [b"newer 6", b""]
        async with opened(server) as (engine, _):
            await appended(engine, entries(1, start=8)[0])
            (found, _) = await logs(engine)
            assert placed(found) == dict(enumerate([*bodies, b"8"], 1))
        said = (server.folder / "log").read_text()
        assert f"pov-rt: {key.decode()} has lost its entry 7" in said
        assert said.count("has lost its entry") == 1

    asyncio.run(work())


@pytest.mark.parametrize("command", range(10))
def test_a_copy_takes_what_half_a_transaction_has_for_lost_as_its_source_does(
    start_redis: Start, command: int
) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")

    async def work() -> None:
        async with opened(server, max_entries=MOST) as (engine, _):
            *_, lost = await fill(engine)
        data = file_of(server).read_bytes()
        lose_power(server, inside_the_last_transaction(data)[command])
        for _ in range(2):
            server.start()
            async with opened(server, max_entries=MOST) as (engine, _):
                await engine.log.top(A)
            server.kill()
        server.start()
        settings = EngineSettings()
        other = MemoryEngine(settings, SystemClock(), "node-1", Keeping(settings))
        await other.start(Recorder())
        async with opened(server, max_entries=MOST) as (engine, _):
            await copy(engine.copying, other.copying, time.time(), lambda _: None)
            lost = lost._replace(key="another id")  # so that its number alone is known
            assert await other.log.append([lost]) == await engine.log.append([lost])
        await other.close()

    asyncio.run(work())


@pytest.mark.parametrize("command", range(12))
@pytest.mark.parametrize("start", [1, 2])
def test_half_of_what_would_have_begun_a_log_is_not_in_it(
    start_redis: Start, command: int, start: int
) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    lost, other = entries(2, feed=FEED)

    async def work() -> None:
        async with opened(server) as (engine, _):
            await engine.log.append([lost])
        data = file_of(server).read_bytes()
        lose_power(server, inside_the_last_transaction(data)[command])
        server.start()
        if start == 1:
            async with opened(server) as (engine, _):
                await appended(engine, other)
        server.kill()
        server.start()
        async with opened(server) as (engine, _):
            place = await appended(engine, other)
            for found in await logs(engine):
                assert found[-1].body == other.body
                assert [entry.offset for entry in found] == list(range(1, len(found) + 1))
                assert [entry.body for entry in found[:-1]] in ([], [lost.body])
            assert place.offset == len((await logs(engine))[0])

    asyncio.run(work())

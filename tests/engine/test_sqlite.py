"""The SQLite engine keeps every guarantee of engines, over restarts too."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Appended, Conflict, Engine, Entry, Health, NewEntry, Position, Top
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.memory import MemoryEngine
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.engine.sqlite import writer as writer_module
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import ManualClock
from pov_rt.suites import EngineSuite, Povs, Recorder, stub
from tests.engine.sqlite_parts import WAIT_S, content, entries, held, offsets, opened, tidied
from tests.processes import running

A, B, FEED = "pov/a", "pov/b", "team/main"


class TestSqliteEngine(EngineSuite):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "pov-rt.db"

    def make(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
        own = EngineSettings(**settings)
        keeping = Keeping(own, povs, stub)
        return SqliteEngine(self.path, own, clock, "node-1", keeping)

    def make_other(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
        self.path = self.path.with_name(f"other-{self.path.name}")
        return self.make(clock, povs, **settings)


# Restart:


def test_everything_survives_a_restart(path: Path) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with opened(path, clock) as (engine, _):
            batch = [NewEntry(A, "p", "1", b"one", FEED, "origin"), NewEntry(B, "p", "1", b"b")]
            (first, _other) = await engine.log.append(batch)
            await engine.marks.advance(A, "ana", "read", Position(first.epoch, 1))
            await engine.sets.add("durable", "ana", b"x")
            await engine.sets.add("durable", "ben", b"y", expires_at=clock.time() + 5)
        clock.advance(6)
        async with opened(path, clock) as (engine, told):
            await engine.watch(A)
            done = await engine.log.append(
                [NewEntry(A, "p", "1", b"one", FEED), NewEntry(A, "p", "1", b"other")]
            )
            assert done == [
                Appended(first.epoch, 1, duplicate=True),
                Conflict(first.epoch, 1),
            ]
            assert told.told == []
            page = await engine.log.read(A, 0, 9)
            assert page.top == (first.epoch, 1, 1)
            assert page.entries == [Entry(1, b"one", clock.time() - 6, "origin")]
            assert await offsets(engine, FEED) == [1]
            assert await engine.marks.get(A, "ana", "read") == (first.epoch, 1)
            assert await engine.sets.members("durable") == {"ana": b"x"}
            assert await engine.log.append(entries(A, 2, start=2)) == [
                Appended(first.epoch, 2),
                Appended(first.epoch, 3),
            ]

    asyncio.run(work())


CHILD = """
import asyncio, sys
from pathlib import Path
from pov_rt.runtime.clock import SystemClock
from pov_rt.engine.base import NewEntry
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.config.settings import EngineSettings
from pov_rt.suites import Recorder

async def main():
    engine = SqliteEngine(Path(sys.argv[1]), EngineSettings(), SystemClock(), "child")
    await engine.start(Recorder())
    number = (await engine.log.top("pov/a")).offset
    while True:
        number += 1
        await engine.log.append([NewEntry("pov/a", "p", str(number), b"%d" % number)])
        print(number, flush=True)

asyncio.run(main())
"""


def test_a_killed_process_loses_nothing_acknowledged_and_its_lock(path: Path) -> None:
    async def read(refused: bool) -> list[bytes]:
        # The child has the real time, this the time of a clock of its own.
        async with opened(path, max_age_s=1e9) as (engine, _):
            assert not refused
            return [entry.body for entry in (await engine.log.read(A, 0, 100_000)).entries]

    command = [sys.executable, "-c", CHILD, str(path)]
    for _kill in range(2):
        with running(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            acknowledged = [child.stdout.readline() for _ in range(50)]
            with pytest.raises(Unavailable, match=rf"in use by .* \(pid {child.pid}\)"):
                asyncio.run(read(refused=True))
            child.kill()
            acknowledged += [line for line in child.stdout if line.endswith("\n")]
        bodies = asyncio.run(read(refused=False))
        # One more may have been written and not acknowledged.
        assert len(bodies) - int(acknowledged[-1]) in (0, 1)
        assert bodies == [b"%d" % number for number in range(1, len(bodies) + 1)]


def test_a_second_engine_of_the_same_process_is_refused_too(path: Path) -> None:
    async def work() -> None:
        async with opened(path):
            with pytest.raises(Unavailable, match=f"pid {os.getpid()}"):
                async with opened(path):
                    pass
        async with opened(path):
            pass

    asyncio.run(work())


# Durable first, then told:


def test_append_returns_and_followers_hear_only_after_the_commit(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as (engine, told):
            await engine.watch(A)
            with held(engine) as writer:
                task = asyncio.ensure_future(engine.log.append(entries(A, 3)))
                await asyncio.wait_for(writer.reached.wait(), WAIT_S)
                assert await offsets(engine, A) == []
                assert (await engine.log.top(A)).offset == 0
                assert (task.done(), told.told) == (False, [])
                writer.release()
                await asyncio.wait_for(task, WAIT_S)
            assert told.offsets(A) == await offsets(engine, A) == [1, 2, 3]

    asyncio.run(work())


def test_a_cancelled_append_is_written_and_told_as_any_other(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as (engine, told):
            await engine.watch(A)
            with held(engine) as writer:
                tasks = [
                    asyncio.ensure_future(engine.log.append(entries(A, 2, start=2 * number)))
                    for number in range(5)
                ]
                await asyncio.wait_for(writer.reached.wait(), WAIT_S)
                for task in tasks[::2]:
                    task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(each, asyncio.CancelledError) for each in done] == [
                True, False, True, False, True,
            ]  # fmt: skip
            assert (await engine.log.append(entries(A, 1, start=99)))[0].offset == 11
            assert told.offsets(A) == await offsets(engine, A) == list(range(1, 12))
            assert engine.waiting_bytes == 0

    asyncio.run(work())


def test_a_writer_that_is_behind_sends_publishers_away_first_who_has_half_of_what_waits(
    path: Path,
) -> None:
    async def work() -> None:
        async with opened(path, backlog_bytes=130_000) as (engine, _):
            with held(engine) as writer:
                tasks = [asyncio.ensure_future(engine.log.append(entries(A, 1)))]
                await asyncio.wait_for(writer.reached.wait(), WAIT_S)
                for number, publisher in enumerate("ppqpqr", 1):
                    new = NewEntry(A, publisher, str(number), b"x" * 30_000)
                    tasks.append(asyncio.ensure_future(engine.log.append([new])))
                await asyncio.sleep(0)
                refused = [task for task in tasks if task.done()]
                assert [tasks.index(task) for task in refused] == [4, 6]
                for task in refused:
                    with pytest.raises(Unavailable, match="behind") as error:
                        await task
                    assert error.value.retry_after_s == 1.0
                assert engine.bounds[2].used() == engine.waiting_bytes > 120_000
            done = await asyncio.gather(*(task for task in tasks if task not in refused))
            assert [each[0].offset for each in done] == [1, 2, 3, 4, 5]
            # A batch above the bound is taken when nothing else waits: it could never be otherwise.
            (large,) = await engine.log.append(entries(A, 1, b"x" * 200_000, start=9))
            assert large.offset == 6

    asyncio.run(work())


async def count_reads(engine: SqliteEngine, topic: str, expected: int) -> Top:
    """Ask for a topic's top three times; check how often the disk was asked."""
    reads = 0
    read = engine.read

    async def counted(operation: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(operation)

    engine.read = counted  # type: ignore[method-assign]
    tops = {await engine.log.top(topic) for _ in range(3)}
    engine.read = read  # type: ignore[method-assign]
    assert reads == expected
    (top,) = tops
    return top


def test_the_top_of_a_watched_topic_is_read_once_when_its_oldest_is_too_old(path: Path) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with opened(path, clock, max_age_s=10.0) as (engine, _):
            await engine.watch(A)
            await engine.log.append(entries(A, 2))
            clock.advance(6)
            await engine.log.append(entries(A, 1, start=2))
            assert (await count_reads(engine, A, 0))[1:] == (3, 1)
            clock.advance(6)
            assert (await count_reads(engine, A, 1))[1:] == (3, 3)
            assert (await count_reads(engine, A, 0))[1:] == (3, 3)
            clock.advance(6)
            assert (await count_reads(engine, A, 1))[1:] == (3, 4)
            assert (await count_reads(engine, A, 0))[1:] == (3, 4)
            await engine.log.append(entries(A, 1, start=3))
            assert (await count_reads(engine, A, 0))[1:] == (4, 4)
            clock.advance(11)
            assert (await count_reads(engine, A, 1))[1:] == (4, 5)

    asyncio.run(work())


def test_the_top_of_a_topic_appended_to_while_it_came_to_be_watched_is_read_once(
    path: Path,
) -> None:
    async def work() -> None:
        async with opened(path) as (engine, told):
            read = engine.read

            async def late(operation: Any) -> Any:
                engine.read = read  # type: ignore[method-assign]
                page = await read(operation)
                await engine.log.append(entries(A, 2))
                return page

            engine.read = late  # type: ignore[method-assign]
            await engine.watch(A)
            assert told.offsets(A) == [1, 2]
            assert (await count_reads(engine, A, 1))[1:] == (2, 1)
            assert (await count_reads(engine, A, 0))[1:] == (2, 1)

    asyncio.run(work())


def test_the_log_is_copied_into_the_database_between_commits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "REST_PAGES", 1)

    async def work() -> None:
        async with opened(path) as (engine, _):
            await engine.log.append(entries(A, 1, b"the first body"))
            await tidied(engine, 2)  # between two it does what else there is to do
            copied.append(content(path, beside=False))

    copied: list[bytes] = []
    asyncio.run(work())
    assert b"the first body" in copied[0]


# Closing:


def test_what_is_asked_of_a_closed_engine_is_refused_and_does_not_wait(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as (engine, _):
            accepted = asyncio.ensure_future(engine.log.append(entries(A, 1)))
            await asyncio.sleep(0)
            closing_tasks = [asyncio.create_task(engine.close()) for _ in range(2)]
            await asyncio.sleep(0)
            for ask in (
                engine.log.append(entries(A, 1, start=1)),
                engine.marks.advance(A, "ana", "read", Position("e", 1)),
            ):
                with pytest.raises(Unavailable, match="closed"):
                    await asyncio.wait_for(ask, WAIT_S)
            await asyncio.gather(*closing_tasks)
            assert (await accepted)[0].offset == 1
            with pytest.raises(Unavailable, match="closed"):
                await engine.log.read(A, 0, 1)
            assert engine.health() == Health()
        async with opened(path) as (engine, _):
            assert await offsets(engine, A) == [1]

    asyncio.run(work())


def test_a_close_that_is_cancelled_can_be_finished(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as (engine, _):
            with held(engine) as writer:
                append = asyncio.ensure_future(engine.log.append(entries(A, 1)))
                await asyncio.wait_for(writer.reached.wait(), WAIT_S)
                close = asyncio.create_task(engine.close())
                await asyncio.sleep(0)
                close.cancel()
                await asyncio.gather(close, return_exceptions=True)
            await engine.close()
            assert (await append)[0].offset == 1
        async with opened(path) as (engine, _):
            assert await offsets(engine, A) == [1]

    asyncio.run(work())


# The same as memory does:


class Pair:
    """Two engines that are told the same; `check` compares what they say, epochs apart."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.chance = random.Random(seed)
        self.clock = ManualClock()
        self.settings = EngineSettings(
            max_entries=self.chance.choice((3, 20, 1000)), max_age_s=30.0, id_window_s=20.0
        )
        self.told = Recorder(), Recorder()
        self.memory = MemoryEngine(self.settings, self.clock, "node-1")

    async def run(self, steps: int) -> None:
        await self.memory.start(self.told[0])
        for topic in (A, FEED):
            await self.memory.watch(topic)
        await self.open()
        work = (self.append,) * 4 + (self.read,) * 3 + (self.age, self.reopen, self.keep)
        try:
            for _ in range(steps):
                await self.chance.choice(work)()
            await self.read()
        finally:
            await self.sqlite.close()
        for topic in (A, FEED):
            said = [[(o, b) for name, _, o, b in told.told if name == topic] for told in self.told]
            assert said[0] == said[1]

    async def open(self) -> None:
        self.sqlite = SqliteEngine(self.path, self.settings, self.clock, "node-1")
        await self.sqlite.start(self.told[1])
        for topic in (A, FEED):
            await self.sqlite.watch(topic)

    async def reopen(self) -> None:
        epoch = self.sqlite.epoch
        await self.sqlite.close()
        await self.open()
        assert self.sqlite.epoch == epoch

    async def append(self) -> None:
        chance = self.chance
        batches = [
            [
                NewEntry(
                    chance.choice((A, B)),
                    chance.choice("pq"),
                    str(chance.randrange(40)),
                    chance.choice((b"", b"1", b"2")) if chance.random() < 0.2 else b"1",
                    chance.choice(("", FEED)),
                )
                for _ in range(chance.randrange(1, 12))
            ]
            for _ in range(chance.randrange(1, 4))
        ]
        done = await asyncio.gather(*(self.sqlite.log.append(batch) for batch in batches))
        expected = [await self.memory.log.append(batch) for batch in batches]
        assert [[structs.replace(each, epoch="") for each in batch] for batch in done] == [
            [structs.replace(each, epoch="") for each in batch] for batch in expected
        ]

    async def read(self) -> None:
        chance = self.chance
        for topic in (A, B, FEED, "pov/none"):
            span = chance.randrange(30), chance.randrange(1, 30)
            reverse = chance.random() < 0.5
            mine = await self.sqlite.log.read(topic, *span, reverse=reverse)
            other = await self.memory.log.read(topic, *span, reverse=reverse)
            assert mine.top[1:] == other.top[1:]
            assert list(mine.entries) == list(other.entries)
            assert (await self.sqlite.log.top(topic))[1:] == other.top[1:]

    async def age(self) -> None:
        self.clock.advance(self.chance.choice((1, 5, 25)))

    async def keep(self) -> None:
        chance = self.chance
        user, topic = chance.choice(("ana", "ben")), chance.choice((A, B))
        position = Position(chance.choice("ef"), chance.randrange(9))
        expires_at = chance.choice((None, self.clock.time() + 10))
        said: list[Any] = []
        for engine in (self.sqlite, self.memory):
            said.append(await engine.marks.advance(topic, user, "read", position))
            said.append(await engine.marks.all(topic, "read"))
            said.append(await engine.sets.members("s"))
            await engine.sets.add("s", user, topic.encode(), expires_at)
        assert said[:3] == said[3:]


@pytest.mark.parametrize("seed", range(12))
def test_it_says_what_the_memory_engine_says_whatever_is_asked(path: Path, seed: int) -> None:
    asyncio.run(Pair(path, seed).run(80))

"""What befalls a disk is one clear line, an error for publishers, and never a false answer."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pov_rt.engine.base import Appended, Health, NewEntry, Position
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.engine.sqlite import writer as writer_module
from pov_rt.protocol.errors import Unavailable
from tests.engine.sqlite_parts import WAIT_S, entries, offsets, opened, rows, small_disk

A = "pov/a"


class Publisher:
    """Appends until it cannot, and knows what was acknowledged."""

    def __init__(self, engine: SqliteEngine) -> None:
        self.engine = engine
        self.acknowledged: list[int] = []
        self.number = 0

    async def append(self, count: int = 20) -> None:
        """Append a batch, again with the same keys after a failure."""
        batch = entries(A, count, b"x" * 500, start=self.number)
        done = await self.engine.log.append(batch)
        self.number += count
        self.acknowledged += [each.offset for each in done]

    async def fill(self) -> Unavailable:
        """Append until it fails; return the failure."""
        for _ in range(10_000):
            try:
                await self.append()
            except Unavailable as error:
                return error
        raise AssertionError("the disk never gets full")


async def survive_full_disk(engine: SqliteEngine, told: Any, make_room: Callable[[], None]) -> None:
    """Fill the disk, fail honestly, and go on once there is room."""
    await engine.watch(A)
    publisher = Publisher(engine)
    error = await publisher.fill()
    assert str(error) == "The log cannot be written: there is no room left for its file"
    assert engine.health().line == f"there is no room left for {engine.path}"
    for _ in range(10):
        with pytest.raises(Unavailable):
            await publisher.append()
        with pytest.raises(Unavailable):
            await engine.marks.advance(A, "u" * 100_000, "read", Position("e", 1))
    # What was acknowledged is there, and can be read; nobody was told of more.
    assert told.offsets(A) == publisher.acknowledged == await offsets(engine, A)
    make_room()
    await publisher.append()
    assert engine.health() == Health()
    assert told.offsets(A) == publisher.acknowledged == await offsets(engine, A)
    assert publisher.acknowledged == list(range(1, len(publisher.acknowledged) + 1))


def one_episode(caplog: pytest.LogCaptureFixture) -> None:
    """Check that a failure and its end have one line each."""
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    (bad, good) = lines
    assert bad[0] == "ERROR"
    assert bad[1].startswith("the log cannot be written: ")
    assert good == ("WARNING", "the log can be written again")


def test_a_full_disk_fails_publishers_honestly_and_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"

    async def work(remount: Callable[[str], None]) -> None:
        async with opened(folder / "pov-rt.db") as (engine, told):
            await survive_full_disk(engine, told, lambda: remount("size=8m"))
            count = len(told.told)
        async with opened(folder / "pov-rt.db") as (engine, _):
            assert await offsets(engine, A) == list(range(1, count + 1))

    with small_disk(folder, "1m") as remount:
        asyncio.run(work(remount))
    one_episode(caplog)


def test_a_full_database_fails_publishers_honestly_and_recovers(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same without a mount, for those who may not."""

    async def work() -> None:
        async with opened(path) as (engine, told):
            limit(engine, 200)
            await survive_full_disk(engine, told, lambda: limit(engine, 10_000))

    asyncio.run(work())
    one_episode(caplog)


def limit(engine: SqliteEngine, pages: int) -> None:
    engine.writer.connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_restart_on_a_full_disk_serves_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "data" / "pov-rt.db"

    async def work() -> None:
        async with opened(path) as (engine, _):
            publisher = Publisher(engine)
            await publisher.fill()
        async with opened(path) as (engine, _):
            assert await offsets(engine, A) == publisher.acknowledged
            with pytest.raises(Unavailable, match="no room left"):
                await engine.log.append(entries("pov/b", 1, b"x" * 1_000_000))

    with small_disk(path.parent, "1m"):
        asyncio.run(work())


def test_room_for_a_little_is_not_taken_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer_module, "TIDY_S", 0.005)
    path = tmp_path / "data" / "pov-rt.db"

    async def work(remount: Callable[[str], None]) -> None:
        async with opened(path) as (engine, _):
            loop, probed = asyncio.get_running_loop(), asyncio.Semaphore(0)
            writer: Any = engine.writer
            probe = writer.probe

            def tell() -> None:
                probe()
                loop.call_soon_threadsafe(probed.release)

            writer.probe = tell
            with pytest.raises(Unavailable):
                await engine.log.append(entries(A, 1, b"x" * 1_500_000))
            async with asyncio.timeout(WAIT_S):
                for _ in range(5):
                    await probed.acquire()
                    assert engine.health() != Health()
                remount("size=16m")
                while engine.health() != Health():
                    await probed.acquire()
            await engine.log.append(entries(A, 1, b"x" * 1_500_000))
            assert rows(path, "SELECT name FROM meta") == [("epoch",), ("generation",), ("run",)]

    with small_disk(path.parent, "1m") as remount:
        asyncio.run(work(remount))
    one_episode(caplog)


def test_an_idle_writer_finds_out_that_there_is_room_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "TIDY_S", 0.005)

    async def work() -> None:
        loop, recovered = asyncio.get_running_loop(), asyncio.Event()

        class Watch(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "can be written again" in record.getMessage():
                    loop.call_soon_threadsafe(recovered.set)

        watch = Watch()
        writer_module.log.addHandler(watch)
        try:
            async with opened(path) as (engine, _):
                deny(engine, True)
                with pytest.raises(Unavailable):
                    await engine.log.append(entries(A, 1))
                assert engine.health() != Health()
                deny(engine, False)
                await asyncio.wait_for(recovered.wait(), WAIT_S)
                assert engine.health() == Health()
                assert await engine.log.append(entries(A, 1)) == [Appended(engine.epoch, 1)]
        finally:
            writer_module.log.removeHandler(watch)

    asyncio.run(work())


def deny(engine: SqliteEngine, everything: bool) -> None:
    """Have each statement of the writer fail, as on a disk that has gone."""
    connection = engine.writer.connection
    connection.set_authorizer((lambda *_: sqlite3.SQLITE_DENY) if everything else None)


def test_a_disk_that_fails_every_statement_leaves_nobody_waiting(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as (engine, told):
            await engine.watch(A)
            await engine.log.append(entries(A, 1))
            deny(engine, True)
            for _ in range(3):
                with pytest.raises(Unavailable, match="cannot be written"):
                    await asyncio.wait_for(engine.log.append(entries("pov/new", 1)), WAIT_S)
            deny(engine, False)
            await engine.log.append([*entries("pov/new", 1), *entries(A, 1, start=1)])
            assert await offsets(engine, "pov/new") == [1]
            assert told.offsets(A) == [1, 2]

    asyncio.run(work())


def test_a_commit_that_fails_acknowledges_nothing(path: Path) -> None:
    class Failing:
        """The writer's connection, which cannot commit."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def execute(self, statement: str) -> sqlite3.Cursor:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return self._connection.execute(statement)

    async def work() -> None:
        async with opened(path) as (engine, told):
            await engine.watch(A)
            await engine.log.append(entries(A, 2))
            writer: Any = engine.writer
            connection = writer.connection
            writer.connection = Failing(connection)
            tasks = [
                # One of a new topic: its name is written apart, so that there is a commit to fail.
                asyncio.ensure_future(engine.log.append(batch))
                for batch in (entries(A, 2, start=2), entries("pov/new", 2))
            ]
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(each) for each in done] == [Unavailable, Unavailable]
            writer.connection = connection
            assert told.offsets(A) == await offsets(engine, A) == [1, 2]
            (again,) = await engine.log.append(entries(A, 1, start=4))
            assert again == Appended(engine.epoch, 3)
            assert told.offsets(A) == [1, 2, 3]

    asyncio.run(work())


def test_a_mistake_of_the_program_fails_its_group_and_no_later_one(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with opened(path) as (engine, _):
            with pytest.raises(Unavailable, match="an internal error"):
                await engine.log.append([NewEntry(A, "p", "1", "no bytes")])  # type: ignore[arg-type]
            assert engine.health() == Health()
            assert await engine.log.append(entries(A, 1)) == [Appended(engine.epoch, 1)]

    asyncio.run(work())
    assert "the log's writer failed" in caplog.text


def test_a_mistake_of_whoever_is_told_is_one_jobs_alone(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with opened(path) as (engine, told):
            await engine.watch(A)
            await engine.watch("pov/b")
            tell = told.entries

            def fail_for_b(topic: str, *more: Any) -> None:
                if topic == "pov/b":
                    raise ValueError("a mistake")
                tell(topic, *more)

            monkeypatch.setattr(told, "entries", fail_for_b)
            tasks = [
                asyncio.ensure_future(engine.log.append(batch))
                for batch in (entries(A, 1), entries("pov/b", 1), entries(A, 1, start=1))
            ]
            done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), WAIT_S)
            assert [type(each) for each in done] == [list, ValueError, list]
            assert told.offsets(A) == [1, 2]
            assert engine.waiting_bytes == 0

    asyncio.run(work())
    assert "what was written could not be taken over" in caplog.text


def test_damaged_pages_are_named_and_nothing_is_made_up(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fill() -> None:
        async with opened(path) as (engine, _):
            await engine.log.append(entries(A, 2000, b"x" * 200))

    def damage() -> None:
        size = path.stat().st_size
        with open(path, "r+b") as file:
            file.seek(4096 * 3)
            file.write(b"\xff" * (size - 4096 * 3))

    async def work() -> None:
        async with opened(path) as (engine, told):
            damage()
            with pytest.raises(Unavailable) as error:
                await engine.log.read(A, 0, 100)
            text = "damaged; bring back a backup with: pov-rt db restore"
            assert str(error.value) == f"The log cannot be read: its file is {text}"
            with pytest.raises(Unavailable):
                await engine.watch(A)
            with pytest.raises(Unavailable) as error:
                await engine.log.append(entries(A, 1, start=5000))
            assert str(error.value) == f"The log cannot be written: its file is {text}"
            assert engine.health().line == f"{path} is {text}"
            assert told.told == []

    asyncio.run(fill())
    asyncio.run(work())
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1

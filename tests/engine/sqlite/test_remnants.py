"""Copies of bodies that SQLite leaves where it moves rows are found, and gone soon."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pov_rt.engine.base import Health, NewEntry, Rewrite
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.engine.sqlite import remnants as remnants_module
from pov_rt.engine.sqlite import writer as writer_module
from pov_rt.engine.sqlite.log import LogStore
from pov_rt.engine.sqlite.remnants import FilePages, has_remnant
from pov_rt.engine.sqlite.schema import file_size
from tests.engine.sqlite_parts import WAIT_S, content, entries, opened, rows

NOTED = "SELECT 1 FROM meta WHERE name = 'remnants'"


def versions(content: bytes) -> set[bytes]:
    """Return which bodies of an `Editor` there are traces of."""
    return set(re.findall(rb"V\d+-\d+-", content))


class Editor:
    """Appends bodies of many sizes and replaces them, as often as asked: SQLite moves rows then."""

    def __init__(self, engine: SqliteEngine) -> None:
        self._engine = engine
        self._chance = random.Random(1)
        self.now = {offset: self._body(offset, 0) for offset in range(1, 1501)}

    async def append(self) -> None:
        """Append all of them."""
        batch = [NewEntry("pov/a", "p", str(n), self.now[n]) for n in sorted(self.now)]
        await self._engine.log.append(batch)

    async def edit(self, times: int) -> None:
        """Replace a tenth of them, again and again."""
        for number in range(1, times + 1):
            changes = [
                Rewrite("pov/a", offset, self.now[offset], self._body(offset, number))
                for offset in self._chance.sample(sorted(self.now), 150)
            ]
            assert all(await self._engine.log.edit(changes))
            self.now |= {each.offset: each.body for each in changes}

    @property
    def kept(self) -> set[bytes]:
        """What there may be traces of."""
        return set.union(*(versions(each) for each in self.now.values()))

    def _body(self, offset: int, number: int) -> bytes:
        return b"V%d-%d-" % (offset, number) * self._chance.randrange(5, 150)


async def looked(path: Path) -> None:
    """Wait until the file was looked through after the last change, and nothing is left."""
    async with asyncio.timeout(WAIT_S):
        while rows(path, NOTED):  # noqa: ASYNC110  (it tells nobody)
            await asyncio.sleep(0.01)


async def emptied(path: Path) -> None:
    """Wait until the write-ahead log is empty: a file that was written anew is in it first."""
    async with asyncio.timeout(WAIT_S):
        while file_size(Path(f"{path}-wal")):  # noqa: ASYNC110  (it tells nobody)
            await asyncio.sleep(0.01)


def number_of(path: Path) -> int:
    """Count the pages with remnants in a file that no engine of this process has open."""
    pages = FilePages(path)
    try:
        while not pages.step():
            pass
        return pages.number
    finally:
        pages.close()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have many steps in small files, and no pause between two searches."""
    monkeypatch.setattr(remnants_module, "STEP_BYTES", 65536)
    monkeypatch.setattr(remnants_module, "LOOK_S", 0.0)


def test_copies_in_the_pages_are_found_and_gone_while_others_publish(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.db"
    caplog.set_level(logging.INFO)

    async def run() -> None:
        async with opened(path) as (engine, _):
            editor = Editor(engine)
            await editor.append()
            await editor.edit(40)
            publishing = asyncio.create_task(looked(path))
            number = 0
            while not publishing.done():
                await engine.log.append(entries("pov/b", 1, start=number))
                number += 1
            await publishing
            await editor.edit(1)  # what was published last is in the write-ahead log until then
            await looked(path)
            await emptied(path)
            assert versions(content(path)) == editor.kept
            page = await engine.log.read("pov/a", 0, 2000)
            assert {each.offset: each.body for each in page.entries} == editor.now
            assert (await engine.log.top("pov/b")).offset == number
        assert number_of(path) == 0

    asyncio.run(run())
    (line, *_) = [each for each in caplog.messages if each.startswith("wrote ")]
    assert re.fullmatch(
        rf"wrote {path} anew \(\d+ MB, [\d.]+ s\): [1-9]\d* pages had copies .*", line
    )


def test_nothing_is_written_anew_where_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"

    def rebuild(store: LogStore, path: Path) -> None:
        raise AssertionError("rebuilt")

    monkeypatch.setattr(LogStore, "rebuild", rebuild)

    async def run() -> None:
        async with opened(path) as (engine, _):
            for start in range(0, 2000, 100):
                await engine.log.append(entries("pov/a", 100, b"x" * 300, start))
            newest = (await engine.log.top("pov/a")).offset
            # A body that is not longer stays where it is.
            rewrites = [Rewrite("pov/a", newest - n, b"x" * 300, b"y" * 300) for n in range(9)]
            assert all(await engine.log.edit(rewrites))
            await looked(path)
            await emptied(path)
            assert engine.health() == Health()

    asyncio.run(run())


def test_a_large_file_is_not_written_anew_unasked_but_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.db"
    monkeypatch.setattr(writer_module, "LARGE_BYTES", 100_000)

    async def run() -> None:
        async with opened(path) as (engine, _):
            editor = Editor(engine)
            await editor.append()
            await editor.edit(40)
            async with asyncio.timeout(WAIT_S):
                while "pov-rt db scrub" not in caplog.text:  # noqa: ASYNC110  (it tells nobody)
                    await asyncio.sleep(0.01)
            assert versions(content(path)) > editor.kept
            assert rows(path, NOTED)
            await engine.scrub()
            assert versions(content(path)) == editor.kept
            assert not rows(path, NOTED)

    asyncio.run(run())


def test_what_was_due_when_the_process_died_is_done_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, crashed = tmp_path / "log.db", tmp_path / "crashed" / "log.db"

    async def run() -> None:
        with monkeypatch.context() as never:
            never.setattr(LogStore, "empty", lambda _: False)
            async with opened(path) as (engine, _):
                editor = Editor(engine)
                await editor.append()
                await editor.edit(40)
                ignored = shutil.ignore_patterns("crashed")
                shutil.copytree(tmp_path, crashed.parent, ignore=ignored)
        assert versions(content(crashed)) > editor.kept
        async with opened(crashed):
            await looked(crashed)
            await emptied(crashed)
            assert versions(content(crashed)) == editor.kept

    asyncio.run(run())


def test_a_file_that_cannot_be_written_anew_now_is_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.db"
    rebuild = LogStore.rebuild

    def fail_once(store: LogStore, path: Path) -> None:
        monkeypatch.setattr(LogStore, "rebuild", rebuild)
        raise sqlite3.OperationalError("no room")

    monkeypatch.setattr(LogStore, "rebuild", fail_once)

    async def run() -> None:
        async with opened(path) as (engine, _):
            editor = Editor(engine)
            await editor.append()
            await editor.edit(40)
            await looked(path)
            await emptied(path)
            assert versions(content(path)) == editor.kept
            assert engine.health() == Health()

    asyncio.run(run())
    assert [each for each in caplog.messages if "cannot be written anew; that is tried" in each]


def test_a_change_that_is_refused_leaves_nothing_to_do(tmp_path: Path) -> None:
    path = tmp_path / "log.db"

    async def run() -> None:
        async with opened(path) as (engine, _):
            await engine.log.append(entries("pov/a", 1))
            assert await engine.log.edit([Rewrite("pov/a", 1, b"other", b"{}")]) == [False]
            assert not rows(path, NOTED)

    asyncio.run(run())


def page_of(*, gap: bytes = b"", block: bytes = b"", kind: int = 13) -> bytes:
    """Return a page of 512 bytes with one row at its end and a free block of 40 before it."""
    page = bytearray(512)
    page[:8] = bytes((kind, *(420).to_bytes(2), *(1).to_bytes(2), *(420).to_bytes(2), 0))
    page[8:10] = (460).to_bytes(2)
    page[460:] = b"r" * 52
    page[420:424] = bytes((0, 0, 0, 40))
    page[300 : 300 + len(gap)] = gap
    page[424 : 424 + len(block)] = block
    return bytes(page)


def test_a_page_has_remnants_in_its_gap_and_in_its_free_blocks() -> None:
    assert not has_remnant(page_of())
    assert has_remnant(page_of(gap=b"x"))
    assert has_remnant(page_of(block=b"x"))
    assert not has_remnant(page_of(gap=b"x", kind=5))


def test_a_page_that_is_no_page_of_rows_comes_to_an_end() -> None:
    chance = random.Random(2)
    for _ in range(500):
        assert has_remnant(b"\x0d" + chance.randbytes(511)) in (True, False)


def test_a_database_that_was_written_anew_has_no_remnants(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB)")
        numbers = [(n, b"x" * (n * 7919 % 900)) for n in range(3000)]
        connection.executemany("INSERT INTO bodies VALUES (?, ?)", numbers)
        assert number_of(path) == 0
        connection.execute("UPDATE bodies SET body = zeroblob(length(body) + 300) WHERE id % 7 = 0")
        assert number_of(path) > 0
        connection.execute("VACUUM")
        assert number_of(path) == 0

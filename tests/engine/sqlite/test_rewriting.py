"""What is amended, edited or dropped is in no file of the database any more."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pov_rt.engine.base import Amendment, Appended, NewEntry, Position, Rewrite
from pov_rt.engine.sqlite import rewriting
from pov_rt.engine.sqlite.log import LogStore
from pov_rt.engine.sqlite.schema import file_size
from pov_rt.protocol.errors import Unavailable
from tests.engine.sqlite_parts import WAIT_S, check_bodies, content, entries, opened, rows

MARK = b"MARKER-0123456789-"
SECRET = MARK * 500
"""More than a page: most of it is on pages of its own."""


def telling(key: str, publisher: str = "p") -> NewEntry:
    return NewEntry("", publisher, key, b'{"change":1}')


async def emptied(path: Path) -> None:
    """Wait until the write-ahead log is empty, which is done between two commits."""
    async with asyncio.timeout(WAIT_S):
        while file_size(Path(f"{path}-wal")):  # noqa: ASYNC110  (it tells nobody)
            await asyncio.sleep(0.01)


def test_what_was_amended_is_in_no_file_soon_and_nowhere_after_a_scrub(tmp_path: Path) -> None:
    path = tmp_path / "log.db"

    async def run() -> None:
        async with opened(path) as (engine, _):
            for body in (SECRET, MARK, b"x"):
                await engine.log.append([NewEntry("pov/a", "p", str(len(body)), body, "team/main")])
            assert MARK in content(path)
            for offset, old in ((1, SECRET), (2, MARK)):
                rewrite = Rewrite("pov/a", offset, old, b"{}")
                assert await engine.log.amend(Amendment(rewrite, telling(f"c{offset}")))
            await emptied(path)
            assert MARK not in content(path)
            await engine.log.append(entries("pov/a", 3, SECRET, start=10))
            changes = [Rewrite("pov/a", offset, SECRET, b"{}") for offset in (6, 7, 8)]
            assert await engine.log.edit(changes) == [True] * 3
            await engine.scrub()
            assert MARK not in content(path)
        assert MARK not in content(path)

    asyncio.run(run())


def test_a_crash_before_the_log_was_emptied_is_mended_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, crashed = tmp_path / "log.db", tmp_path / "crashed" / "log.db"
    # As if the writer was killed right after the commit.
    monkeypatch.setattr(LogStore, "empty", lambda _: False)

    async def run() -> None:
        async with opened(path) as (engine, _):
            await engine.log.append([NewEntry("pov/a", "p", "1", SECRET)])
            rewrite = Rewrite("pov/a", 1, SECRET, b"{}")
            assert await engine.log.amend(Amendment(rewrite, telling("2")))
            assert MARK in content(path)
            assert MARK not in content(path, beside=False)
            shutil.copytree(tmp_path, crashed.parent, ignore=shutil.ignore_patterns("crashed"))
        async with opened(crashed) as (engine, _):
            assert MARK not in content(crashed)
            page = await engine.log.read("pov/a", 0, 9)
            assert [each.body for each in page.entries] == [b"{}", b'{"change":1}']

    asyncio.run(run())


def test_who_reads_for_long_keeps_what_is_to_go_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"
    monkeypatch.setattr("pov_rt.engine.sqlite.SCRUB_S", 0.2)

    async def run() -> None:
        async with opened(path) as (engine, _):
            await engine.log.append([NewEntry("pov/a", "p", "1", SECRET)])
            with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM bodies").fetchall()
                await engine.log.edit([Rewrite("pov/a", 1, SECRET, b"{}")])
                with pytest.raises(Unavailable, match="has been reading the log"):
                    await engine.scrub()
                assert MARK in content(path)
                await engine.log.append([NewEntry("pov/a", "p", "2", b"{}")])
            await emptied(path)
            assert MARK not in content(path)

    asyncio.run(run())


def test_a_dropped_topic_leaves_no_byte_and_a_start_knows_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.db"
    name = "pov/MARKER-name"

    async def run() -> None:
        async with opened(path, max_entries=700) as (engine, _):
            log = engine.log
            for start in range(0, 900, 300):  # more than are kept: some may go by themselves
                batch = entries(name, 300, MARK + b"body", start)
                await log.append([each._replace(feed="team/main") for each in batch])
            (kept,) = await log.append([NewEntry("pov/b", "p", "1", b"b", "team/main")])
            await engine.marks.advance(name, "ana", "read", Position(kept.epoch, 1))
            await log.drop(name, lambda body: b"gone")
            await engine.scrub()
            assert b"MARKER" not in content(path)
            await log.append(entries("pov/b", 800, b"{}", 10))
        with closing(sqlite3.connect(path)) as connection:
            check_bodies(connection)
        assert rows(path, "SELECT name FROM topics ORDER BY name") == [("pov/b",), ("team/main",)]
        async with opened(path) as (engine, _):
            top = await engine.log.top("pov/b")
            assert (top.epoch, top.offset) == (kept.epoch, 801)
            assert not [each for each in caplog.messages if "not as it was left" in each]
            (again,) = await engine.log.append([NewEntry(name, "p", "1", b"{}")])
            assert (again.offset, again.epoch == kept.epoch) == (1, False)

    asyncio.run(run())


def test_a_drop_is_done_in_steps_and_others_publish_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"
    monkeypatch.setattr(rewriting, "STEP_ENTRIES", 10)
    monkeypatch.setattr(rewriting, "STEP_KEYS", 7)
    steps, drop = list[str](), rewriting.Rewriting.drop

    def counted(*given: Any) -> Any:
        steps.append("a step")
        return drop(*given)

    monkeypatch.setattr(rewriting.Rewriting, "drop", counted)

    async def run() -> None:
        async with opened(path) as (engine, recorder):
            log = engine.log
            await engine.watch("pov/a")
            await log.append(entries("pov/a", 200))
            dropping = asyncio.create_task(log.drop("pov/a", lambda body: body))
            number = 200
            while not dropping.done():
                page = await log.read("pov/a", 0, 1000)
                assert len(page.entries) == page.top.offset + 1 - page.top.oldest
                await log.append([*entries("pov/a", 1, start=number), *entries("pov/b", 1)])
                number += 1
            await dropping
            assert len(steps) > 20
            assert (await log.top("pov/b")).offset == 1
            top, told = await log.top("pov/a"), recorder.told[-1]
            assert top.offset in (0, 1)
            assert recorder.changed == ["? pov/a"]
            assert told[0] == "pov/a"

    asyncio.run(run())


def test_whose_keys_they_were_is_in_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"
    monkeypatch.setattr("pov_rt.engine.sqlite.pages.SEARCHED_KEYS", 100)

    async def run() -> None:
        async with opened(path) as (engine, _):
            mine = [NewEntry("pov/a", "user:MARKER", f"i{n}", b"{}") for n in range(1000)]
            for start in range(0, 1000, 50):
                await engine.log.append(mine[start : start + 50])
                await engine.log.append(entries("pov/a", 50, start=start))
            assert await engine.log.disown("user:MARKER") == 1000
            await engine.scrub()
            assert b"MARKER" not in content(path)
            (again,) = await engine.log.append(entries("pov/a", 1))
            assert again == Appended(again.epoch, 51, duplicate=True)

    asyncio.run(run())

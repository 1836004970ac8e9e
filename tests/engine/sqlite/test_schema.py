"""Which files are opened, brought up to date, or refused with one clear line."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pov_rt.engine.base import Appended, Conflict, Entry, NewEntry
from pov_rt.engine.sqlite.schema import APPLICATION_ID, MIGRATIONS, open_writer
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import ManualClock
from tests.engine.sqlite_parts import (
    check_bodies,
    fill_disk,
    offsets,
    opened,
    rows,
    small_disk,
    tidied,
)

FEED = "team/t"
B = "pov/b"
A = "pov/a"


def refusal(path: Path) -> str:
    """Return why the file cannot be opened."""

    async def work() -> None:
        async with opened(path):
            pass

    with pytest.raises(Unavailable) as error:
        asyncio.run(work())
    text = str(error.value)
    assert "\n" not in text
    assert str(path.parent) in text
    # What was refused lets go of its lock; the file would be refused for the same reason again.
    with pytest.raises(Unavailable) as error:
        asyncio.run(work())
    assert str(error.value) == text
    return text


def test_a_newer_schema_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("".join(MIGRATIONS))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    assert "was written by a newer pov-rt" in refusal(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    assert refusal(path).endswith("is a database of another program")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"hello", b"\0" * 5000, os.urandom(9000)])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    assert refusal(path).endswith("is no database")
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot use" in refusal(tmp_path / "file" / "pov-rt.db")


def test_a_database_that_is_a_folder_is_refused(path: Path) -> None:
    path.mkdir()
    assert "cannot be opened" in refusal(path)


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    if os.geteuid() == 0:  # whom permissions do not stop
        with small_disk(folder, "1m") as remount:
            remount("ro")
            assert "Read-only file system" in refusal(folder / "pov-rt.db")
    else:
        folder.mkdir(mode=0o500)
        assert "Permission denied" in refusal(folder / "pov-rt.db")


def test_a_database_that_became_read_only_is_named(path: Path) -> None:
    folder = path.parent / "data"

    async def work() -> None:
        async with opened(folder / "pov-rt.db"):
            pass

    with small_disk(folder, "1m") as remount:
        asyncio.run(work())
        (folder / "pov-rt.db.lock").unlink()
        (folder / "pov-rt.db.lock").symlink_to(path.parent / "lock")  # else that is named
        remount("ro")
        assert "is its folder there, and writable?" in refusal(folder / "pov-rt.db")


def test_a_disk_that_is_full_at_the_start_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with small_disk(folder, "64k"):
        fill_disk(folder / "other")
        assert "no room left" in refusal(folder / "pov-rt.db")


def test_a_file_of_the_first_schema_is_brought_up_to_date(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(MIGRATIONS[0])
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("INSERT INTO meta VALUES ('epoch', 'e')")
        connection.executemany("INSERT INTO topics VALUES (?, ?)", [(1, A), (2, FEED), (3, B)])
        connection.executemany(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
            [
                *((1, n, 1e9 + n, b"", b"a%d" % n) for n in range(3, 8)),
                *((2, n, 1e9 + n, b"o", b"a%d" % n) for n in range(1, 5)),
                (3, 9, 0.0, b"", b""),
            ],
        )
        connection.executemany(
            "INSERT INTO keys VALUES (1, ?, ?, 7, 1e9)",
            [(b"p\n7", 7), ("user:zoë\nä 1".encode(), 5)],
        )
        connection.commit()
    with closing(open_writer(path)) as connection:
        check_bodies(connection)
        assert connection.execute("SELECT count(*), max(id) FROM bodies").fetchall() == [(9, 9)]
    before, after = [record.getMessage() for record in caplog.records]
    assert before.startswith(f"bringing {path} with 10 rows from schema 1 to {len(MIGRATIONS)}; ")
    assert after.startswith(f"{path} is up to date: 10 rows, ")

    async def work() -> None:
        async with opened(path, ManualClock(1e9 + 9), max_entries=4) as (engine, _):
            assert engine.epoch == "e"
            page = await engine.log.read(A, 0, 9)
            assert page.top == ("e", 7, 4)
            assert page.entries == [Entry(n, b"a%d" % n, 1e9 + n, "") for n in range(4, 8)]
            assert await offsets(engine, FEED) == [1, 2, 3, 4]
            assert (await engine.log.top(B))[1:] == (9, 10)
            new = [
                NewEntry(A, "p", "7", b"other"),
                NewEntry(A, "user:zoë", "ä 1", b"other"),
                NewEntry(B, "p", "1", b"b", FEED),
            ]
            done = await engine.log.append(new)
            assert done == [Conflict("e", 7), Conflict("e", 5), Appended("e", 10)]
            assert await offsets(engine, FEED) == [2, 3, 4, 5]
            await tidied(engine)
            # B's emptied one leaves when the one behind it does.
            assert rows(path, "SELECT count(*) FROM entries") == [(4 + 4 + 2,)]

    asyncio.run(work())
    with closing(sqlite3.connect(path)) as connection:
        check_bodies(connection)

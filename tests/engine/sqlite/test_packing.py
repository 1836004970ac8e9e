"""Rows arrive in all tables as they were, whatever is in them and however many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pov_rt.engine.sqlite.packing import LOAD_BYTES, Groups, Rows
from pov_rt.engine.sqlite.schema import open_writer
from tests.engine.sqlite_parts import check_bodies

ODD = ("", "\0", "0" * 20, "\n", "'", "é\u2028", "\U0001f600")
TEXTS = st.text(max_size=40) | st.sampled_from(ODD)
BODIES = st.binary(max_size=40) | st.sampled_from((b"", b"\0", b"\xff\xfe"))
KEYS = TEXTS.map(lambda part: part + "\n")  # as all have one between the id and who it is from
NUMBERS = st.integers(0, 2**53 - 1)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(open_writer(Path(":memory:"))) as connection:
        yield connection


def numbered(count: int, body: bytes = b"{}", start: int = 1) -> Rows:
    """Return rows whose offsets count from `start`, every second one in a feed."""
    rows: Rows = []
    for n in range(start, start + count):
        feed = (2, n) if n % 2 else (0, 0)
        rows += (1, n, *feed, n, f"{n}\np", "", bytearray(body))
    return rows


@given(
    st.lists(
        st.tuples(KEYS, TEXTS, BODIES, NUMBERS, st.booleans()),
        max_size=8,
        unique_by=lambda row: row[0],
    )
)
def test_keys_bodies_and_places_arrive_as_they_were(
    given_rows: list[tuple[str, str, bytes, int, bool]],
) -> None:
    rows: Rows = []
    keys, bodies, entries = [], [], []
    for offset, (key, origin, body, digest, has_feed) in enumerate(given_rows, 1):
        feed, feed_offset = (2, offset + 100) if has_feed else (0, 0)
        rows += (1, offset, feed, feed_offset, digest, key, origin, bytearray(body))
        keys.append((1, key.encode(), offset, digest, 7.5))
        bodies.append((offset, 1, offset, feed, feed_offset, origin.encode(), body))
        entries.append((1, offset, 7.5, offset))
        if has_feed:
            entries.append((2, feed_offset, 7.5, offset))
    with closing(open_writer(Path(":memory:"))) as connection:
        groups = Groups(connection)
        size = groups.insert(rows, 7.5)
        assert size == sum(len(row[0]) + len(row[1]) + len(row[2]) for row in given_rows)
        assert connection.execute("SELECT * FROM keys ORDER BY offset").fetchall() == keys
        assert connection.execute("SELECT * FROM bodies ORDER BY id").fetchall() == bodies
        assert connection.execute("SELECT * FROM entries").fetchall() == sorted(entries)
        known = sorted((1, key.decode(), offset, digest) for _, key, offset, digest, _ in keys)
        assert sorted(groups.find_keys(rows, 7.5)) == known, "none is too old yet"
        assert groups.find_keys(rows, 7.6) == []
        assert connection.execute("SELECT count(*) FROM keys").fetchall() == [(0,)]


@pytest.mark.parametrize(
    ("number", "body"),
    [(3, b"{}"), (1024, b"{}"), (1025, b"{}"), (2500, b"{}"), (50, b"x" * (LOAD_BYTES // 20))],
)
def test_as_many_rows_as_there_are_go_in_by_one_order(
    connection: sqlite3.Connection, number: int, body: bytes
) -> None:
    first, second = numbered(number, body), numbered(2, start=number + 1)
    groups = Groups(connection)
    groups.insert(first, 1.0)
    groups.insert(second, 2.0)
    found = connection.execute('SELECT id, "offset", digest FROM bodies JOIN keys USING ("offset")')
    assert sorted(found) == [(n, n, n) for n in range(1, number + 3)]
    check_bodies(connection)
    assert len(groups.find_keys(numbered(number + 2, body), 0.0)) == number + 2


def test_rows_that_cannot_go_in_leave_nothing(connection: sqlite3.Connection) -> None:
    groups = Groups(connection)
    groups.insert(numbered(5), 1.0)
    for rows in (numbered(1, start=5), numbered(9, start=3), numbered(2000, start=4)):
        with pytest.raises(sqlite3.IntegrityError):
            groups.insert(rows, 2.0)
    groups.insert(numbered(2, start=6), 3.0)
    assert connection.execute("SELECT id, \"offset\" FROM bodies").fetchall() == [
        (n, n) for n in range(1, 8)
    ]  # fmt: skip
    check_bodies(connection)


def test_what_a_rollback_brings_back_is_not_written(connection: sqlite3.Connection) -> None:
    groups = Groups(connection)
    groups.find_keys(numbered(3), 0.0)
    connection.execute("BEGIN")
    groups.insert(numbered(1), 1.0)
    connection.execute("ROLLBACK")
    groups.forget()
    groups.insert(numbered(2, start=7), 2.0)
    assert connection.execute('SELECT id, "offset" FROM bodies').fetchall() == [(1, 7), (2, 8)]
    check_bodies(connection)

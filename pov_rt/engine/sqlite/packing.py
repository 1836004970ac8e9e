"""A group of rows on its way into all tables, in two statements however many they are.

A statement runs without the interpreter's lock and takes it back when it ends, which beside a busy
loop can take a switch interval (5 ms). `executemany` takes it back for every row, a statement for
each table several times a group. So one statement puts the rows, as parameters, into a table in
memory, and a trigger copies them from there into each table at once (docs/measurements.md, one
statement).
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right
from typing import Any

Rows = list[Any]
"""Rows one behind the other, of each entry its topic, offset, feed and the offset there (0, 0: it
is in none), digest, key and origin (texts), and body (a `bytearray`). The body is the last, for
SQLite walks through it to what is behind it. Python takes five times as long to hand over bytes as
any of these types, and would collect garbage because of tuples (docs/measurements.md, one
statement).
"""
_COLUMNS = 'topic, "offset", feed, feed_offset, digest, key, origin, body'
_WIDTH = 8
_TEXTS = (5, 6, 7)

_SIZES = [1 << shift for shift in range(11)]
"""How many rows a statement takes. It is compiled once for each of these, and what is left of it
is empty rows."""
_LOAD = {
    size: f"INSERT INTO rows ({_COLUMNS}) VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * size)
    for size in _SIZES
}
LOAD_BYTES = 512 * 1024
"""What a statement takes of texts and bodies: it keeps those it had last."""

_INSERT = "INSERT INTO batch VALUES (?, ?)"
_FIND_KEYS = """
    SELECT keys.topic, rows.key, keys."offset", keys.digest FROM rows
    CROSS JOIN keys ON keys.topic = rows.topic AND keys.name = CAST(rows.key AS BLOB)
    WHERE rows.id <= ?
"""
_DROP_KEYS = """
    DELETE FROM keys WHERE at < :at
    AND topic IN (SELECT topic FROM rows WHERE id <= :number)
    AND name IN (SELECT CAST(key AS BLOB) FROM rows WHERE id <= :number)
"""
"""Also those of another one of the topics: too old they are. Asked for the two together, SQLite
goes through all that its topic has."""
_CLEAR = "DELETE FROM rows"

_BATCH = """
    CREATE TEMP TABLE rows (
        id INTEGER PRIMARY KEY, topic, "offset", feed, feed_offset, digest, key, origin, body
    );
    CREATE TEMP VIEW batch (number, at) AS SELECT 0, 0;
    CREATE TEMP TRIGGER batch_insert INSTEAD OF INSERT ON batch BEGIN
        INSERT INTO keys
            SELECT topic, CAST(key AS BLOB), "offset", digest, NEW.at
            FROM rows WHERE id <= NEW.number;
        INSERT INTO bodies (topic, "offset", feed, feed_offset, origin, body)
            SELECT topic, "offset", feed, feed_offset, CAST(origin AS BLOB), body
            FROM rows WHERE id <= NEW.number ORDER BY id;
        INSERT INTO entries
            SELECT topic, "offset", NEW.at, last_insert_rowid() - NEW.number + id
            FROM rows WHERE id <= NEW.number;
        INSERT INTO entries
            SELECT feed, feed_offset, NEW.at, last_insert_rowid() - NEW.number + id
            FROM rows WHERE id <= NEW.number AND feed > 0;
        DELETE FROM rows;
    END;
"""


def prepare(connection: sqlite3.Connection) -> None:
    """Give the connection what `Groups` needs; the database knows nothing of it."""
    connection.executescript(_BATCH)


class Groups:
    """Inserts groups of rows. Used by the writer's thread only."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._is_clear = False

    def insert(self, rows: Rows, at: float) -> int:
        """Insert keys, bodies and entries, those of feeds too, at an instant, or nothing at all.

        Return how many bytes of bodies and characters of texts that were.
        """
        if not rows:
            return 0
        size = self._load(rows)
        self._connection.execute(_INSERT, (len(rows) // _WIDTH, at))
        self._is_clear = True
        return size

    def find_keys(self, rows: Rows, not_before: float) -> list[tuple[int, str, int, int]]:
        """Return the rows' keys that are there, but forget those that are too old."""
        self._load(rows)
        number = len(rows) // _WIDTH
        self._connection.execute(_DROP_KEYS, {"at": not_before, "number": number})
        return self._connection.execute(_FIND_KEYS, (number,)).fetchall()

    def forget(self) -> None:
        """Take note that a transaction was rolled back, perhaps one that had cleared the rows."""
        self._is_clear = False

    def _load(self, rows: Rows) -> int:
        """Put rows where the statements take them from; return how large they are."""
        number, most = len(rows) // _WIDTH, _SIZES[-1]
        size = sum(sum(map(len, rows[column::_WIDTH])) for column in _TEXTS)
        if size > LOAD_BYTES:
            most = _SIZES[max(0, bisect_right(_SIZES, number * LOAD_BYTES // size) - 1)]
        if not self._is_clear:
            self._connection.execute(_CLEAR)
        self._is_clear = False
        for start in range(0, number, most):
            part = rows[start * _WIDTH : (start + most) * _WIDTH]
            fitting = _SIZES[bisect_left(_SIZES, len(part) // _WIDTH)]
            part += [0] * (_WIDTH * fitting - len(part))
            self._connection.execute(_LOAD[fitting], part)
        return size

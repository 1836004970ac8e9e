"""A batch of rows as two values, and the statements that take them apart and insert them.

A statement runs without the interpreter's lock and takes it back when it ends, which beside a busy
loop can take a switch interval (5 ms). `executemany` takes it back for every row, a statement for
each table several times a batch. So one statement inserts a whole batch into all tables: the rows'
numbers are in one value (`:rows`), as decimals of fixed width, their texts and bodies in another
(`:pieces`), and SQL takes both apart (docs/measurements.md, one statement).
"""

from __future__ import annotations

import sqlite3

_FIELDS = (
    ("topic", 10),
    ("offset", 16),
    ("feed", 10),
    ("feed_offset", 16),
    ("start", 10),
    ("body_size", 10),
    ("key_size", 10),
    ("origin_size", 10),
    ("digest", 20),
)
_ROW = b"".join(b"%%%dd" % width for _, width in _FIELDS)
_WIDTH = sum(width for _, width in _FIELDS)


def _number(field: str) -> str:
    start = 1
    for name, width in _FIELDS:
        if name == field:
            return f"CAST(substr(:rows, i + {start}, {width}) AS INTEGER)"
        start += width
    raise KeyError(field)


def _piece(*before: str, size: str) -> str:
    start = " + ".join(map(_number, ("start", *before)))
    return f"substr(:pieces, {start}, {_number(size)})"


_ROWS = (
    "WITH RECURSIVE row(i) AS "
    f"(SELECT 0 UNION ALL SELECT i + {_WIDTH} FROM row WHERE i < length(:rows) - {_WIDTH}) "
)
# The more numbers it takes to find a piece, the slower. So the body, which is read twice, is first.
_BODY = _piece(size="body_size")
_KEY = _piece("body_size", size="key_size")
_ORIGIN = (
    f"CASE {_number('origin_size')} WHEN 0 THEN x'' "
    f"ELSE {_piece('body_size', 'key_size', size='origin_size')} END"
)
INSERT = (
    f"{_ROWS} INSERT INTO batch SELECT {_number('topic')}, {_number('offset')}, "
    f"{_number('feed')}, {_number('feed_offset')}, {_KEY}, {_ORIGIN}, {_BODY}, "
    f"{_number('digest')}, :at FROM row"
)
"""Inserts keys, bodies and entries, those of feeds too, at the instant `:at`, or nothing at all."""

FIND_KEYS = (
    f'{_ROWS} SELECT keys.topic, keys.name, keys."offset", keys.digest FROM row '
    f"JOIN keys ON keys.topic = {_number('topic')} AND keys.name = {_KEY}"
)

DROP_KEYS = (
    f"{_ROWS} DELETE FROM keys WHERE at < :at AND (topic, name) IN "
    f"(SELECT {_number('topic')}, {_KEY} FROM row)"
)
"""Forgets those of the rows' keys that are too old (`:at`) and still there."""


_BATCH = """
    CREATE TEMP VIEW batch (topic, "offset", feed, feed_offset, key, origin, body, digest, at)
        AS SELECT 0, 0, 0, 0, 0, 0, 0, 0, 0;
    CREATE TEMP TRIGGER batch_insert INSTEAD OF INSERT ON batch BEGIN
        INSERT INTO keys VALUES (NEW.topic, NEW.key, NEW."offset", NEW.digest, NEW.at);
        INSERT INTO bodies (topic, "offset", feed, feed_offset, origin, body) VALUES
            (NEW.topic, NEW."offset", NEW.feed, NEW.feed_offset, NEW.origin, NEW.body);
        INSERT INTO entries VALUES (NEW.topic, NEW."offset", NEW.at, last_insert_rowid());
        INSERT INTO entries
            SELECT NEW.feed, NEW.feed_offset, NEW.at, last_insert_rowid() WHERE NEW.feed > 0;
    END;
"""


def prepare(connection: sqlite3.Connection) -> None:
    """Give the connection what `INSERT` needs; the database knows nothing of it."""
    connection.executescript(_BATCH)


class Rows:
    """Rows to insert: an entry's key, itself, and its place in a feed."""

    def __init__(self) -> None:
        self._rows: list[bytes] = []
        self._pieces: list[bytes] = []
        self._size = 1  # SQLite counts bytes from 1

    @property
    def size(self) -> int:
        """Bytes of all texts and bodies."""
        return self._size - 1

    def add(
        self,
        topic: int,
        offset: int,
        feed: int,
        feed_offset: int,
        key: bytes,
        origin: bytes,
        body: bytes,
        digest: int,
    ) -> None:
        """Add an entry; `feed` 0: it is in none."""
        body_size, key_size, origin_size = len(body), len(key), len(origin)
        row = _ROW % (
            topic, offset, feed, feed_offset, self._size, body_size, key_size, origin_size, digest,
        )  # fmt: skip
        self._rows.append(row)
        self._pieces += (body, key, origin)
        self._size += body_size + key_size + origin_size

    def execute(
        self, connection: sqlite3.Connection, statement: str, at: float
    ) -> list[tuple[int, bytes, int, int]]:
        """Execute one of the statements on all rows, with an instant; return what it finds."""
        if not self._rows:
            return []
        # By name: Python 3.12.1 takes `?1` for a name too, and warns.
        values = {"rows": b"".join(self._rows), "pieces": b"".join(self._pieces), "at": at}
        return connection.execute(statement, values).fetchall()

"""A batch of rows as two values that SQLite takes apart by itself, and the statements that do it.

Each row travels as decimal numbers of fixed width, all rows in one value (`?1`), their texts and
bodies in another (`?2`). `executemany` would give the interpreter's lock up and wait to have it
back for every row: beside a busy loop it wrote 27k activities/s, this 42k (two cores, batches of
1,000, a switch interval of 0.5 ms), and the loop is held up less.
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
            return f"CAST(substr(?1, i + {start}, {width}) AS INTEGER)"
        start += width
    raise KeyError(field)


def _piece(*before: str, size: str) -> str:
    start = " + ".join(map(_number, ("start", *before)))
    return f"substr(?2, {start}, {_number(size)})"


_ROWS = (
    "WITH RECURSIVE row(i) AS "
    f"(SELECT 0 UNION ALL SELECT i + {_WIDTH} FROM row WHERE i < length(?1) - {_WIDTH}) "
)
# A number costs 0.15 us to read, so the largest piece, which is read twice, comes first.
_BODY = _piece(size="body_size")
_KEY = _piece("body_size", size="key_size")
_ORIGIN = (
    f"CASE {_number('origin_size')} WHEN 0 THEN x'' "
    f"ELSE {_piece('body_size', 'key_size', size='origin_size')} END"
)
INSERT_KEYS = (
    f"{_ROWS} INSERT INTO keys SELECT {_number('topic')}, {_KEY}, {_number('offset')}, "
    f"{_number('digest')}, ?3 FROM row"
)
INSERT_ENTRIES = (
    f"{_ROWS} INSERT INTO entries SELECT {_number('topic')}, {_number('offset')}, ?3, {_ORIGIN}, "
    f"{_BODY} FROM row"
)
INSERT_FEED = (
    f"{_ROWS} INSERT INTO entries SELECT {_number('feed')}, {_number('feed_offset')}, ?3, "
    f"{_ORIGIN}, {_BODY} FROM row WHERE {_number('feed')} > 0"
)
FIND_KEYS = (
    f'{_ROWS} SELECT keys.topic, keys.name, keys."offset", keys.digest FROM row '
    f"JOIN keys ON keys.topic = {_number('topic')} AND keys.name = {_KEY}"
)

DROP_KEYS = (
    f"{_ROWS} DELETE FROM keys WHERE at < ?3 AND (topic, name) IN "
    f"(SELECT {_number('topic')}, {_KEY} FROM row)"
)
"""Forgets those of the rows' keys that are too old (`?3`) and still there."""


class Rows:
    """Rows to insert: an entry's key, itself, and its place in a feed."""

    def __init__(self) -> None:
        self._rows: list[bytes] = []
        self._pieces: list[bytes] = []
        self._size = 1  # SQLite counts bytes from 1

    def add(
        self,
        place: tuple[int, int, int, int],
        key: bytes,
        origin: bytes,
        body: bytes,
        digest: int,
    ) -> None:
        """Add an entry; `place` is its topic and offset, and its feed and the offset there."""
        body_size, key_size, origin_size = len(body), len(key), len(origin)
        self._rows.append(_ROW % (*place, self._size, body_size, key_size, origin_size, digest))
        self._pieces += (body, key, origin)
        self._size += body_size + key_size + origin_size

    def execute(
        self, connection: sqlite3.Connection, statement: str, *more: float
    ) -> list[tuple[int, bytes, int, int]]:
        """Execute one of the statements on all rows; return what it finds."""
        if not self._rows:
            return []
        values = (b"".join(self._rows), b"".join(self._pieces), *more)
        return connection.execute(statement, values).fetchall()

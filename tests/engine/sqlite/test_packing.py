"""Rows travel to SQLite as two values and arrive as they were, whatever is in them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pov_rt.engine.sqlite.packing import DROP_KEYS, FIND_KEYS, INSERT, Rows
from pov_rt.engine.sqlite.schema import open_writer

ODD = st.sampled_from((b"", b"\0", b"0" * 20, b"\n", b"'", "é\u2028".encode(), b"\xff\xfe"))
BYTES = st.binary(max_size=40) | ODD
KEYS = BYTES.map(lambda part: part + b"\n")  # as all have one between the id and who it is from
NUMBERS = st.integers(0, 2**53 - 1)


@given(
    st.lists(
        st.tuples(KEYS, BYTES, BYTES, NUMBERS, st.booleans()),
        max_size=8,
        unique_by=lambda row: row[0],
    )
)
def test_keys_bodies_and_places_arrive_as_they_were(
    given_rows: list[tuple[bytes, bytes, bytes, int, bool]],
) -> None:
    rows, keys, bodies, entries = Rows(), [], [], []
    for offset, (key, origin, body, digest, has_feed) in enumerate(given_rows, 1):
        feed, feed_offset = (2, offset + 100) if has_feed else (0, 0)
        rows.add(1, offset, feed, feed_offset, key, origin, body, digest)
        keys.append((1, key, offset, digest, 7.5))
        bodies.append((offset, 1, offset, feed, feed_offset, origin, body))
        entries.append((1, offset, 7.5, offset))
        if has_feed:
            entries.append((2, feed_offset, 7.5, offset))
    assert rows.size == sum(len(row[0]) + len(row[1]) + len(row[2]) for row in given_rows)
    with closing(open_writer(Path(":memory:"))) as connection:
        rows.execute(connection, INSERT, 7.5)
        assert connection.execute("SELECT * FROM keys ORDER BY offset").fetchall() == keys
        assert connection.execute("SELECT * FROM bodies ORDER BY id").fetchall() == bodies
        assert connection.execute("SELECT * FROM entries").fetchall() == sorted(entries)
        found = rows.execute(connection, FIND_KEYS, 0.0)
        assert sorted(found) == sorted(
            (1, key, offset, digest) for _, key, offset, digest, _ in keys
        )
        rows.execute(connection, DROP_KEYS, 7.5)
        assert len(rows.execute(connection, FIND_KEYS, 0.0)) == len(keys), "none is too old yet"
        rows.execute(connection, DROP_KEYS, 7.6)
        assert rows.execute(connection, FIND_KEYS, 0.0) == []

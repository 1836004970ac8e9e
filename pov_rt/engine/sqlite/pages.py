"""Reading a topic's log from the database."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from sys import maxsize
from typing import NamedTuple

from pov_rt.engine.base import Entry, Page, Tally, Top
from pov_rt.engine.bounds import epoch_of
from pov_rt.engine.sqlite.schema import read_generation


class Kept(NamedTuple):
    """What every topic keeps: its newest `max_entries`, but none from before; in which database."""

    epoch: str
    max_entries: int
    not_before: float


class Span(NamedTuple):
    """Which entries are wanted, as in `Log.read`; `limit` 0: the log's state only."""

    after: int
    limit: int
    reverse: bool
    max_bytes: int | None = None


def tally(
    connection: sqlite3.Connection,
    topic: str,
    span: tuple[int, int],
    head_of: Callable[[bytes], bytes],
) -> Tally:
    """Count the entries between two offsets by their heads."""
    rows = connection.execute(
        "SELECT bodies.body FROM entries JOIN bodies ON bodies.id = entries.body "
        "WHERE entries.topic = (SELECT id FROM topics WHERE name = ?) "
        'AND entries."offset" BETWEEN ? AND ?',
        (topic, *span),
    )
    counts: Counter[bytes] = Counter()
    size = 0
    for (body,) in rows:  # one at a time: together they may be large
        counts[head_of(body)] += 1
        size += len(body)
    return Tally(counts, size)


def read_page(connection: sqlite3.Connection, topic: str, kept: Kept, span: Span) -> Page:
    """Read a page and the log's state at one instant."""
    after, limit, reverse, max_bytes = span
    connection.execute("BEGIN")
    try:
        row = connection.execute(
            "SELECT id, generation FROM topics WHERE name = ?", (topic,)
        ).fetchone()
        topic_id, generation = row or (0, read_generation(connection))
        epoch = epoch_of(kept.epoch, generation)
        top = edge(connection, topic_id, "max")
        if top is None:
            return Page(Top(epoch, 0, 1), ())
        first = first_kept(connection, topic_id, kept.not_before)
        oldest = top + 1 if first is None else max(first, top - kept.max_entries + 1)
        state = Top(epoch, top, oldest)
        if not limit:
            return Page(state, ())
        if reverse:
            span_sql, low, high = "DESC", oldest, after - 1 if after > 0 else top
        else:
            span_sql, low, high = "ASC", max(after + 1, oldest), top
        rows = connection.execute(
            'SELECT entries."offset", bodies.body, at, origin FROM entries '
            "JOIN bodies ON bodies.id = entries.body WHERE entries.topic = ? "
            f'AND entries."offset" BETWEEN ? AND ? ORDER BY entries."offset" {span_sql} LIMIT ?',
            (topic_id, low, high, limit),
        )
        entries, left = [], maxsize if max_bytes is None else max_bytes
        for offset, body, at, origin in rows:
            entries.append(Entry(offset, body, at, origin.decode()))
            left -= len(body)
            if left <= 0:
                break
        rows.close()
        return Page(state, entries)
    finally:
        connection.execute("COMMIT")


def edge(connection: sqlite3.Connection, topic_id: int, which: str) -> int | None:
    """Return the lowest (`min`) or highest (`max`) stored offset of a topic."""
    (found,) = connection.execute(
        f'SELECT {which}("offset") FROM entries WHERE topic = ?', (topic_id,)
    ).fetchone()
    return None if found is None else int(found)


def first_kept(connection: sqlite3.Connection, topic_id: int, not_before: float) -> int | None:
    """Return the offset of a topic's oldest entry that is not too old."""
    row = connection.execute(
        'SELECT "offset" FROM entries WHERE topic = ? AND at >= ? ORDER BY "offset" LIMIT 1',
        (topic_id, not_before),
    ).fetchone()
    return None if row is None else int(row[0])

"""What is in the database, counted for the operator."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pov_rt.engine.keeping import Keeping
from pov_rt.engine.sqlite.schema import file_size, read_epoch, read_version, reading


class Fitting(NamedTuple):
    """What there is of the PoVs that are kept by one pattern."""

    povs: int
    entries: int


class Stats(NamedTuple):
    """Exact counts of one instant. `oldest` and `newest` are in seconds since 1970."""

    size_bytes: int
    wal_bytes: int
    schema: int
    epoch: str
    topics: int
    entries: int
    oldest: float | None
    newest: float | None
    ids: int
    producers: int
    marks: int
    set_members: int
    stored: int
    patterns: Mapping[str, Fitting]
    """By each pattern of the settings, also those that fit nothing."""


def read_stats(path: Path, keeping: Keeping) -> Stats:
    """Count what is in the database; a server may be running. Raises `Unavailable`.

    Entries that are past their retention count until the server has removed them.
    """
    with reading(path) as connection:
        connection.execute("BEGIN")
        # The newest entry of a topic leaves an empty row, of no time, that remembers the offset.
        entries, oldest, newest = connection.execute(
            "SELECT count(*), min(at), max(at) FROM entries WHERE at > 0"
        ).fetchone()
        topics, ids, producers, marks, members, stored = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("topics", "keys", "producers", "marks", "members", "store")
        )
        return Stats(
            size_bytes=path.stat().st_size,
            wal_bytes=file_size(Path(f"{path}-wal")),
            schema=read_version(connection),
            epoch=read_epoch(connection),
            topics=topics,
            entries=entries,
            oldest=oldest,
            newest=newest,
            ids=ids,
            producers=producers,
            marks=marks,
            set_members=members,
            stored=stored,
            patterns=_count_fitting(connection, keeping) if keeping.has_rules else {},
        )


def _count_fitting(connection: sqlite3.Connection, keeping: Keeping) -> Mapping[str, Fitting]:
    found = dict.fromkeys(keeping.rules, Fitting(0, 0))
    for name, entries in connection.execute(
        "SELECT name, (SELECT count(*) FROM entries WHERE topic = topics.id AND at > 0) FROM topics"
    ):
        if (pattern := keeping.pattern_of(name)) is not None:
            before = found[pattern]
            found[pattern] = Fitting(before.povs + 1, before.entries + entries)
    return found


def library_version() -> tuple[int, ...]:
    """Return the version of SQLite's library."""
    return sqlite3.sqlite_version_info

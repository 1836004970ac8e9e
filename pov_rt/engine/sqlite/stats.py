"""What is in the database, counted for the operator."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pov_rt.engine.sqlite.schema import file_size, read_epoch, read_version, reading


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
    marks: int
    set_members: int
    stored: int


def read_stats(path: Path) -> Stats:
    """Count what is in the database; a server may be running. Raises `Unavailable`.

    Entries that are past their retention count until the server has removed them.
    """
    with reading(path) as connection:
        connection.execute("BEGIN")
        # The newest entry of a topic leaves an empty row, of no time, that remembers the offset.
        entries, oldest, newest = connection.execute(
            "SELECT count(*), min(at), max(at) FROM entries WHERE at > 0"
        ).fetchone()
        topics, ids, marks, members, stored = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("topics", "keys", "marks", "members", "store")
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
            marks=marks,
            set_members=members,
            stored=stored,
        )

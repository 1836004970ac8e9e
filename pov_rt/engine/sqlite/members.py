"""The members of a set on disk, for `pov-rt db`: read beside a server, removed without one."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from pov_rt.engine.sqlite.schema import FileLock, explain, reading
from pov_rt.engine.sqlite.witness import Witness
from pov_rt.protocol.errors import Unavailable


def read_members(path: Path, name: str) -> dict[str, bytes]:
    """Return a set's members that have not expired; a server may be running.

    Raises `Unavailable`.
    """
    with reading(path) as connection:
        rows = connection.execute(
            'SELECT member, body FROM members WHERE "set" = ? '
            "AND (expires_at IS NULL OR expires_at > ?) ORDER BY member",
            (name, time.time()),
        )
        return {member: bytes(body) for member, body in rows}


def remove_member(path: Path, name: str, member: str) -> bool:
    """Remove a member from a set; return whether it was there.

    Raises `Unavailable`, if a server runs, too: it has its own copy, which it might write back.
    """
    with reading(path):  # that there is one, and of ours
        lock = FileLock(path)
    try:
        Witness(path).part_from_journal()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            found = connection.execute(
                'DELETE FROM members WHERE "set" = ? AND member = ?', (name, member)
            ).rowcount
    except sqlite3.Error as error:
        raise Unavailable(explain(error, path)) from error
    finally:
        lock.release()
    return found > 0

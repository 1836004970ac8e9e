"""Copies of bodies that SQLite left in its pages: whether there are any, and when to look.

What is removed or replaced SQLite overwrites with zeros (`secure_delete`). But where it moves a row
within a page or to another one, bytes of it may stay in the room that is free then. Such a copy
outlives the row, until the file is written anew. Whose row it was the bytes do not tell, once a
part of them is overwritten: any copy counts, of a row that is there still or that retention
removed, too.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from pathlib import Path
from struct import Struct

STEP_BYTES = 1024 * 1024
"""What is looked at at once, a few milliseconds. A publication that comes meanwhile waits."""
LOOK_S = 60.0
"""How often at most the file is looked through. Between two times it is written anew at most once,
and publications wait for that."""

LARGE_BYTES = 128 * 1024 * 1024
"""Above this size the file is not written anew unasked. That takes a second for 100 MB, more or
less, and so long publications wait."""

LEAF, HEADER_BYTES = 0x0D, 8
"""The first byte of a page with rows of a table by row number, which `bodies` is; and its head."""
NO_REMNANTS = "DELETE FROM meta WHERE name = 'remnants'"
"""What says that nothing is left, from the time when the file was written anew."""
_HEAD = Struct(">xHHH")
_FREE = Struct(">HH")
_SIZE = Struct(">16xH")


def has_remnant(page: bytes) -> bool:
    """Tell whether the free room of a page of bodies has anything but zeros in it.

    That is the gap between the pointers to the rows and the rows, and the free blocks among these,
    each behind the four bytes that lead to the next (SQLite's file format, 1.6). Inner pages have
    row numbers only; of all others SQLite overwrites the free room as a whole.
    """
    if page[0] != LEAF:
        return False
    block, rows, start = _HEAD.unpack_from(page)
    if _has_bytes(page, HEADER_BYTES + 2 * rows, start or len(page)):
        return True
    # Blocks are in the order of their places: what is no such chain comes to an end, too.
    while 0 < block <= len(page) - _FREE.size:
        following, size = _FREE.unpack_from(page, block)
        if _has_bytes(page, block + _FREE.size, block + size):
            return True
        block = following if following > block else 0
    return False


def _has_bytes(page: bytes, start: int, end: int) -> bool:
    end = min(end, len(page))
    return start < end and page.count(0, start, end) < end - start


class FilePages:
    """The pages of a database file, looked through a step at a time.

    The file stays open as long as the database: to close it would let go of SQLite's locks on it,
    which are the process's (fcntl).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._at = 0
        self.number = 0
        """How many pages with remnants were found since the beginning."""

    def restart(self) -> None:
        """Begin with the first page again."""
        self._at = self.number = 0

    def step(self) -> bool:
        """Look at the next pages; return whether those were the last."""
        (size,) = _SIZE.unpack(os.pread(self._file, _SIZE.size, 0))
        size = 65536 if size == 1 else size
        content = os.pread(self._file, STEP_BYTES, self._at)
        self._at += len(content)
        for start in range(0, len(content) - size + 1, size):
            self.number += has_remnant(content[start : start + size])
        return len(content) < STEP_BYTES

    @property
    def size(self) -> int:
        """How many bytes the file has."""
        return os.fstat(self._file).st_size

    def close(self) -> None:
        """Close the file, after all connections to it."""
        os.close(self._file)


class Search:
    """Whether copies of bodies are to be looked for. The writer's thread's.

    That is written in the database with the change that it is due to: a start finishes what the
    process before could not.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._is_under_way = False
        self._began_at = -math.inf
        self._is_noted = False
        rows = connection.execute("SELECT 1 FROM meta WHERE name = 'remnants'").fetchall()
        self._is_wanted = bool(rows)

    def note(self) -> None:
        """Take note, in the open transaction, that bodies were replaced or removed on demand."""
        self._is_wanted = True
        if not self._is_noted:
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('remnants', 'unknown')")
            self._is_noted = True

    def forget(self) -> None:
        """Forget what is remembered of the database: a transaction was rolled back."""
        self._is_noted = False

    @property
    def is_due(self) -> bool:
        """Whether there is a step to take."""
        return self._is_under_way or (
            self._is_wanted and time.monotonic() >= self._began_at + LOOK_S
        )

    def step(self, pages: FilePages) -> int | None:
        """Take a step; return how many pages have copies in them once all were looked at.

        All changes must be in the database's own file when the first step is taken. What was
        changed since is looked for next time.
        """
        if not self._is_under_way:
            pages.restart()
            self._is_under_way, self._is_wanted = True, False
            self._began_at = time.monotonic()
        if not pages.step():
            return None
        self._is_under_way = False
        return pages.number

    def repeat(self) -> None:
        """Look again next time, for what was found could not be removed."""
        self._is_wanted = True

    def end(self, *, is_new: bool = False) -> None:
        """Take note that no copies were found, or that the file was written anew (`is_new`)."""
        if is_new:
            self._is_under_way = self._is_wanted = False
        if self._is_wanted:
            return
        self._connection.execute(NO_REMNANTS)
        self._is_noted = False

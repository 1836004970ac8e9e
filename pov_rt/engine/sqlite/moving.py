"""A database that no server uses, to copy from or to.

What is copied to is another file until all is in it: a copy that ends half-way leaves no database.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.sqlite.backups import flush, remove
from pov_rt.engine.sqlite.copying import SqliteCopying
from pov_rt.engine.sqlite.jobs import Operation, ResultT
from pov_rt.engine.sqlite.schema import (
    FileLock,
    commit,
    explain,
    give_to_owner,
    open_plain,
    open_writer,
    reading,
)
from pov_rt.engine.sqlite.witness import Witness, note_moved
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.process.private import make_private

PARTIAL = ".copied"
"""What a database ends with that is not complete."""
_OWN = ("", "-wal", "-journal")


class _Alone:
    """A database that nobody else has: see `state.Database`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    async def read(self, operation: Operation[ResultT]) -> ResultT:
        return await asyncio.to_thread(self._run, operation)

    async def write(self, operation: Operation[ResultT], size: int = 0) -> ResultT:
        return await asyncio.to_thread(self._run, operation)

    def _run(self, operation: Operation[ResultT]) -> ResultT:
        try:
            result = operation(self._connection)
            commit(self._connection)
        except sqlite3.Error as error:
            raise Unavailable(explain(error, self._path)) from error
        return result


@asynccontextmanager
async def source(
    path: Path, settings: EngineSettings, keeping: Keeping
) -> AsyncIterator[SqliteCopying]:
    """Open a database to copy from, for the block, as a server that starts does.

    If that ends well, the next server that starts on it begins another epoch. Raises
    `Unavailable`, if a server runs, too.
    """
    with reading(path):  # that there is one, and of ours
        lock = FileLock(path)
    witness = Witness(path)
    try:
        witness.part_from_journal()
        with closing(open_writer(path)) as connection:
            witness.admit(connection)
            yield SqliteCopying(_Alone(connection, path), settings, keeping)
            note_moved(connection)
    finally:
        witness.close()
        lock.release()


@asynccontextmanager
async def target(
    path: Path, settings: EngineSettings, keeping: Keeping
) -> AsyncIterator[SqliteCopying]:
    """Open a database to copy to, for the block: a file that is not there yet.

    It is there only if that ends well. Raises `Unavailable`.
    """
    lock = FileLock(path)
    partial = path.with_name(path.name + PARTIAL)
    try:
        for suffix in _OWN:
            if (file := Path(f"{path}{suffix}")).exists():
                raise Unavailable(
                    f"{file} is there already, and a copy overwrites nothing: move it away, or "
                    "name another file (sqlite:///PATH)"
                )
        remove(partial)
        make_private(partial)
        with closing(open_writer(partial)) as connection:
            yield SqliteCopying(_Alone(connection, partial), settings, keeping)
        await asyncio.to_thread(_complete, partial, path)
    except sqlite3.Error as error:
        raise Unavailable(explain(error, partial)) from error
    except OSError as error:
        raise Unavailable(f"cannot write {error.filename}: {error.strerror}") from error
    finally:
        remove(partial)
        lock.release()


def _complete(partial: Path, path: Path) -> None:
    """Put a copy into its place, in one file, without the room that its records had first."""
    with closing(open_plain(partial)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = DELETE")
    give_to_owner(partial, path.parent)
    flush(partial)
    Witness(path).remove()
    partial.rename(path)
    flush(path.parent)

"""What plugins keep, in the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from pov_rt.engine.base import Stored
from pov_rt.engine.bounds import size_of
from pov_rt.engine.sqlite.state import Database, StateStore


class SqliteStore:
    """Values by key; see `base.Store`."""

    def __init__(self, database: Database, state: StateStore) -> None:
        self._database = database
        self._state = state

    async def get(self, space: str, key: str) -> bytes | None:
        return await self._database.read(lambda connection: _get(connection, space, key))

    async def put(self, space: str, key: str, body: bytes, owner: str = "") -> None:
        def operation(connection: sqlite3.Connection) -> None:
            self._set(connection, Stored(space, key, body), owner)

        await self._database.write(operation, len(body))

    async def swap(
        self, space: str, key: str, old: bytes | None, new: bytes | None, owner: str = ""
    ) -> bool:
        def operation(connection: sqlite3.Connection) -> bool:
            if _get(connection, space, key) != old:
                return False
            if new is None:
                self._remove(connection, space, key)
            else:
                self._set(connection, Stored(space, key, new), owner)
            return True

        return await self._database.write(operation, len(old or b"") + len(new or b""))

    async def remove(self, space: str, key: str) -> bool:
        return await self._database.write(lambda connection: self._remove(connection, space, key))

    async def read(
        self, space: str, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[tuple[str, bytes]]:
        # Those with the prefix stand together, from the first that is not before it.
        def operation(connection: sqlite3.Connection) -> Sequence[tuple[str, bytes]]:
            rows = connection.execute(
                "SELECT key, body FROM store WHERE space = ? AND key >= ? AND key > ? "
                "ORDER BY key LIMIT ?",
                (space, prefix, after, limit),
            )
            return [(key, bytes(body)) for key, body in rows if key.startswith(prefix)]

        return await self._database.read(operation)

    async def owned(
        self, owner: str, after: tuple[str, str] = ("", ""), limit: int = 100
    ) -> Sequence[Stored]:
        def operation(connection: sqlite3.Connection) -> Sequence[Stored]:
            rows = connection.execute(
                "SELECT space, key, body FROM store WHERE owner = ? AND owner <> '' "
                "AND (space, key) > (?, ?) ORDER BY space, key LIMIT ?",
                (owner, *after, limit),
            )
            return [Stored(space, key, bytes(body)) for space, key, body in rows]

        return await self._database.read(operation)

    async def erase(self, owner: str) -> int:
        def operation(connection: sqlite3.Connection) -> int:
            self._state.read(connection)
            rows = connection.execute(
                "DELETE FROM store WHERE owner = ? AND owner <> '' RETURNING space, key, body",
                (owner,),
            ).fetchall()
            for space, key, body in rows:
                self._state.values.count(space, -size_of(key, owner, body))
            return len(rows)

        return await self._database.write(operation)

    def _set(self, connection: sqlite3.Connection, new: Stored, owner: str) -> None:
        self._state.read(connection)
        space, key, body = new
        more = size_of(key, owner, body)
        before = connection.execute(
            "SELECT owner, body FROM store WHERE space = ? AND key = ?", (space, key)
        ).fetchone()
        if before is not None:
            more -= size_of(key, *before)
        self._state.values.check_room(space, more)
        connection.execute(
            "INSERT OR REPLACE INTO store VALUES (?, ?, ?, ?)", (space, key, owner, body)
        )
        self._state.values.count(space, more)

    def _remove(self, connection: sqlite3.Connection, space: str, key: str) -> bool:
        self._state.read(connection)
        rows = connection.execute(
            "DELETE FROM store WHERE space = ? AND key = ? RETURNING owner, body", (space, key)
        ).fetchall()
        for owner, body in rows:
            self._state.values.count(space, -size_of(key, owner, body))
        return bool(rows)


def _get(connection: sqlite3.Connection, space: str, key: str) -> bytes | None:
    row = connection.execute(
        "SELECT body FROM store WHERE space = ? AND key = ?", (space, key)
    ).fetchone()
    return None if row is None else bytes(row[0])

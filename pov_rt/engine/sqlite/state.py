"""Marks and sets in the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Mapping
from typing import Protocol

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Position
from pov_rt.engine.sqlite.jobs import Operation, ResultT
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import Clock

TIDY_ROWS = 500


class Database(Protocol):
    """How the parts of the engine get at the database."""

    def write(self, operation: Operation[ResultT]) -> Awaitable[ResultT]:
        """Run an operation in the writer's transaction; its result comes when it is on disk."""

    def read(self, operation: Operation[ResultT]) -> Awaitable[ResultT]:
        """Run an operation on a reader's connection. Raises `Unavailable`."""


class SqliteMarks:
    """Watermarks; see `base.Marks`."""

    def __init__(self, database: Database, settings: EngineSettings, clock: Clock) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._count: int | None = None

    async def advance(self, topic: str, user: str, name: str, position: Position) -> Position:
        def operation(connection: sqlite3.Connection) -> Position:
            key = (topic, name, user)
            old = _mark(connection, topic, user, name)
            if old is None:
                self._make_room(connection)
            new = position
            if old is not None and old.epoch == position.epoch and old.offset > position.offset:
                new = old
            # Also where it stays: a mark that is used is kept.
            connection.execute(
                "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?)",
                (*key, *new, self._clock.time()),
            )
            return new

        return await self._database.write(operation)

    async def get(self, topic: str, user: str, name: str) -> Position | None:
        return await self._database.read(lambda connection: _mark(connection, topic, user, name))

    async def all(self, topic: str, name: str) -> Mapping[str, Position]:
        def operation(connection: sqlite3.Connection) -> Mapping[str, Position]:
            rows = connection.execute(
                'SELECT user, epoch, "offset" FROM marks WHERE topic = ? AND name = ?',
                (topic, name),
            ).fetchall()
            return {user: Position(epoch, offset) for user, epoch, offset in rows}

        return await self._database.read(operation)

    async def drop(self, topic: str, user: str, name: str) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM marks WHERE topic = ? AND name = ? AND user = ?", (topic, name, user)
            )

        await self._database.write(operation)

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """Count one more. Raises `Unavailable`.

        Marks that were dropped are noticed only at the bound, where all are counted anew: for many
        that takes long (docs/measurements.md, marks).
        """
        most = self._settings.max_marks
        if self._count is None or self._count >= most:
            self._count = int(connection.execute("SELECT count(*) FROM marks").fetchone()[0])
            if self._count >= most:
                raise Unavailable(
                    f"there are {self._count} marks, as many as engine.max_marks allows"
                )
        self._count += 1


class SqliteSets:
    """Sets with expiry; see `base.Sets`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(
        self, name: str, member: str, body: bytes = b"", expires_at: float | None = None
    ) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)",
                (name, member, body, expires_at),
            )

        await self._database.write(operation)

    async def remove(self, name: str, member: str) -> bool:
        now = self._clock.time()

        def operation(connection: sqlite3.Connection) -> bool:
            rows = connection.execute(
                'DELETE FROM members WHERE "set" = ? AND member = ? RETURNING expires_at',
                (name, member),
            ).fetchall()
            return any(expires_at is None or expires_at > now for (expires_at,) in rows)

        return await self._database.write(operation)

    async def get(self, name: str, member: str) -> bytes | None:
        now = self._clock.time()

        def operation(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(
                'SELECT body FROM members WHERE "set" = ? AND member = ? '
                "AND (expires_at IS NULL OR expires_at > ?)",
                (name, member, now),
            ).fetchone()
            return None if row is None else bytes(row[0])

        return await self._database.read(operation)

    async def members(self, name: str) -> Mapping[str, bytes]:
        now = self._clock.time()

        def operation(connection: sqlite3.Connection) -> Mapping[str, bytes]:
            return dict(
                connection.execute(
                    'SELECT member, body FROM members WHERE "set" = ? '
                    "AND (expires_at IS NULL OR expires_at > ?)",
                    (name, now),
                ).fetchall()
            )

        return await self._database.read(operation)


def tidy_state(connection: sqlite3.Connection, now: float, mark_age_s: float) -> None:
    """Remove some expired members, and marks that nobody has used for long."""
    connection.execute(
        'DELETE FROM members WHERE ("set", member) IN '
        '(SELECT "set", member FROM members WHERE expires_at <= ? LIMIT ?)',
        (now, TIDY_ROWS),
    )
    connection.execute(
        "DELETE FROM marks WHERE (topic, name, user) IN "
        "(SELECT topic, name, user FROM marks WHERE at < ? ORDER BY at LIMIT ?)",
        (now - mark_age_s, TIDY_ROWS),
    )


def _mark(connection: sqlite3.Connection, topic: str, user: str, name: str) -> Position | None:
    row = connection.execute(
        'SELECT epoch, "offset" FROM marks WHERE topic = ? AND name = ? AND user = ?',
        (topic, name, user),
    ).fetchone()
    return None if row is None else Position(*row)

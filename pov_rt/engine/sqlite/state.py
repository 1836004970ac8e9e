"""Marks and sets in the database."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from itertools import chain
from typing import Protocol

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import NewMember, Position
from pov_rt.engine.bounds import VALUE_BYTES, MarkRules, StoreRules
from pov_rt.engine.producers import ProducerRules
from pov_rt.engine.sqlite.jobs import Operation, ResultT
from pov_rt.runtime.clock import SteadyTime

TIDY_ROWS = 500
MAX_USED = 10_000
"""Marks that were read and wait to be renewed; of more the first wait for their next use."""
COUNTED_USERS = 10_000

_MarkKey = tuple[str, str, str]
"""A topic, a mark's name and a user."""
_KEY = "topic = ? AND name = ? AND user = ?"
_Row = tuple[Position, float]
"""A mark, and when it was used, a day late at most."""


class Database(Protocol):
    """How the parts of the engine get at the database."""

    def write(self, operation: Operation[ResultT], size: int = 0) -> Awaitable[ResultT]:
        """Run an operation in the writer's transaction; its result comes when it is on disk.

        `size` is how many bytes it holds while it waits, if those are many.
        """

    def read(self, operation: Operation[ResultT]) -> Awaitable[ResultT]:
        """Run an operation on a reader's connection. Raises `Unavailable`."""


class StateStore:
    """How many marks and values there are, which marks are used, and what leaves.

    But for `use` it is the writer's.
    """

    def __init__(
        self, settings: EngineSettings, steady: SteadyTime, longest_s: float = 0.0
    ) -> None:
        self.marks = MarkRules(settings, longest_s)
        self.values = StoreRules(settings)
        self.producers = ProducerRules(settings)
        self.steady = steady
        self._is_read = False
        self._of_user: dict[str, int] = {}
        """Not fewer than a user has, of some who made some lately."""
        self._used: deque[_MarkKey] = deque(maxlen=MAX_USED)

    def use(self, key: _MarkKey) -> None:
        """Have it written down that a mark was read, soon and with others."""
        self._used.append(key)

    def read(self, connection: sqlite3.Connection) -> None:
        """Count the marks and the store, unless that is known: at the start, and after a failure.

        For many that takes long (docs/measurements.md, marks).
        """
        if not self._is_read:
            self.marks.number = connection.execute("SELECT count(*) FROM marks").fetchone()[0]
            self.values.reset(read_sizes(connection))
            self._is_read = True

    def forget(self) -> None:
        """Forget what is known of the database: a transaction was rolled back."""
        self._is_read = False
        self._of_user.clear()

    def add(self, connection: sqlite3.Connection, key: _MarkKey, position: Position) -> None:
        """Add a mark; a user who has as many as one may have loses the longest unused one.

        Raises `Unavailable` if there are too many of all users.
        """
        self.read(connection)
        user, most = key[2], self.marks.each
        number = self._of_user.get(user)
        if number is None or number >= most:
            (number,) = connection.execute(
                "SELECT count(*) FROM (SELECT 1 FROM marks WHERE user = ? LIMIT ?)",
                (user, most + TIDY_ROWS),
            ).fetchone()
        if number >= most:
            dropped = connection.execute(
                "DELETE FROM marks WHERE (topic, name, user) IN (SELECT topic, name, user "
                "FROM marks WHERE user = ? ORDER BY at LIMIT ?)",
                (user, number - most + 1),
            ).rowcount
            self.count(-dropped)
            number -= dropped
        self.marks.check_room(user)
        connection.execute(
            "INSERT INTO marks VALUES (?, ?, ?, ?, ?, ?)", (*key, *position, self.steady.stamp())
        )
        self.count(1)
        if len(self._of_user) >= COUNTED_USERS:
            self._of_user.clear()
        self._of_user[user] = number + 1

    def count(self, more: int) -> None:
        """Count marks that came, or left."""
        self.marks.number += more

    def tidy(self, connection: sqlite3.Connection) -> None:
        """Renew some marks that were used, then remove some of what nobody has used for long."""
        self.read(connection)
        now = self.steady.now()
        used: set[_MarkKey] = set()
        while self._used and len(used) < TIDY_ROWS:
            used.add(self._used.popleft())
        at = self.steady.stamp()
        connection.executemany(
            f"UPDATE marks SET at = ? WHERE {_KEY}", [(at, *key) for key in sorted(used)]
        )
        connection.execute(
            'DELETE FROM members WHERE ("set", member) IN '
            '(SELECT "set", member FROM members WHERE expires_at <= ? LIMIT ?)',
            (now, TIDY_ROWS),
        )
        dropped = connection.execute(
            "DELETE FROM marks WHERE (topic, name, user) IN "
            "(SELECT topic, name, user FROM marks WHERE at < ? ORDER BY at LIMIT ?)",
            (now - self.marks.age_s, TIDY_ROWS),
        ).rowcount
        self.count(-dropped)


class SqliteMarks:
    """Watermarks; see `base.Marks`."""

    def __init__(self, database: Database, state: StateStore) -> None:
        self._database = database
        self._state = state

    async def advance(self, topic: str, user: str, name: str, position: Position) -> Position:
        key = (topic, name, user)
        state = self._state

        def operation(connection: sqlite3.Connection) -> Position:
            now = state.steady.now()
            row = _row(connection, key)
            if row is None:
                state.add(connection, key, position)
                return position
            old, at = row
            new = position
            is_known = at >= now - state.marks.age_s and old.epoch == position.epoch
            if is_known and old.offset > position.offset:
                new = old
            # Also where it stays: a mark that is used is kept.
            used_at = state.steady.stamp() if abs(now - at) >= state.marks.renew_s else at
            if (new, used_at) != (old, at):
                connection.execute(
                    f'UPDATE marks SET epoch = ?, "offset" = ?, at = ? WHERE {_KEY}',
                    (*new, used_at, *key),
                )
            return new

        return await self._database.write(operation)

    async def get(self, topic: str, user: str, name: str) -> Position | None:
        key = (topic, name, user)
        return self._used(key, await self._database.read(lambda connection: _row(connection, key)))

    async def get_many(
        self, user: str, topics: Sequence[str], names: Sequence[str]
    ) -> Sequence[Sequence[Position | None]]:
        # One statement a topic: it sees one state of the file.
        statement = (
            'SELECT name, epoch, "offset", at FROM marks '
            f"WHERE topic = ? AND name IN ({', '.join('?' * len(names))}) AND user = ?"
        )

        def operation(connection: sqlite3.Connection) -> list[dict[str, _Row]]:
            return [
                {
                    name: (Position(epoch, offset), at)
                    for name, epoch, offset, at in connection.execute(
                        statement, (topic, *names, user)
                    ).fetchall()
                }
                for topic in topics
            ]

        found = await self._database.read(operation)
        return [
            [self._used((topic, name, user), rows.get(name)) for name in names]
            for topic, rows in zip(topics, found, strict=True)
        ]

    def _used(self, key: _MarkKey, row: _Row | None) -> Position | None:
        """Return a mark that was read, unless it is too old, and have it renewed in time."""
        if row is None:
            return None
        position, at = row
        rules, now = self._state.marks, self._state.steady.now()
        if at < now - rules.age_s:
            return None
        if now - at >= rules.renew_s:
            self._state.use(key)
        return position

    async def carry(self, topic: str, name: str, start: Position, end: Position) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(
                'UPDATE marks SET "offset" = ? '
                'WHERE topic = ? AND name = ? AND epoch = ? AND "offset" = ?',
                (end.offset, topic, name, *start),
            )

        await self._database.write(operation)

    async def all(self, topic: str, name: str) -> Mapping[str, Position]:
        not_before = self._state.steady.now() - self._state.marks.age_s

        def operation(connection: sqlite3.Connection) -> Mapping[str, Position]:
            rows = connection.execute(
                'SELECT user, epoch, "offset" FROM marks WHERE topic = ? AND name = ? AND at >= ?',
                (topic, name, not_before),
            ).fetchall()
            return {user: Position(epoch, offset) for user, epoch, offset in rows}

        return await self._database.read(operation)

    async def drop(self, topic: str, user: str, name: str) -> None:
        await self._drop(_KEY, (topic, name, user))

    async def drop_all(self, user: str, name: str) -> None:
        await self._drop("user = ? AND name = ?", (user, name))

    async def of(self, user: str) -> Sequence[tuple[str, str, Position]]:
        not_before = self._state.steady.now() - self._state.marks.age_s

        def operation(connection: sqlite3.Connection) -> Sequence[tuple[str, str, Position]]:
            rows = connection.execute(
                'SELECT topic, name, epoch, "offset" FROM marks WHERE user = ? AND at >= ?',
                (user, not_before),
            ).fetchall()
            return sorted((topic, name, Position(*place)) for topic, name, *place in rows)

        return await self._database.read(operation)

    async def drop_user(self, user: str) -> int:
        return await self._drop("user = ?", (user,))

    async def _drop(self, which: str, values: tuple[str, ...]) -> int:
        def operation(connection: sqlite3.Connection) -> int:
            dropped = connection.execute(f"DELETE FROM marks WHERE {which}", values).rowcount
            self._state.count(-dropped)
            return dropped

        return await self._database.write(operation)


class SqliteSets:
    """Sets with expiry; see `base.Sets`."""

    def __init__(self, database: Database, steady: SteadyTime) -> None:
        self._database = database
        self._steady = steady

    async def add(
        self, name: str, member: str, body: bytes = b"", expires_at: float | None = None
    ) -> None:
        await self.update([NewMember(name, member, body, expires_at)])

    async def update(
        self, add: Sequence[NewMember] = (), remove: Sequence[tuple[str, str]] = ()
    ) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            for text in (*chain(*remove), *(text for each in add for text in each[:2])):
                text.encode()  # a refusal half-way would leave the half that was done
            connection.executemany('DELETE FROM members WHERE "set" = ? AND member = ?', remove)
            connection.executemany("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)", add)

        await self._database.write(operation)

    async def remove(self, name: str, member: str) -> bool:
        now = self._steady.now()

        def operation(connection: sqlite3.Connection) -> bool:
            rows = connection.execute(
                'DELETE FROM members WHERE "set" = ? AND member = ? RETURNING expires_at',
                (name, member),
            ).fetchall()
            return any(expires_at is None or expires_at > now for (expires_at,) in rows)

        return await self._database.write(operation)

    async def drop(self, name: str) -> int:
        def operation(connection: sqlite3.Connection) -> int:
            return connection.execute('DELETE FROM members WHERE "set" = ?', (name,)).rowcount

        return await self._database.write(operation)

    async def get(self, name: str, member: str) -> bytes | None:
        now = self._steady.now()

        def operation(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(
                'SELECT body FROM members WHERE "set" = ? AND member = ? '
                "AND (expires_at IS NULL OR expires_at > ?)",
                (name, member, now),
            ).fetchone()
            return None if row is None else bytes(row[0])

        return await self._database.read(operation)

    async def members(self, name: str) -> Mapping[str, bytes]:
        now = self._steady.now()

        def operation(connection: sqlite3.Connection) -> Mapping[str, bytes]:
            return dict(
                connection.execute(
                    'SELECT member, body FROM members WHERE "set" = ? '
                    "AND (expires_at IS NULL OR expires_at > ?)",
                    (name, now),
                ).fetchall()
            )

        return await self._database.read(operation)

    async def having(self, member: str, prefix: str = "") -> Sequence[str]:
        def operation(connection: sqlite3.Connection) -> Sequence[str]:
            rows = connection.execute(
                'SELECT "set" FROM members WHERE "set" >= ? AND member = ? ORDER BY "set"',
                (prefix, member),
            ).fetchall()
            return [name for (name,) in rows if name.startswith(prefix)]

        return await self._database.read(operation)


def read_sizes(connection: sqlite3.Connection) -> dict[str, int]:
    """Return how many bytes each space of the store has, as `bounds.size_of` counts them."""
    rows = connection.execute(
        "SELECT space, sum(length(CAST(key AS BLOB)) + length(CAST(owner AS BLOB)) "
        f"+ length(body) + {VALUE_BYTES}) FROM store GROUP BY space"
    )
    return dict(rows.fetchall())


def _row(connection: sqlite3.Connection, key: _MarkKey) -> _Row | None:
    row = connection.execute(f'SELECT epoch, "offset", at FROM marks WHERE {_KEY}', key).fetchone()
    return None if row is None else (Position(row[0], row[1]), row[2])

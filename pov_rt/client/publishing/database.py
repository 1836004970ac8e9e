"""The app's database, however the app talks to it: DB-API, SQLAlchemy, Django."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

Dialect = Literal["sqlite", "postgresql"]
Row = tuple[Any, ...]


def execute(target: Any, sql: str, values: Sequence[object] = ()) -> None:
    """Execute a statement, with `?` for values, in the transaction that is open.

    `target` is a DB-API connection, a SQLAlchemy `Session` or `Connection`, or Django's
    `connection`. Raises TypeError for anything else.
    """
    if hasattr(target, "get_bind") and callable(getattr(target, "connection", None)):
        target = target.connection()  # of a SQLAlchemy session
    if hasattr(target, "exec_driver_sql"):
        target.exec_driver_sql(_with_style(sql, target.dialect.paramstyle), tuple(values))
        return
    if not hasattr(target, "cursor"):
        raise TypeError(
            f"{type(target).__name__} is no connection: give a DB-API connection, a SQLAlchemy "
            "Session or Connection, or django.db.connection (an AsyncSession: session.run_sync)"
        )
    style = "format" if hasattr(target, "vendor") else _style_of(target)
    cursor = target.cursor()
    try:
        cursor.execute(_with_style(sql, style), tuple(values))
    finally:
        cursor.close()


def _style_of(connection: Any) -> str:
    return "qmark" if dialect_of(connection) == "sqlite" else "format"


def _with_style(sql: str, style: str) -> str:
    """Return a statement with the marks for values that a driver wants."""
    if style in ("format", "pyformat"):
        return sql.replace("?", "%s")
    if style == "numeric_dollar":
        parts = sql.split("?")
        return "".join(f"{part}${number}" for number, part in enumerate(parts[:-1], 1)) + parts[-1]
    return sql


def dialect_of(connection: Any) -> Dialect:
    """Return which database a DB-API connection is to. Raises TypeError for others."""
    module = type(connection).__module__.partition(".")[0]
    if module == "sqlite3" or any(each.__module__ == "sqlite3" for each in type(connection).mro()):
        return "sqlite"
    if module.startswith("psycopg"):
        return "postgresql"
    raise TypeError(f"{module} is neither sqlite3 nor psycopg: an outbox is in one of these")


class Database:
    """A connection of the relay's own, with transactions that it ends itself. For one thread.

    `turn` is held while it is opened, reads, writes or is closed: by who else does so in this
    process.
    """

    def __init__(
        self, connect: Callable[[], Any], turn: AbstractContextManager[object] | None = None
    ) -> None:
        self._turn = turn or nullcontext()
        with self._turn:
            given = connect()
        # SQLAlchemy's `raw_connection` gives one of its pool's.
        self._given = given
        self._connection = getattr(given, "driver_connection", None) or given
        self.dialect = dialect_of(self._connection)
        if self.dialect == "sqlite":
            self._connection.isolation_level = None  # none but those that are begun here
        else:
            self._connection.rollback()
            self._connection.autocommit = False

    def query(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """Execute a statement with `?` for values; return its rows, if it has any."""
        cursor = self._connection.cursor()
        try:
            cursor.execute(_with_style(sql, _style_of(self._connection)), tuple(values))
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            cursor.close()

    def many(self, sql: str, values: Sequence[Sequence[object]]) -> None:
        """Execute a statement for each of the values."""
        cursor = self._connection.cursor()
        try:
            cursor.executemany(_with_style(sql, _style_of(self._connection)), values)
        finally:
            cursor.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read, and hold nothing up afterwards."""
        with self._turn:
            try:
                yield
            finally:
                self._connection.rollback()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write in a transaction, which is on disk at the end; undone if something is raised."""
        is_sqlite = self.dialect == "sqlite"
        with self._turn:
            # That of PostgreSQL, whatever the database has by default.
            begin = "BEGIN IMMEDIATE" if is_sqlite else "SET TRANSACTION ISOLATION LEVEL {}"
            self.query(begin.format("READ COMMITTED"))
            try:
                yield
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()

    def close(self) -> None:
        """Give the connection back."""
        with self._turn:
            self._given.close()

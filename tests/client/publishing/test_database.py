"""Databases by whatever way: marks for values, dialects, transactions."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from pov_rt.client.publishing.database import Database, dialect_of, execute


class Asyncpg:
    """As SQLAlchemy has a connection by asyncpg."""

    class dialect:
        paramstyle = "numeric_dollar"

    def exec_driver_sql(self, sql: str, values: Sequence[object]) -> None:
        self.said = sql, values


def test_each_driver_has_its_marks() -> None:
    target = Asyncpg()
    execute(target, "INSERT INTO t VALUES (?, ?)", (1, 2))
    assert target.said == ("INSERT INTO t VALUES ($1, $2)", (1, 2))


def test_another_database_is_refused() -> None:
    with pytest.raises(TypeError, match="neither sqlite3 nor psycopg"):
        dialect_of(object())


def test_a_transaction_is_there_as_a_whole_or_not(tmp_path: Any) -> None:
    database = Database(lambda: sqlite3.connect(tmp_path / "x.db"))
    with database.transaction():
        database.query("CREATE TABLE t (n INTEGER)")
        database.many("INSERT INTO t VALUES (?)", [(1,), (2,)])
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.query("DELETE FROM t WHERE n = ?", (1 / 0,))
    with database.reading():
        assert database.query("SELECT n FROM t ORDER BY n") == [(1,), (2,)]
    database.close()


def test_all_that_is_done_with_a_database_is_in_turn(tmp_path: Any) -> None:
    turn, others = threading.Lock(), list[str]()

    def connect() -> Any:
        others.append("opened in turn" if turn.locked() else "opened out of turn")
        return Watched(tmp_path / "x.db")

    class Watched(sqlite3.Connection):
        def close(self) -> None:
            others.append("closed in turn" if turn.locked() else "closed out of turn")
            super().close()

    database = Database(connect, turn)
    for each in (database.reading, database.transaction):
        with each():
            assert turn.locked()
        assert not turn.locked()
    database.close()
    assert others == ["opened in turn", "closed in turn"]

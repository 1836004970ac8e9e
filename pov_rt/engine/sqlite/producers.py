"""Producers' last numbers in the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from pov_rt.engine.producers import ProducerRules
from pov_rt.runtime.clock import SteadyTime

TIDY_ROWS = 500
Producer = tuple[int, str, str]
"""A topic's number, a publisher, and its name for the producer."""


class Producers:
    """The last number of each producer in each topic. Used by the writer's thread only."""

    def __init__(
        self, connection: sqlite3.Connection, rules: ProducerRules, steady: SteadyTime
    ) -> None:
        self._connection = connection
        self._rules = rules
        self._steady = steady
        self._is_read = False

    def last(self, producer: Producer) -> int | None:
        """Return the last number, None for a producer that is not known in the topic."""
        row = self._connection.execute(
            "SELECT seq FROM producers WHERE topic = ? AND publisher = ? AND name = ?", producer
        ).fetchone()
        return None if row is None else int(row[0])

    def enter(self, producer: Producer) -> None:
        """Count a producer that is not known. Raises `Unavailable`."""
        self._read()
        self._rules.add(producer[1])

    def leave(self, producer: Producer) -> None:
        """Count a producer no more that was entered and is not kept."""
        self._rules.drop(producer[1])

    def keep(self, numbers: Mapping[Producer, int]) -> None:
        """Write the last numbers, in the open transaction."""
        at = self._steady.stamp()
        self._connection.executemany(
            "INSERT OR REPLACE INTO producers VALUES (?, ?, ?, ?, ?)",
            [(*producer, seq, at) for producer, seq in numbers.items()],
        )

    def tidy(self) -> None:
        """Forget some whose time is over, in the open transaction."""
        gone = self._connection.execute(
            "DELETE FROM producers WHERE (topic, publisher, name) IN "
            "(SELECT topic, publisher, name FROM producers WHERE at < ? ORDER BY at LIMIT ?) "
            "RETURNING publisher",
            (self._steady.now() - self._rules.age_s, TIDY_ROWS),
        ).fetchall()
        self._count_less(gone)

    def drop_topic(self, topic: int) -> None:
        """Forget those of a topic, in the open transaction."""
        self._count_less(
            self._connection.execute(
                "DELETE FROM producers WHERE topic = ? RETURNING publisher", (topic,)
            ).fetchall()
        )

    def drop_publisher(self, publisher: str) -> None:
        """Forget those of a publisher, in the open transaction."""
        self._count_less(
            self._connection.execute(
                "DELETE FROM producers WHERE publisher = ? RETURNING publisher", (publisher,)
            ).fetchall()
        )

    def _count_less(self, gone: Sequence[tuple[str]]) -> None:
        if self._is_read:
            for (publisher,) in gone:
                self._rules.drop(publisher)

    def forget(self) -> None:
        """Forget what is known of the database: a transaction was rolled back."""
        self._is_read = False

    def _read(self) -> None:
        if not self._is_read:
            rules = self._rules
            rules.of_publisher.clear()
            rules.of_publisher.update(
                dict(
                    self._connection.execute(
                        "SELECT publisher, count(*) FROM producers GROUP BY publisher"
                    ).fetchall()
                )
            )
            rules.number = rules.of_publisher.total()
            self._is_read = True

"""The ends of the topics' logs, as the writer knows them."""

from __future__ import annotations

import sqlite3

from pov_rt.engine.sqlite.pages import edge
from pov_rt.engine.sqlite.schema import begin
from pov_rt.protocol.errors import Unavailable

CACHED_TOPICS = 50_000


class Tail:
    """The end of a topic's log: below `stored` there are no rows; `surplus` of them may go.

    `before` is what `top` was before the group that is being written.
    """

    __slots__ = ("before", "id", "name", "stored", "surplus", "top")

    def __init__(self, topic_id: int, name: str, top: int, stored: int) -> None:
        self.id = topic_id
        self.name = name
        self.top = self.before = top
        self.stored = stored
        self.surplus = 0


class Tails:
    """The tails of the topics in use, and of those of which something may go.

    There is one tail of a topic at a time. Used by the writer's thread only.
    """

    def __init__(self, connection: sqlite3.Connection, max_topics: int) -> None:
        self._connection = connection
        self._max_topics = max_topics
        self._used: dict[str, Tail] = {}
        self.overdue: dict[str, Tail] = {}
        """Those with a surplus; the first is the next to lose some."""
        self._count: int | None = None

    def use(self, name: str) -> Tail:
        """Return a topic's tail to append to; a new topic is entered. Raises `Unavailable`."""
        tail = self._used.get(name)
        if tail is None:
            tail = self.overdue.get(name) or self._load(name)
            if len(self._used) >= CACHED_TOPICS:
                self._used.clear()
            self._used[name] = tail
        return tail

    def find(self, name: str) -> Tail | None:
        """Return a topic's tail if it is known."""
        return self._used.get(name) or self.overdue.get(name)

    def forget(self) -> None:
        """Forget all that was read from the database."""
        self._used.clear()
        self.overdue.clear()
        self._count = None

    def _load(self, name: str) -> Tail:
        row = self._connection.execute("SELECT id FROM topics WHERE name = ?", (name,)).fetchone()
        if row is None:
            return self._enter(name)
        (topic_id,) = row
        top = edge(self._connection, topic_id, "max")
        stored = edge(self._connection, topic_id, "min")
        return Tail(topic_id, name, top or 0, stored or 1)

    def _enter(self, name: str) -> Tail:
        if self._count is None:
            self._count = self._connection.execute("SELECT count(*) FROM topics").fetchone()[0]
        if self._count >= self._max_topics:
            raise Unavailable(
                f"the log has {self._count} topics, as many as engine.max_topics allows"
            )
        begin(self._connection)
        cursor = self._connection.execute("INSERT INTO topics (name) VALUES (?)", (name,))
        self._count += 1
        return Tail(int(cursor.lastrowid or 0), name, 0, 1)

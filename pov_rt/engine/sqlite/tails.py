"""The ends of the topics' logs, as the writer knows them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Protocol

from pov_rt.engine.bounds import TopicCount, generation_of
from pov_rt.engine.sqlite.pages import edge, own_epoch
from pov_rt.engine.sqlite.schema import begin, read_generation
from pov_rt.engine.sqlite.witness import add_gone

CACHED_TOPICS = 50_000


class Tail:
    """The end of a topic's log: below `stored` there are no rows; `surplus` of them may go.

    `before` is what `top` was before the group that is being written.
    """

    __slots__ = ("before", "epoch", "id", "name", "stored", "surplus", "top")

    def __init__(self, topic_id: int, name: str, epoch: str, top: int, stored: int) -> None:
        self.id = topic_id
        self.name = name
        self.epoch = epoch
        self.top = self.before = top
        self.stored = stored
        self.surplus = 0


class Watched(Protocol):
    """Which topics are watched. Asked by the writer's thread."""

    def __contains__(self, name: object) -> bool:
        """Tell whether a topic is watched."""

    def begun(self, name: str) -> str | None:
        """Return the epoch of a watched topic without entries: those who watch have been told."""


class Tails:
    """The tails of the topics in use, and of those of which something may go.

    There is one tail of a topic at a time. Used by the writer's thread only.
    """

    def __init__(
        self, connection: sqlite3.Connection, epoch: str, count: TopicCount, watched: Watched
    ) -> None:
        self._connection = connection
        self._epoch = epoch
        self.count = count
        self.watched = watched
        self._used: dict[str, Tail] = {}
        self.overdue: dict[str, Tail] = {}
        """Those with a surplus; the first is the next to lose some."""
        self._generation = 0
        self._is_read = False

    def use(self, name: str, publisher: str) -> Tail:
        """Return a topic's tail to append to; a new topic is entered. Raises `Unavailable`."""
        tail = self._used.get(name)
        if tail is None:
            tail = self.overdue.get(name) or self._load(name, publisher)
            if len(self._used) >= CACHED_TOPICS:
                self._used.clear()
            self._used[name] = tail
        return tail

    def find(self, name: str) -> Tail | None:
        """Return a topic's tail if it is known."""
        return self._used.get(name) or self.overdue.get(name)

    def epoch(self, generation: int, epochs: str = "") -> str:
        """Return the epoch of a topic."""
        return own_epoch(self._epoch, generation, epochs)

    @property
    def unknown(self) -> str:
        """The epoch of a topic that is not here."""
        self.read()
        return self.epoch(self._generation)

    def forget(self) -> None:
        """Forget all that was read from the database."""
        self._used.clear()
        self.overdue.clear()
        self._is_read = False

    def remove(self, topics: Sequence[tuple[int, str, int]]) -> None:
        """Delete topics (id, name, generation) that nothing needs.

        The newest generation is afterwards newer than theirs: should they come back, they have an
        epoch that they never had.
        """
        self.read()
        for _, name, _ in topics:
            self._used.pop(name, None)
        marks = ", ".join("?" * len(topics))
        ids = [topic_id for topic_id, _, _ in topics]
        tops = (edge(self._connection, topic_id, "max") for topic_id in ids)
        add_gone(self._connection, sum(top or 0 for top in tops))
        self._connection.execute(f"DELETE FROM entries WHERE topic IN ({marks})", ids)
        self._connection.execute(f"DELETE FROM topics WHERE id IN ({marks})", ids)
        self.count.number -= len(topics)
        newest = max(generation for _, _, generation in topics)
        if newest >= self._generation:
            self._generation = newest + 1
            self._connection.execute(
                "UPDATE meta SET value = ? WHERE name = 'generation'", (str(self._generation),)
            )

    def read(self) -> None:
        """Read how many topics there are, and their newest generation, unless that is known."""
        if not self._is_read:
            self._generation = read_generation(self._connection)
            number = self._connection.execute("SELECT count(*) FROM topics").fetchone()[0]
            self.count.number = number
            self._is_read = True

    def _load(self, name: str, publisher: str) -> Tail:
        row = self._connection.execute(
            "SELECT id, generation, epochs FROM topics WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            return self._enter(name, publisher)
        topic_id, *log_epoch = row
        top = edge(self._connection, topic_id, "max")
        stored = edge(self._connection, topic_id, "min")
        return Tail(topic_id, name, self.epoch(*log_epoch), top or 0, stored or 1)

    def _enter(self, name: str, publisher: str) -> Tail:
        self.read()
        self.count.check_room(1, publisher)
        begun = self.watched.begun(name)
        generation = self._generation if begun is None else generation_of(begun)
        begin(self._connection)
        cursor = self._connection.execute(
            "INSERT INTO topics (name, generation) VALUES (?, ?)", (name, generation)
        )
        self.count.number += 1
        return Tail(int(cursor.lastrowid or 0), name, self.epoch(generation), 0, 1)

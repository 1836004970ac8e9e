"""What is too much or too old leaves the database: entries with their bodies, and ids.

Each step is a small transaction between the commits; a group of publications that comes meanwhile
waits for it.
"""

from __future__ import annotations

import math
import sqlite3
from typing import NamedTuple

from pov_rt.clock import Clock
from pov_rt.engine.sqlite.tails import Tail, Tails
from pov_rt.settings import EngineSettings

TRIM_ROWS = 1000
"""How many rows a step removes, beside those that came since the last one and a quarter more. With
their bodies a row takes 1 to 2.5 us, for its topic's rows are beside each other."""
SPANS = 10
"""Of how many topics at once, so that there are not many statements; the others' turn will come."""
KEYS = 2000
"""How many ids are looked at, at least; that is a millisecond."""
TOPICS, DEPTH = 50, 1000
"""How many topics are looked at, and how many rows of each: all are read that are too old."""

_LOOK = """
    SELECT id, name, stored, top,
        (SELECT at FROM entries WHERE entries.topic = id AND entries."offset" = top),
        (SELECT entries."offset" FROM entries WHERE entries.topic = id
            AND entries."offset" < stored + :depth AND at >= :not_before
            ORDER BY entries."offset" LIMIT 1)
    FROM (SELECT id, name,
            (SELECT min(entries."offset") FROM entries WHERE entries.topic = topics.id) AS stored,
            (SELECT max(entries."offset") FROM entries WHERE entries.topic = topics.id) AS top
        FROM topics WHERE id > :after ORDER BY id LIMIT :topics)
    ORDER BY id
"""
"""A statement for all topics: each statement waits for the interpreter's lock when it ends."""

_SPAN = 'topic = :topic AND "offset" >= :first AND "offset" < :before'
DROP_BODIES = f"""
    DELETE FROM bodies WHERE id IN (SELECT body FROM entries WHERE {_SPAN})
    AND NOT EXISTS (SELECT 1 FROM entries AS other
        WHERE other.topic = iif(bodies.topic = :topic, bodies.feed, bodies.topic)
        AND other."offset" = iif(bodies.topic = :topic, bodies.feed_offset, bodies."offset")
        AND other.body = bodies.id)
"""
"""Removes the bodies of a topic's entries that have no other place; one of these comes after it."""
DROP_ENTRIES = f"DELETE FROM entries WHERE {_SPAN}"
EMPTY_ENTRIES = f"UPDATE entries SET body = 0, at = 0 WHERE {_SPAN}"

Key = tuple[int, bytes]
FIRST_KEY: Key = (0, b"")
LAST_KEY: Key = (1 << 62, b"")
_KEYS = "FROM keys WHERE (topic, name) > (?, ?) AND (topic, name) <= (?, ?)"


class Round(NamedTuple):
    """A look at all keys, in steps: when it began, and the oldest that it has left."""

    began: float
    oldest: float


class Retention:
    """Decides what leaves. Used by the writer's thread only."""

    def __init__(
        self, connection: sqlite3.Connection, settings: EngineSettings, clock: Clock, tails: Tails
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._clock = clock
        self._tails = tails
        self.surplus = 0
        """Rows that may go, as far as is known."""
        self._came = 0
        self._next_topic = 0
        self._next_key = FIRST_KEY
        self._round = Round(0.0, math.inf)
        self._no_key_before = 0.0

    def forget(self) -> None:
        """Forget what is known of the tails, which are forgotten, too."""
        self.surplus = 0

    def count(self, tail: Tail, came: int = 0) -> None:
        """Take note of how many of a topic's rows may go now, after so many came."""
        self._came += came
        surplus = self._oldest(tail) - tail.stored
        self.surplus += surplus - tail.surplus
        tail.surplus = surplus
        overdue = self._tails.overdue
        if surplus:
            overdue[tail.name] = tail  # where it is already, it keeps its turn
        else:
            overdue.pop(tail.name, None)

    def trim(self) -> None:
        """Remove some of the surplus: all of a topic, then that of the next.

        More than came since the last time, so that nothing piles up.
        """
        room, self._came = TRIM_ROWS + self._came * 5 // 4, 0
        overdue = self._tails.overdue
        for _ in range(SPANS):
            if not overdue or not room:
                return
            tail = next(iter(overdue.values()))
            before = min(self._oldest(tail), tail.stored + room)
            self._remove(tail, tail.stored, before, DROP_ENTRIES)
            room -= before - tail.stored
            tail.stored = before
            self.count(tail)

    def _remove(self, tail: Tail, first: int, before: int, statement: str) -> None:
        span = {"topic": tail.id, "first": first, "before": before}
        self._connection.execute(DROP_BODIES, span)
        self._connection.execute(statement, span)

    def look(self) -> None:
        """Look at the next few topics, all in turn, for what has become too old.

        The newest row of each stays; when it is too old, its content leaves.
        """
        rows = self._connection.execute(
            _LOOK,
            {
                "not_before": self._clock.time() - self._settings.max_age_s,
                "after": self._next_topic,
                "topics": TOPICS,
                "depth": DEPTH,
            },
        ).fetchall()
        for topic_id, name, stored, top, at, kept in rows:
            if top is None:
                continue
            tail = self._tails.find(name) or Tail(topic_id, name, top, stored)
            tail.kept = min(stored + DEPTH, top + 1) if kept is None else kept
            if tail.kept > top and at > 0:
                # With an instant that stays too old, should the clock or the age be changed.
                self._remove(tail, top, top + 1, EMPTY_ENTRIES)
            self.count(tail)
        self._next_topic = rows[-1][0] if len(rows) == TOPICS else 0

    def drop_keys(self, appended: int) -> None:
        """Forget ids whose time is over, looking at the next few in turn.

        Twice as many are looked at as were appended, so that they cannot pile up. An index on their
        age would find them at once, and cost each append a fifth more. After a round it is known
        when the next one can find anything.
        """
        not_before = self._clock.time() - self._settings.id_window_s
        if not_before <= self._no_key_before:
            return
        if self._next_key == FIRST_KEY:
            self._round = Round(self._clock.time(), math.inf)
        last = self._connection.execute(
            "SELECT topic, name FROM keys WHERE (topic, name) > (?, ?) "
            "ORDER BY topic, name LIMIT 1 OFFSET ?",
            (*self._next_key, max(KEYS, 2 * appended) - 1),
        ).fetchone()
        span = (*self._next_key, *(last or LAST_KEY))
        (oldest,) = self._connection.execute(f"SELECT min(at) {_KEYS}", span).fetchone()
        if oldest is not None and oldest < not_before:
            self._connection.execute(f"DELETE {_KEYS} AND at < ?", (*span, not_before))
            oldest = not_before
        if oldest is not None:
            self._round = self._round._replace(oldest=min(self._round.oldest, oldest))
        self._next_key = last or FIRST_KEY
        if last is None:
            # What was appended behind the round's back is younger than its beginning.
            self._no_key_before = min(self._round)

    def _oldest(self, tail: Tail) -> int:
        """Return the offset below which a topic's rows may go; its newest row stays."""
        oldest = max(tail.top - self._settings.max_entries + 1, tail.kept)
        return max(tail.stored, min(oldest, tail.top))

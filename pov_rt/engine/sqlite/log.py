"""Appending to the topics' logs and removing what is old: the writer's part of the engine's log."""

from __future__ import annotations

import json
import math
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pov_rt.clock import Clock
from pov_rt.engine.base import Appended, Conflict, NewEntry
from pov_rt.engine.sqlite.packing import DROP_KEYS, FIND_KEYS, INSERT, Rows
from pov_rt.engine.sqlite.pages import edge, first_kept
from pov_rt.engine.sqlite.schema import begin
from pov_rt.errors import Unavailable
from pov_rt.settings import EngineSettings

CACHED_TOPICS = 50_000
TIDY_ROWS = 1000
"""Rows removed at once, beside as many as were appended since; with their bodies 3 to 10 ms."""
TIDY_KEYS = 5000
TIDY_TOPICS = 200
AGED_ROWS = 10_000
"""When a look at topics has found so many rows that are too old, it ends: it reads each of them."""

_ROWS_OF_SPANS = """
    FROM json_each(:spans) AS span CROSS JOIN entries
    ON entries.topic = json_extract(span.value, '$[0]')
    AND entries."offset" >= json_extract(span.value, '$[1]')
    AND entries."offset" < json_extract(span.value, '$[2]')
"""
FIND_BODIES = f"SELECT json_group_array(entries.body) {_ROWS_OF_SPANS}"
DROP_ENTRIES = (
    'DELETE FROM entries WHERE (topic, "offset") IN '
    f'(SELECT entries.topic, entries."offset" {_ROWS_OF_SPANS})'
)
EMPTY_ENTRIES = (
    'UPDATE entries SET body = 0, at = 0 WHERE at > 0 AND (topic, "offset") IN '
    f'(SELECT entries.topic, entries."offset" {_ROWS_OF_SPANS})'
)
DROP_BODIES = """
    DELETE FROM bodies WHERE id IN (SELECT value FROM json_each(:bodies))
    AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.topic = bodies.topic
        AND entries."offset" = bodies."offset" AND entries.body = bodies.id)
    AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.topic = bodies.feed
        AND entries."offset" = bodies.feed_offset AND entries.body = bodies.id)
"""
"""Remove the rows of spans (topic, first, before), then those of their bodies that have no place
left. All topics at once: each statement waits for the interpreter's lock when it ends."""


class Tail:
    """The end of a topic's log, as the writer knows it.

    `stored` is its oldest row; those below `kept` are known to be too old. `surplus` rows may go.
    """

    __slots__ = ("id", "kept", "name", "stored", "surplus", "top")

    def __init__(self, topic_id: int, name: str, top: int, stored: int) -> None:
        self.id = topic_id
        self.name = name
        self.top = top
        self.stored = stored
        self.kept = 0
        self.surplus = 0


class Outcome(NamedTuple):
    """What became of a batch: of its entries, or of those before the one that `error` stopped.

    `feed` has each entry's offset in its feed (0: it is in none), `at` is when all were appended.
    """

    results: list[Appended | Conflict]
    feed: list[int]
    at: float
    error: Unavailable | None = None


Key = tuple[int, bytes]
FIRST_KEY: Key = (0, b"")
LAST_KEY: Key = (1 << 62, b"")
_SPAN = "FROM keys WHERE (topic, name) > (?, ?) AND (topic, name) <= (?, ?)"


class Round(NamedTuple):
    """A look at all keys, in steps: when it began, and the oldest that it has left."""

    began: float
    oldest: float


class LogStore:
    """Appends to the logs and removes what is old. Used by the writer's thread only."""

    def __init__(
        self, connection: sqlite3.Connection, settings: EngineSettings, clock: Clock, epoch: str
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._clock = clock
        self.epoch = epoch
        """The epoch of every log."""
        self._tails: dict[str, Tail] = {}
        self._overdue: dict[str, Tail] = {}
        self.surplus = 0
        """Rows that may go, as far as is known; `trim` removes them."""
        self._topics: int | None = None
        self._last_at = 0.0
        self._next_topic = 0
        self._next_key = FIRST_KEY
        self._round = Round(0.0, math.inf)
        self._no_key_before = 0.0
        self._appended = 0
        self._rows_appended = 0

    def append(self, batches: Sequence[Sequence[NewEntry]]) -> list[Outcome]:
        """Append batches; return what became of each.

        They are committed at once, unless a transaction is open: this one's or the caller's.
        """
        # Within the process the time of an entry never goes back, whatever the clock does.
        at = self._last_at = max(self._clock.time(), self._last_at)
        plan = Plan(self, {}, at)
        outcomes = [plan.add(batch) for batch in batches]
        try:
            plan.rows.execute(self._connection, INSERT, at)
        except sqlite3.IntegrityError:
            # Some are retries, or were used so long ago that they are new again. Both are rare, so
            # they are looked for only now.
            begin(self._connection)
            plan.rows.execute(self._connection, DROP_KEYS, at - self._settings.id_window_s)
            known: dict[Key, tuple[int, int]] = {
                (topic, name): (offset, digest)
                for topic, name, offset, digest in plan.rows.execute(
                    self._connection, FIND_KEYS, at
                )
            }
            plan.take_back()
            plan = Plan(self, known, at)
            outcomes = [plan.add(batch) for batch in batches]
            plan.rows.execute(self._connection, INSERT, at)
        self._appended += sum(map(len, batches))
        for tail, top in plan.tails:
            self._rows_appended += tail.top - top
            self._count(tail)
        return outcomes

    def tail(self, name: str) -> Tail:
        """Return the end of a topic's log; a new topic is entered. Raises `Unavailable`."""
        tail = self._tails.get(name)
        if tail is None:
            # There is one of a topic at a time: one that is still to be trimmed has not left.
            tail = self._overdue.get(name) or self._load(name)
            if len(self._tails) >= CACHED_TOPICS:
                self._tails.clear()
            self._tails[name] = tail
        return tail

    def forget(self) -> None:
        """Forget what is remembered of the database."""
        self._tails.clear()
        self._overdue.clear()
        self.surplus = 0
        self._topics = None

    def tidy(self) -> None:
        """Look for what retention allows to go, and remove some of it."""
        now = self._clock.time()
        begin(self._connection)
        self._look_at_next(now - self._settings.max_age_s)
        self._remove_some()
        self._tidy_keys(now - self._settings.id_window_s)
        self._connection.execute("COMMIT")

    def trim(self) -> None:
        """Remove some of what is known to be too much or too old."""
        begin(self._connection)
        self._remove_some()
        self._connection.execute("COMMIT")

    def _oldest(self, tail: Tail) -> int:
        """Return the offset below which a topic's rows may go; its newest row stays."""
        oldest = max(tail.top - self._settings.max_entries + 1, tail.kept)
        return max(tail.stored, min(oldest, tail.top))

    def _count(self, tail: Tail) -> None:
        """Take note of how many of a topic's rows may go now."""
        surplus = self._oldest(tail) - tail.stored
        self.surplus += surplus - tail.surplus
        tail.surplus = surplus
        if surplus:
            self._overdue[tail.name] = tail  # where it is already, it keeps its turn
        else:
            self._overdue.pop(tail.name, None)

    def _look_at_next(self, not_before: float) -> None:
        """Find what may go of the next few topics, all in turn."""
        rows = self._connection.execute(
            "SELECT id, name FROM topics WHERE id > ? ORDER BY id LIMIT ?",
            (self._next_topic, TIDY_TOPICS),
        ).fetchall()
        found = 0
        for topic_id, name in rows:
            self._next_topic = topic_id
            tail = self._tails.get(name) or self._overdue.get(name) or self._load(name)
            if not tail.top:
                continue
            kept = first_kept(self._connection, topic_id, not_before)
            tail.kept = tail.top + 1 if kept is None else kept
            if kept is None:
                self._empty(tail)
            self._count(tail)
            found += max(0, tail.kept - tail.stored)
            if found >= AGED_ROWS:
                return
        if len(rows) < TIDY_TOPICS:
            self._next_topic = 0

    def _remove_some(self) -> None:
        """Remove more than was appended since the last time, so that nothing piles up.

        Topics take turns: a feed, to which most is appended, would leave no room for the others.
        """
        room = TIDY_ROWS + self._rows_appended
        self._rows_appended = 0
        spans: list[tuple[int, int, int]] = []
        while self._overdue and room > 0:
            name = next(iter(self._overdue))
            tail = self._overdue.pop(name)
            before = min(self._oldest(tail), tail.stored + room)
            if before > tail.stored:
                room -= before - tail.stored
                spans.append((tail.id, tail.stored, before))
                tail.stored = before
            self._count(tail)
        if spans:
            self._drop(spans, DROP_ENTRIES)

    def _drop(self, spans: Sequence[tuple[int, int, int]], statement: str) -> None:
        """Execute a statement on rows, and remove the bodies that have no place any more."""
        values = {"spans": json.dumps(spans)}
        (bodies,) = self._connection.execute(FIND_BODIES, values).fetchone()
        self._connection.execute(statement, values)
        self._connection.execute(DROP_BODIES, {"bodies": bodies})

    def _empty(self, tail: Tail) -> None:
        """Remove the content of a topic's newest row, which stays when it is too old."""
        # With an instant that stays too old, should the clock or the age be changed.
        self._drop([(tail.id, tail.top, tail.top + 1)], EMPTY_ENTRIES)

    def _tidy_keys(self, not_before: float) -> None:
        """Forget ids whose time is over, looking at the next few in turn.

        Twice as many are looked at as were appended, so that they cannot pile up. An index on their
        age would find them at once, and cost each append a fifth more. After a round it is known
        when the next one can find anything; a step of a round takes 10 ms at 30,000 appends/s.
        """
        appended, self._appended = self._appended, 0
        if not_before <= self._no_key_before:
            return
        if self._next_key == FIRST_KEY:
            self._round = Round(self._clock.time(), math.inf)
        last = self._connection.execute(
            "SELECT topic, name FROM keys WHERE (topic, name) > (?, ?) "
            "ORDER BY topic, name LIMIT 1 OFFSET ?",
            (*self._next_key, max(TIDY_KEYS, 2 * appended) - 1),
        ).fetchone()
        span = (*self._next_key, *(last or LAST_KEY))
        (oldest,) = self._connection.execute(f"SELECT min(at) {_SPAN}", span).fetchone()
        if oldest is not None and oldest < not_before:
            self._connection.execute(f"DELETE {_SPAN} AND at < ?", (*span, not_before))
            oldest = not_before
        if oldest is not None:
            self._round = self._round._replace(oldest=min(self._round.oldest, oldest))
        self._next_key = last or FIRST_KEY
        if last is None:
            # What was appended behind the round's back is younger than its beginning.
            self._no_key_before = min(self._round)

    def _load(self, name: str) -> Tail:
        row = self._connection.execute("SELECT id FROM topics WHERE name = ?", (name,)).fetchone()
        if row is None:
            if self._topics is None:
                self._topics = self._count_topics()
            if self._topics >= self._settings.max_topics:
                raise Unavailable(
                    f"the log has {self._topics} topics, as many as engine.max_topics allows"
                )
            begin(self._connection)
            cursor = self._connection.execute("INSERT INTO topics (name) VALUES (?)", (name,))
            self._topics += 1
            return Tail(int(cursor.lastrowid or 0), name, 0, 1)
        (topic_id,) = row
        top = edge(self._connection, topic_id, "max")
        stored = edge(self._connection, topic_id, "min")
        return Tail(topic_id, name, top or 0, stored or 1)

    def _count_topics(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM topics").fetchone()[0])


class Plan:
    """A group of batches: where each entry goes, and the rows that put it there."""

    def __init__(self, store: LogStore, known: Mapping[Key, tuple[int, int]], at: float) -> None:
        self._store = store
        self._known = dict(known)
        self._at = at
        self.rows = Rows()
        self._before: dict[str, tuple[Tail, int]] = {}

    def add(self, batch: Sequence[NewEntry]) -> Outcome:
        """Plan a batch; an `Unavailable` ends it, what stands before it is appended."""
        results: list[Appended | Conflict] = []
        feed: list[int] = []
        try:
            for new in batch:
                self._add(new, results, feed)
        except Unavailable as error:
            return Outcome(results, feed, self._at, error)
        return Outcome(results, feed, self._at)

    @property
    def tails(self) -> Iterable[tuple[Tail, int]]:
        """The ends of the logs that were appended to, each with the offset that it had before."""
        return self._before.values()

    def take_back(self) -> None:
        """Give the tails the offsets that they had before."""
        for tail, top in self._before.values():
            tail.top = top

    def _add(self, new: NewEntry, results: list[Appended | Conflict], feeds: list[int]) -> None:
        topic, publisher, key, body, feed, origin = new
        tail = self._tail(topic)
        feed_tail = self._tail(feed) if feed else None
        name = f"{publisher}\n{key}".encode()
        # A checksum is enough: both bodies are the same publisher's, who gains nothing by a clash.
        digest = zlib.crc32(body) | len(body) << 32
        known = self._known.get((tail.id, name))
        if known is not None:
            offset, other = known
            epoch = self._store.epoch
            is_same = other == digest
            results.append(Appended(epoch, offset, True) if is_same else Conflict(epoch, offset))
            feeds.append(0)
            return
        tail.top = offset = tail.top + 1
        feed_id = feed_offset = 0
        if feed_tail is not None:
            feed_tail.top = feed_offset = feed_tail.top + 1
            feed_id = feed_tail.id
        self._known[tail.id, name] = (offset, digest)
        self.rows.add((tail.id, offset, feed_id, feed_offset), name, origin.encode(), body, digest)
        results.append(Appended(self._store.epoch, offset))
        feeds.append(feed_offset)

    def _tail(self, topic: str) -> Tail:
        # Its own first: the store may have let go of it meanwhile, and the database is behind.
        if (mine := self._before.get(topic)) is not None:
            return mine[0]
        tail = self._store.tail(topic)
        self._before[topic] = (tail, tail.top)
        return tail

"""Appending to the topics' logs and removing what is old: the writer's part of the engine's log."""

from __future__ import annotations

import math
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pov_rt.clock import Clock
from pov_rt.engine.base import Appended, Conflict, NewEntry
from pov_rt.engine.sqlite.packing import DROP_KEYS, FIND_KEYS, INSERT, Rows
from pov_rt.engine.sqlite.pages import edge, first_kept
from pov_rt.engine.sqlite.schema import begin
from pov_rt.errors import Unavailable
from pov_rt.settings import EngineSettings

CACHED_TOPICS = 50_000
TIDY_ROWS = 5000
"""Rows removed at once: 5 ms, which nobody who waits for a commit notices."""
TIDY_TOPICS = 200

DROP_BODIES = """
    DELETE FROM bodies WHERE id IN
        (SELECT body FROM entries WHERE topic = :topic
        AND "offset" >= :first AND "offset" < :before)
    AND NOT EXISTS (SELECT 1 FROM entries AS other WHERE
        other.topic = iif(bodies.topic = :topic, bodies.feed, bodies.topic) AND
        other."offset" = iif(bodies.topic = :topic, bodies.feed_offset, bodies."offset")
        AND other.body = bodies.id)
"""
"""Removes the bodies of entries that are about to go, but for those with another place."""


class Tail:
    """The end of a topic's log, as the writer knows it; `stored` is its oldest row."""

    __slots__ = ("id", "name", "stored", "top")

    def __init__(self, topic_id: int, name: str, top: int, stored: int) -> None:
        self.id = topic_id
        self.name = name
        self.top = top
        self.stored = stored


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
        self._overfull: dict[str, Tail] = {}
        self._topics: int | None = None
        self._last_at = 0.0
        self._next_topic = 0
        self._next_key = FIRST_KEY
        self._round = Round(0.0, math.inf)
        self._no_key_before = 0.0
        self._appended = 0

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
        for tail in plan.tails:
            if tail.top - tail.stored > self._settings.max_entries:
                self._overfull[tail.name] = tail
        return outcomes

    def tail(self, name: str) -> Tail:
        """Return the end of a topic's log; a new topic is entered. Raises `Unavailable`."""
        tail = self._tails.get(name)
        if tail is None:
            tail = self._load(name)
            if len(self._tails) >= CACHED_TOPICS:
                self._tails.clear()
            self._tails[name] = tail
        return tail

    def forget(self) -> None:
        """Forget what is remembered of the database."""
        self._tails.clear()
        self._overfull.clear()
        self._topics = None

    def tidy(self) -> None:
        """Remove some of what retention allows to go."""
        now = self._clock.time()
        begin(self._connection)
        room = TIDY_ROWS
        for name, tail in list(self._overfull.items()):
            oldest = tail.top - self._settings.max_entries + 1
            room -= self._remove(tail, min(oldest, tail.stored + room))
            if tail.stored >= oldest:
                del self._overfull[name]
            if room <= 0:
                break
        if room > 0:
            room -= self._tidy_next(now, room)
        self._tidy_keys(now - self._settings.id_window_s)
        self._connection.execute("COMMIT")

    def _tidy_next(self, now: float, room: int) -> int:
        """Remove old entries of the next few topics, all in turn; return how many rows."""
        not_before = now - self._settings.max_age_s
        rows = self._connection.execute(
            "SELECT id, name FROM topics WHERE id > ? ORDER BY id LIMIT ?",
            (self._next_topic, TIDY_TOPICS),
        ).fetchall()
        removed = 0
        for topic_id, name in rows:
            self._next_topic = topic_id
            tail = self._tails.get(name) or self._load(name)
            if not tail.top:
                continue
            kept = first_kept(self._connection, topic_id, not_before)
            by_number = tail.top - self._settings.max_entries + 1
            oldest = max(tail.top + 1 if kept is None else kept, by_number)
            removed += self._remove(tail, min(oldest, tail.stored + room - removed))
            if oldest > tail.top:
                self._empty(tail)
            if removed >= room:
                break
        if len(rows) < TIDY_TOPICS:
            self._next_topic = 0
        return removed

    def _remove(self, tail: Tail, before: int) -> int:
        """Remove a topic's rows below an offset, but never its newest; return how many."""
        before = min(before, tail.top)
        if before <= tail.stored:
            return 0
        self._drop_bodies(tail.id, tail.stored, before)
        self._connection.execute(
            'DELETE FROM entries WHERE topic = ? AND "offset" < ?', (tail.id, before)
        )
        removed, tail.stored = before - tail.stored, before
        return removed

    def _drop_bodies(self, topic_id: int, first: int, before: int) -> None:
        span = {"topic": topic_id, "first": first, "before": before}
        self._connection.execute(DROP_BODIES, span)

    def _empty(self, tail: Tail) -> None:
        """Remove the content of a topic's newest row, which stays when it is too old."""
        self._drop_bodies(tail.id, tail.top, tail.top + 1)
        # With an instant that stays too old, should the clock or the age be changed.
        self._connection.execute(
            'UPDATE entries SET body = 0, at = 0 WHERE topic = ? AND "offset" = ? AND at > 0',
            (tail.id, tail.top),
        )

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
            (*self._next_key, max(TIDY_ROWS, 2 * appended) - 1),
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
    def tails(self) -> Sequence[Tail]:
        """The ends of the logs that were appended to."""
        return [tail for tail, _ in self._before.values()]

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

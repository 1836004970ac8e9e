"""Appending to the topics' logs: the writer's part of the engine's log."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Appended, Conflict, NewEntry
from pov_rt.engine.copying import digest_of, hashed_name
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.sqlite.forgetting import Forgetting
from pov_rt.engine.sqlite.jobs import Append, Change, Job, Outcome
from pov_rt.engine.sqlite.packing import Groups, Rows
from pov_rt.engine.sqlite.producers import Producer, Producers
from pov_rt.engine.sqlite.remnants import Search
from pov_rt.engine.sqlite.retention import FUTURE_S, Retention
from pov_rt.engine.sqlite.schema import begin, commit, open_plain
from pov_rt.engine.sqlite.state import StateStore
from pov_rt.engine.sqlite.tails import Tail, Tails
from pov_rt.engine.sqlite.witness import Witness
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.process.logs import Throttle

TIDY_APPENDED, TIDY_BYTES = 2000, 1024 * 1024
"""Appended entries, or bytes of them, after which `tidy` is due."""

LONG_PAGES, PAGE_BYTES = 8000, 4096
"""Pages of the write-ahead log (33 MB) that somebody's reading keeps there, from which on that is
said."""

EMPTY_MS, BUSY_MS = 50, 5000
"""How long the writer waits for readers to empty the write-ahead log; and for other programs."""

Known = Mapping[tuple[int, str], tuple[int, int]]
"""Offset and digest of keys that were used before, by a topic's number and the key's name."""

log = logging.getLogger(__name__)


class LogStore:
    """Writes jobs, and removes what is old. Used by the writer's thread only."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        settings: EngineSettings,
        clock: Clock,
        tails: Tails,
        state: StateStore,
        keeping: Keeping | None = None,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._clock = clock
        self._steady = state.steady
        self.tails = tails
        self.state = state
        self._retention = Retention(
            connection, settings, state.steady, tails, keeping or Keeping(settings)
        )
        self._groups = Groups(connection)
        self._forgetting = Forgetting(connection, clock, tails)
        self.producers = Producers(connection, state.producers, state.steady)
        self._last_at = 0.0
        self._appended = 0
        self._appended_bytes = 0
        self.witness: Witness | None = None
        self.total = 0
        """How many entries of all topics there ever were."""
        self._uncommitted = 0
        self._ids_copied: float | None = None
        self.is_stale = False
        """Whether the write-ahead log may have bytes that were replaced or removed on demand."""
        self.search = Search(connection)
        self._growth = Throttle(log, per_s=1 / 600)

    def apply(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Write a group in one transaction; return each job's result, or what refused it.

        The transaction may be left open; nothing is acknowledged before it is committed.
        """
        batches = [job.batch for job in jobs if isinstance(job, Append)]
        if len(batches) == len(jobs):
            return self.append(batches)
        begin(self._connection)
        outcomes = iter(self.append(batches))
        return [
            job.apply(self._connection) if isinstance(job, Change) else next(outcomes)
            for job in jobs
        ]

    def append(self, batches: Sequence[Sequence[NewEntry]]) -> list[Outcome]:
        """Append batches; return what became of each.

        They are committed at once, unless a transaction is open: this one's or the caller's.
        """
        # Within the process the time of an entry never goes back, whatever the clock does.
        # But it follows one that was far ahead and was put right.
        now = self._clock.time()
        at = self._last_at = max(now, self._last_at) if self._last_at < now + FUTURE_S else now
        number = sum(map(len, batches))
        plan = Plan(self, {}, at)
        outcomes = [plan.add(batch) for batch in batches]
        if plan.numbers:
            begin(self._connection)
        try:
            size = self._groups.insert(plan.rows, at)
        except sqlite3.IntegrityError:
            # Some are retries, or were used so long ago that they are new again. Both are rare, so
            # they are looked for only now.
            begin(self._connection)
            found = self._groups.find_keys(plan.rows, self._ids_since())
            known = {(topic, name): (offset, digest) for topic, name, offset, digest in found}
            plan.take_back()
            plan = Plan(self, known, at)
            outcomes = [plan.add(batch) for batch in batches]
            size = self._groups.insert(plan.rows, at)
        if plan.numbers:
            self.producers.keep(plan.numbers)
        self._appended += number
        self._appended_bytes += size
        for tail in plan.tails.values():
            number = tail.top - tail.before
            self._retention.count(tail, number)
            self._uncommitted += number
        return outcomes

    def look_up(self, new: NewEntry) -> Appended | Conflict | None:
        """Return what becomes of an entry whose key was used before, None if it was not."""
        row = self._connection.execute(
            'SELECT keys."offset", keys.digest, topics.generation, topics.epochs FROM keys '
            "JOIN topics ON topics.id = keys.topic "
            "WHERE topics.name = ? AND keys.name IN (?, ?) AND keys.at >= ?",
            (new.topic, _name(new), _hashed_name(new), self._ids_since()),
        ).fetchone()
        if row is None:
            return None
        offset, digest, *log_epoch = row
        return _judge(self.tails.epoch(*log_epoch), (offset, digest), new)

    @property
    def has_copied_ids(self) -> bool:
        """Whether there may be ids of which only the hash is known: taken over from elsewhere."""
        if self._ids_copied is None:
            row = self._connection.execute(
                "SELECT CAST(value AS REAL) FROM meta WHERE name = 'ids_copied'"
            ).fetchone()
            self._ids_copied = 0.0 if row is None else row[0]
        return self._ids_copied > 0 and self._ids_copied >= self._ids_since()

    def find_copied(self, topic: int, new: NewEntry) -> tuple[int, int] | None:
        """Return offset and digest of an id of which only the hash is known."""
        found: tuple[int, int] | None = self._connection.execute(
            'SELECT "offset", digest FROM keys WHERE topic = ? AND name = ? AND at >= ?',
            (topic, _hashed_name(new), self._ids_since()),
        ).fetchone()
        return found

    def _ids_since(self) -> float:
        return self._steady.now() - self._settings.id_window_s

    def shorten(self, name: str, stored: int) -> None:
        """Take note that a topic has no rows below `stored` any more."""
        if (tail := self.tails.find(name)) is not None:
            tail.stored = stored
            self._retention.count(tail)

    def bodies_replaced(self) -> None:
        """Take note that bodies are replaced or removed on demand: no byte of them is to stay."""
        self.is_stale = True
        self.search.note()

    def bodies_dropped(self) -> None:
        """Take note that bodies are gone, perhaps the newest."""
        self._retention.bodies_dropped()

    def remove(self, topic: tuple[int, str, int]) -> None:
        """Delete a topic (id, name, generation) that has no bodies, ids and marks."""
        if (tail := self.tails.find(topic[1])) is not None:
            self.shorten(topic[1], tail.top + 1)
        self.producers.drop_topic(topic[0])
        self.tails.remove([topic])

    def committed(self) -> None:
        """Take note that what was appended is on disk."""
        if self._uncommitted and self.witness is not None:
            self.total += self._uncommitted
            self._uncommitted = 0
            self.witness.note(self.total)

    def forget(self) -> None:
        """Forget what is remembered of the database: a transaction was rolled back."""
        self._uncommitted = 0
        self._ids_copied = None
        self._groups.forget()
        self.tails.forget()
        self._retention.forget()
        self.state.forget()
        self.producers.forget()
        self.search.forget()

    @property
    def is_untidy(self) -> bool:
        """Whether enough was appended, or is too old, that `tidy` is due."""
        is_much = self._appended >= TIDY_APPENDED or self._appended_bytes >= TIDY_BYTES
        return is_much or self._retention.is_aged

    @property
    def is_behind(self) -> bool:
        """Whether there are enough rows too many that `trim` is due."""
        return self._retention.is_behind

    def tidy(self) -> float:
        """Remove some of what is too old or too much, in a transaction of its own.

        Return how many pages that adds to the write-ahead log, more or less.
        """
        appended, size = self._appended, self._appended_bytes
        self._appended = self._appended_bytes = 0
        retention = self._retention
        begin(self._connection)
        retention.survey()
        pages = retention.drop_aged(appended, size) + retention.drop_surplus(size)
        pages += retention.drop_keys(appended)
        self.state.tidy(self._connection)
        self.producers.tidy()
        self._forgetting.step()
        commit(self._connection)
        return pages

    def trim(self) -> float:
        """Remove some of what is too much; return what `tidy` does."""
        begin(self._connection)
        pages = self._retention.drop_surplus(self._appended_bytes)
        commit(self._connection)
        return pages

    def empty(self) -> bool:
        """Copy the whole write-ahead log into the database, and empty its file.

        Returns whether it is: not while somebody reads what is in it.
        """
        connection = self._connection
        connection.execute(f"PRAGMA busy_timeout = {EMPTY_MS}")
        try:
            is_busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        self.is_stale = self.is_stale and bool(is_busy)
        return not is_busy

    def rebuild(self, path: Path) -> None:
        """Write the database anew. SQLite leaves copies of rows where it moved them in its pages.

        What it removes it overwrites, but not those. Memory does not have to hold the database:
        this connection's own temporary tables are there, so it is done on another one.
        """
        with closing(open_plain(path)) as connection:
            connection.execute("VACUUM")
        self.search.end(is_new=True)
        self.is_stale = True
        self.empty()

    def copy(self) -> None:
        """Copy the write-ahead log into the database, as far as nobody reads what is in it."""
        _, pages, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if pages - copied > LONG_PAGES:
            self._growth.log(
                logging.WARNING,
                "the write-ahead log has %d MB that cannot be copied into the database: another "
                "program has been reading it for long",
                (pages - copied) * PAGE_BYTES // 1_000_000,
            )


class Plan:
    """A group of batches: where each entry goes, and the rows that put it there."""

    def __init__(self, store: LogStore, known: Known, at: float) -> None:
        self._store = store
        self._known = dict(known)
        self._at = at
        self.rows: Rows = []
        self.tails: dict[str, Tail] = {}
        """The ends of the logs that are appended to."""
        self.epochs: dict[str, str] = {}
        self.numbers: dict[Producer, int] = {}
        """The last numbers of the producers of what is appended."""
        self._entered: list[Producer] = []
        self._has_copied_ids = store.has_copied_ids

    def add(self, batch: Sequence[NewEntry]) -> Outcome:
        """Plan a batch; an `Unavailable` ends it, what stands before it is appended."""
        results: list[Appended | Conflict] = []
        feed: list[int] = []
        try:
            for new in batch:
                self._add(new, results, feed)
        except Unavailable as error:
            return Outcome(results, feed, self._at, self.epochs, error)
        return Outcome(results, feed, self._at, self.epochs)

    def take_back(self) -> None:
        """Give the tails the offsets that they had before, and producers their room back."""
        for producer in self._entered:
            self._store.producers.leave(producer)
        for tail in self.tails.values():
            tail.top = tail.before

    def _add(self, new: NewEntry, results: list[Appended | Conflict], feeds: list[int]) -> None:
        topic, publisher, key, body, feed, origin, compared, producer, seq = new
        tails = self.tails
        tail = tails.get(topic) or self._tail(topic, publisher)
        feed_tail = (tails.get(feed) or self._tail(feed, publisher)) if feed else None
        name = f"{key}\n{publisher}"
        place = tail.id, name
        known = self._known.get(place)
        if known is None and self._has_copied_ids:
            known = self._store.find_copied(tail.id, new)
        if known is not None:
            result = _judge(tail.epoch, known, new)
            if producer and isinstance(result, Appended):
                self._number((tail.id, publisher, producer), seq)
            results.append(result)
            feeds.append(0)
            return
        if producer and not self._number((tail.id, publisher, producer), seq):
            results.append(Appended(tail.epoch, tail.top, True))
            feeds.append(0)
            return
        digest = digest_of(compared or body)
        tail.top = offset = tail.top + 1
        feed_id = feed_offset = 0
        if feed_tail is not None:
            feed_tail.top = feed_offset = feed_tail.top + 1
            feed_id = feed_tail.id
        self._known[place] = offset, digest
        self.rows += (
            tail.id, offset, feed_id, feed_offset, digest, name, origin, bytearray(body),
        )  # fmt: skip
        results.append(Appended(tail.epoch, offset))
        feeds.append(feed_offset)

    def _number(self, producer: Producer, seq: int) -> bool:
        """Take a producer's number if it is higher than its last one; return whether it is."""
        last = self.numbers.get(producer)
        if last is None:
            last = self._store.producers.last(producer)
            if last is None:
                self._store.producers.enter(producer)
                self._entered.append(producer)
        if last is not None and seq <= last:
            return False
        self.numbers[producer] = seq
        return True

    def _tail(self, topic: str, publisher: str) -> Tail:
        # Once in a plan: the store may drop it meanwhile, and the database is behind.
        tail = self.tails[topic] = self._store.tails.use(topic, publisher)
        tail.before = tail.top
        self.epochs[topic] = tail.epoch
        return tail


def _name(new: NewEntry) -> bytes:
    """Return the name of an entry's key, as the table has it."""
    return f"{new.key}\n{new.publisher}".encode()


def _hashed_name(new: NewEntry) -> bytes:
    """Return the name that it has where only the key's hash is known."""
    return f"{hashed_name(new.key)}\n{new.publisher}".encode()


def _judge(epoch: str, known: tuple[int, int], new: NewEntry) -> Appended | Conflict:
    """Return what becomes of an entry whose key has this offset and digest."""
    offset, digest = known
    # Versions before 0.2 kept the body's own.
    is_same = digest in (digest_of(new.compared or new.body), digest_of(new.body))
    return Appended(epoch, offset, True) if is_same else Conflict(epoch, offset)

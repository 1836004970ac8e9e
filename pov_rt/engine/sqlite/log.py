"""Appending to the topics' logs: the writer's part of the engine's log."""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Appended, Conflict, NewEntry
from pov_rt.engine.sqlite.forgetting import Forgetting
from pov_rt.engine.sqlite.jobs import Append, Change, Job, Outcome
from pov_rt.engine.sqlite.packing import DROP_KEYS, FIND_KEYS, INSERT, Rows
from pov_rt.engine.sqlite.retention import FUTURE_S, Key, Retention
from pov_rt.engine.sqlite.schema import begin, commit
from pov_rt.engine.sqlite.state import StateStore
from pov_rt.engine.sqlite.tails import Tail, Tails
from pov_rt.engine.sqlite.witness import Witness
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.logs import Throttle

TIDY_APPENDED, TIDY_BYTES = 2000, 1024 * 1024
"""Appended entries, or bytes of them, after which `tidy` is due."""

LONG_PAGES, PAGE_BYTES = 8000, 4096
"""Pages of the write-ahead log (33 MB) that somebody's reading keeps there, from which on that is
said."""

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
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._clock = clock
        self._steady = state.steady
        self.tails = tails
        self._state = state
        self._retention = Retention(connection, settings, state.steady, tails)
        self._forgetting = Forgetting(connection, clock, tails)
        self._last_at = 0.0
        self._appended = 0
        self._appended_bytes = 0
        self.witness: Witness | None = None
        self.total = 0
        """How many entries of all topics there ever were."""
        self._uncommitted = 0
        self._growth = Throttle(log, per_s=1 / 600)

    def apply(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Write a group in one transaction; return each job's result, or what refused it.

        The transaction may be left open; nothing is acknowledged before it is committed.
        """
        batches = [job.batch for job in jobs if isinstance(job, Append)]
        if len(batches) < len(jobs):
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
        try:
            plan.rows.execute(self._connection, INSERT, at)
        except sqlite3.IntegrityError:
            # Some are retries, or were used so long ago that they are new again. Both are rare, so
            # they are looked for only now.
            begin(self._connection)
            too_old = self._steady.now() - self._settings.id_window_s
            plan.rows.execute(self._connection, DROP_KEYS, too_old)
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
        self._appended += number
        self._appended_bytes += plan.rows.size
        for tail in plan.tails.values():
            number = tail.top - tail.before
            self._retention.count(tail, number)
            self._uncommitted += number
        return outcomes

    def committed(self) -> None:
        """Take note that what was appended is on disk."""
        if self._uncommitted and self.witness is not None:
            self.total += self._uncommitted
            self._uncommitted = 0
            self.witness.note(self.total)

    def tail(self, name: str, publisher: str) -> Tail:
        """Return the end of a topic's log; a new topic is entered. Raises `Unavailable`."""
        return self.tails.use(name, publisher)

    def forget(self) -> None:
        """Forget what is remembered of the database: a transaction was rolled back."""
        self._uncommitted = 0
        self.tails.forget()
        self._retention.forget()
        self._state.forget()

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
        self._state.tidy(self._connection)
        self._forgetting.step()
        commit(self._connection)
        return pages

    def trim(self) -> float:
        """Remove some of what is too much; return what `tidy` does."""
        begin(self._connection)
        pages = self._retention.drop_surplus(self._appended_bytes)
        commit(self._connection)
        return pages

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

    def __init__(self, store: LogStore, known: Mapping[Key, tuple[int, int]], at: float) -> None:
        self._store = store
        self._known = dict(known)
        self._at = at
        self.rows = Rows()
        self.tails: dict[str, Tail] = {}
        """The ends of the logs that are appended to."""
        self.epochs: dict[str, str] = {}

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
        """Give the tails the offsets that they had before."""
        for tail in self.tails.values():
            tail.top = tail.before

    def _add(self, new: NewEntry, results: list[Appended | Conflict], feeds: list[int]) -> None:
        topic, publisher, key, body, feed, origin, compared = new
        tail = self._tail(topic, publisher)
        feed_tail = self._tail(feed, publisher) if feed else None
        name = f"{key}\n{publisher}".encode()
        digest = _digest(compared or body)
        known = self._known.get((tail.id, name))
        if known is not None:
            offset, other = known
            epoch = tail.epoch
            # Versions before 0.2 kept the body's own.
            is_same = other == digest or other == _digest(body)
            results.append(Appended(epoch, offset, True) if is_same else Conflict(epoch, offset))
            feeds.append(0)
            return
        tail.top = offset = tail.top + 1
        feed_id = feed_offset = 0
        if feed_tail is not None:
            feed_tail.top = feed_offset = feed_tail.top + 1
            feed_id = feed_tail.id
        self._known[tail.id, name] = (offset, digest)
        self.rows.add(tail.id, offset, feed_id, feed_offset, name, origin.encode(), body, digest)
        results.append(Appended(tail.epoch, offset))
        feeds.append(feed_offset)

    def _tail(self, topic: str, publisher: str) -> Tail:
        # Its own first: the store may have dropped it meanwhile, and the database is behind.
        tail = self.tails.get(topic)
        if tail is None:
            tail = self.tails[topic] = self._store.tail(topic, publisher)
            tail.before = tail.top
            self.epochs[topic] = tail.epoch
        return tail


def _digest(content: bytes) -> int:
    # A checksum is enough: both are the same publisher's, who gains nothing by a clash.
    return zlib.crc32(content) | len(content) << 32

"""The engine in a file of this machine: `sqlite://`. What is acknowledged is on disk.

One thread writes and two read, so that the loop never waits for a disk. Leases and signals concern
running nodes, of which there is only this one: they are in memory.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Appended, Conflict, Entry, Follower, NewEntry, Page, Tally, Top
from pov_rt.engine.bounds import TopicCount
from pov_rt.engine.local import MemoryLeases, MemorySignals
from pov_rt.engine.sqlite.jobs import Append, Change, Operation, Outcome, ResultT
from pov_rt.engine.sqlite.log import LogStore
from pov_rt.engine.sqlite.pages import Kept, Span, read_page, tally
from pov_rt.engine.sqlite.readers import Readers
from pov_rt.engine.sqlite.schema import (
    FileLock,
    explain,
    file_size,
    keep_private,
    open_writer,
    read_epoch,
)
from pov_rt.engine.sqlite.state import SqliteMarks, SqliteSets, StateStore
from pov_rt.engine.sqlite.store import SqliteStore
from pov_rt.engine.sqlite.tails import Tails
from pov_rt.engine.sqlite.witness import Witness
from pov_rt.engine.sqlite.writer import Writer
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock, SteadyTime


class _Known:
    """The top of a watched topic, as the loop knows it; `oldest_at` is when its oldest came."""

    __slots__ = ("epoch", "offset", "oldest", "oldest_at")

    def __init__(self, top: Top, oldest_at: float) -> None:
        self.epoch = top.epoch
        self.offset = top.offset
        self.oldest = top.oldest
        self.oldest_at = oldest_at


class SqliteLog:
    """The logs of all topics; see `base.Log`."""

    follower: Follower | None = None

    def __init__(self, engine: SqliteEngine) -> None:
        self._engine = engine
        self._watched: dict[str, _Known | None] = {}

    async def append(self, batch: Sequence[NewEntry]) -> list[Appended | Conflict]:
        outcome = await self._engine.writer.write(Append(batch, self._tell))
        if outcome.error is not None:
            raise outcome.error
        return outcome.results

    async def read(
        self,
        topic: str,
        after: int,
        limit: int,
        *,
        reverse: bool = False,
        max_bytes: int | None = None,
    ) -> Page:
        kept, span = self._kept(), Span(after, limit, reverse, max_bytes)
        page = await self._engine.read(lambda connection: read_page(connection, topic, kept, span))
        begun = self.begun(topic)
        if begun is not None and page.top.offset == 0:
            return page._replace(top=page.top._replace(epoch=begun))
        return page

    async def tally(
        self, topic: str, first: int, last: int, head_of: Callable[[bytes], bytes]
    ) -> Tally:
        read = self._engine.read
        return await read(lambda connection: tally(connection, topic, (first, last), head_of))

    async def topics(self, prefix: str) -> Sequence[str]:
        def operation(connection: sqlite3.Connection) -> Sequence[str]:
            rows = connection.execute(
                "SELECT name FROM topics WHERE name >= ? ORDER BY name", (prefix,)
            )
            return [name for (name,) in takewhile(lambda row: row[0].startswith(prefix), rows)]

        return await self._engine.read(operation)

    def _kept(self) -> Kept:
        engine = self._engine
        not_before = engine.steady.now() - engine.settings.max_age_s
        return Kept(engine.epoch, engine.settings.max_entries, not_before)

    async def top(self, topic: str) -> Top:
        """Return the state of a topic's log; that of a watched topic without asking the disk."""
        known = self._watched.get(topic)
        if known is not None:
            engine = self._engine
            oldest = max(known.oldest, known.offset - engine.settings.max_entries + 1)
            too_old = engine.steady.now() - engine.settings.max_age_s
            if oldest > known.offset or known.oldest_at >= too_old:
                return Top(known.epoch, known.offset, oldest)
        page = await self.read(topic, 0, 1)
        if known is not None and self._watched.get(topic) is known:
            # So that the disk is not asked again until this one is too old, too. Without any entry,
            # the oldest one is the next; what came meanwhile is then known better here.
            if page.entries:
                known.oldest, known.oldest_at = page.top.oldest, page.entries[0].at
            elif known.offset == page.top.offset:
                known.oldest = page.top.oldest
        return page.top

    async def watch(self, topic: str) -> Top:
        # First this, then the look at the disk: what is committed between is told of as well.
        self._watched[topic] = None
        try:
            page = await self.read(topic, 0, 1)
        except BaseException:
            self._watched.pop(topic, None)
            raise
        known = self._watched.get(topic)
        if known is None or (known.epoch == page.top.epoch and known.offset < page.top.offset):
            oldest_at = page.entries[0].at if page.entries else 0.0
            self._watched[topic] = _Known(page.top, oldest_at)
        return page.top

    def unwatch(self, topic: str) -> None:
        self._watched.pop(topic, None)

    def __contains__(self, topic: object) -> bool:
        """Tell whether a topic is watched; see `tails.Watched`."""
        return topic in self._watched

    def begun(self, name: str) -> str | None:
        """Return the epoch of a watched topic without entries; see `tails.Watched`."""
        known = self._watched.get(name)
        return None if known is None or known.offset else known.epoch

    def _tell(self, batch: Sequence[NewEntry], outcome: Outcome) -> None:
        """Tell the follower what is on disk now: the batch, or its beginning."""
        watched = self._watched
        fresh: dict[str, list[Entry]] = {}
        for new, result, feed in zip(batch, outcome.results, outcome.feed, strict=False):
            if isinstance(result, Conflict) or result.duplicate:
                continue
            if new.topic in watched:
                entry = Entry(result.offset, new.body, outcome.at, new.origin)
                fresh.setdefault(new.topic, []).append(entry)
            if new.feed in watched:
                entry = Entry(feed, new.body, outcome.at, new.origin)
                fresh.setdefault(new.feed, []).append(entry)
        for topic, entries in fresh.items():
            epoch = outcome.epochs[topic]
            self._advance(topic, epoch, entries)
            if self.follower is not None:
                self.follower.entries(topic, epoch, entries)

    def _advance(self, topic: str, epoch: str, entries: Sequence[Entry]) -> None:
        known = self._watched[topic]
        first, last = entries[0], entries[-1]
        # The topic's state is being read; whichever is newer stays. Or it was forgotten just when
        # it came to be watched, and has come back.
        if known is None or known.epoch != epoch:
            known = self._watched[topic] = _Known(Top(epoch, last.offset, 1), 0.0)
        elif known.oldest > known.offset:
            known.oldest, known.oldest_at = first.offset, first.at
        known.offset = max(known.offset, last.offset)


class SqliteEngine:
    """All parts on one file. Bounded by `EngineSettings`."""

    guarantee = "disk"
    writer: Writer

    def __init__(self, path: Path, settings: EngineSettings, clock: Clock, node: str) -> None:
        self.path = path
        self.settings = settings
        self.clock = clock
        self.steady = SteadyTime(clock)
        self.epoch = ""
        self.log = SqliteLog(self)
        self.signals = MemorySignals()
        self._state = StateStore(settings, self.steady)
        self._topics = TopicCount(settings, clock)
        self.marks = SqliteMarks(self, self._state)
        self.leases = MemoryLeases(clock, node)
        self.sets = SqliteSets(self, self.steady)
        self.store = SqliteStore(self, self._state)
        self._lock: FileLock | None = None
        self.witness = Witness(path)
        self._connections: list[sqlite3.Connection] = []
        self._readers: Readers | None = None

    async def start(self, follower: Follower) -> None:
        self._lock = FileLock(self.path)
        try:
            keep_private(self.path)
            self.witness.part_from_journal()
            connection = open_writer(self.path)
            self._connections.append(connection)
            total = self.witness.admit(connection)
            self.epoch = read_epoch(connection)
            self._state.read(connection)
            tails = Tails(connection, self.epoch, self._topics, self.log)
            tails.read()
            store = LogStore(connection, self.settings, self.clock, tails, self._state)
            store.witness, store.total = self.witness, total
        except sqlite3.Error as error:
            await self.close()
            raise Unavailable(explain(error, self.path)) from error
        except BaseException:
            await self.close()
            raise
        self.log.follower = follower
        self._readers = Readers(self.path)
        self.writer = Writer(
            connection,
            store,
            self.path,
            asyncio.get_running_loop(),
            self.settings.backlog_bytes,
        )

    async def close(self) -> None:
        readers = self._readers
        if readers is not None:
            # Cancelled here, it leaves all open for a second call to close.
            await self.writer.close(readers.executor)
            readers.close()
            self._readers = None
        self.log.follower = None
        # The writer's connection is the first and closed last: the last one copies the write-ahead
        # log into the database.
        while self._connections:
            self._connections.pop().close()
        self.witness.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def watch(self, topic: str) -> Top:
        return await self.log.watch(topic)

    async def unwatch(self, topic: str) -> None:
        self.log.unwatch(topic)

    @property
    def waiting_bytes(self) -> int:
        """What waits to be written, or is being written."""
        return int(self.writer.backlog.used) if self._readers is not None else 0

    @property
    def log_bytes(self) -> Mapping[str, int]:
        """`database`, and `journal`: the write-ahead log, which grows while somebody reads long."""
        files = {"database": self.path, "journal": Path(f"{self.path}-wal")}
        return {name: file_size(path) for name, path in files.items()}

    @property
    def bounds(self) -> Sequence[Bound]:
        """Topics, marks and the store; and what waits, once it is started."""
        shared = (self._topics.bound, self._state.marks.bound)
        waits = (self.writer.backlog.bound, self._readers.bound) if self._readers else ()
        return (*shared, *waits, self._state.values.bound)

    def health(self) -> str | None:
        return self.writer.fault if self._readers is not None else None

    async def write(self, operation: Operation[ResultT], size: int = 0) -> ResultT:
        return await self.writer.write(Change(operation, size))

    async def read(self, operation: Operation[ResultT]) -> ResultT:
        if self._readers is None:
            raise Unavailable("The log is closed")
        return await self._readers.read(operation)

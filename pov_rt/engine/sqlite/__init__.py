"""The engine in a file of this machine: `sqlite://`. What is acknowledged is on disk.

One thread writes and two read, so that the loop never waits for a disk. Leases and signals concern
running nodes, of which there is only this one: they are in memory.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
from asyncio import Future
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import (
    Amended,
    Amendment,
    Appended,
    Conflict,
    Entry,
    Follower,
    Found,
    Health,
    Located,
    Matches,
    NewEntry,
    Page,
    Peer,
    Position,
    Rewrite,
    Survives,
    Tally,
    Top,
    Topics,
)
from pov_rt.engine.bounds import TopicCount
from pov_rt.engine.copying import was_kept
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.local import MemoryLeases, MemorySignals
from pov_rt.engine.sqlite.copying import SqliteCopying
from pov_rt.engine.sqlite.jobs import Append, Change, Operation, Outcome, ResultT, Scrub
from pov_rt.engine.sqlite.log import LogStore
from pov_rt.engine.sqlite.pages import (
    Kept,
    Span,
    find,
    keys_of,
    locate,
    older_epochs,
    read_page,
    search,
    tally,
)
from pov_rt.engine.sqlite.readers import Readers
from pov_rt.engine.sqlite.remnants import FilePages
from pov_rt.engine.sqlite.retention import FIRST_KEY, Key
from pov_rt.engine.sqlite.rewriting import Dropped, Rewriting, Rewritten
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
from pov_rt.engine.sqlite.witness import Witness, part_from_moved
from pov_rt.engine.sqlite.writer import Writer
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock, SteadyTime
from pov_rt.runtime.measure.histogram import Histogram

SCRUB_S, LOOK_S = 30.0, 0.1
"""How long readers may keep the write-ahead log from being emptied, and how often that is tried."""


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

    def append(self, batch: Sequence[NewEntry]) -> Future[list[Appended | Conflict]]:
        return self._engine.writer.write(Append(batch, self._tell))

    async def read(
        self,
        topic: str,
        after: int,
        limit: int,
        *,
        reverse: bool = False,
        max_bytes: int | None = None,
    ) -> Page:
        kept, span = self._kept(topic), Span(after, limit, reverse, max_bytes)
        page = await self._engine.read(lambda connection: read_page(connection, topic, kept, span))
        begun = self.begun(topic)
        if begun is not None and page.top.offset == 0:
            return page._replace(top=page.top._replace(epoch=begun))
        return page

    async def tally(
        self, topic: str, first: int, last: int, head_of: Callable[[bytes], bytes]
    ) -> Tally:
        read, kept = self._engine.read, self._kept(topic)
        return await read(lambda connection: tally(connection, topic, kept, (first, last), head_of))

    async def find(self, topic: str, key: str) -> Sequence[Found]:
        engine = self._engine
        not_before = engine.steady.now() - engine.settings.id_window_s
        return await engine.read(lambda connection: find(connection, topic, key, not_before))

    async def locate(self, key: str) -> Sequence[Located]:
        engine = self._engine
        not_before = engine.steady.now() - engine.settings.id_window_s
        return await engine.read(lambda connection: locate(connection, key, not_before))

    async def search(
        self, prefix: str, matches: Callable[[bytes], bool], after: str = ""
    ) -> Matches:
        start = int(after or 0)
        return await self._engine.read(
            lambda connection: search(connection, prefix, matches, start)
        )

    async def amend(self, amendment: Amendment) -> Amended | Conflict | None:
        rewriting, (rewrite, new, others) = self._engine.rewriting, amendment

        def tell(done: Rewritten[Amended | Conflict | None]) -> None:
            self._tell_rewritten(done.topics)
            if done.telling is not None:
                self._tell([done.telling.entry], done.telling.outcome)

        size = len(new.body) + _size(rewrite, *others)
        change = Change(lambda _: rewriting.amend(amendment), size, tell)
        return (await self._engine.writer.write(change)).result

    async def edit(self, rewrites: Sequence[Rewrite]) -> Sequence[bool]:
        rewriting = self._engine.rewriting

        def tell(done: Rewritten[Sequence[bool]]) -> None:
            self._tell_rewritten(done.topics)

        change = Change(lambda _: rewriting.edit(rewrites), _size(*rewrites), tell)
        return (await self._engine.writer.write(change)).result

    async def drop(self, topic: str, stub: Callable[[bytes], bytes]) -> None:
        rewriting = self._engine.rewriting

        def tell(done: Rewritten[Dropped]) -> None:
            self._tell_rewritten(done.topics)
            is_done, epoch = done.result
            if topic not in self._watched:
                return
            if epoch:
                self._watched[topic] = _Known(Top(epoch, 0, 1), 0.0)
                if self.follower is not None:
                    self.follower.uncertain(topic)
            elif not is_done:
                self._watched[topic] = None  # only the disk knows what is left

        is_done = False
        while not is_done:
            change = Change(lambda _: rewriting.drop(topic, stub), 0, tell)
            is_done = (await self._engine.writer.write(change)).result.is_done

    async def disown(self, publisher: str) -> int:
        engine = self._engine
        after: Key | None = FIRST_KEY
        number = 0
        while after is not None:
            keys, after = await engine.read(partial(keys_of, publisher=publisher, after=after))
            if keys:
                number += await engine.write(partial(engine.rewriting.drop_keys, keys))
        await engine.write(partial(engine.rewriting.drop_producers, publisher))
        return number

    def _tell_rewritten(self, topics: Iterable[str]) -> None:
        if self.follower is not None:
            for topic in sorted(topics):
                self.follower.rewritten(topic)

    async def topics(self, prefix: str, after: str = "", limit: int = 1000) -> Topics:
        def operation(connection: sqlite3.Connection) -> Topics:
            rows = connection.execute(
                "SELECT name FROM topics WHERE name >= ? AND name > ? ORDER BY name LIMIT ?",
                (prefix, after, limit),
            )
            names = [name for (name,) in takewhile(lambda row: row[0].startswith(prefix), rows)]
            return Topics(names, names[-1] if len(names) == limit else None)

        return await self._engine.read(operation)

    async def holds(self, topic: str, position: Position) -> bool:
        # A commit is on disk before anybody is told of it, and a file that was brought back from a
        # copy has none of the epochs that it had. Only another engine's logs may have had several.
        top = await self.top(topic)
        if position.epoch == top.epoch:
            return position.offset <= top.offset
        epochs = await self._engine.read(partial(older_epochs, topic=topic))
        return was_kept(epochs, *position)

    def _kept(self, topic: str) -> Kept:
        engine, now = self._engine, self._engine.steady.now()
        max_entries, max_age_s = engine.keeping.of(topic)
        # A feed has what other topics may not have any more.
        fading = engine.keeping if engine.keeping.fades else None
        return Kept(engine.epoch, max_entries, now - max_age_s, now, fading)

    async def top(self, topic: str) -> Top:
        """Return the state of a topic's log; that of a watched topic without asking the disk."""
        known = self._watched.get(topic)
        if known is not None:
            engine = self._engine
            max_entries, max_age_s = engine.keeping.of(topic)
            oldest = max(known.oldest, known.offset - max_entries + 1)
            too_old = engine.steady.now() - max_age_s
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


def _size(*rewrites: Rewrite) -> int:
    """Return how many bytes of bodies there are in rewrites."""
    return sum(len(each.old) + len(each.body) for each in rewrites)


class SqliteEngine:
    """All parts on one file. Bounded by `EngineSettings`."""

    guarantee: Survives = "disk"
    measures: Mapping[str, float] = {}
    counters: Mapping[str, Mapping[str, int]] = {}
    histograms: Mapping[str, Histogram] = {}
    writer: Writer
    rewriting: Rewriting

    def __init__(
        self,
        path: Path,
        settings: EngineSettings,
        clock: Clock,
        node: str,
        keeping: Keeping | None = None,
    ) -> None:
        self.path = path
        self.settings = settings
        self.keeping = keeping or Keeping(settings)
        self.clock = clock
        self.steady = SteadyTime(clock)
        self.epoch = ""
        self.log = SqliteLog(self)
        self.signals = MemorySignals()
        self._state = StateStore(settings, self.steady, self.keeping.ages[-1])
        self._topics = TopicCount(settings, clock)
        self.marks = SqliteMarks(self, self._state)
        self.leases = MemoryLeases(clock, node, self.log)
        self.sets = SqliteSets(self, self.steady)
        self.store = SqliteStore(self, self._state)
        self.copying = SqliteCopying(
            self, settings, self.keeping, lambda: self.writer.store.forget()
        )
        self._lock: FileLock | None = None
        self.witness = Witness(path)
        self._connections: list[sqlite3.Connection] = []
        self._pages: FilePages | None = None
        self._readers: Readers | None = None

    @property
    def peers(self) -> Sequence[Peer]:
        return ()

    async def start(self, follower: Follower, name: str = "") -> None:
        self._lock = FileLock(self.path)
        try:
            keep_private(self.path)
            self.witness.part_from_journal()
            connection = open_writer(self.path)
            self._connections.append(connection)
            total = self.witness.admit(connection)
            part_from_moved(connection, self.path)
            self.epoch = read_epoch(connection)
            self._state.read(connection)
            tails = Tails(connection, self.epoch, self._topics, self.log)
            tails.read()
            store = LogStore(
                connection, self.settings, self.clock, tails, self._state, self.keeping
            )
            store.witness, store.total = self.witness, total
            self.rewriting = Rewriting(connection, store)
            self._pages = pages = FilePages(self.path)
        except sqlite3.Error as error:
            await self.close()
            raise Unavailable(explain(error, self.path)) from error
        except BaseException:
            await self.close()
            raise
        self.log.follower = self.leases.follower = follower
        self._readers = Readers(self.path)
        self.writer = Writer(
            connection,
            store,
            pages,
            asyncio.get_running_loop(),
            self.settings.backlog_bytes,
            self.clock,
        )

    async def close(self) -> None:
        readers = self._readers
        if readers is not None:
            # Cancelled here, it leaves all open for a second call to close.
            await self.writer.close(readers.executor)
            readers.close()
            self._readers = None
        self.log.follower = self.leases.follower = None
        # The writer's connection is the first and closed last: the last one copies the write-ahead
        # log into the database.
        while self._connections:
            self._connections.pop().close()
        if self._pages is not None:
            self._pages.close()
            self._pages = None
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
        return (*shared, *waits, self._state.values.bound, self._state.producers.bound)

    async def scrub(self) -> None:
        await self.writer.write(Scrub())
        store = self.writer.store
        tries = math.ceil(SCRUB_S / LOOK_S)
        while not await self.write(lambda _: not store.is_stale):
            tries -= 1
            if not tries:
                raise Unavailable(
                    "Another program has been reading the log for long: what was removed is in its "
                    "write-ahead log until that ends"
                )
            await asyncio.sleep(LOOK_S)

    def health(self) -> Health:
        return self.writer.health if self._readers is not None else Health()

    async def write(self, operation: Operation[ResultT], size: int = 0) -> ResultT:
        return await self.writer.write(Change(operation, size))

    async def read(self, operation: Operation[ResultT]) -> ResultT:
        if self._readers is None:
            raise Unavailable("The log is closed")
        return await self._readers.read(operation)

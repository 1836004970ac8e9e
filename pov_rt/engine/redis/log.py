"""The logs of all topics in Redis: appending, reading, and where they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Appended, Conflict, Entry, Found, NewEntry, Page, Position, Top
from pov_rt.engine.copying import microseconds
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.appending import Appending, Done
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.layout import id_of, parse_entry
from pov_rt.engine.redis.past.disowning import Disowning
from pov_rt.engine.redis.past.looking import Looking
from pov_rt.engine.redis.past.rewriting import Rewriting
from pov_rt.engine.redis.reader import Known, Reader
from pov_rt.engine.redis.state.marks import RedisMarks
from pov_rt.engine.redis.tidying import Tidying
from pov_rt.engine.redis.writer import Writer
from pov_rt.runtime.clock import Clock

STEP_BYTES = 1024 * 1024
"""What one step of reading returns at most, or a little more."""


class RedisLog:
    """The logs of all topics; see `base.Log`."""

    def __init__(
        self,
        functions: Functions,
        writer: Writer,
        reader: Reader,
        appending: Appending,
        keeping: Keeping,
        clock: Clock,
        marks: RedisMarks,
        settings: EngineSettings,
        tidying: Tidying,
    ) -> None:
        self._functions = functions
        self._writer = writer
        self._reader = reader
        self._appending = appending
        self._keeping = keeping
        self._clock = clock
        self._tidying = tidying
        self._deadline_s = settings.redis.deadline_s
        rewriting = Rewriting(functions, appending, marks, reader.settle)
        looking = Looking(functions, self.read)
        disowning = Disowning(functions, settings, self.find)
        self._drop = rewriting.drop
        self.amend, self.edit = rewriting.amend, rewriting.edit
        self.topics, self.search, self.tally = looking.topics, looking.search, looking.tally
        self.locate, self.disown = disowning.locate, disowning.disown

    async def append(self, batch: Sequence[NewEntry]) -> list[Appended | Conflict]:
        self._tidying.poke()
        # Both together: a publisher is not to wait for longer, however many topics it is about.
        due = asyncio.get_running_loop().time() + self._deadline_s
        done = await self._writer.append(batch)
        await self._echo(batch, done, due)
        return [each.result for each in done]

    async def _echo(self, batch: Sequence[NewEntry], done: Sequence[Done], due: float) -> None:
        """Return when this node's follower knows of all that was appended."""
        watched = self._reader.watched
        last: dict[str, tuple[str, int]] = {}
        for new, each in zip(batch, done, strict=True):
            result = each.result
            if isinstance(result, Conflict) or result.duplicate:
                continue
            if new.topic in watched:
                last[new.topic] = result.epoch, result.offset
            if each.feed_offset and new.feed in watched:
                last[new.feed] = each.feed_epoch, each.feed_offset
            if not each.is_told:
                self._reader.doubt(new.topic)
                self._reader.doubt(new.feed)
        for topic, (epoch, offset) in last.items():
            await self._reader.echo(topic, epoch, offset, due)

    async def read(
        self,
        topic: str,
        after: int,
        limit: int,
        *,
        reverse: bool = False,
        max_bytes: int | None = None,
    ) -> Page:
        entries: list[Entry] = []
        size, epoch, start = 0, "", after
        while True:
            left = STEP_BYTES if max_bytes is None else max_bytes - size
            top, page = await self._step(topic, after, limit - len(entries), reverse, left)
            if epoch not in ("", top.epoch):
                # It went over to another epoch meanwhile, and what was read may be gone.
                entries, size, epoch, after = [], 0, "", start
                continue
            epoch = top.epoch
            for entry in page:
                entries.append(entry)
                size += len(entry.body)
                if max_bytes is not None and size >= max_bytes:
                    return Page(top, entries)
            if not page or len(entries) >= limit:
                return Page(top, entries)
            after = page[-1].offset
            if (after <= top.oldest) if reverse else (after >= top.offset):
                return Page(top, entries)

    async def _step(
        self, topic: str, after: int, limit: int, reverse: bool, max_bytes: int
    ) -> tuple[Top, list[Entry]]:
        """Read some entries that follow each other, at least one if there is any."""
        kept = self._keeping.of(topic)
        epoch, offset, oldest, *parts = await self._functions.ask(
            "read",
            topic,
            kept.max_entries,
            microseconds(kept.max_age_s),
            after,
            limit,
            int(reverse),
            max(1, max_bytes),
        )
        top = Top(epoch.decode(), offset, oldest)
        if self._reader.watched.get(topic, ...) is None:
            # Whoever was told that it is uncertain reads it; from here on it is compared again.
            self._reader.watched[topic] = Known(top, 0.0)
        values = [value for part in parts for value in (reversed(part) if reverse else part)]
        return top, [self._entry(value) for value in values]

    def _entry(self, value: bytes) -> Entry:
        """Return an entry; of one that is too old where it was appended to what is left of it."""
        entry, source = parse_entry(value)
        if source and self._keeping.fades:
            if entry.at < self._clock.time() - self._keeping.of(source).max_age_s:
                return Entry(entry.offset, self._keeping.stub(entry.body), entry.at)
        return entry

    async def drop(self, topic: str, stub: Callable[[bytes], bytes]) -> None:
        await self._drop(topic, stub)
        await self._tidying.count()

    async def find(self, topic: str, key: str) -> Sequence[Found]:
        window_us = self._appending.window_us
        found = await self._functions.ask("find", topic, id_of(topic, key), window_us)
        names, offsets = found[::2], found[1::2]
        return [Found(name.decode(), offset) for name, offset in zip(names, offsets, strict=True)]

    async def holds(self, topic: str, position: Position) -> bool:
        return bool(await self._functions.ask("holds", topic, position.epoch, position.offset))

    async def top(self, topic: str) -> Top:
        """Return the state of a topic's log; that of a watched topic without asking Redis."""
        self._tidying.poke()
        known = self._reader.watched.get(topic)
        if known is not None and self._reader.is_sure:
            max_entries, max_age_s = self._keeping.of(topic)
            oldest = max(known.oldest, known.offset - max_entries + 1)
            if oldest > known.offset or known.oldest_at >= self._clock.time() - max_age_s:
                return Top(known.epoch, known.offset, oldest)
        return await self._ask_top(topic)

    async def watch(self, topic: str) -> Top:
        """Have the follower be told of a topic; see `base.Engine`."""
        await self._reader.watch(topic)
        if topic in self._reader.watched:
            self._reader.watched[topic] = None  # what was read before may be missed
        try:
            return await self._ask_top(topic)
        except BaseException:
            self._reader.unwatch(topic)
            raise

    async def _ask_top(self, topic: str) -> Top:
        kept = self._keeping.of(topic)
        epoch, offset, oldest, at = await self._functions.ask(
            "top", topic, kept.max_entries, microseconds(kept.max_age_s)
        )
        top, oldest_at = Top(epoch.decode(), offset, oldest), int(at) / 1e6
        watched = self._reader.watched
        if topic in watched:
            known = watched[topic]
            if known is None:
                watched[topic] = Known(top, oldest_at)
            elif known.epoch == top.epoch and oldest <= known.offset:
                # What came meanwhile is known better here, but for what has left.
                known.oldest, known.oldest_at = oldest, oldest_at
            elif known.epoch == top.epoch and known.offset == top.offset:
                known.oldest = oldest
        return top

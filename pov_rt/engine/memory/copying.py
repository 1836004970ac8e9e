"""What is in memory as records, and records in memory; see `engine.copying`.

It is there as a whole, so that pages of it are only cut for those who take them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from typing import cast

from pov_rt.engine.base import Entry
from pov_rt.engine.copying import (
    Begun,
    CopiedEntry,
    CopiedId,
    CopiedLog,
    CopiedMark,
    CopiedMember,
    CopiedNumber,
    CopiedValue,
    Record,
    Records,
    hash_of_name,
    microseconds,
    name_of_hash,
)
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.memory.log import MemoryLog, Places, Seen, TopicLog
from pov_rt.engine.state import MemoryMarks, MemorySets, MemoryStore
from pov_rt.runtime.clock import Clock

PAGE = 1000


class MemoryCopying:
    """What is in an engine's memory; see `copying.Copying`."""

    def __init__(
        self,
        log: MemoryLog,
        marks: MemoryMarks,
        sets: MemorySets,
        store: MemoryStore,
        keeping: Keeping,
        clock: Clock,
    ) -> None:
        self._log = log
        self._marks = marks
        self._sets = sets
        self._store = store
        self._keeping = keeping
        self._clock = clock
        self._places: dict[tuple[str, int, str, int], Places] = {}

    async def dump(self, at: float) -> AsyncIterator[Records]:
        # What is kept goes by the monotonic clock, which has no other instant than this one.
        self._log.tidy()
        kinds: tuple[Iterable[Record], ...] = (
            (Begun((self._log.unknown,)),),
            self._logs(),
            self._entries(),
            self._ids(),
            self._log.producers.dump(),
            self._marks.dump(),
            self._sets.dump(at),
            self._store.dump(),
        )
        for kind in kinds:
            records = iter(kind)
            while page := list(islice(records, PAGE)):
                yield page

    def _logs(self) -> Iterator[CopiedLog]:
        for topic, log in self._log.logs.items():
            at = log.entries[-1].at if log.entries else 0.0
            epochs = ((self._log.epoch_of(topic), log.offset), *log.epochs[1:])
            yield CopiedLog(topic, log.offset, epochs, microseconds(at))

    def _entries(self) -> Iterator[CopiedEntry]:
        for topic, log in self._log.logs.items():
            self._log.fade(topic, range(log.head, len(log.entries)))
            for index in range(log.head, len(log.entries)):
                yield self._entry(topic, log.entries[index], log.places[index])

    def _entry(self, topic: str, entry: Entry, places: Places) -> CopiedEntry:
        found = CopiedEntry(topic, entry.offset, microseconds(entry.at), entry.origin, entry.body)
        side, other, offset = ">", places.feed, places.feed_offset
        if places.topic != topic:
            side, other, offset = "<", places.topic, places.offset
        if other not in self._log.logs:
            return found
        return found._replace(side=side, other=other, other_offset=offset)

    def _ids(self) -> Iterator[CopiedId]:
        for (topic, publisher, key), seen in self._log.keys.items():
            at = microseconds(seen.at + self._ahead)
            yield CopiedId(topic, hash_of_name(key), publisher, seen.digest, seen.offset, at)

    @property
    def _ahead(self) -> float:
        return self._clock.time() - self._clock.monotonic()

    async def restore(self, records: Records) -> None:
        kind = type(records[0])
        if kind is Begun:
            (begun,) = cast("Sequence[Begun]", records)
            self._log.begun = tuple((epoch, 0) for epoch in begun.epochs)
        elif kind is CopiedLog:
            for log in cast("Sequence[CopiedLog]", records):
                own = TopicLog(0, self._keeping.of(log.topic))
                own.offset, own.epochs = log.offset, log.epochs
                self._log.enter(log.topic, own)
        elif kind is CopiedEntry:
            for entry in cast("Sequence[CopiedEntry]", records):
                self._restore_entry(entry)
        elif kind is CopiedId:
            self._log.has_copied_ids = True
            for each in cast("Sequence[CopiedId]", records):
                key = each.topic, each.publisher, name_of_hash(each.key)
                seen = Seen(each.offset, each.digest, self._monotonic(each.at))
                self._log.keep_key(self._log.logs[each.topic], key, seen)
        elif kind is CopiedNumber:
            self._log.producers.restore(cast("Sequence[CopiedNumber]", records))
        elif kind is CopiedMark:
            self._marks.restore(cast("Sequence[CopiedMark]", records))
        elif kind is CopiedMember:
            await self._sets.restore(cast("Sequence[CopiedMember]", records))
        else:
            await self._store.restore(cast("Sequence[CopiedValue]", records))

    def _restore_entry(self, copied: CopiedEntry) -> None:
        topic, offset, at, origin, body, side, other, other_offset = copied
        log = self._log.logs[topic]
        where = (topic, offset, other, other_offset)
        if side == "<":
            where = (other, other_offset, topic, offset)
        places = self._places.get(where)
        if places is None:  # the same object in both logs that have it
            places = self._places[where] = Places(*where, self._monotonic(at))
        log.entries.append(Entry(offset, body, at / 1e6, origin))
        log.places.append(places)

    def _monotonic(self, at: int) -> float:
        return at / 1e6 - self._ahead

    async def finish(self) -> None:
        self._places.clear()
        # In the order of their age, in which they leave.
        self._log.sort_keys()
        self._log.producers.sort()
        self._marks.sort()

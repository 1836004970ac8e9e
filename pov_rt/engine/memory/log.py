"""The logs of all topics in memory: appending, reading, and what leaves."""

from __future__ import annotations

from asyncio import Future
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from heapq import nsmallest
from itertools import accumulate, takewhile
from typing import cast

import msgspec

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import (
    Amended,
    Amendment,
    Appended,
    Conflict,
    Entry,
    Follower,
    Found,
    Located,
    Match,
    Matches,
    NewEntry,
    Page,
    Position,
    Rewrite,
    Tally,
    Top,
    Topics,
)
from pov_rt.engine.bounds import ROUND_S, TopicCount, make_epoch
from pov_rt.engine.bounds import epoch_of as native_epoch
from pov_rt.engine.copying import Epochs, digest_of, hashed_name, was_kept
from pov_rt.engine.keeping import Keeping, Limits
from pov_rt.engine.producers import MemoryProducers, Producer
from pov_rt.engine.state import MemoryMarks
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock

LOOKED = 2
"""Topics that each operation looks at, to forget those that nothing needs."""
SEARCHED = 500
"""Entries that are looked at for one page of a search: meanwhile nothing else happens."""
COMPACT_AT = 1024
"""Trimmed entries are released in runs of at least this many, so that an append costs the same at
any size of the log."""


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What became of a key, and when (`Clock.monotonic`).

    What is compared is kept as its digest: the body may be gone from the log. It is a struct, for
    that is made faster than a named tuple, and the collector passes it over.
    """

    offset: int
    digest: int
    at: float


Key = tuple[str, str, str]
"""A topic, a publisher and its id for an entry."""


class Places(msgspec.Struct, frozen=True, gc=False):
    """Where an entry is: in the topic it was appended to, and in its feed unless that is "".

    And since when (`Clock.monotonic`), which does not outlive the process.
    """

    topic: str
    offset: int
    feed: str
    feed_offset: int
    came: float


class TopicLog:
    """One topic's entries: `entries[head:]` are kept, the others wait to be released.

    `places` has the same object for an entry here and in the other log that has it.
    """

    __slots__ = (
        "entries", "epochs", "generation", "head", "keys", "limits", "offset", "places",
    )  # fmt: skip

    def __init__(self, generation: int, limits: Limits) -> None:
        self.generation = generation
        self.epochs: Epochs = ()
        """Those of a log that was taken over from elsewhere, its own first."""
        self.limits = limits
        self.entries: list[Entry] = []
        self.places: list[Places] = []
        self.head = 0
        self.offset = 0
        self.keys = 0
        """How many of its keys are remembered."""

    @property
    def oldest(self) -> int:
        """The offset of the oldest entry that is kept; top + 1 where none is."""
        return self.offset - (len(self.entries) - self.head) + 1

    def trim(self, now: float) -> None:
        """Release what is too many or too old."""
        places, not_before = self.places, now - self.limits.max_age_s
        head, number = self.head, len(places)
        if number - head <= self.limits.max_entries and head < number:
            if places[head].came >= not_before:
                return  # as nearly always
        head = max(head, number - self.limits.max_entries)
        while head < number and places[head].came < not_before:
            head += 1
        self.head = head
        if head >= COMPACT_AT and head * 2 >= number:
            del self.entries[:head], places[:head]
            self.head = 0

    def find(self, offset: int) -> int | None:
        """Return which of `entries` is at an offset, also one that waits to be released."""
        index = offset - 1 - (self.offset - len(self.entries))
        return index if 0 <= index < len(self.entries) else None


class _Touched(msgspec.Struct, frozen=True, gc=False):
    """A topic that is being appended to: its log, the epoch of that, how many entries it had."""

    log: TopicLog
    epoch: str
    length: int


class MemoryLog:
    """The logs of all topics; see `base.Log`. They are only lost together, and share an epoch.

    But a topic that comes back after it was forgotten: each log has the generation that was the
    newest when it began, and to forget one of the newest generation begins the next. So no topic
    has the same twice. A topic with `marks` is not forgotten.
    """

    def __init__(
        self,
        settings: EngineSettings,
        clock: Clock,
        marks: MemoryMarks | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        self._keeping = keeping or Keeping(settings)
        self.epoch = make_epoch(clock.time())
        self.follower: Follower | None = None
        self.watched: dict[str, int] = {}
        """The newest generation when each came to be watched: that of an unknown one's log."""
        self.count = TopicCount(settings, clock)
        self.producers = MemoryProducers(settings, clock)
        self._generation = 0
        self._settings = settings
        self._clock = clock
        self._marks = marks
        self.logs: dict[str, TopicLog] = {}
        self._round: deque[str] = deque()
        self._left = 0
        self._round_at = clock.monotonic() + ROUND_S
        # In the order of their age, so that the oldest leave from the front.
        self.keys: OrderedDict[Key, Seen] = OrderedDict()
        self.has_copied_ids = False
        """Whether there may be keys that stand by their hash: taken over from elsewhere."""
        self.begun: Epochs = ()
        """In which epochs logs were empty elsewhere that are not there yet."""
        self._keys_of: dict[str, deque[Key]] = {}
        """Those of each publisher."""
        self.ids = Bound("ids", "engine.max_ids", settings.max_ids, lambda: len(self.keys))
        self._ids_each = max(1, settings.max_ids // 2)

    def append(self, batch: Sequence[NewEntry]) -> Awaitable[list[Appended | Conflict]]:
        done: Future[list[Appended | Conflict]] = Future()
        try:
            done.set_result(self._append_all(batch))
        except Unavailable as error:
            done.set_exception(error.with_traceback(None))  # it would know the batch
        return done

    def _append_all(self, batch: Sequence[NewEntry]) -> list[Appended | Conflict]:
        now, monotonic = self._clock.time(), self._clock.monotonic()
        self._forget(monotonic)
        touched: dict[str, _Touched] = {}
        try:
            return [self._append(new, now, monotonic, touched) for new in batch]
        finally:
            # Also after a failure half-way: what is in the log, its followers must hear of.
            for topic, at in touched.items():
                fresh = at.log.entries[at.length :]
                at.log.trim(monotonic)
                if fresh and topic in self.watched and self.follower is not None:
                    self.follower.entries(topic, at.epoch, fresh)

    async def read(
        self,
        topic: str,
        after: int,
        limit: int,
        *,
        reverse: bool = False,
        max_bytes: int | None = None,
    ) -> Page:
        top = self._top(topic)
        log = self.logs.get(topic)
        if log is None:
            return Page(top, ())
        # Position of an offset in the list: that of the oldest is `head`.
        base = log.head - log.oldest
        if reverse:
            end = len(log.entries) if after <= 0 else min(after + base, len(log.entries))
            start = max(log.head, end - limit)
            end = max(start, end)
        else:
            start = max(log.head, after + 1 + base)
            end = start + limit
        if self._keeping.fades:
            self.fade(topic, range(start, min(end, len(log.entries))))
        found = log.entries[start:end]
        if reverse:
            found.reverse()
        if max_bytes is not None:
            sizes = accumulate(len(entry.body) for entry in found)
            found = found[: 1 + sum(1 for _ in takewhile(lambda size: size < max_bytes, sizes))]
        return Page(top, found)

    async def tally(
        self, topic: str, first: int, last: int, head_of: Callable[[bytes], bytes]
    ) -> Tally:
        page = await self.read(topic, first - 1, last - first + 1)
        bodies = [entry.body for entry in page.entries]
        return Tally(Counter(map(head_of, bodies)), sum(map(len, bodies)))

    async def find(self, topic: str, key: str) -> Sequence[Found]:
        self._forget(self._clock.monotonic())
        names = self._names_of(key)
        seen = (
            (each, self.keys.get((topic, each, name))) for each in self._keys_of for name in names
        )
        return [Found(publisher, at.offset) for publisher, at in seen if at is not None]

    async def locate(self, key: str) -> Sequence[Located]:
        self._forget(self._clock.monotonic())
        names = self._names_of(key)
        found = ((name, at) for name, at in self.keys.items() if name[2] in names)
        return [Located(topic, publisher, at.offset) for (topic, publisher, _), at in found]

    def _names_of(self, key: str) -> Sequence[str]:
        """Return under what a key may be remembered."""
        return (key, hashed_name(key)) if self.has_copied_ids else (key,)

    async def search(
        self, prefix: str, matches: Callable[[bytes], bool], after: str = ""
    ) -> Matches:
        number, _, first = after.partition(" ")
        offset = int(number or 0)
        found: list[Match] = []
        left = SEARCHED
        for topic in sorted(each for each in self.logs if each >= first):
            log = self.logs[topic]
            start = max(offset if topic == first else 0, log.offset - len(log.entries))
            if not topic.startswith(prefix):
                continue
            for at in range(start + 1, log.offset + 1):
                if not left:
                    return Matches(found, f"{at - 1} {topic}")
                left -= 1
                index = at - 1 - (log.offset - len(log.entries))
                entry, places = log.entries[index], log.places[index]
                is_elsewhere = places.topic != topic and self._index(places, places.topic) >= 0
                if not is_elsewhere and matches(entry.body):
                    found.append(Match(topic, entry))
        return Matches(found, None)

    async def amend(self, amendment: Amendment) -> Amended | Conflict | None:
        rewrite, new, others = amendment
        self._forget(self._clock.monotonic())
        new = new._replace(topic=rewrite.topic, feed="")
        known = self._known(new)
        if known is not None:
            return known if isinstance(known, Conflict) else Amended(known)
        rewrites = (rewrite, *others)
        found = [self._places(each) for each in rewrites]
        if found[0] is None or None in found:
            return None
        feed = found[0].feed if found[0].feed in self.logs else ""
        await self.edit(rewrites)
        (place,) = self._append_all([new._replace(feed=feed)])
        return Amended(cast("Appended", place), feed)

    async def edit(self, rewrites: Sequence[Rewrite]) -> Sequence[bool]:
        done: list[bool] = []
        touched: set[str] = set()
        for rewrite in rewrites:
            places = self._places(rewrite)
            if places is not None:
                touched |= self._rewrite(places, rewrite.body)
            done.append(places is not None)
        self._tell_rewritten(touched)
        return done

    async def drop(self, topic: str, stub: Callable[[bytes], bytes]) -> None:
        if self._marks is not None:
            self._marks.drop_topic(topic)
        log = self.logs.get(topic)
        if log is None:
            return
        touched: set[str] = set()
        for entry, places in zip(log.entries, log.places, strict=True):
            if places.topic != topic:
                alone = msgspec.structs.replace(places, feed="", feed_offset=0)
                self._move(places, alone, places.topic)
            elif self._index(places, places.feed) >= 0:
                touched |= self._rewrite(places, stub(entry.body))
                alone = Places(places.feed, places.feed_offset, "", 0, places.came)
                self._move(places, alone, places.feed)
        self._drop_keys([key for key in self.keys if key[0] == topic])
        self.producers.discard(lambda producer: producer.topic == topic)
        self._remove(topic)
        index = self._round.index(topic)
        del self._round[index]
        self._left -= index < self._left
        if topic in self.watched:
            self.watched[topic] = self._generation
        self._tell_rewritten(touched - {topic})
        if topic in self.watched and self.follower is not None:
            self.follower.uncertain(topic)

    async def disown(self, publisher: str) -> int:
        mine = list(self._keys_of.get(publisher, ()))
        self._drop_keys(mine)
        self.producers.discard(lambda producer: producer.publisher == publisher)
        return len(mine)

    def _index(self, places: Places, topic: str) -> int:
        """Return which of a topic's entries one of these places is; -1 if it is gone from there."""
        log = self.logs.get(topic)
        offset = places.offset if topic == places.topic else places.feed_offset
        index = None if log is None else log.find(offset)
        return -1 if log is None or index is None or log.places[index] is not places else index

    def _places(self, rewrite: Rewrite) -> Places | None:
        """Return where the entry of a rewrite is, if it still has the body that it is about."""
        log = self.logs.get(rewrite.topic)
        index = None if log is None else log.find(rewrite.offset)
        if log is None or index is None or log.entries[index].body != rewrite.old:
            return None
        return log.places[index]

    def _rewrite(self, places: Places, body: bytes) -> set[str]:
        """Replace a body wherever it is; return the topics that have it."""
        touched: set[str] = set()
        for topic in (places.topic, places.feed):
            if (index := self._index(places, topic)) >= 0:
                entries = self.logs[topic].entries
                entries[index] = msgspec.structs.replace(entries[index], body=body)
                touched.add(topic)
        return touched

    def fade(self, topic: str, indexes: range) -> None:
        """Leave stubs of a topic's entries that are too old where they were appended to."""
        log, now = self.logs[topic], self._clock.monotonic()
        for index in indexes:
            source, came = log.places[index].topic, log.places[index].came
            if source != topic and came < now - self._keeping.of(source).max_age_s:
                entry = log.entries[index]
                log.entries[index] = Entry(entry.offset, self._keeping.stub(entry.body), entry.at)
                log.places[index] = Places(topic, entry.offset, "", 0, came)

    def _move(self, old: Places, new: Places, topic: str) -> None:
        """Say of an entry of a topic that it is in no other one any more."""
        if (index := self._index(old, topic)) >= 0:
            self.logs[topic].places[index] = new

    def _tell_rewritten(self, topics: set[str]) -> None:
        if self.follower is not None:
            for topic in sorted(topics):
                self.follower.rewritten(topic)

    async def topics(self, prefix: str, after: str = "", limit: int = 1000) -> Topics:
        wanted = (name for name in self.logs if name > after and name.startswith(prefix))
        names = nsmallest(limit, wanted)
        return Topics(names, names[-1] if len(names) == limit else None)

    async def holds(self, topic: str, position: Position) -> bool:
        # It is lost with the process, and the next one knows no epoch of this one. Only logs of
        # another engine may have had several.
        top = self._top(topic)
        if position.epoch == top.epoch:
            return position.offset <= top.offset
        return was_kept(self._older(topic), *position)

    async def top(self, topic: str) -> Top:
        return self._top(topic)

    def _top(self, topic: str) -> Top:
        self._forget(self._clock.monotonic())
        log = self.logs.get(topic)
        if log is None:
            return Top(self.epoch_of(topic), 0, 1)
        self._trim(log)
        return Top(self.epoch_of(topic), log.offset, log.oldest)

    def epoch_of(self, topic: str) -> str:
        """Return the epoch of a topic's log, of an unknown topic that with which it would begin."""
        log = self.logs.get(topic)
        if log is not None and log.epochs:
            return log.epochs[0][0]
        generation = self.watched.get(topic, self._generation) if log is None else log.generation
        return native_epoch(self.epoch, generation) if generation else self.epoch

    def _older(self, topic: str) -> Epochs:
        log = self.logs.get(topic)
        if log is not None and log.epochs:
            return log.epochs[1:]
        unknown = self.watched.get(topic, self._generation)
        is_first = (unknown if log is None else log.generation) == 0
        return self.begun if is_first else ()

    @property
    def unknown(self) -> str:
        """The epoch in which a log begins that is not there."""
        return native_epoch(self.epoch, self._generation)

    def tidy(self) -> None:
        """Release all that is too old or too much."""
        self._forget(self._clock.monotonic())
        for log in self.logs.values():
            self._trim(log)

    def sort_keys(self) -> None:
        """Have the keys in the order of their age, after some were entered in another one."""
        self.keys = OrderedDict(sorted(self.keys.items(), key=lambda each: each[1].at))
        self._keys_of.clear()
        for key in self.keys:
            self._keys_of.setdefault(key[1], deque()).append(key)

    def watch(self, topic: str) -> None:
        """Tell the follower of a topic from now on."""
        self.watched.setdefault(topic, self._generation)

    def _append(
        self, new: NewEntry, now: float, monotonic: float, touched: dict[str, _Touched]
    ) -> Appended | Conflict:
        topic, publisher, own, body, feed, origin, compared, name, seq = new
        producer = Producer(topic, publisher, name) if name else None
        key = (topic, publisher, own)
        known = self._known(new) if key in self.keys or self.has_copied_ids else None
        if known is not None:
            if producer is not None and isinstance(known, Appended):
                self.producers.enter(producer)
                self.producers.keep(producer, seq)
            return known
        if producer is not None and seq <= self.producers.last(producer):
            return Appended(self.epoch_of(topic), self.logs[topic].offset, duplicate=True)
        if topic not in touched or (feed and feed not in touched):
            self._touch((topic, feed) if feed else (topic,), publisher, touched)
        if producer is not None:
            self.producers.enter(producer)
            self.producers.keep(producer, seq)
        at = touched[topic]
        log = at.log
        offset = log.offset = log.offset + 1
        entry = Entry(offset, body, now, origin)
        log.entries.append(entry)
        if feed:
            feed_log = touched[feed].log
            feed_offset = feed_log.offset = feed_log.offset + 1
            if feed_offset != offset:
                entry = Entry(feed_offset, body, now, origin)
            places = Places(topic, offset, feed, feed_offset, monotonic)
            feed_log.entries.append(entry)
            feed_log.places.append(places)
        else:
            places = Places(topic, offset, "", 0, monotonic)
        log.places.append(places)
        mine = self.keep_key(log, key, Seen(offset, digest_of(compared or body), monotonic))
        if len(mine) > self._ids_each:
            self.ids.refuse(publisher, "one publisher has half of all ids; its oldest go")
            self._forget_key(mine[0])
        return Appended(at.epoch, offset)

    def _touch(self, topics: Sequence[str], publisher: str, touched: dict[str, _Touched]) -> None:
        """Note where topics are that are about to be appended to. Raises `Unavailable`."""
        unknown = [each for each in dict.fromkeys(topics) if each not in self.logs]
        if unknown:
            self._begin(unknown, publisher)
        for topic in topics:
            log = self.logs[topic]
            touched.setdefault(topic, _Touched(log, self.epoch_of(topic), len(log.entries)))

    def keep_key(self, log: TopicLog, key: Key, seen: Seen) -> deque[Key]:
        """Remember a key of a log; return those of its publisher."""
        self.keys[key] = seen
        log.keys += 1
        mine = self._keys_of.get(key[1])
        if mine is None:
            mine = self._keys_of[key[1]] = deque()
        mine.append(key)
        return mine

    def _known(self, new: NewEntry) -> Appended | Conflict | None:
        """Return what becomes of an entry whose key was used before."""
        seen = self.keys.get((new.topic, new.publisher, new.key))
        if seen is None and self.has_copied_ids:
            seen = self.keys.get((new.topic, new.publisher, hashed_name(new.key)))
        if seen is None:
            return None
        epoch = self.epoch_of(new.topic)
        if seen.digest != digest_of(new.compared or new.body):
            return Conflict(epoch, seen.offset)
        return Appended(epoch, seen.offset, duplicate=True)

    def _begin(self, topics: Sequence[str], publisher: str) -> None:
        """Begin logs for a publisher. Raises `Unavailable`."""
        self.count.check_room(len(topics), publisher)
        for topic in topics:
            generation = self.watched.get(topic, self._generation)
            self.enter(topic, TopicLog(generation, self._keeping.of(topic)))

    def enter(self, topic: str, log: TopicLog) -> None:
        """Add a log that is not there yet."""
        self.logs[topic] = log
        self._round.append(topic)
        self.count.number += 1

    def _trim(self, log: TopicLog) -> None:
        log.trim(self._clock.monotonic())

    def _forget(self, now: float) -> None:
        """Forget the ids whose time is over, the oldest of too many, and topics nothing needs."""
        self.producers.forget(now)
        oldest = now - self._settings.id_window_s
        while self.keys:
            key, seen = next(iter(self.keys.items()))
            if seen.at >= oldest and len(self.keys) <= self._settings.max_ids:
                break
            self._forget_key(key)
        if not self._left:
            if now < self._round_at and not self.count.is_nearly_full:
                return
            self._left = len(self._round)
            self._round_at = now + ROUND_S
        for _ in range(min(LOOKED, self._left)):
            self._left -= 1
            topic = self._round.popleft()
            if self._is_needed(topic):
                self._round.append(topic)
                continue
            self._remove(topic)

    def _remove(self, topic: str) -> None:
        # The newest generation is newer than that of any log that was forgotten.
        generation = self.logs.pop(topic).generation
        self._generation = max(self._generation, generation + 1)
        self.count.number -= 1

    def _forget_key(self, key: Key) -> None:
        """Forget the oldest id of its publisher."""
        topic, publisher, _ = key
        del self.keys[key]
        self.logs[topic].keys -= 1
        mine = self._keys_of[publisher]
        mine.popleft()
        if not mine:
            del self._keys_of[publisher]

    def _drop_keys(self, keys: Sequence[Key]) -> None:
        """Forget keys, whichever of their publishers' they are."""
        for key in keys:
            del self.keys[key]
            self.logs[key[0]].keys -= 1
        for publisher in {key[1] for key in keys}:
            left = deque(key for key in self._keys_of[publisher] if key in self.keys)
            if left:
                self._keys_of[publisher] = left
            else:
                del self._keys_of[publisher]

    def _is_needed(self, topic: str) -> bool:
        log = self.logs[topic]
        self._trim(log)
        if log.head < len(log.entries) or log.keys or topic in self.watched:
            return True
        if self.producers.has(topic):
            return True
        return self._marks is not None and self._marks.has(topic)

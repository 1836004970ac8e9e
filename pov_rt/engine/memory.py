"""The engine in this process's memory: nothing survives it, and there is no other node."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest
from itertools import accumulate, takewhile
from typing import NamedTuple, cast

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
    Match,
    Matches,
    NewEntry,
    Page,
    Position,
    Rewrite,
    Survives,
    Tally,
    Top,
    Topics,
)
from pov_rt.engine.bounds import ROUND_S, TopicCount, epoch_of, make_epoch
from pov_rt.engine.keeping import Keeping, Limits
from pov_rt.engine.local import MemoryLeases, MemorySignals
from pov_rt.engine.producers import MemoryProducers, Producer
from pov_rt.engine.state import MemoryMarks, MemorySets, MemoryStore
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.measure.histogram import Histogram

LOOKED = 2
"""Topics that each operation looks at, to forget those that nothing needs."""
SEARCHED = 500
"""Entries that are looked at for one page of a search: meanwhile nothing else happens."""
COMPACT_AT = 1024
"""Trimmed entries are released in runs of at least this many, so that an append costs the same at
any size of the log."""


class _Seen(NamedTuple):
    """What became of a key, and when (`Clock.monotonic`).

    What is compared is kept as its hash: the body may be gone from the log.

    Python's own hash of bytes (SipHash, 64 bits, keyed anew in each process) will do, for all of it
    dies with the process. A digest takes longer (docs/measurements.md, hashes).
    """

    offset: int
    body_hash: int
    at: float


_Key = tuple[str, str, str]
"""A topic, a publisher and its id for an entry."""


class _Places(NamedTuple):
    """Where an entry is: in the topic it was appended to, and in its feed unless that is ""."""

    topic: str
    offset: int
    feed: str
    feed_offset: int


class _TopicLog:
    """One topic's entries: `entries[head:]` are kept, the others wait to be released.

    `came` has the instant of each by `Clock.monotonic`: none outlives the process. `places` has the
    same object for an entry here and in the other log that has it.
    """

    __slots__ = ("came", "entries", "generation", "head", "keys", "limits", "offset", "places")

    def __init__(self, generation: int, limits: Limits) -> None:
        self.generation = generation
        self.limits = limits
        self.entries: list[Entry] = []
        self.came: list[float] = []
        self.places: list[_Places] = []
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
        entries, not_before = self.entries, now - self.limits.max_age_s
        head = max(self.head, len(entries) - self.limits.max_entries)
        while head < len(entries) and self.came[head] < not_before:
            head += 1
        self.head = head
        if head >= COMPACT_AT and head * 2 >= len(entries):
            del entries[:head], self.came[:head], self.places[:head]
            self.head = 0

    def find(self, offset: int) -> int | None:
        """Return which of `entries` is at an offset, also one that waits to be released."""
        index = offset - 1 - (self.offset - len(self.entries))
        return index if 0 <= index < len(self.entries) else None


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
        self._topics: dict[str, _TopicLog] = {}
        self._round: deque[str] = deque()
        self._left = 0
        self._round_at = clock.monotonic() + ROUND_S
        # In the order of their age, so that the oldest leave from the front.
        self._keys: OrderedDict[_Key, _Seen] = OrderedDict()
        self._keys_of: dict[str, deque[_Key]] = {}
        """Those of each publisher."""
        self.ids = Bound("ids", "engine.max_ids", settings.max_ids, lambda: len(self._keys))
        self._ids_each = max(1, settings.max_ids // 2)

    async def append(self, batch: Sequence[NewEntry]) -> list[Appended | Conflict]:
        now, monotonic = self._clock.time(), self._clock.monotonic()
        self._forget()
        results: list[Appended | Conflict] = []
        fresh: dict[str, list[Entry]] = {}
        try:
            for new in batch:
                results.append(self._append(new, now, monotonic, fresh))
        finally:
            # Also after a failure half-way: what is in the log, its followers must hear of.
            for topic, entries in fresh.items():
                log = self._topics[topic]
                self._trim(log)
                if topic in self.watched and self.follower is not None:
                    self.follower.entries(topic, self._epoch(topic), entries)
        return results

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
        log = self._topics.get(topic)
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
            self._fade(topic, range(start, min(end, len(log.entries))))
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
        self._forget()
        seen = ((each, self._keys.get((topic, each, key))) for each in self._keys_of)
        return [Found(publisher, at.offset) for publisher, at in seen if at is not None]

    async def locate(self, key: str) -> Sequence[Located]:
        self._forget()
        found = ((name, at) for name, at in self._keys.items() if name[2] == key)
        return [Located(topic, publisher, at.offset) for (topic, publisher, _), at in found]

    async def search(
        self, prefix: str, matches: Callable[[bytes], bool], after: str = ""
    ) -> Matches:
        number, _, first = after.partition(" ")
        offset = int(number or 0)
        found: list[Match] = []
        left = SEARCHED
        for topic in sorted(each for each in self._topics if each >= first):
            log = self._topics[topic]
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
        self._forget()
        new = new._replace(topic=rewrite.topic, feed="")
        known = self._known(new)
        if known is not None:
            return known if isinstance(known, Conflict) else Amended(known)
        rewrites = (rewrite, *others)
        found = [self._places(each) for each in rewrites]
        if found[0] is None or None in found:
            return None
        feed = found[0].feed if found[0].feed in self._topics else ""
        await self.edit(rewrites)
        (place,) = await self.append([new._replace(feed=feed)])
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
        log = self._topics.get(topic)
        if log is None:
            return
        touched: set[str] = set()
        for entry, places in zip(log.entries, log.places, strict=True):
            if places.topic != topic:
                self._move(places, places._replace(feed="", feed_offset=0), places.topic)
            elif self._index(places, places.feed) >= 0:
                touched |= self._rewrite(places, stub(entry.body))
                self._move(places, _Places(places.feed, places.feed_offset, "", 0), places.feed)
        self._drop_keys([key for key in self._keys if key[0] == topic])
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

    def _index(self, places: _Places, topic: str) -> int:
        """Return which of a topic's entries one of these places is; -1 if it is gone from there."""
        log = self._topics.get(topic)
        offset = places.offset if topic == places.topic else places.feed_offset
        index = None if log is None else log.find(offset)
        return -1 if log is None or index is None or log.places[index] is not places else index

    def _places(self, rewrite: Rewrite) -> _Places | None:
        """Return where the entry of a rewrite is, if it still has the body that it is about."""
        log = self._topics.get(rewrite.topic)
        index = None if log is None else log.find(rewrite.offset)
        if log is None or index is None or log.entries[index].body != rewrite.old:
            return None
        return log.places[index]

    def _rewrite(self, places: _Places, body: bytes) -> set[str]:
        """Replace a body wherever it is; return the topics that have it."""
        touched: set[str] = set()
        for topic in (places.topic, places.feed):
            if (index := self._index(places, topic)) >= 0:
                entries = self._topics[topic].entries
                entries[index] = entries[index]._replace(body=body)
                touched.add(topic)
        return touched

    def _fade(self, topic: str, indexes: range) -> None:
        """Leave stubs of a topic's entries that are too old where they were appended to."""
        log, now = self._topics[topic], self._clock.monotonic()
        for index in indexes:
            source = log.places[index].topic
            if source != topic and log.came[index] < now - self._keeping.of(source).max_age_s:
                entry = log.entries[index]
                log.entries[index] = Entry(entry.offset, self._keeping.stub(entry.body), entry.at)
                log.places[index] = _Places(topic, entry.offset, "", 0)

    def _move(self, old: _Places, new: _Places, topic: str) -> None:
        """Say of an entry of a topic that it is in no other one any more."""
        if (index := self._index(old, topic)) >= 0:
            self._topics[topic].places[index] = new

    def _tell_rewritten(self, topics: set[str]) -> None:
        if self.follower is not None:
            for topic in sorted(topics):
                self.follower.rewritten(topic)

    async def topics(self, prefix: str, after: str = "", limit: int = 1000) -> Topics:
        wanted = (name for name in self._topics if name > after and name.startswith(prefix))
        names = nsmallest(limit, wanted)
        return Topics(names, names[-1] if len(names) == limit else None)

    async def holds(self, topic: str, position: Position) -> bool:
        # It is lost with the process, and then the next one knows no epoch of this one.
        top = self._top(topic)
        return position.epoch == top.epoch and position.offset <= top.offset

    async def top(self, topic: str) -> Top:
        return self._top(topic)

    def _top(self, topic: str) -> Top:
        self._forget()
        log = self._topics.get(topic)
        if log is None:
            return Top(self._epoch(topic), 0, 1)
        self._trim(log)
        return Top(self._epoch(topic), log.offset, log.oldest)

    def _epoch(self, topic: str) -> str:
        """Return the epoch of a topic's log, of an unknown topic that with which it would begin."""
        log = self._topics.get(topic)
        unknown = self.watched.get(topic, self._generation)
        return epoch_of(self.epoch, unknown if log is None else log.generation)

    def watch(self, topic: str) -> None:
        """Tell the follower of a topic from now on."""
        self.watched.setdefault(topic, self._generation)

    def _append(
        self, new: NewEntry, now: float, monotonic: float, fresh: dict[str, list[Entry]]
    ) -> Appended | Conflict:
        producer = Producer(new.topic, new.publisher, new.producer) if new.producer else None
        known = self._known(new)
        if known is not None:
            if producer is not None and isinstance(known, Appended):
                self.producers.enter(producer)
                self.producers.keep(producer, new.seq)
            return known
        if producer is not None and new.seq <= self.producers.last(producer):
            log = self._topics[new.topic]
            return Appended(self._epoch(new.topic), log.offset, duplicate=True)
        topics = [new.topic, new.feed] if new.feed else [new.topic]
        logs = self._topics
        if new.topic not in logs or (new.feed and new.feed not in logs):
            unknown = [topic for topic in dict.fromkeys(topics) if topic not in logs]
            self._begin(unknown, new.publisher)
        if producer is not None:
            self.producers.enter(producer)
            self.producers.keep(producer, new.seq)
        tops = [logs[topic].offset + 1 for topic in topics]
        places = _Places(new.topic, tops[0], new.feed, tops[-1] if new.feed else 0)
        for topic in topics:
            log = logs[topic]
            log.offset += 1
            entry = Entry(log.offset, new.body, now, new.origin)
            log.entries.append(entry)
            log.came.append(monotonic)
            log.places.append(places)
            fresh.setdefault(topic, []).append(entry)
        log = logs[new.topic]
        key = (new.topic, new.publisher, new.key)
        self._keys[key] = _Seen(log.offset, hash(new.compared or new.body), monotonic)
        log.keys += 1
        mine = self._keys_of.get(new.publisher)
        if mine is None:
            mine = self._keys_of[new.publisher] = deque()
        mine.append(key)
        if len(mine) > self._ids_each:
            self.ids.refuse(new.publisher, "one publisher has half of all ids; its oldest go")
            self._forget_key(mine[0])
        return Appended(self._epoch(new.topic), log.offset)

    def _known(self, new: NewEntry) -> Appended | Conflict | None:
        """Return what becomes of an entry whose key was used before."""
        seen = self._keys.get((new.topic, new.publisher, new.key))
        if seen is None:
            return None
        epoch = self._epoch(new.topic)
        if seen.body_hash != hash(new.compared or new.body):
            return Conflict(epoch, seen.offset)
        return Appended(epoch, seen.offset, duplicate=True)

    def _begin(self, topics: Sequence[str], publisher: str) -> None:
        """Begin logs for a publisher. Raises `Unavailable`."""
        self.count.check_room(len(topics), publisher)
        for topic in topics:
            generation = self.watched.get(topic, self._generation)
            self._topics[topic] = _TopicLog(generation, self._keeping.of(topic))
            self._round.append(topic)
            self.count.number += 1

    def _trim(self, log: _TopicLog) -> None:
        log.trim(self._clock.monotonic())

    def _forget(self) -> None:
        """Forget the ids whose time is over, the oldest of too many, and topics nothing needs."""
        self.producers.forget()
        oldest = self._clock.monotonic() - self._settings.id_window_s
        while self._keys:
            key, seen = next(iter(self._keys.items()))
            if seen.at >= oldest and len(self._keys) <= self._settings.max_ids:
                break
            self._forget_key(key)
        if not self._left:
            now = self._clock.monotonic()
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
        generation = self._topics.pop(topic).generation
        self._generation = max(self._generation, generation + 1)
        self.count.number -= 1

    def _forget_key(self, key: _Key) -> None:
        """Forget the oldest id of its publisher."""
        topic, publisher, _ = key
        del self._keys[key]
        self._topics[topic].keys -= 1
        mine = self._keys_of[publisher]
        mine.popleft()
        if not mine:
            del self._keys_of[publisher]

    def _drop_keys(self, keys: Sequence[_Key]) -> None:
        """Forget keys, whichever of their publishers' they are."""
        for key in keys:
            del self._keys[key]
            self._topics[key[0]].keys -= 1
        for publisher in {key[1] for key in keys}:
            left = deque(key for key in self._keys_of[publisher] if key in self._keys)
            if left:
                self._keys_of[publisher] = left
            else:
                del self._keys_of[publisher]

    def _is_needed(self, topic: str) -> bool:
        log = self._topics[topic]
        self._trim(log)
        if log.head < len(log.entries) or log.keys or topic in self.watched:
            return True
        if self.producers.has(topic):
            return True
        return self._marks is not None and self._marks.has(topic)


class MemoryEngine:
    """All parts in memory; `memory://`. Bounded by `EngineSettings`."""

    guarantee: Survives = "process"
    waiting_bytes = 0
    log_bytes: Mapping[str, int] = {}
    measures: Mapping[str, float] = {}
    counters: Mapping[str, Mapping[str, int]] = {}
    histograms: Mapping[str, Histogram] = {}

    def __init__(
        self,
        settings: EngineSettings,
        clock: Clock,
        node: str,
        keeping: Keeping | None = None,
    ) -> None:
        keeping = keeping or Keeping(settings)
        self.marks = MemoryMarks(settings, clock, keeping.ages[-1])
        self.log = MemoryLog(settings, clock, self.marks, keeping)
        self.signals = MemorySignals()
        self.leases = MemoryLeases(clock, node, self.log.watched)
        self.sets = MemorySets(clock)
        self.store = MemoryStore(settings)
        self.bounds: Sequence[Bound] = (
            self.log.count.bound,
            self.marks.rules.bound,
            self.log.ids,
            self.log.producers.rules.bound,
            self.store.rules.bound,
        )

    async def start(self, follower: Follower) -> None:
        self.log.follower = self.leases.follower = follower

    async def close(self) -> None:
        self.log.follower = self.leases.follower = None

    async def watch(self, topic: str) -> Top:
        self.log.watch(topic)
        return await self.log.top(topic)

    async def unwatch(self, topic: str) -> None:
        self.log.watched.pop(topic, None)

    async def scrub(self) -> None:
        """Return at once: it has no files."""

    def health(self) -> Health:
        """Return that it works, as memory does for as long as the process."""
        return Health()

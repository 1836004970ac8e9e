"""The engine in this process's memory: nothing survives it, and there is no other node.

`MemoryMarks` and `MemorySets` are whole parts by themselves; an engine that keeps its log elsewhere
may use them.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest
from itertools import accumulate, takewhile
from typing import NamedTuple

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import (
    Appended,
    Conflict,
    Entry,
    Follower,
    NewEntry,
    NewMember,
    Page,
    Position,
    Stored,
    Tally,
    Top,
)
from pov_rt.engine.bounds import ROUND_S, MarkRules, StoreRules, TopicCount, epoch_of, size_of
from pov_rt.engine.local import MemoryLeases, MemorySignals
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock, SteadyTime

LOOKED = 2
"""Topics, or sets, that each operation looks at, to forget those that nothing needs."""
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


class _TopicLog:
    """One topic's entries: `entries[head:]` are kept, the others wait to be released.

    `came` has the instant of each by `Clock.monotonic`: none outlives the process.
    """

    __slots__ = ("came", "entries", "generation", "head", "keys", "offset")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.entries: list[Entry] = []
        self.came: list[float] = []
        self.head = 0
        self.offset = 0
        self.keys = 0
        """How many of its keys are remembered."""

    @property
    def oldest(self) -> int:
        """The offset of the oldest entry that is kept; top + 1 where none is."""
        return self.offset - (len(self.entries) - self.head) + 1

    def trim(self, max_entries: int, not_before: float) -> None:
        """Release what is too many or too old."""
        entries = self.entries
        head = max(self.head, len(entries) - max_entries)
        while head < len(entries) and self.came[head] < not_before:
            head += 1
        self.head = head
        if head >= COMPACT_AT and head * 2 >= len(entries):
            del entries[:head], self.came[:head]
            self.head = 0


class MemoryLog:
    """The logs of all topics; see `base.Log`. They are only lost together, and share an epoch.

    But a topic that comes back after it was forgotten: each log has the generation that was the
    newest when it began, and to forget one of the newest generation begins the next. So no topic
    has the same twice. A topic with `marks` is not forgotten.
    """

    def __init__(
        self, settings: EngineSettings, clock: Clock, marks: MemoryMarks | None = None
    ) -> None:
        self.epoch = clock.new_id()[-12:]
        self.follower: Follower | None = None
        self.watched: dict[str, int] = {}
        """The newest generation when each came to be watched: that of an unknown one's log."""
        self.count = TopicCount(settings, clock)
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
                    self.follower.entries(topic, epoch_of(self.epoch, log.generation), entries)
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
            found = log.entries[start:end][::-1] if end > start else []
        else:
            start = max(log.head, after + 1 + base)
            found = log.entries[start : start + limit]
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

    async def topics(self, prefix: str) -> Sequence[str]:
        return sorted(topic for topic in self._topics if topic.startswith(prefix))

    async def top(self, topic: str) -> Top:
        return self._top(topic)

    def _top(self, topic: str) -> Top:
        self._forget()
        log = self._topics.get(topic)
        if log is None:
            return Top(epoch_of(self.epoch, self.watched.get(topic, self._generation)), 0, 1)
        self._trim(log)
        return Top(epoch_of(self.epoch, log.generation), log.offset, log.oldest)

    def watch(self, topic: str) -> None:
        """Tell the follower of a topic from now on."""
        self.watched.setdefault(topic, self._generation)

    def _append(
        self, new: NewEntry, now: float, monotonic: float, fresh: dict[str, list[Entry]]
    ) -> Appended | Conflict:
        key = (new.topic, new.publisher, new.key)
        body_hash = hash(new.compared or new.body)
        seen = self._keys.get(key)
        if seen is not None:
            epoch = epoch_of(self.epoch, self._topics[new.topic].generation)
            if seen.body_hash != body_hash:
                return Conflict(epoch, seen.offset)
            return Appended(epoch, seen.offset, duplicate=True)
        topics = [new.topic, new.feed] if new.feed else [new.topic]
        logs = self._topics
        if new.topic not in logs or (new.feed and new.feed not in logs):
            unknown = [topic for topic in dict.fromkeys(topics) if topic not in logs]
            self._begin(unknown, new.publisher)
        for topic in topics:
            log = logs[topic]
            log.offset += 1
            entry = Entry(log.offset, new.body, now, new.origin)
            log.entries.append(entry)
            log.came.append(monotonic)
            fresh.setdefault(topic, []).append(entry)
        log = logs[new.topic]
        self._keys[key] = _Seen(log.offset, body_hash, monotonic)
        log.keys += 1
        mine = self._keys_of.get(new.publisher)
        if mine is None:
            mine = self._keys_of[new.publisher] = deque()
        mine.append(key)
        if len(mine) > self._ids_each:
            self.ids.refuse(new.publisher, "one publisher has half of all ids; its oldest go")
            self._forget_key(mine[0])
        return Appended(epoch_of(self.epoch, log.generation), log.offset)

    def _begin(self, topics: Sequence[str], publisher: str) -> None:
        """Begin logs for a publisher. Raises `Unavailable`."""
        self.count.check_room(len(topics), publisher)
        for topic in topics:
            self._topics[topic] = _TopicLog(self.watched.get(topic, self._generation))
            self._round.append(topic)
            self.count.number += 1

    def _trim(self, log: _TopicLog) -> None:
        not_before = self._clock.monotonic() - self._settings.max_age_s
        log.trim(self._settings.max_entries, not_before)

    def _forget(self) -> None:
        """Forget the ids whose time is over, the oldest of too many, and topics nothing needs."""
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

    def _is_needed(self, topic: str) -> bool:
        log = self._topics[topic]
        self._trim(log)
        if log.head < len(log.entries) or log.keys or topic in self.watched:
            return True
        return self._marks is not None and self._marks.has(topic)


class _Mark(NamedTuple):
    """How far somebody got; `used_at` (`Clock.monotonic`) is a day late at most."""

    position: Position
    used_at: float


_MarkKey = tuple[str, str, str]
"""A topic, a mark's name and a user."""


class MemoryMarks:
    """Watermarks in memory; see `base.Marks`."""

    def __init__(self, settings: EngineSettings, clock: Clock) -> None:
        self.rules = MarkRules(settings)
        self._clock = clock
        # Each in the order of the last use, the longest unused first.
        self._marks: OrderedDict[_MarkKey, _Mark] = OrderedDict()
        self._of_user: dict[str, OrderedDict[_MarkKey, None]] = {}
        self._on_topic: dict[str, dict[_MarkKey, None]] = {}

    async def advance(self, topic: str, user: str, name: str, position: Position) -> Position:
        key = (topic, name, user)
        old = self._use(key)
        if old is None:
            mine = self._of_user.get(user)
            if mine is not None and len(mine) >= self.rules.each:
                self._drop(next(iter(mine)))
            self.rules.check_room(user)
            self._of_user.setdefault(user, OrderedDict())[key] = None
            self._on_topic.setdefault(topic, {})[key] = None
            self.rules.number += 1
        elif old.position.epoch == position.epoch and old.position.offset > position.offset:
            return old.position
        used_at = self._clock.monotonic() if old is None else old.used_at
        self._marks[key] = _Mark(position, used_at)
        return position

    async def get(self, topic: str, user: str, name: str) -> Position | None:
        found = self._use((topic, name, user))
        return None if found is None else found.position

    async def get_many(
        self, user: str, topics: Sequence[str], names: Sequence[str]
    ) -> Sequence[Sequence[Position | None]]:
        self._forget()
        found = [[self._touch((topic, name, user)) for name in names] for topic in topics]
        return [[None if each is None else each.position for each in marks] for marks in found]

    async def all(self, topic: str, name: str) -> Mapping[str, Position]:
        self._forget()
        keys = self._on_topic.get(topic, {})
        return {key[2]: self._marks[key].position for key in keys if key[1] == name}

    async def drop(self, topic: str, user: str, name: str) -> None:
        if (topic, name, user) in self._marks:
            self._drop((topic, name, user))

    async def drop_all(self, user: str, name: str) -> None:
        for key in [each for each in self._of_user.get(user, {}) if each[1] == name]:
            self._drop(key)

    def has(self, topic: str) -> bool:
        """Tell whether a topic has any mark."""
        self._forget()
        return topic in self._on_topic

    def _use(self, key: _MarkKey) -> _Mark | None:
        """Return a mark that is used now."""
        self._forget()
        return self._touch(key)

    def _touch(self, key: _MarkKey) -> _Mark | None:
        found = self._marks.get(key)
        if found is None:
            return None
        now = self._clock.monotonic()
        if now - found.used_at >= self.rules.renew_s:
            found = self._marks[key] = found._replace(used_at=now)
            self._marks.move_to_end(key)
            self._of_user[key[2]].move_to_end(key)
        return found

    def _forget(self) -> None:
        """Forget those that were not used for long."""
        not_before = self._clock.monotonic() - self.rules.age_s
        while self._marks:
            key, mark = next(iter(self._marks.items()))
            if mark.used_at >= not_before:
                return
            self._drop(key)

    def _drop(self, key: _MarkKey) -> None:
        del self._marks[key]
        topic, _, user = key
        for keys, name in ((self._of_user, user), (self._on_topic, topic)):
            del keys[name][key]
            if not keys[name]:
                del keys[name]
        self.rules.number -= 1


class _Member(NamedTuple):
    """A set's member."""

    body: bytes
    expires_at: float | None


class MemorySets:
    """Sets with expiry in memory; see `base.Sets`."""

    def __init__(self, clock: Clock) -> None:
        self._steady = SteadyTime(clock)
        self._sets: dict[str, dict[str, _Member]] = {}
        # Those with members that expire: they do so when nobody asks for the set any more, too.
        self._expiring: OrderedDict[str, None] = OrderedDict()

    async def add(
        self, name: str, member: str, body: bytes = b"", expires_at: float | None = None
    ) -> None:
        await self.update([NewMember(name, member, body, expires_at)])

    async def remove(self, name: str, member: str) -> bool:
        found = member in await self.members(name)
        await self.update(remove=[(name, member)])
        return found

    async def update(
        self, add: Sequence[NewMember] = (), remove: Sequence[tuple[str, str]] = ()
    ) -> None:
        for name, member in remove:
            members = self._sets.get(name, {})
            members.pop(member, None)
            if not members:
                self._sets.pop(name, None)
        for name, member, body, expires_at in add:
            self._sets.setdefault(name, {})[member] = _Member(body, expires_at)
            if expires_at is not None:
                self._expiring[name] = None
        for _ in range(min(LOOKED, len(self._expiring))):
            self._drop_expired(self._expiring.popitem(last=False)[0])

    def _drop_expired(self, name: str) -> None:
        now = self._steady.now()
        members = self._sets.pop(name, {})
        kept = {
            member: found
            for member, found in members.items()
            if found.expires_at is None or found.expires_at > now
        }
        if kept:
            self._sets[name] = kept
        if any(found.expires_at is not None for found in kept.values()):
            self._expiring[name] = None

    async def get(self, name: str, member: str) -> bytes | None:
        return (await self.members(name)).get(member)

    async def members(self, name: str) -> Mapping[str, bytes]:
        now = self._steady.now()
        return {
            member: found.body
            for member, found in self._sets.get(name, {}).items()
            if found.expires_at is None or found.expires_at > now
        }


class MemoryStore:
    """Values by key in memory; see `base.Store`."""

    def __init__(self, settings: EngineSettings) -> None:
        self.rules = StoreRules(settings)
        self._spaces: dict[str, dict[str, tuple[bytes, str]]] = {}

    async def get(self, space: str, key: str) -> bytes | None:
        found = self._spaces.get(space, {}).get(key)
        return None if found is None else found[0]

    async def put(self, space: str, key: str, body: bytes, owner: str = "") -> None:
        self._put(space, key, body, owner)

    async def swap(
        self, space: str, key: str, old: bytes | None, new: bytes | None, owner: str = ""
    ) -> bool:
        if await self.get(space, key) != old:
            return False
        if new is None:
            self._remove(space, key)
        else:
            self._put(space, key, new, owner)
        return True

    async def remove(self, space: str, key: str) -> bool:
        return self._remove(space, key)

    async def read(
        self, space: str, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[tuple[str, bytes]]:
        values = self._spaces.get(space, {})
        wanted = (key for key in values if key > after and key.startswith(prefix))
        return [(key, values[key][0]) for key in nsmallest(limit, wanted)]

    async def owned(
        self, owner: str, after: tuple[str, str] = ("", ""), limit: int = 100
    ) -> Sequence[Stored]:
        places = nsmallest(limit, (place for place in self._of(owner) if place > after))
        return [Stored(space, key, self._spaces[space][key][0]) for space, key in places]

    async def erase(self, owner: str) -> int:
        places = self._of(owner)
        for space, key in places:
            self._remove(space, key)
        return len(places)

    def _of(self, owner: str) -> list[tuple[str, str]]:
        return [
            (space, key)
            for space, values in self._spaces.items()
            for key, (_, each) in values.items()
            if owner and each == owner
        ]

    def _put(self, space: str, key: str, body: bytes, owner: str) -> None:
        more = size_of(key, owner, body)
        if (before := self._spaces.get(space, {}).get(key)) is not None:
            more -= size_of(key, before[1], before[0])
        self.rules.check_room(space, more)
        self.rules.count(space, more)
        self._spaces.setdefault(space, {})[key] = (body, owner)

    def _remove(self, space: str, key: str) -> bool:
        values = self._spaces.get(space, {})
        found = values.pop(key, None)
        if found is None:
            return False
        self.rules.count(space, -size_of(key, found[1], found[0]))
        if not values:
            del self._spaces[space]
        return True


class MemoryEngine:
    """All parts in memory; `memory://`. Bounded by `EngineSettings`."""

    guarantee = "process"
    waiting_bytes = 0
    log_bytes: Mapping[str, int] = {}

    def __init__(self, settings: EngineSettings, clock: Clock, node: str) -> None:
        self.marks = MemoryMarks(settings, clock)
        self.log = MemoryLog(settings, clock, self.marks)
        self.signals = MemorySignals()
        self.leases = MemoryLeases(clock, node)
        self.sets = MemorySets(clock)
        self.store = MemoryStore(settings)
        self.bounds = (
            self.log.count.bound,
            self.marks.rules.bound,
            self.log.ids,
            self.store.rules.bound,
        )

    async def start(self, follower: Follower) -> None:
        self.log.follower = follower

    async def close(self) -> None:
        self.log.follower = None

    async def watch(self, topic: str) -> Top:
        self.log.watch(topic)
        return await self.log.top(topic)

    async def unwatch(self, topic: str) -> None:
        self.log.watched.pop(topic, None)

    def health(self) -> str | None:
        """Return None: memory works as long as the process does."""
        return None

"""The engine in this process's memory: nothing survives it, and there is no other node.

`MemoryLeases`, `MemoryMarks` and `MemorySets` are whole parts by themselves; an engine that keeps
its log elsewhere may use them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, islice, takewhile
from typing import NamedTuple

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import (
    Appended,
    Conflict,
    Entry,
    Follower,
    Lease,
    NewEntry,
    Page,
    Position,
    Tally,
    Top,
)
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import Clock

LEASE_S = 30.0
"""A node that has not renewed for this long is gone: three missed renewals of 10 s."""
MAX_EXPIRED = 512
"""Members that one call of `expire` returns: a whole crowd would hold up the loop
(docs/measurements.md, leases)."""
COMPACT_AT = 1024
"""Trimmed entries are released in runs of at least this many, so that an append costs the same at
any size of the log."""


class _Seen(NamedTuple):
    """What became of a key. The body is kept as its hash: it may be gone from the log.

    Python's own hash of bytes (SipHash, 64 bits, keyed anew in each process) will do, for all of it
    dies with the process. A digest takes longer (docs/measurements.md, hashes).
    """

    offset: int
    body_hash: int
    at: float


class _TopicLog:
    """One topic's entries: `entries[head:]` are kept, the others wait to be released."""

    __slots__ = ("entries", "head", "offset")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.head = 0
        self.offset = 0

    @property
    def oldest(self) -> int:
        """The offset of the oldest entry that is kept; top + 1 where none is."""
        return self.offset - (len(self.entries) - self.head) + 1

    def trim(self, max_entries: int, not_before: float) -> None:
        """Release what is too many or too old."""
        entries = self.entries
        head = max(self.head, len(entries) - max_entries)
        while head < len(entries) and entries[head].at < not_before:
            head += 1
        self.head = head
        if head >= COMPACT_AT and head * 2 >= len(entries):
            del entries[:head]
            self.head = 0


class MemoryLog:
    """The logs of all topics; see `base.Log`. They share an epoch: they are only lost together."""

    def __init__(self, settings: EngineSettings, clock: Clock) -> None:
        self.epoch = clock.new_id()[-12:]
        self.follower: Follower | None = None
        self.watched: set[str] = set()
        self._settings = settings
        self._clock = clock
        self._topics: dict[str, _TopicLog] = {}
        # In the order of their age, so that the oldest leave from the front.
        self._keys: dict[tuple[str, str, str], _Seen] = {}

    async def append(self, batch: Sequence[NewEntry]) -> list[Appended | Conflict]:
        now = self._clock.time()
        self._forget_keys(now)
        results: list[Appended | Conflict] = []
        fresh: dict[str, list[Entry]] = {}
        try:
            for new in batch:
                results.append(self._append(new, now, fresh))
        finally:
            # Also after a failure half-way: what is in the log, its followers must hear of.
            for topic, entries in fresh.items():
                log = self._topics[topic]
                log.trim(self._settings.max_entries, now - self._settings.max_age_s)
                if topic in self.watched and self.follower is not None:
                    self.follower.entries(topic, self.epoch, entries)
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
        log = self._topics.get(topic)
        if log is None:
            return Page(Top(self.epoch, 0, 1), ())
        self._trim(log)
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
        return Page(Top(self.epoch, log.offset, log.oldest), found)

    async def tally(
        self, topic: str, first: int, last: int, head_of: Callable[[bytes], bytes]
    ) -> Tally:
        page = await self.read(topic, first - 1, last - first + 1)
        bodies = [entry.body for entry in page.entries]
        return Tally(Counter(map(head_of, bodies)), sum(map(len, bodies)))

    async def top(self, topic: str) -> Top:
        log = self._topics.get(topic)
        if log is None:
            return Top(self.epoch, 0, 1)
        self._trim(log)
        return Top(self.epoch, log.offset, log.oldest)

    def _append(
        self, new: NewEntry, now: float, fresh: dict[str, list[Entry]]
    ) -> Appended | Conflict:
        key = (new.topic, new.publisher, new.key)
        body_hash = hash(new.body)
        seen = self._keys.get(key)
        if seen is not None:
            if seen.body_hash != body_hash:
                return Conflict(self.epoch, seen.offset)
            return Appended(self.epoch, seen.offset, duplicate=True)
        topics = [new.topic, new.feed] if new.feed else [new.topic]
        self._check_room(topics)
        for topic in topics:
            log = self._topics.get(topic)
            if log is None:
                log = self._topics[topic] = _TopicLog()
            log.offset += 1
            entry = Entry(log.offset, new.body, now, new.origin)
            log.entries.append(entry)
            fresh.setdefault(topic, []).append(entry)
        offset = self._topics[new.topic].offset
        self._keys[key] = _Seen(offset, body_hash, now)
        return Appended(self.epoch, offset)

    def _check_room(self, topics: Sequence[str]) -> None:
        room = self._settings.max_topics - len(self._topics)
        if room < len(topics) and sum(topic not in self._topics for topic in topics) > room:
            raise Unavailable(
                f"the log has {len(self._topics)} topics, as many as engine.max_topics allows"
            )

    def _trim(self, log: _TopicLog) -> None:
        not_before = self._clock.time() - self._settings.max_age_s
        log.trim(self._settings.max_entries, not_before)

    def _forget_keys(self, now: float) -> None:
        """Forget the ids whose time is over, and the oldest of too many."""
        oldest = now - self._settings.id_window_s
        too_many = len(self._keys) - self._settings.max_ids
        old: list[tuple[str, str, str]] = []
        for key, seen in self._keys.items():
            if seen.at >= oldest and len(old) >= too_many:
                break
            old.append(key)
        for key in old:
            del self._keys[key]


class MemorySignals:
    """Signals to the other nodes, of which a memory engine has none."""

    def send(self, topic: str, body: bytes, origin: str = "") -> None:
        """Reach every other node: nobody."""


class MemoryMarks:
    """Watermarks in memory; see `base.Marks`."""

    def __init__(self, settings: EngineSettings) -> None:
        self._max_marks = settings.max_marks
        self._count = 0
        self._marks: dict[tuple[str, str], dict[str, Position]] = {}

    async def advance(self, topic: str, user: str, name: str, position: Position) -> Position:
        old = self._marks.get((topic, name), {}).get(user)
        if old is None:
            if self._count >= self._max_marks:
                raise Unavailable(
                    f"there are {self._count} marks, as many as engine.max_marks allows"
                )
            self._count += 1
        marks = self._marks.setdefault((topic, name), {})
        if old is None or old.epoch != position.epoch or old.offset < position.offset:
            marks[user] = position
        return marks[user]

    async def get(self, topic: str, user: str, name: str) -> Position | None:
        return self._marks.get((topic, name), {}).get(user)

    async def all(self, topic: str, name: str) -> Mapping[str, Position]:
        return dict(self._marks.get((topic, name), {}))

    async def drop(self, topic: str, user: str, name: str) -> None:
        marks = self._marks.get((topic, name), {})
        if marks.pop(user, None) is not None:
            self._count -= 1
        if not marks:
            self._marks.pop((topic, name), None)


class MemoryLeases:
    """Members under the lease of the only node; see `base.Leases`."""

    def __init__(self, clock: Clock, node: str) -> None:
        self._clock = clock
        self._node = node
        self._renewed_at = clock.monotonic()
        # Whether somebody was told that all members are gone: then they are, renewed or not.
        self._was_gone = False
        self._members: dict[str, dict[str, Lease]] = {}
        # Apart, so that looking for those whose time is over does not go through all the others.
        self._leaving: dict[tuple[str, str], Lease] = {}

    async def put(self, topic: str, member: str, body: bytes) -> bool:
        members = self._members.setdefault(topic, {})
        is_new = member not in members
        members[member] = Lease(member, body, self._node)
        self._leaving.pop((topic, member), None)
        return is_new

    async def leave(self, topic: str, member: str, after_s: float) -> bool:
        lease = self._members.get(topic, {}).get(member)
        if lease is None:
            return False
        lease = lease._replace(leaving_at=self._clock.time() + after_s)
        self._members[topic][member] = self._leaving[topic, member] = lease
        return True

    async def remove(self, topic: str, member: str) -> bool:
        return self._take(topic, member) is not None

    async def members(self, topic: str) -> Sequence[Lease]:
        members = self._members.get(topic, {}).values()
        if self._is_gone():
            return []
        now = self._clock.time()
        return [each for each in members if each.leaving_at is None or each.leaving_at > now]

    async def expire(self) -> Sequence[tuple[str, Lease]]:
        now = self._clock.time()
        if self._is_gone():
            gone = [
                (topic, lease)
                for topic, members in self._members.items()
                for lease in members.values()
            ]
        else:
            due = (
                (topic, lease)
                for (topic, _), lease in self._leaving.items()
                if lease.leaving_at is not None and lease.leaving_at <= now
            )
            gone = list(islice(due, MAX_EXPIRED))
        for topic, lease in gone:
            self._take(topic, lease.member)
        self._was_gone = False
        return gone

    async def renew(self) -> None:
        self._renewed_at = self._clock.monotonic()

    def _is_gone(self) -> bool:
        if self._clock.monotonic() - self._renewed_at > LEASE_S:
            self._was_gone = True
        return self._was_gone

    def _take(self, topic: str, member: str) -> Lease | None:
        members = self._members.get(topic, {})
        lease = members.pop(member, None)
        self._leaving.pop((topic, member), None)
        if not members:
            self._members.pop(topic, None)
        return lease


class _Member(NamedTuple):
    """A set's member."""

    body: bytes
    expires_at: float | None


class MemorySets:
    """Sets with expiry in memory; see `base.Sets`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sets: dict[str, dict[str, _Member]] = {}

    async def add(
        self, name: str, member: str, body: bytes = b"", expires_at: float | None = None
    ) -> None:
        self._sets.setdefault(name, {})[member] = _Member(body, expires_at)

    async def remove(self, name: str, member: str) -> bool:
        self._drop_expired(name)
        members = self._sets.get(name, {})
        found = members.pop(member, None) is not None
        if not members:
            self._sets.pop(name, None)
        return found

    async def get(self, name: str, member: str) -> bytes | None:
        return (await self.members(name)).get(member)

    async def members(self, name: str) -> Mapping[str, bytes]:
        self._drop_expired(name)
        return {member: found.body for member, found in self._sets.get(name, {}).items()}

    def _drop_expired(self, name: str) -> None:
        now = self._clock.time()
        kept = {
            member: found
            for member, found in self._sets.get(name, {}).items()
            if found.expires_at is None or found.expires_at > now
        }
        if kept:
            self._sets[name] = kept
        else:
            self._sets.pop(name, None)


class MemoryEngine:
    """All parts in memory; `memory://`. Bounded by `EngineSettings`."""

    guarantee = "process"
    waiting_bytes = 0

    def __init__(self, settings: EngineSettings, clock: Clock, node: str) -> None:
        self.log = MemoryLog(settings, clock)
        self.signals = MemorySignals()
        self.marks = MemoryMarks(settings)
        self.leases = MemoryLeases(clock, node)
        self.sets = MemorySets(clock)

    async def start(self, follower: Follower) -> None:
        self.log.follower = follower

    async def close(self) -> None:
        self.log.follower = None

    async def watch(self, topic: str) -> Top:
        self.log.watched.add(topic)
        return await self.log.top(topic)

    async def unwatch(self, topic: str) -> None:
        self.log.watched.discard(topic)

    def health(self) -> str | None:
        """Return None: memory works as long as the process does."""
        return None

"""Marks, sets and the store in memory, for engines that keep theirs nowhere else; see `base`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import NamedTuple

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import NewMember, Position, Stored
from pov_rt.engine.bounds import MarkRules, StoreRules, size_of
from pov_rt.engine.copying import CopiedMark, CopiedMember, CopiedValue, microseconds
from pov_rt.runtime.clock import Clock, SteadyTime

LOOKED = 2
"""Sets that each change looks at, to forget members whose time is over."""


class _Mark(NamedTuple):
    """How far somebody got; `used_at` (`Clock.monotonic`) is a day late at most."""

    position: Position
    used_at: float


_MarkKey = tuple[str, str, str]
"""A topic, a mark's name and a user."""


class MemoryMarks:
    """Watermarks in memory; see `base.Marks`."""

    def __init__(self, settings: EngineSettings, clock: Clock, longest_s: float = 0.0) -> None:
        self.rules = MarkRules(settings, longest_s)
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
            self._enter(key, _Mark(position, self._clock.monotonic()))
            return position
        if old.position.epoch == position.epoch and old.position.offset > position.offset:
            return old.position
        self._marks[key] = _Mark(position, old.used_at)
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

    async def carry(self, topic: str, name: str, start: Position, end: Position) -> None:
        for key in self._on_topic.get(topic, {}):
            if key[1] == name and self._marks[key].position == start:
                self._marks[key] = self._marks[key]._replace(position=end)

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

    async def of(self, user: str) -> Sequence[tuple[str, str, Position]]:
        self._forget()
        mine = sorted(self._of_user.get(user, {}))
        return [(topic, name, self._marks[topic, name, user].position) for topic, name, _ in mine]

    async def drop_user(self, user: str) -> int:
        mine = list(self._of_user.get(user, {}))
        for key in mine:
            self._drop(key)
        return len(mine)

    def dump(self) -> Iterator[CopiedMark]:
        """Yield all marks."""
        self._forget()
        ahead = self._clock.time() - self._clock.monotonic()
        for (topic, name, user), (place, used_at) in self._marks.items():
            yield CopiedMark(topic, name, user, *place, int(used_at + ahead))

    def restore(self, marks: Sequence[CopiedMark]) -> None:
        """Take over marks; `sort` is called behind the last ones."""
        ahead = self._clock.time() - self._clock.monotonic()
        for topic, name, user, epoch, offset, at in marks:
            self._enter((topic, name, user), _Mark(Position(epoch, offset), at - ahead))

    def sort(self) -> None:
        """Have the marks in the order of their use."""
        marks = sorted(self._marks.items(), key=lambda each: each[1].used_at)
        for known in (self._marks, self._of_user, self._on_topic):
            known.clear()
        self.rules.number = 0
        for key, mark in marks:
            self._enter(key, mark)

    def _enter(self, key: _MarkKey, mark: _Mark) -> None:
        """Add a mark that is not there."""
        topic, _, user = key
        self._of_user.setdefault(user, OrderedDict())[key] = None
        self._on_topic.setdefault(topic, {})[key] = None
        self._marks[key] = mark
        self.rules.number += 1

    def drop_topic(self, topic: str) -> None:
        """Forget all marks on a topic."""
        for key in list(self._on_topic.get(topic, {})):
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

    async def drop(self, name: str) -> int:
        return len(self._sets.pop(name, {}))

    def dump(self, at: float) -> Iterator[CopiedMember]:
        """Yield all members that have not expired."""
        for name, members in self._sets.items():
            for member, (body, expires_at) in members.items():
                if expires_at is None or expires_at > at:
                    yield CopiedMember(name, member, body, microseconds(expires_at or 0))

    async def restore(self, members: Sequence[CopiedMember]) -> None:
        """Take over members."""
        await self.update([NewMember(*each[:3], each.expires_at / 1e6 or None) for each in members])

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

    async def having(self, member: str, prefix: str = "") -> Sequence[str]:
        sets = self._sets.items()
        return sorted(name for name, all_ in sets if name.startswith(prefix) and member in all_)


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

    def dump(self) -> Iterator[CopiedValue]:
        """Yield all values."""
        for space, values in self._spaces.items():
            for key, (body, owner) in values.items():
                yield CopiedValue(space, key, owner, body)

    async def restore(self, values: Sequence[CopiedValue]) -> None:
        """Take over values. Raises `Unavailable` if they are too many."""
        for space, key, owner, body in values:
            self._put(space, key, body, owner)

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

"""How far users and their devices got: what they have seen and read, what a device acknowledged.

A user has three marks on a log: `read`, `seen`, and the floor under what was marked unread again.
The first two never go back. The floor does, whoever moved it last: it is kept as a mark, too, whose
epoch has its offset in it, so that each place of it replaces the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple
from weakref import WeakValueDictionary

from msgspec import UNSET, UnsetType

from pov_rt.config.settings import Settings
from pov_rt.connections.connection import Connection
from pov_rt.connections.directory import Directory
from pov_rt.delivery.places import placed
from pov_rt.engine.base import Engine, NewMember, Position, Top
from pov_rt.runtime.clock import Clock

READ = "read"
SEEN = "seen"
FLOOR = "unread"
DAY_S = 86400.0
SLOTS = 1024


def acked(device: str) -> str:
    """Return the name of the mark up to which a device has acknowledged a topic."""
    return f"acked:{device}"


def floor_at(epoch: str, offset: int) -> Position:
    """Return the mark of a floor. Its epoch begins with the log's, as a restore expects."""
    return Position(f"{epoch}-{offset}", offset)


class Marked(NamedTuple):
    """Up to where a user has read and seen a log, and how many of its entries are left.

    What the log keeps no longer counts as read, and what is read as seen. Everything from
    `unread_from` on is unread: without it, what is behind `read_offset`.
    """

    epoch: str
    read_offset: int
    seen_offset: int
    unread: int
    unseen: int
    unread_from: int | UnsetType = UNSET


class _Marks(NamedTuple):
    """A user's marks on a topic, as they are stored."""

    read: Position | None
    seen: Position | None
    floor: Position | None

    def floor_in(self, epoch: str) -> int:
        """Return where the floor is, 0 if there is none."""
        floor = self.floor
        return floor.offset if floor and floor == floor_at(epoch, floor.offset) else 0

    def on(self, top: Top) -> Marked:
        """Return what they say of a log in this state."""
        epoch, last, oldest = top
        read = seen = oldest - 1
        if self.read is not None and self.read.epoch == epoch:
            read = seen = max(read, self.read.offset)
        if self.seen is not None and self.seen.epoch == epoch:
            seen = max(read, self.seen.offset)
        unread, unseen = max(0, last - read), max(0, last - seen)
        floor = 0 if self.floor is None else self.floor_in(epoch)
        if not 0 < floor <= read or oldest > read:
            return Marked(epoch, read, seen, unread, unseen)
        floor = max(floor, oldest)
        return Marked(epoch, read, seen, max(0, last - floor + 1), unseen, floor)


class Read(NamedTuple):
    """Where a user's read mark is, whether it moved; `marked` if that moved the floor."""

    mark: Position
    has_moved: bool
    marked: Marked | None = None


class Cursors:
    """The marks of all users in the engine, and the devices whose they are. Owner: the server.

    A mark where nothing is is not made: it would say nothing.
    """

    def __init__(
        self, engine: Engine, directory: Directory, clock: Clock, settings: Settings
    ) -> None:
        self._engine = engine
        self._directory = directory
        self._clock = clock
        self._most_devices = settings.limits.devices_per_user
        self._age_s = max(settings.engine.mark_age_s, settings.longest_s)
        self._moves = [0] * SLOTS
        """How often a mark was moved, by user: several may share a slot."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def cursor(self, connection: Connection, topic: str) -> Position | None:
        """Return up to where a connection's device acknowledged a topic; None if it never did."""
        name = acked(connection.device)
        return await self._engine.marks.get(topic, connection.identity.user_id, name)

    async def acknowledge(self, connection: Connection, topic: str, position: Position) -> Position:
        """Move the cursor of a connection's device; return where it is."""
        user_id, name = connection.identity.user_id, acked(connection.device)
        if not await self._is_something(topic, position):
            if await self._engine.marks.get(topic, user_id, name) is None:
                return position._replace(offset=0)
        await self.remember_device(connection)
        return await self._engine.marks.advance(topic, user_id, name, position)

    async def read(self, user_id: str, topic: str, position: Position) -> Read:
        """Move up to where a user has read a topic; the floor goes up to behind it."""
        async with self._lock(user_id):
            before = await self._get(user_id, topic)
            if before.read is None and not await self._is_something(topic, position):
                return Read(position._replace(offset=0), False)
            mark = await self._engine.marks.advance(topic, user_id, READ, position)
            marked = None
            if 0 < before.floor_in(position.epoch) <= position.offset:
                floor = await self._put_floor(user_id, topic, position.offset + 1, mark)
                now = before._replace(read=mark, floor=floor)
                marked = now.on(await self._engine.log.top(topic))
            self._count_move(user_id)
            return Read(mark, mark != before.read, marked)

    async def see(self, user_id: str, topic: str, position: Position) -> tuple[Marked, bool]:
        """Move up to where a user has seen a topic; return the marks, and whether it moved.

        What was read was seen: no mark says so a second time.
        """
        async with self._lock(user_id):
            before = await self._get(user_id, topic)
            top = await self._engine.log.top(topic)
            was = before.on(top)
            position = await placed(self._engine.log, topic, top.epoch, position)
            if position.epoch != top.epoch or not was.seen_offset < position.offset <= top.offset:
                return was, False
            seen = await self._engine.marks.advance(topic, user_id, SEEN, position)
            self._count_move(user_id)
            return before._replace(seen=seen).on(top), True

    async def mark_unread(
        self, user_id: str, topic: str, position: Position
    ) -> tuple[Marked, bool]:
        """Put the floor at a position, or away where nothing behind it was read.

        Returns the marks, and whether anything changed.
        """
        async with self._lock(user_id):
            before = await self._get(user_id, topic)
            top = await self._engine.log.top(topic)
            position = await placed(self._engine.log, topic, top.epoch, position)
            was, read = before.on(top), before.read
            if read is None or not read.epoch == position.epoch == top.epoch:
                return was, False
            at = max(1, position.offset)
            if at == before.floor_in(top.epoch) or (before.floor is None and at > read.offset):
                return was, False
            floor = await self._put_floor(user_id, topic, at, read)
            now = before._replace(floor=floor).on(top)
            self._count_move(user_id)
            return now, now != was

    async def marked(self, user_id: str, tops: Mapping[str, Top]) -> Mapping[str, Marked]:
        """Return what a user has read and seen of topics, by their names; `tops` is their state.

        It is newer than all that was told of before, in the step in which it is returned.
        """
        slot = hash(user_id) % SLOTS
        while True:
            moves = self._moves[slot]
            found = await self._engine.marks.get_many(user_id, [*tops], (READ, SEEN, FLOOR))
            # What was moved and told of meanwhile would be told of once more, as it was before.
            if moves == self._moves[slot]:
                break
        return {
            topic: _Marks(*marks).on(top)
            for (topic, top), marks in zip(tops.items(), found, strict=True)
        }

    async def remember_device(self, connection: Connection) -> None:
        """Enter a connection's device among its user's, once a day.

        For one too many the longest unused is forgotten, with its cursors: should it come back, it
        is as new. But none that is connected here.
        """
        now = self._clock.monotonic()
        if now < connection.remembered_until:
            return
        user_id, device = connection.identity.user_id, connection.device
        name = f"devices/{user_id}"
        known = await self._engine.sets.members(name)
        used_at = b"%d" % self._clock.time()
        gone: list[str] = []
        if device not in known:
            here = {each.device for each in self._directory.of(user_id)}
            longest_unused = sorted(known, key=lambda each: (each in here, known[each]))
            gone = longest_unused[: max(0, len(known) - self._most_devices + 1)]
        for each in gone:
            await self._engine.marks.drop_all(user_id, acked(each))
        entered = NewMember(name, device, used_at, self._clock.time() + self._age_s)
        await self._engine.sets.update([entered], [(name, each) for each in gone])
        connection.remembered_until = now + min(DAY_S, self._age_s / 8)

    async def devices(self, user_id: str) -> Mapping[str, float]:
        """Return when each of a user's devices was used last, in seconds since 1970."""
        known = await self._engine.sets.members(f"devices/{user_id}")
        return {device: float(used_at) for device, used_at in sorted(known.items())}

    async def clear(self, user_id: str) -> tuple[int, int]:
        """Forget a user's marks and devices; return how many of both there were."""
        marks = await self._engine.marks.drop_user(user_id)
        return marks, await self._engine.sets.drop(f"devices/{user_id}")

    def _lock(self, user_id: str) -> asyncio.Lock:
        """Return a user's lock: of several devices' marks each is moved, and told of, in turn."""
        return self._locks.setdefault(user_id, asyncio.Lock())

    def _count_move(self, user_id: str) -> None:
        """Note that a mark was moved, in the step in which its user is told."""
        self._moves[hash(user_id) % SLOTS] += 1

    async def _get(self, user_id: str, topic: str) -> _Marks:
        (found,) = await self._engine.marks.get_many(user_id, [topic], (READ, SEEN, FLOOR))
        return _Marks(*found)

    async def _put_floor(
        self, user_id: str, topic: str, offset: int, read: Position
    ) -> Position | None:
        """Put a floor, or none where nothing behind it is read; return what is there now."""
        marks = self._engine.marks
        if offset > read.offset:
            await marks.drop(topic, user_id, FLOOR)
            return None
        return await marks.advance(topic, user_id, FLOOR, floor_at(read.epoch, offset))

    async def _is_something(self, topic: str, position: Position) -> bool:
        top = await self._engine.log.top(topic)
        return top.oldest <= position.offset <= top.offset

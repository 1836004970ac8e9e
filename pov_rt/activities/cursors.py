"""How far users and their devices got: what they have read, and what a device acknowledged."""

from __future__ import annotations

from typing import NamedTuple

from pov_rt.config.settings import Settings
from pov_rt.connections.connection import Connection
from pov_rt.connections.directory import Directory
from pov_rt.engine.base import Engine, NewMember, Position, Top
from pov_rt.runtime.clock import Clock

READ = "read"
DAY_S = 86400.0


def acked(device: str) -> str:
    """Return the name of the mark up to which a device has acknowledged a topic."""
    return f"acked:{device}"


class Unread(NamedTuple):
    """Up to where a user has read a log, and how many of its entries are left.

    What the log keeps no longer counts as read.
    """

    read_offset: int
    unread: int


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
        self._age_s = max(settings.engine.mark_age_s, settings.engine.max_age_s)

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

    async def read(self, user_id: str, topic: str, position: Position) -> tuple[Position, bool]:
        """Move up to where a user has read a topic; return where that is, and whether it moved."""
        before = await self._engine.marks.get(topic, user_id, READ)
        if before is None and not await self._is_something(topic, position):
            return position._replace(offset=0), False
        mark = await self._engine.marks.advance(topic, user_id, READ, position)
        return mark, mark != before

    async def unread(self, user_id: str, topic: str, top: Top) -> Unread:
        """Return what a user has read of a topic, of which `top` is the state."""
        mark = await self._engine.marks.get(topic, user_id, READ)
        read = mark.offset if mark is not None and mark.epoch == top.epoch else 0
        read = max(read, top.oldest - 1)
        return Unread(read, max(0, top.offset - read))

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

    async def _is_something(self, topic: str, position: Position) -> bool:
        top = await self._engine.log.top(topic)
        return top.oldest <= position.offset <= top.offset

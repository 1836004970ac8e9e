"""Calls plugins with all that is published, at least once: `@plugin.follows`.

Each function reads the logs that it follows, from its place on; the place is a value in the
engine's store, written after what it stands for was done. A crash in between repeats that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence

import msgspec

from pov_rt.dispatch.conduct import Conduct
from pov_rt.dispatch.host import PluginHost, Services
from pov_rt.engine.base import Entry, Position, Top
from pov_rt.engine.bounds import generation_of
from pov_rt.plugin.declare import FollowSpec
from pov_rt.protocol.bodies import Published
from pov_rt.protocol.encoding import DECODE_ERRORS
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.messages import Activity
from pov_rt.protocol.tenants import TenantId
from pov_rt.protocol.topics import TEAM_FEED, pov_topic, team_topic
from pov_rt.runtime import containment
from pov_rt.runtime.clock import rfc3339

log = logging.getLogger(__name__)

PAGE = 100
CALL_S = 60.0
"""How long a function may take for one activity."""
RETRY_S, MAX_RETRY_S = 1.0, 60.0
AT_ONCE = 8
"""Logs that one function is at work on."""
FEEDS = team_topic("")

_activity = msgspec.json.Decoder(Activity)


class Place(msgspec.Struct, array_like=True):
    """Up to where a log was followed: which log it is of those of its name, and the offset.

    It is kept where the log is, and lost with what it stands for. So it is good whichever epoch the
    log has when it is read again, as where a backup was restored with the place in it.
    """

    generation: int
    offset: int


class _Followed:
    """One log and how far it was followed; `kept` is what the store has."""

    def __init__(self, topic: str, place: Place) -> None:
        self.topic = topic
        self.place = place
        self.kept = place
        self.epoch = ""
        """The log's when it was there; empty where the place is as it was kept."""
        self.has_news = False
        self.task: asyncio.Task[None] | None = None


class Follower:
    """One function, and the logs that it follows. Owner: `Followers`."""

    def __init__(
        self, services: Services, host: PluginHost, spec: FollowSpec, conduct: Conduct
    ) -> None:
        self.host = host
        self._spec = spec
        self._conduct = conduct
        self._services = services
        self._log, self._store = services.engine.log, services.engine.store
        self._space = f"{host.name}/follows"
        self._name = spec.function.__name__
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._followed: dict[str, _Followed] = {}
        self._tasks = containment.Tasks(log, f"a follower of the plugin {host.name}")
        self._is_ready = False
        self.has_begun = asyncio.Event()
        """It knows where it is: whatever comes from now on, it will be called with."""
        self._early: set[str] = set()

    def start(self) -> None:
        """Go on from where it was, or begin."""
        self._tasks.spawn(self._begin())

    def wake(self, topic: str) -> None:
        """Look at a log again."""
        wanted = FEEDS if self._spec.pov_id == TEAM_FEED else pov_topic(self._spec.pov_id)
        if topic != wanted and not (wanted == FEEDS and topic.startswith(FEEDS)):
            return
        if not self._is_ready:
            self._early.add(topic)
            return
        # One that comes later than the first start is new: all of it is to be followed.
        followed = self._followed.setdefault(topic, _Followed(topic, Place(0, 0)))
        followed.has_news = True
        if followed.task is None:
            followed.task = self._tasks.spawn(self._follow(followed))

    def cancel(self) -> None:
        """Stop, without waiting for it."""
        self._is_ready = False
        self._tasks.cancel()

    async def end(self) -> None:
        """Stop, and keep how far it got."""
        self._is_ready = False
        await self._tasks.end()
        for followed in self._followed.values():
            with containment.logged(log, "cannot keep how far %s got", self._name):
                await self._keep(followed)

    async def _begin(self) -> None:
        for wait_s in _waits():
            try:
                topics = await self._read_places()
                break
            except Unavailable as error:
                self._conduct.failed(self.host.name, self._spec.function, "follower", error)
                await asyncio.sleep(wait_s)
        self._is_ready = True
        self.has_begun.set()
        for topic in {*topics, *self._early}:
            self.wake(topic)

    async def _read_places(self) -> Sequence[str]:
        """Find out where it is in each log that there is."""
        if self._spec.pov_id == TEAM_FEED:
            topics = await self._feeds()
        else:
            topics = [pov_topic(self._spec.pov_id)]
        has_begun = await self._store.get(self._space, f"{self._name} begun") is not None
        for topic in topics:
            found = await self._store.get(self._space, f"{self._name} {topic}")
            if found is not None:
                place = msgspec.json.decode(found, type=Place)
            elif has_begun or self._spec.since == "beginning":
                place = Place(0, 0)
            else:
                top = await self._log.top(topic)
                place = Place(generation_of(top.epoch), top.offset)
                await self._put(topic, place)
            self._followed[topic] = _Followed(topic, place)
        if not has_begun:
            await self._store.put(self._space, f"{self._name} begun", b"true")
        return topics

    async def _feeds(self) -> Sequence[str]:
        names: dict[str, None] = {}
        after: str | None = ""
        while after is not None:
            found, after = await self._log.topics(FEEDS, after)
            names.update(dict.fromkeys(found))
        return list(names)

    async def _follow(self, followed: _Followed) -> None:
        try:
            while followed.has_news:
                followed.has_news = False
                async with self._turns:
                    await self._catch_up(followed)
        finally:
            followed.task = None

    async def _catch_up(self, followed: _Followed) -> None:
        waits = _waits()
        while True:
            try:
                page = await self._log.read(followed.topic, followed.place.offset, PAGE)
                if await self._has_moved(followed, page.top):
                    continue
                if not page.entries:
                    await self._keep(followed)
                    return
                missed = page.entries[0].offset - followed.place.offset - 1
                if missed:
                    log.warning(
                        "retention removed %d entries before %s followed them", missed, self._name,
                        extra={"plugin": self.host.name, "topic": followed.topic},
                    )  # fmt: skip
                for entry in page.entries:
                    await self._call(followed, page.top.epoch, entry)
                    followed.place = Place(followed.place.generation, entry.offset)
                    waits = _waits()
                await self._keep(followed)
            except BaseException as error:
                failure = containment.contain(error)
                self._conduct.failed(
                    self.host.name,
                    self._spec.function,
                    "follower",
                    failure,
                    counts=False,
                    topic=followed.topic,
                    after=followed.place.offset,
                )
                await asyncio.sleep(next(waits))

    async def _has_moved(self, followed: _Followed, top: Top) -> bool:
        """Go back to where the log is still what was followed; return whether that is elsewhere."""
        if not top.offset or followed.epoch == top.epoch:
            return False
        generation, offset = generation_of(top.epoch), followed.place.offset
        if generation != followed.place.generation:
            offset = 0  # that log is gone, with all that was behind its place
        elif followed.epoch:
            offset = await self._held(followed.topic, Position(followed.epoch, offset))
        elif offset > top.offset:
            offset = 0
        moved = Place(generation, offset)
        has_moved, followed.place, followed.epoch = moved != followed.place, moved, top.epoch
        return has_moved

    async def _held(self, topic: str, position: Position) -> int:
        """Return the last offset up to a position that a log has as it was in that epoch."""
        if await self._log.holds(topic, position):
            return position.offset
        low, high = 0, position.offset - 1
        while low < high:
            middle = (low + high + 1) // 2
            if await self._log.holds(topic, Position(position.epoch, middle)):
                low = middle
            else:
                high = middle - 1
        return low

    async def _call(self, followed: _Followed, epoch: str, entry: Entry) -> None:
        if not entry.body:  # nothing is left of it
            return
        try:
            activity = _activity.decode(entry.body)
        except DECODE_ERRORS as error:
            self._services.hub.stored.refuse(followed.topic, entry, error)
            return
        changes: dict[str, str] = {"at": rfc3339(entry.at)}
        if self._services.settings.auth.tenants and followed.topic.startswith(FEEDS):
            team = followed.topic.removeprefix(FEEDS)
            changes["pov_id"] = TenantId.of(team, activity.pov_id)
            changes["user_id"] = TenantId.of(team, activity.user_id)
        activity = msgspec.structs.replace(activity, **changes)
        where = Published(activity.id, activity.pov_id, entry.offset, epoch)
        await containment.call(self._spec.function, activity, where, self.host, deadline_s=CALL_S)

    async def _keep(self, followed: _Followed) -> None:
        if followed.place != followed.kept:
            place = followed.place
            await self._put(followed.topic, place)
            followed.kept = place

    async def _put(self, topic: str, place: Place) -> None:
        await self._store.put(self._space, f"{self._name} {topic}", msgspec.json.encode(place))


def _waits() -> Iterator[float]:
    """Yield how long to wait after each failure in a row."""
    wait_s = RETRY_S
    while True:
        yield wait_s
        wait_s = min(2 * wait_s, MAX_RETRY_S)

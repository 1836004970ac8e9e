"""Logs over HTTP: pages of them, and connections that follow one from a place on.

Where somebody is in a log is checked twice: when a request comes, which can then be refused, and
once the connection is registered, for the log may have moved between the two. Then it is ended
rather than served from elsewhere, and the next request is refused. A place of an older epoch that
the log holds is none elsewhere (`delivery.places`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple
from weakref import WeakValueDictionary

from pov_rt.auth.tokens import Identity
from pov_rt.connections.budgets import ROW
from pov_rt.connections.http import StreamConnection
from pov_rt.delivery.filters import Only
from pov_rt.delivery.places import placed
from pov_rt.delivery.replay import AfterMarks, position_of
from pov_rt.dispatch.hooks import Hooks
from pov_rt.dispatch.host import Services
from pov_rt.engine.base import Position, Top
from pov_rt.plugin.interfaces import Allowed
from pov_rt.protocol.errors import ClientError, CloseCode, PositionLost, RateLimited
from pov_rt.protocol.topics import TEAM_FEED, user_topic
from pov_rt.runtime.limits import KeyedBuckets, parse_rate
from pov_rt.server.arrivals import Arrivals
from pov_rt.transport.stream import EventFraming, EventWire, PollTransport

PAGE_ENTRIES = 1000
PAGE_BYTES = 1024 * 1024
"""Of entries in a page, save for the last one of them."""
SPREAD = 0.1
"""How much of an answer's time is left to chance, so that a storm of clients does not return."""


LogKind = Literal["pov", "team", "user"]


class Log(NamedTuple):
    """What is followed: a PoV's log, a team's feed (`pov_id` is `*`), or an inbox (it is None)."""

    name: str
    kind: LogKind
    pov_id: str | None

    @classmethod
    def of(cls, identity: Identity, kind: LogKind, pov_id: str) -> Log:
        """Return what a token's bearer means; `pov_id` is for a PoV's log alone."""
        grants = identity.grants
        if kind == "pov":
            pov_id = grants.scope(pov_id)
            return cls(grants.topic(pov_id), kind, pov_id)
        if kind == "team":
            return cls(grants.topic(TEAM_FEED), kind, TEAM_FEED)
        return cls(user_topic(identity.user_id), kind, None)


class LogPage(NamedTuple):
    """Messages of a log, oldest first; all up to `offset` have been looked at. `top` is its end."""

    items: Sequence[bytes]
    offset: int
    top: Top

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.offset >= self.top.offset


def locate(top: Top, place: Position) -> None:
    """Raise `PositionLost` if a log cannot be followed from a place on."""
    is_known = place.epoch == top.epoch and place.offset <= top.offset
    missed = top.oldest - 1 - place.offset if is_known else 0
    if is_known and missed <= 0:
        return
    why = f"{missed} entries behind it are gone" if is_known else "the log has no such position"
    more: dict[str, Any] = {"missed": missed} if is_known else {}
    raise PositionLost(
        f"This position is lost: {why}. Load your state anew, and go on with offset=now or -1",
        epoch=top.epoch,
        offset=top.offset,
        oldestOffset=top.oldest,
        **more,
    )


class Streams:
    """Who reads and follows logs over HTTP. Owner: the server."""

    def __init__(self, services: Services, arrivals: Arrivals, hooks: Hooks) -> None:
        self._services = services
        self._arrivals = arrivals
        self._hooks = hooks
        self._clock = services.clock
        self._settings = services.settings.streams
        self._reads = KeyedBuckets(parse_rate(self._settings.read_rate))
        # As long as anybody follows the log.
        self._framings: WeakValueDictionary[str, EventFraming] = WeakValueDictionary()

    def admit(self, identity: Identity) -> None:
        """Count a request. Raises `RateLimited` for more than `streams.read_rate`, or a debt."""
        wait = self._reads.take(identity.owner, self._clock.monotonic())
        if wait:
            raise RateLimited("Too many reads of logs; slow down", retry_after_s=wait)
        self._services.budgets.pay(identity.owner, 1)

    async def authorise(self, identity: Identity, log: Log) -> Allowed | None:
        """Raise unless a token's bearer may read a log; return for how long that stands."""
        if log.pov_id is None:
            return None
        require = self._services.permissions.require
        return await require(identity, log.pov_id, "subscribe", feed=log.kind == "team")

    async def top(self, log: Log) -> Top:
        """Return where a log ends. Raises `Unavailable`."""
        return await self._services.engine.log.top(log.name)

    async def placed(self, log: Log, top: Top, place: Position) -> Position:
        """Return a place as one of a log's epoch, if the log holds it. Raises `Unavailable`."""
        return await placed(self._services.engine.log, log.name, top.epoch, place)

    async def read(self, log: Log, place: Position, only: Only) -> LogPage:
        """Return what follows a place. Raises `PositionLost`, `RateLimited`, `Unavailable`."""
        services = self._services
        async with services.pages.at_work:
            services.budgets.check()
            page = await services.engine.log.read(
                log.name, place.offset, PAGE_ENTRIES, max_bytes=PAGE_BYTES
            )
        locate(page.top, await self.placed(log, page.top, place))
        services.budgets.charge(len(page.entries) * ROW)
        read = services.hub.replay.read
        bodies = (read(log, entry, only or None) for entry in page.entries)
        offset = page.entries[-1].offset if page.entries else place.offset
        return LogPage([body for body in bodies if body], offset, page.top)

    def framing(self, log: Log, top: Top) -> EventFraming:
        """Return how what follows a log writes events; its state is `top`."""
        found = self._framings.get(log.name)
        if found is None:
            found = self._framings[log.name] = EventFraming(top, self.cursor)
        return found

    def cursor(self, given: int = 0) -> int:
        """Return another cursor than any before, in milliseconds."""
        return max(int(self._clock.time() * 1000), given + 1)

    def open(
        self,
        transport: EventWire | PollTransport,
        identity: Identity,
        *,
        lasts_s: float,
        **client: Any,
    ) -> StreamConnection:
        """Enter a connection that lasts for so long at most; `follow` has it sent something."""
        spread = 1 + SPREAD * (2 * self._clock.random() - 1)
        return self._arrivals.open(
            transport,
            identity,
            kind=StreamConnection,
            ends_at=self._clock.monotonic() + lasts_s * spread,
            **client,
        )

    async def follow(
        self,
        connection: StreamConnection,
        log: Log,
        after: Position | None,
        only: Only,
        allowed: Allowed | None,
    ) -> Position | None:
        """Send a connection what follows a place, or with None what comes from now on.

        Returns the place from which it is served. None if it is not: it is ended, for the log does
        not hold the place any more, or cannot be read.
        """
        services, hub = self._services, self._services.hub
        since = None if after is None else AfterMarks([after])
        try:
            async with services.joins:
                joining = await hub.join(connection, log.name, since, only or None)
        except ClientError:
            connection.close(CloseCode.GAP)
            return None
        top, start, _, _ = joining.start
        served = Position(top.epoch, start)
        if isinstance(joining.since, AfterMarks) and served not in joining.since.places:
            hub.undo(joining)
            connection.close(CloseCode.GAP)
            return None
        if log.pov_id is not None:
            services.permissions.stand(connection, log.pov_id, "see", allowed)
        if isinstance(connection.transport.framing, EventFraming):
            connection.transport.framing.log = joining.topic
        if hub.confirm(joining) and log.pov_id is not None:
            self._hooks.tell("subscribed", log.pov_id, connection=connection)
        if isinstance(connection.transport, EventWire) and not hub.replay.is_behind(connection):
            connection.tell_position(position_of(joining.topic, start))
        return served

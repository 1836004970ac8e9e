"""The server as plugins see it: what implements `interfaces.Host`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Protocol, TypeVar

import msgspec

from pov_rt.activities.cursors import Cursors
from pov_rt.activities.digest import Digest, make_digest
from pov_rt.activities.durable import Durable
from pov_rt.activities.inbox import Inboxes
from pov_rt.activities.publishing import Published, Publisher, Publishing
from pov_rt.auth.grants import DEFAULT_TEAM, Kind
from pov_rt.auth.revocations import Revocation
from pov_rt.auth.tokens import Identity, Tokens
from pov_rt.config.settings import Settings
from pov_rt.connections.connection import Connection
from pov_rt.connections.deadlines import Deadlines
from pov_rt.connections.directory import Directory
from pov_rt.delivery.filters import Only, read_head
from pov_rt.delivery.hub import Hub
from pov_rt.engine.base import Engine, Leases, Marks, Sets
from pov_rt.plugin.interfaces import ConnectionInfo, Fetch, Guarantee, HistoryPage
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode, NotFound, TokenError
from pov_rt.protocol.messages import Activity, Event, Message, NewActivity, NewNotification
from pov_rt.protocol.topics import channel_topic, pov_topic, user_topic, wire_id
from pov_rt.registry.build import Registry
from pov_rt.runtime.bounds import Bounds
from pov_rt.runtime.clock import Clock, rfc3339

StructT = TypeVar("StructT", bound=msgspec.Struct)

MAX_HISTORY = 1000
MAX_COUNTERS = 32
"""Names of one plugin: each is a series of the metrics."""
_COUNTER = re.compile(r"[a-z][a-z0-9_]{0,63}")
SOCKET = frozenset({Kind.SOCKET})

_activity = msgspec.json.Decoder(Activity)


class Services(Protocol):
    """The parts of a `Server`, for what runs in it; plugins reach them through their host."""

    engine: Engine
    hub: Hub
    directory: Directory
    deadlines: Deadlines
    publishing: Publishing
    inboxes: Inboxes
    cursors: Cursors
    durable: Durable
    tokens: Tokens
    clock: Clock
    fetch: Fetch
    settings: Settings
    registry: Registry
    node: str
    guarantee: Guarantee
    bounds: Bounds


def delegate(path: str) -> Any:
    """Return a property that is an attribute of a part, without a function of its own."""
    return property(attrgetter(path))


class PluginCalls(Protocol):
    """What a host has called in other plugins: `Hooks`."""

    asks_before_subscribe: bool
    """Whether any plugin has a `before_subscribe` hook."""

    def tell(self, hook: str, *arguments: Any, connection: Connection) -> None:
        """Call the hooks of this name with the arguments and the connection."""

    def announce(self, event: Event) -> None:
        """Call those who hear an event."""

    async def ask_before_subscribe(self, pov_id: str, connection: Connection) -> None:
        """Call the `before_subscribe` hooks; raise what one refuses with, or `Internal`."""


class PluginHost:
    """The server, as one plugin sees it; implements `interfaces.Host`."""

    state: Any

    def __init__(
        self,
        name: str,
        services: Services,
        plugins: PluginCalls,
        announces: Sequence[type[Event]] = (),
    ) -> None:
        self.name = name
        self.plugins = plugins
        self._announces = frozenset(announces)
        self.services = services
        self.clock = services.clock
        self.state = None
        self.fetch = services.fetch
        self.counts: dict[str, int] = {}

    marks: Marks = delegate("services.engine.marks")
    leases: Leases = delegate("services.engine.leases")
    sets: Sets = delegate("services.engine.sets")
    durable: Durable = delegate("services.durable")
    node: str = delegate("services.node")
    bounds: Bounds = delegate("services.bounds")

    def connections(
        self, user_id: str | None = None, *, limit: int | None = None
    ) -> Sequence[ConnectionInfo]:
        now = self.clock.monotonic()
        directory = self.services.directory
        found = directory.all() if user_id is None else directory.of(user_id)
        return [_describe(each, now) for each in found[:limit]]

    def count_connections(self, user_id: str | None = None) -> int:
        directory = self.services.directory
        return len(directory) if user_id is None else len(directory.of(user_id))

    def devices(self, pov_id: str, user_id: str) -> Sequence[str]:
        name, mine = pov_topic(pov_id), self.services.directory.of(user_id)
        return sorted({connection.device for connection in mine if name in connection.topics})

    def topic(self, pov_id: str) -> str:
        return pov_topic(pov_id)

    def inbox(self, user_id: str) -> str:
        return user_topic(user_id)

    def options(self, kind: type[StructT]) -> StructT:
        options = self.services.registry.options[self.name]
        if not isinstance(options, kind):
            raise TypeError(f"the plugin {self.name!r} did not declare options={kind.__name__}")
        return options

    def broadcast(self, pov_id: str, message: Message, *, listeners: bool = False) -> None:
        name = self.channel(pov_id) if listeners else pov_topic(pov_id)
        self.services.hub.broadcast(name, encode(message))

    def channel(self, pov_id: str, plugin: str | None = None) -> str:
        return channel_topic(plugin or self.name, pov_id)

    def send_user(self, user_id: str, message: Message) -> None:
        self.services.directory.send_user(user_id, encode(message))

    async def publish(self, activity: NewActivity, *, user_id: str | None = None) -> Published:
        name = f"plugin:{self.name}"
        publisher = Publisher(name, user_id or name, DEFAULT_TEAM)
        return await self.services.publishing.publish_one(activity, publisher)

    async def notify(
        self, user_id: str, notification: NewNotification, *, sender: Identity | None = None
    ) -> Published:
        name = f"plugin:{self.name}" if sender is None else f"{sender.kind}:{sender.user_id}"
        return await self.services.inboxes.notify(user_id, notification, name)

    async def digest(self, pov_id: str, after: int) -> Digest:
        return await make_digest(self.services.engine.log, pov_topic(pov_id), after)

    async def history(
        self,
        pov_id: str,
        *,
        after: int = 0,
        limit: int = 100,
        reverse: bool = False,
        only: Only | None = None,
        max_bytes: int | None = None,
    ) -> HistoryPage:
        limit = min(limit, MAX_HISTORY)
        page = await self.services.engine.log.read(pov_topic(pov_id), after, limit, reverse=reverse)
        activities: list[tuple[int, Activity]] = []
        read, size = 0, 0
        for entry in page.entries:
            read += 1
            # To look at the head alone costs a fraction of decoding all of it.
            if only and not only.wants(read_head(entry.body)):
                continue
            activity = _activity.decode(entry.body)
            activities.append(
                (entry.offset, msgspec.structs.replace(activity, at=rfc3339(entry.at)))
            )
            size += len(entry.body)
            if max_bytes is not None and size >= max_bytes:
                break
        following = page.next(read, limit, reverse=reverse)
        return HistoryPage(activities, *page.top, following, size)

    def announce(self, event: Event) -> None:
        if type(event) not in self._announces:
            raise TypeError(f"the plugin {self.name!r} does not announce {type(event).__name__}")
        self.plugins.announce(event)

    def count(self, name: str, value: int = 1) -> None:
        if name not in self.counts:
            if not _COUNTER.fullmatch(name):
                raise ValueError(f"a counter's name must look like 'calls_failed', not {name!r}")
            if len(self.counts) >= MAX_COUNTERS:
                name = "other"
        self.counts[name] = self.counts.get(name, 0) + value

    def disconnect(
        self,
        *,
        user_id: str | None = None,
        connection_id: str | None = None,
        code: CloseCode = CloseCode.DISCONNECTED,
    ) -> None:
        self.services.directory.disconnect(user_id=user_id, connection_id=connection_id, code=code)

    async def revoke(
        self,
        *,
        token_id: str | None = None,
        user_id: str | None = None,
        before: float | None = None,
    ) -> None:
        if token_id is None and user_id is None and before is None:
            raise ValueError("revoke needs a token_id, a user_id or an instant")
        if token_id is None and before is None:
            before = self.clock.time()
        await self.services.directory.revoke(Revocation(token_id, user_id, before))

    def verify(self, token: str) -> Identity:
        return self.services.tokens.verify(token, SOCKET)

    def regrant(self, connection_id: str, identity: Identity) -> Sequence[str]:
        connection = self.services.directory.get(connection_id)
        if connection is None:
            raise NotFound("There is no such connection")
        old = connection.identity
        if identity.user_id != old.user_id:
            raise TokenError("The token is another user's")
        if _is_older(identity, old):
            raise TokenError("The token is older than the one in use")
        connection.identity = identity
        clock = self.services.clock
        connection.expires_at = clock.monotonic() + identity.expires_at - clock.time()
        self.services.deadlines.renew(connection)
        grants, topics = identity.grants, connection.topics
        lost = [
            pov_id
            for pov_id in _povs(connection)
            if not grants.may_subscribe(pov_id) or grants.topic(pov_id) not in topics
        ]
        for pov_id in lost:
            self.leave(connection, old.grants.topic(pov_id))
        if not grants.may("collaborate"):
            self._leave_channels(connection)
        return lost

    def leave(self, connection: Connection, name: str) -> bool:
        """End a subscription, with the plugins' channels on its PoV; return whether it was there.

        Nothing else would end those before the connection does.
        """
        if not self.services.hub.leave(connection, name):
            return False
        pov_id = wire_id(name)
        self._leave_channels(connection, pov_id)
        self.plugins.tell("unsubscribed", pov_id, connection=connection)
        return True

    def _leave_channels(self, connection: Connection, pov_id: str | None = None) -> None:
        """End what plugins broadcast to listeners, on one PoV or on all."""
        for topic in list(connection.topics.values()):
            if pov_id in (None, topic.wire_id) and topic.kind not in ("pov", "team", "user"):
                self.services.hub.leave(connection, topic.name)


def _describe(connection: Connection, now: float) -> ConnectionInfo:
    received, sent = connection.transport.traffic
    return ConnectionInfo(
        connection_id=connection.id,
        user_id=connection.identity.user_id,
        device=connection.device,
        povs=_povs(connection),
        remote_ip=connection.remote_ip,
        age_s=round(now - connection.opened_at, 1),
        received_bytes=received,
        sent_bytes=sent,
        unsent_bytes=connection.transport.unsent_bytes,
        token_expires_at=rfc3339(connection.identity.expires_at),
    )


def _povs(connection: Connection) -> list[str]:
    return [topic.wire_id for topic in connection.topics.values() if topic.is_subscription]


def _is_older(identity: Identity, than: Identity) -> bool:
    """Compare two tokens: by their expiry only if one does not say when it was issued."""
    if identity.issued_at is not None and than.issued_at is not None:
        return identity.issued_at < than.issued_at
    return identity.expires_at < than.expires_at

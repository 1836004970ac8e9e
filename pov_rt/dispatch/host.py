"""The server as plugins see it: what implements `interfaces.Host`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Coroutine, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.activities.changes import Change, Changes
from pov_rt.activities.cursors import Cursors
from pov_rt.activities.digest import WITHIN_S, Digest, Digests
from pov_rt.activities.durable import Durable
from pov_rt.activities.inbox import Inboxes
from pov_rt.activities.publishing import Publisher, Publishing, publisher_of
from pov_rt.activities.shown import Reports, Shown
from pov_rt.auth.grants import DEFAULT_TEAM, Kind
from pov_rt.auth.tokens import Identity, Tokens
from pov_rt.config.settings import Settings
from pov_rt.connections.borders import Borders
from pov_rt.connections.budgets import ACTIVITY, DELIVERY, ROW, Budgets, Pages
from pov_rt.connections.connection import Connection
from pov_rt.connections.deadlines import Deadlines
from pov_rt.connections.directory import Closed, Directory, Order
from pov_rt.delivery.filters import Only
from pov_rt.delivery.hub import Hub
from pov_rt.dispatch.conduct import Conduct
from pov_rt.dispatch.permissions import Permissions
from pov_rt.engine.base import Engine, Leases, Marks, Sets
from pov_rt.plugin.interfaces import ConnectionInfo, Fetch, Guarantee, HistoryPage, Revoked
from pov_rt.plugin.storage import Storage
from pov_rt.protocol.bodies import Published
from pov_rt.protocol.encoding import DECODE_ERRORS, encode
from pov_rt.protocol.errors import CloseCode, Forbidden, NotFound, TokenError, Unavailable
from pov_rt.protocol.messages import Activity, Event, Message, NewActivity, NewNotification
from pov_rt.protocol.tenants import team_of
from pov_rt.protocol.topics import TEAM_FEED, channel_topic, pov_topic, user_topic
from pov_rt.registry.build import Registry
from pov_rt.runtime import containment
from pov_rt.runtime.bounds import Bounds, FairSlots, Shares
from pov_rt.runtime.clock import Clock, rfc3339
from pov_rt.runtime.measure.tally import OTHER, Tally

StructT = TypeVar("StructT", bound=msgspec.Struct)

log = logging.getLogger(__name__)

MAX_HISTORY = 1000
MAX_TASKS = 10_000
"""Of one plugin at a time."""
MAX_READ_BYTES = 1024 * 1024
"""Of activities that are read at a time, save for the last one of them: a page ends there."""
MAX_COUNTERS = 32
"""Names of one plugin: each is a series of the metrics."""
_COUNTER = re.compile(r"[a-z][a-z0-9_]{0,63}")
SOCKET = frozenset({Kind.SOCKET})

_activity = msgspec.json.Decoder(Activity)


class _WithRaw(Activity):
    """An activity whose details stay JSON."""

    if not TYPE_CHECKING:  # to whoever only hands them on they are what they always are
        details: msgspec.Raw | UnsetType = UNSET


_with_raw: msgspec.json.Decoder[Activity] = msgspec.json.Decoder(_WithRaw)


class Orders(Protocol):
    """What becomes of what all nodes are told to do."""

    async def closed(self, order: Order) -> Closed:
        """Return how many connections an order closed, and which nodes did not say so."""


class Services(Protocol):
    """The parts of a `Server`, for what runs in it; plugins reach them through their host."""

    engine: Engine
    hub: Hub
    directory: Directory
    deadlines: Deadlines
    publishing: Publishing
    changes: Changes
    inboxes: Inboxes
    cursors: Cursors
    reports: Reports
    durable: Durable
    permissions: Permissions
    tokens: Tokens
    clock: Clock
    fetch: Fetch
    settings: Settings
    registry: Registry
    node: str
    run: str
    bounds: Bounds
    budgets: Budgets
    pages: Pages
    joins: FairSlots
    borders: Borders
    digests: Digests

    @property
    def orders(self) -> Orders:
        """Return what knows what orders to all nodes did."""

    def guarantee(self, topic: str) -> Guarantee:
        """Return what is promised of what is published on a topic."""


def delegate(path: str) -> Any:
    """Return a property that is an attribute of a part, without a function of its own."""
    return property(attrgetter(path))


class PluginCalls(Protocol):
    """What a host has called in other plugins, and what is known of its own: `Hooks`."""

    conduct: Conduct

    def tell(self, hook: str, *arguments: Any, connection: Connection) -> None:
        """Call the hooks of this name with the arguments and the connection."""

    def announce(self, event: Event) -> None:
        """Call those who hear an event."""


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
        self.store = Storage(services.engine.store, name)
        self.tasks = containment.Tasks(log, f"a task of the plugin {name}")
        """What the plugin does beside; it ends before its lifespan does."""
        self.counts = Tally((), OTHER, most=MAX_COUNTERS)

    marks: Marks = delegate("services.engine.marks")
    leases: Leases = delegate("services.engine.leases")
    sets: Sets = delegate("services.engine.sets")
    durable: Durable = delegate("services.durable")
    node: str = delegate("services.node")
    run: str = delegate("services.run")
    bounds: Bounds = delegate("services.bounds")

    @property
    def data_dir(self) -> Path:
        data = self.services.settings.server.data
        if not data:
            raise Unavailable("there is no folder for it: set server.data, or --data")
        folder = Path(data, "plugins", self.name)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"cannot make {folder}: {error.strerror}") from error
        return folder.absolute()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if not inspect.iscoroutine(work):
            raise TypeError(f"spawn takes what an `async` function returns, not {work!r}")
        if len(self.tasks) >= MAX_TASKS:
            work.close()
            raise Unavailable(f"the plugin {self.name!r} does {MAX_TASKS} things at a time")
        return self.tasks.spawn(self._work(work))

    async def _work(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BaseException as error:
            failure = containment.contain(error)
            self.plugins.conduct.failed(self.name, work, "task", failure, counts=False)

    def connections(
        self,
        user_id: str | None = None,
        *,
        limit: int | None = None,
        tenant: str | None = None,
    ) -> Sequence[ConnectionInfo]:
        now = self.clock.monotonic()
        found = self.services.directory.find(user_id, tenant)
        return [describe(each, now) for each in found[:limit]]

    def count_connections(self, user_id: str | None = None, *, tenant: str | None = None) -> int:
        return len(self.services.directory.find(user_id, tenant))

    def devices(self, pov_id: str, user_id: str) -> Sequence[str]:
        name, mine = pov_topic(pov_id), self.services.directory.of(user_id)
        return sorted({each.device for each in mine if each.is_present and name in each.topics})

    def topic(self, pov_id: str) -> str:
        return pov_topic(pov_id)

    def inbox(self, user_id: str) -> str:
        return user_topic(user_id)

    def options(self, kind: type[StructT]) -> StructT:
        options = self.services.registry.options[self.name]
        if not isinstance(options, kind):
            raise TypeError(f"the plugin {self.name!r} did not declare options={kind.__name__}")
        return options

    def broadcast(
        self,
        pov_id: str,
        message: Message,
        *,
        listeners: bool = False,
        here: bool = False,
        states: Mapping[str, Message] | None = None,
    ) -> None:
        name = self.channel(pov_id) if listeners else pov_topic(pov_id)
        hub = self.services.hub
        hub.broadcast(name, encode(message), here=here)
        if states:
            hub.remember(name, {f"{self.name}/{state}": each for state, each in states.items()})

    def channel(self, pov_id: str, plugin: str | None = None) -> str:
        return channel_topic(plugin or self.name, pov_id)

    def send_user(self, user_id: str, message: Message, *, pov_id: str | None = None) -> None:
        self.services.directory.send_user(user_id, encode(message), pov_id)

    async def publish(self, activity: NewActivity, *, user_id: str | None = None) -> Published:
        publisher = self._publisher(activity.pov_id, user_id)
        done: Published = await self.services.publishing.publish_one(activity, publisher)
        return done

    def _publisher(self, pov_id: str, user_id: str | None) -> Publisher:
        """Return this plugin as a publisher on a PoV."""
        name, team_id = f"plugin:{self.name}", team_of(pov_id)
        if team_id is None and self.services.settings.auth.tenants:
            raise ValueError(
                f"with auth.tenants {pov_id!r} names no PoV: take it from a message, a "
                "request or a hook, which know the team"
            )
        return Publisher(name, user_id or name, team_id or DEFAULT_TEAM)

    async def amend(
        self,
        pov_id: str,
        activity_id: str,
        details: dict[str, Any],
        *,
        sender: Identity | None = None,
        change_id: str | UnsetType = UNSET,
        user_id: str | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
        offset: int | UnsetType = UNSET,
    ) -> Published:
        change = Change(pov_id, activity_id, details, change_id, reason, user_id, offset)
        return await self._change(change, sender)

    async def retract(
        self,
        pov_id: str,
        activity_id: str,
        *,
        sender: Identity | None = None,
        change_id: str | UnsetType = UNSET,
        user_id: str | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
        offset: int | UnsetType = UNSET,
    ) -> Published:
        change = Change(pov_id, activity_id, None, change_id, reason, user_id, offset)
        return await self._change(change, sender)

    async def _change(self, change: Change, sender: Identity | None) -> Published:
        services = self.services
        if sender is None:
            publisher, any_ones = self._publisher(change.pov_id, None), True
        else:
            is_service = sender.kind is Kind.SERVICE
            publisher = publisher_of(sender, is_service=is_service)
            any_ones = sender.grants.may("operate")
            if not is_service:  # a user's own word on who did it is the token
                change = change._replace(user_id=sender.user_id)
                # As who publishes, whether it is done in the end or not.
                topics = (pov_topic(change.pov_id), sender.grants.topic(TEAM_FEED))
                self.charge(sum(map(services.hub.audience, topics)) * DELIVERY)
        return await services.changes.make(change, publisher, any_ones=any_ones)

    async def notify(
        self, user_id: str, notification: NewNotification, *, sender: Identity | None = None
    ) -> Published:
        name = f"plugin:{self.name}" if sender is None else f"{sender.kind}:{sender.user_id}"
        return await self.services.inboxes.notify(user_id, notification, name)

    async def digest(self, pov_id: str, after: int, *, within_s: float = WITHIN_S) -> Digest | None:
        return await self.services.digests.get(pov_topic(pov_id), after, within_s)

    def shown(self, user_id: str, pov_id: str | None = None) -> Mapping[str, Shown]:
        topic = user_topic(user_id) if pov_id is None else pov_topic(pov_id)
        return self.services.reports.of(user_id, topic)

    async def history(
        self,
        pov_id: str,
        *,
        after: int = 0,
        limit: int = 100,
        reverse: bool = False,
        only: Only | None = None,
        max_bytes: int | None = None,
        raw: bool = False,
    ) -> HistoryPage:
        limit = min(limit, MAX_HISTORY)
        topic, stored = pov_topic(pov_id), self.services.hub.stored
        async with self.services.pages.at_work:
            self.services.budgets.check()
            page = await self.services.engine.log.read(
                topic,
                after,
                limit,
                reverse=reverse,
                max_bytes=MAX_READ_BYTES,
            )
        activities: list[tuple[int, Activity]] = []
        read, size = 0, 0
        for entry in page.entries:
            read += 1
            # To look at the head alone costs a fraction of decoding all of it.
            head = stored.head(topic, entry)
            if head is None or (only and not only.wants(head)):
                continue
            try:
                activity = (_with_raw if raw else _activity).decode(entry.body)
            except DECODE_ERRORS as error:
                stored.refuse(topic, entry, error)
                continue
            activities.append(
                (entry.offset, msgspec.structs.replace(activity, at=rfc3339(entry.at)))
            )
            size += len(entry.body)
            if max_bytes is not None and size >= max_bytes:
                break
        found = len(activities)
        self.services.budgets.charge(found * ACTIVITY + (len(page.entries) - found) * ROW)
        following = page.next(read, reverse=reverse)
        return HistoryPage(activities, *page.top, following, size)

    def announce(self, event: Event) -> None:
        if type(event) not in self._announces:
            raise TypeError(f"the plugin {self.name!r} does not announce {type(event).__name__}")
        self.plugins.announce(event)

    def count(self, name: str, value: int = 1) -> None:
        if name not in self.counts and not _COUNTER.fullmatch(name):
            raise ValueError(f"a counter's name must look like 'calls_failed', not {name!r}")
        self.counts.add(name, value)

    def charge(self, cost: float) -> None:
        self.services.budgets.charge(cost)

    def shares(self, name: str, limit: float, each: float) -> Shares:
        made = Shares(f"{self.name}_{name}", f"plugins.{self.name}", limit, each)
        self.services.bounds.add(made.bound)
        return made

    def disconnect(
        self,
        *,
        user_id: str | None = None,
        connection_id: str | None = None,
        code: CloseCode = CloseCode.DISCONNECTED,
    ) -> Order:
        return self.services.directory.disconnect(
            user_id=user_id, connection_id=connection_id, code=code
        )

    async def closed(self, order: Order) -> Closed:
        return await self.services.orders.closed(order)

    async def revoke(
        self,
        *,
        token_id: str | None = None,
        user_id: str | None = None,
        before: float | None = None,
        tenant: str | None = None,
    ) -> Revoked:
        if token_id is None and user_id is None and before is None:
            raise ValueError("revoke needs a token_id, a user_id or an instant")
        done = await self.services.directory.revoke(
            token_id=token_id, user_id=user_id, before=before, tenant=tenant
        )
        return Revoked(done.revocation.before, *await self.closed(done.order))

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
        self.services.deadlines.renew(connection)
        permissions = self.services.permissions
        permissions.replaced(connection, old)
        grants, topics = identity.grants, connection.topics
        lost = [
            pov_id
            for pov_id in _povs(connection)
            if not grants.may_subscribe(pov_id) or grants.topic(pov_id) not in topics
        ]
        for pov_id in lost:
            name = old.grants.topic(pov_id)
            if permissions.leave(connection, name):
                why = Forbidden("The new token does not cover this PoV")
                permissions.tell_lost(connection, name, why)
                self.plugins.tell("lost", pov_id, connection=connection)
        if not grants.may("collaborate"):
            permissions.leave_channels(connection)
        return lost


def describe(connection: Connection, now: float) -> ConnectionInfo:
    """Return what operators see of a connection; `now` is `Clock.monotonic`."""
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
    return [topic.pov_id for topic in connection.topics.values() if topic.is_subscription]


def _is_older(identity: Identity, than: Identity) -> bool:
    """Compare two tokens: by their expiry only if one does not say when it was issued."""
    if identity.issued_at is not None and than.issued_at is not None:
        return identity.issued_at < than.issued_at
    return identity.expires_at < than.expires_at

"""What plugins are given: the server as `Host`, a connection as `Context`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from pov_rt.auth.grants import Grants, Kind
from pov_rt.auth.tokens import Identity, Tokens
from pov_rt.clock import Clock, rfc3339
from pov_rt.connection import Connection
from pov_rt.context import Fetch, Guarantee, HistoryPage, Published, Since, Subscribed
from pov_rt.digest import Digest, make_digest
from pov_rt.encoding import encode
from pov_rt.engine.base import Engine, Leases, Marks, Position, Sets
from pov_rt.errors import (
    CloseCode,
    Forbidden,
    InvalidActivity,
    InvalidMessage,
    LimitExceeded,
    NotFound,
    TokenError,
    TokenExpired,
)
from pov_rt.hub import Hub
from pov_rt.inbox import Inboxes, acked
from pov_rt.limits import SeenIds
from pov_rt.messages import Activity, Message, NewActivity, NewNotification
from pov_rt.publishing import Publisher, Publishing, may_publish, publisher_of
from pov_rt.register import Register
from pov_rt.settings import LimitSettings
from pov_rt.topics import TEAM_FEED, pov_topic, team_topic, user_topic

O = TypeVar("O", bound=msgspec.Struct)  # noqa: E741  (options)

MAX_HISTORY = 1000
SOCKET = frozenset({Kind.SOCKET})

_activity = msgspec.json.Decoder(Activity)


@dataclass(frozen=True, eq=False)
class Services:
    """The parts of a server that plugins reach through their host."""

    engine: Engine
    hub: Hub
    register: Register
    publishing: Publishing
    inboxes: Inboxes
    tokens: Tokens
    clock: Clock
    limits: LimitSettings
    fetch: Fetch
    options: Mapping[str, msgspec.Struct | None]
    guarantee: Guarantee
    mark_age_s: float
    seen: SeenIds
    subscribed: Callable[[str, Connection], None]
    unsubscribed: Callable[[str, Connection], None]
    renewed: Callable[[Connection], None]


class PluginHost:
    """The server, as one plugin sees it; implements `context.Host`."""

    state: Any

    def __init__(self, name: str, services: Services) -> None:
        self.name = name
        self.services = services
        self.clock = services.clock
        self.state = None
        self.fetch = services.fetch

    @property
    def marks(self) -> Marks:
        """Watermarks in the engine."""
        return self.services.engine.marks

    @property
    def leases(self) -> Leases:
        """Members that vanish with their node."""
        return self.services.engine.leases

    @property
    def sets(self) -> Sets:
        """Sets with expiry."""
        return self.services.engine.sets

    def topic(self, pov_id: str) -> str:
        """Return the engine's name for a PoV."""
        return pov_topic(pov_id)

    def inbox(self, user_id: str) -> str:
        """Return the engine's name for a user's inbox."""
        return user_topic(user_id)

    def options(self, kind: type[O]) -> O:
        """Return `[plugins.NAME]` as the class that the plugin declared with `options=`."""
        options = self.services.options[self.name]
        if not isinstance(options, kind):
            raise TypeError(f"the plugin {self.name!r} did not declare options={kind.__name__}")
        return options

    def broadcast(self, pov_id: str, message: Message) -> None:
        """Send to the PoV's subscribers on all nodes."""
        self.services.hub.broadcast(pov_topic(pov_id), encode(message))

    def send_user(self, user_id: str, message: Message) -> None:
        """Send to every connection of a user on all nodes."""
        self.services.register.send_user(user_id, encode(message))

    async def publish(self, activity: NewActivity, *, user_id: str | None = None) -> Published:
        """Publish in the plugin's own name."""
        name = f"plugin:{self.name}"
        publisher = Publisher(name, user_id or name, "main")
        return await self.services.publishing.publish_one(activity, publisher)

    async def notify(
        self, user_id: str, notification: NewNotification, *, sender: Identity | None = None
    ) -> Published:
        """Put a notification into a user's inbox."""
        name = f"plugin:{self.name}" if sender is None else f"{sender.kind}:{sender.user_id}"
        return await self.services.inboxes.notify(user_id, notification, name)

    async def digest(self, pov_id: str, after: int) -> Digest:
        """Count what happened on a PoV after an offset."""
        return await make_digest(self.services.engine.log, pov_topic(pov_id), after)

    async def history(
        self, pov_id: str, *, after: int = 0, limit: int = 100, reverse: bool = False
    ) -> HistoryPage:
        """Read up to `limit` activities."""
        page = await self.services.engine.log.read(
            pov_topic(pov_id), after, min(limit, MAX_HISTORY), reverse=reverse
        )
        activities = [
            (
                entry.offset,
                msgspec.structs.replace(_activity.decode(entry.body), at=rfc3339(entry.at)),
            )
            for entry in page.entries
        ]
        return HistoryPage(activities, page.top.epoch, page.top.offset, page.top.oldest)

    def disconnect(
        self,
        *,
        user_id: str | None = None,
        connection_id: str | None = None,
        code: CloseCode = CloseCode.DISCONNECTED,
    ) -> None:
        """Close the matching connections on all nodes."""
        self.services.register.disconnect(user_id=user_id, connection_id=connection_id, code=code)

    def verify(self, token: str) -> Identity:
        """Verify a socket token."""
        return self.services.tokens.verify(token, SOCKET)

    def regrant(self, connection_id: str, identity: Identity) -> Sequence[str]:
        """Give a connection of this node a newer token of the same user."""
        connection = self.services.register.get(connection_id)
        if connection is None:
            raise NotFound("There is no such connection")
        old = connection.identity
        if identity.user_id != old.user_id:
            raise TokenError("The token is another user's")
        if identity.expires_at < old.expires_at:
            raise TokenError("The token is older than the one in use")
        connection.identity = identity
        clock = self.services.clock
        connection.expires_at = clock.monotonic() + identity.expires_at - clock.time()
        self.services.renewed(connection)
        lost = [
            pov_id
            for pov_id in (
                topic.wire_id for topic in connection.topics.values() if topic.kind != "user"
            )
            if not sees(identity.grants, pov_id)
            or topic_name(identity.grants, pov_id) not in connection.topics
        ]
        for pov_id in lost:
            name = topic_name(old.grants, pov_id)
            self.services.hub.leave(connection, name)
            self.services.unsubscribed(pov_id, connection)
        return lost


def sees(grants: Grants, pov_id: str) -> bool:
    """Tell whether a PoV, or with `*` the team feed, may be seen."""
    return grants.sees_all if pov_id == TEAM_FEED else grants.sees(pov_id)


def topic_name(grants: Grants, pov_id: str) -> str:
    """Return the topic that a client means by a PoV's id or `*`."""
    return team_topic(grants.team_id) if pov_id == TEAM_FEED else pov_topic(pov_id)


class ConnectionContext:
    """One connection during one message, as a handler sees it; implements `context.Context`."""

    __slots__ = ("_connection", "host", "starting")

    def __init__(self, host: PluginHost, connection: Connection) -> None:
        self.host = host
        self.starting: list[str] | None = None
        self._connection = connection

    @property
    def state(self) -> Any:
        """What the plugin's lifespan yielded."""
        return self.host.state

    @property
    def user(self) -> Identity:
        """Who is connected."""
        return self._connection.identity

    @property
    def grants(self) -> Grants:
        """What the token allows now."""
        return self._connection.identity.grants

    @property
    def device(self) -> str:
        """The user's device."""
        return self._connection.device

    @property
    def connection_id(self) -> str:
        """The connection's id."""
        return self._connection.id

    @property
    def subprotocol(self) -> bool:
        """Whether the client speaks `pov-rt.v1`."""
        return self._connection.v1

    @property
    def remote_ip(self) -> str:
        """The client's address."""
        return self._connection.remote_ip

    @property
    def user_agent(self) -> str:
        """The client's User-Agent header."""
        return self._connection.user_agent

    def subscribed(self, pov_id: str) -> bool:
        """Tell whether this connection is subscribed to the PoV."""
        return topic_name(self.grants, pov_id) in self._connection.topics

    async def subscribe(self, pov_id: str, since: Since | None = None) -> Subscribed:
        """Subscribe this connection."""
        services, connection = self.host.services, self._connection
        if pov_id != TEAM_FEED:
            try:
                services.seen.check(pov_id, "povId")
            except InvalidActivity as error:
                raise InvalidMessage(field="povId", detail=error.message) from None
        if not self.grants.may("subscribe") or not sees(self.grants, pov_id):
            raise Forbidden("The token does not cover this PoV", field="povId")
        name = topic_name(self.grants, pov_id)
        is_new = name not in connection.topics
        # The inbox is no subscription of the client's.
        subscriptions = len(connection.topics) - (
            self.host.inbox(self.user.user_id) in connection.topics
        )
        if is_new and subscriptions >= services.limits.subscriptions:
            raise LimitExceeded(
                f"A connection has at most {services.limits.subscriptions} subscriptions",
                field="povId",
            )
        joined = await services.hub.join(connection, name, since)
        if self.starting is None:
            self.starting = []
        self.starting.append(name)
        if is_new and not connection.closed:
            services.subscribed(pov_id, connection)
        return Subscribed(
            pov_id,
            joined.top.epoch,
            joined.top.offset,
            joined.top.oldest,
            services.guarantee,
            joined.recovered,
            joined.missed,
        )

    async def cursor(self, pov_id: str) -> Position | None:
        """Return up to where this device acknowledged the PoV; None if it never did."""
        await self._remember_device()
        return await self.host.marks.get(self.topic(pov_id), self.user.user_id, acked(self.device))

    async def acknowledge(self, position: Position, pov_id: str | None = None) -> Position:
        """Move this device's cursor on the PoV, or on the user's inbox; return where it is."""
        await self._remember_device()
        user_id = self.user.user_id
        topic = self.host.inbox(user_id) if pov_id is None else self.topic(pov_id)
        return await self.host.marks.advance(topic, user_id, acked(self.device), position)

    def topic(self, pov_id: str) -> str:
        """Return the engine's name for a PoV, or for the feed of the user's team."""
        return topic_name(self.grants, pov_id)

    def delivered(self, pov_id: str | None = None) -> Position | None:
        """Return up to where this connection was sent a PoV, or the user's inbox."""
        name = self.host.inbox(self.user.user_id) if pov_id is None else self.topic(pov_id)
        return self.host.services.hub.delivered_to(self._connection, name)

    def follow_inbox(self) -> None:
        """Deliver the user's notifications from now on."""
        self.host.services.inboxes.follow(self._connection)

    async def _remember_device(self) -> None:
        """Enter the device among the user's, which are forgotten when unused for long."""
        connection, services = self._connection, self.host.services
        if connection.remembered:
            return
        name = f"devices/{self.user.user_id}"
        known = await services.engine.sets.members(name)
        if self.device not in known and len(known) >= services.limits.devices_per_user:
            raise LimitExceeded(f"This user already has {len(known)} devices", field="device")
        expires_at = services.clock.time() + services.mark_age_s
        await services.engine.sets.add(name, self.device, expires_at=expires_at)
        connection.remembered = True

    def unsubscribe(self, pov_id: str) -> bool:
        """Unsubscribe; return whether it was subscribed."""
        services, connection = self.host.services, self._connection
        left = services.hub.leave(connection, topic_name(self.grants, pov_id))
        if left:
            services.unsubscribed(pov_id, connection)
        return left

    def send(self, message: Message) -> None:
        """Send to this connection, before the reply."""
        if not self._connection.closed:
            self.host.services.hub.settle(self._connection)
            self._connection.send(encode(message))

    def broadcast(self, pov_id: str, message: Message) -> None:
        """Send to the PoV's subscribers on all nodes."""
        self.host.broadcast(pov_id, message)

    async def publish(self, activity: NewActivity) -> Published:
        """Publish in the connected user's name."""
        services, connection = self.host.services, self._connection
        if services.clock.monotonic() >= connection.expires_at:
            raise TokenExpired
        if not self.grants.may("publish"):
            raise Forbidden("The token does not grant 'publish'")
        may_publish(self.user, activity)
        publisher = publisher_of(self.user, is_service=False, origin=connection.id)
        own = msgspec.structs.replace(activity, user_id=self.user.user_id)
        return await services.publishing.publish_one(own, publisher)

"""A connection as handlers see it: what implements `interfaces.Context`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.activities.cursors import Unread
from pov_rt.activities.digest import WITHIN_S, Digest
from pov_rt.activities.publishing import Published, publisher_of
from pov_rt.auth.grants import Grants
from pov_rt.auth.tokens import Identity
from pov_rt.connections.connection import Connection
from pov_rt.delivery.filters import Only, Since
from pov_rt.dispatch.host import PluginHost, delegate
from pov_rt.engine.base import Position, Top
from pov_rt.plugin.interfaces import Allowed, Subscribed
from pov_rt.protocol.encoding import RequestIdValue, encode, encode_reply
from pov_rt.protocol.errors import (
    ClientError,
    EpochChanged,
    Forbidden,
    InvalidMessage,
    LimitExceeded,
    RateLimited,
    TokenExpired,
    Unavailable,
)
from pov_rt.protocol.messages import Message, NewActivity
from pov_rt.runtime.containment import contain

AT_ONCE = 8
"""Questions of one message at a time: even to refuse them takes time, for which others wait."""


class Asked:
    """What was asked for one message about its sender: what was allowed, by grant and PoV.

    It counts no longer than a handler may take: a plugin may keep a context for longer.
    """

    def __init__(self, identity: Identity, until: float) -> None:
        self.identity = identity
        self.until = until
        self.allowed: dict[str | None, dict[str, Allowed | None]] = {}
        self.turns = asyncio.Semaphore(AT_ONCE)
        self.refusal: RateLimited | None = None
        """There was no room for one of its questions; nor is there for the others."""


class ConnectionContext:
    """One connection during one message, as a handler sees it; implements `interfaces.Context`."""

    __slots__ = (
        "_connection",
        "_digests_until",
        "answered",
        "asked",
        "host",
        "joining",
        "request_id",
        "starting",
    )

    def __init__(self, host: PluginHost, connection: Connection) -> None:
        self.host = host
        self.answered = False
        self.request_id: RequestIdValue = UNSET
        self.starting: list[str] | None = None
        self.joining: set[str] | None = None
        self.asked: Asked | None = None
        self._connection = connection
        self._digests_until: float | None = None

    state: Any = delegate("host.state")
    user: Identity = delegate("_connection.identity")
    grants: Grants = delegate("_connection.identity.grants")
    device: str = delegate("_connection.device")
    connection_id: str = delegate("_connection.id")
    subprotocol: bool = delegate("_connection.v1")
    remote_ip: str = delegate("_connection.remote_ip")
    user_agent: str = delegate("_connection.user_agent")

    def subscribed(self, pov_id: str) -> bool:
        return self.grants.topic(pov_id) in self._connection.topics

    def require_subscribed(self, pov_id: str, field: str = "povId") -> None:
        if not self.subscribed(pov_id):
            raise Forbidden("Subscribe first", field=field)

    async def may(self, grant: str, pov_id: str) -> bool:
        try:
            await self.require({pov_id: "povId"}, grant)
        except ClientError:
            return False
        return True

    async def require(
        self, povs: Mapping[str, str], grant: str | None, *, feed: bool = False
    ) -> Mapping[str, Allowed | None]:
        """As `Permissions.require_all` for the token in use; nothing is asked twice for a message.

        `povs` are the fields of PoVs.
        """
        services, connection = self.host.services, self._connection
        while True:
            identity, now = connection.identity, services.clock.monotonic()
            asked = self.asked
            if asked is None or asked.identity is not identity or now >= asked.until:
                until = now + services.settings.limits.handler_deadline_s
                asked = self.asked = Asked(identity, until)
            known = asked.allowed.setdefault(grant, {})
            new = {pov_id: field for pov_id, field in povs.items() if pov_id not in known}
            async with asked.turns:
                if asked.refusal is not None:
                    raise asked.refusal.with_traceback(None)
                try:
                    known |= await services.permissions.require_all(identity, new, grant, feed=feed)
                except RateLimited as error:
                    asked.refusal = error
                    raise
            if connection.identity is identity:  # else another token came meanwhile
                return known

    async def subscribe(
        self, pov_id: str, since: Since | None = None, only: Only | None = None
    ) -> Subscribed:
        services, connection = self.host.services, self._connection
        self.grants.require_pov_or_feed(pov_id)
        self.grants.require("subscribe")
        # A handler may subscribe to several at a time: what is on its way counts, too.
        if self.joining is None:
            self.joining = set()
        allowed = None
        if services.permissions.asks:
            self._find_room(self.topic(pov_id), self.joining)  # or somebody is asked for nothing
            allowed = (await self.require({pov_id: "povId"}, "subscribe", feed=True))[pov_id]
        identity = connection.identity
        name = identity.grants.topic(pov_id)
        is_new = self._find_room(name, self.joining)
        if is_new:
            self.joining.add(name)
        try:
            async with services.joins:
                joined = await services.hub.join(connection, name, since, only or None)
        finally:
            if is_new:
                self.joining.discard(name)
        if connection.identity is not identity and (
            self.grants.topic(pov_id) != name or not self.grants.may_subscribe(pov_id)
        ):
            # Replaced meanwhile, by a token that did not see this subscription to end it.
            services.hub.leave(connection, name)
            raise Forbidden("The token was replaced meanwhile", field="povId")
        if allowed is not None:
            if connection.identity is not identity:
                allowed = Allowed(0)  # it was about the other token
            services.permissions.stand(connection, pov_id, "see", allowed)
        if self.starting is None:
            self.starting = []
        self.starting.append(name)
        if is_new and not connection.closed:
            self.host.plugins.tell("subscribed", pov_id, connection=connection)
        guarantee = services.guarantee
        return Subscribed(pov_id, *joined.top, guarantee, joined.recovered, joined.missed)

    def _find_room(self, name: str, joining: Set[str]) -> bool:
        """Tell whether a subscription is a new one. Raises `LimitExceeded` for one too many."""
        topics = self._connection.topics
        if name in topics or name in joining:
            return False
        most = self.host.services.settings.limits.subscriptions
        if sum(topic.is_subscription for topic in topics.values()) + len(joining) >= most:
            raise LimitExceeded(f"A connection has at most {most} subscriptions", field="povId")
        return True

    async def cursor(self, pov_id: str) -> Position | None:
        cursors, topic = self.host.services.cursors, self.topic(pov_id)
        with suppress(Unavailable):  # a full disk can be read; the next use enters the device
            await cursors.remember_device(self._connection)
        return await cursors.cursor(self._connection, topic)

    async def acknowledge(self, position: Position, pov_id: str | None = None) -> Position:
        topic = self._marked(pov_id)
        return await self.host.services.cursors.acknowledge(self._connection, topic, position)

    async def mark_read(
        self, position: Position, pov_id: str | None = None
    ) -> tuple[Position, bool]:
        topic, user_id = self._marked(pov_id), self.user.user_id
        return await self.host.services.cursors.read(user_id, topic, position)

    async def unread(self, subscribed: Subscribed) -> Unread:
        topic, user_id = self.topic(subscribed.pov_id), self.user.user_id
        top = Top(subscribed.epoch, subscribed.offset, subscribed.oldest_offset)
        return await self.host.services.cursors.unread(user_id, topic, top)

    def _marked(self, pov_id: str | None) -> str:
        return self.host.inbox(self.user.user_id) if pov_id is None else self.topic(pov_id)

    def topic(self, pov_id: str) -> str:
        return self.grants.topic(pov_id)

    def delivered(
        self, offset: int, pov_id: str | None = None, epoch: str | UnsetType = UNSET
    ) -> Position:
        if pov_id is not None:
            self.require_subscribed(pov_id)
        name = self._marked(pov_id)
        sent = self.host.services.hub.delivered_to(self._connection, name)
        if sent is None:
            raise Forbidden("This connection does not get notifications", field="inbox")
        if epoch is not UNSET and epoch != sent.epoch:
            raise EpochChanged(field="epoch")
        if offset > sent.offset:
            raise InvalidMessage(
                field="offset", detail=f"This connection was sent no more than {sent.offset}"
            )
        return Position(sent.epoch, offset)

    def follow_inbox(self) -> None:
        self.host.services.inboxes.follow(self._connection)

    def unsubscribe(self, pov_id: str) -> bool:
        return self.host.services.permissions.leave(self._connection, self.topic(pov_id))

    async def listen(self, pov_id: str) -> None:
        services, connection = self.host.services, self._connection
        hub, name = services.hub, self.host.channel(pov_id)
        self._check_listen(pov_id)
        allowed = None
        if services.permissions.asks:
            allowed = (await self.require({pov_id: "povId"}, "collaborate", feed=True))[pov_id]
        if name not in connection.topics:
            await hub.join(connection, name)
        try:
            self._check_listen(pov_id)  # the subscription may have ended meanwhile
        except Forbidden:
            hub.leave(connection, name)
            raise
        if allowed is not None:
            services.permissions.stand(connection, pov_id, "collaborate", allowed)
        hub.start(connection, name)

    def _check_listen(self, pov_id: str) -> None:
        self.grants.require("collaborate")
        self.require_subscribed(pov_id)

    async def digest(self, pov_id: str, after: int) -> Digest | None:
        now = asyncio.get_running_loop().time()
        if self._digests_until is None:
            self._digests_until = now + WITHIN_S
        return await self.host.digest(pov_id, after, within_s=self._digests_until - now)

    def charge(self, cost: float) -> None:
        self._connection.budget.charge(cost, self.host.clock.monotonic())

    def send(self, message: Message) -> None:
        if not self._connection.closed:
            self._connection.send(encode(message))

    def broadcast(self, pov_id: str, message: Message) -> None:
        self.host.broadcast(pov_id, message)

    async def publish(
        self,
        activity: NewActivity,
        *,
        instead: Callable[[Published], Message] | None = None,
    ) -> Published:
        services, connection = self.host.services, self._connection
        if services.clock.monotonic() >= connection.expires_at:
            raise TokenExpired
        connection.identity.grants.require("publish")
        connection.identity.grants.require_pov(activity.pov_id)
        if services.permissions.asks:
            await self.require({activity.pov_id: "povId"}, "publish")
        user = connection.identity
        own = msgspec.structs.replace(activity, user_id=user.user_id)
        if instead is None or self.answered:  # a message has one answer
            publisher = publisher_of(user, is_service=False, origin=connection.id)
            return await services.publishing.publish_one(own, publisher)
        origin = f"{connection.id}/{services.clock.new_id()}"
        if own.id is UNSET:
            own = msgspec.structs.replace(own, id=services.clock.new_id())
        failures: list[Exception] = []
        services.hub.expect(origin, connection, self._answer_with(own, instead, failures))
        try:
            publisher = publisher_of(user, is_service=False, origin=origin)
            published = await services.publishing.publish_one(own, publisher)
        finally:
            self.answered = services.hub.withdraw(origin)
        if failures:
            raise failures[0]
        return published

    def _answer_with(
        self,
        own: NewActivity,
        instead: Callable[[Published], Message],
        failures: list[Exception],
    ) -> Callable[[int], bytes]:
        """Return what encodes the answer once the activity's offset is known.

        It runs where the activity is delivered; what it raises is put aside for the publisher.
        """
        topic = self.topic(own.pov_id)
        sent = self.host.services.hub.delivered_to(self._connection, topic)
        epoch = sent.epoch if sent is not None else ""

        def answer(offset: int) -> bytes:
            published = Published(str(own.id), own.pov_id, epoch, offset)
            try:
                return self._encode_answer(instead(published))
            except BaseException as error:
                failures.append(contain(error))
                raise

        return answer

    def _encode_answer(self, message: object) -> bytes:
        if not isinstance(message, Message):
            raise TypeError(f"`instead` returned {type(message).__name__}; it must be a Message")
        return encode_reply(message, self.request_id)

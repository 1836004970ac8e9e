"""A connection as handlers see it: what implements `interfaces.Context`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, TypeVar

from msgspec import UNSET, UnsetType

from pov_rt.activities.cursors import READ, SEEN, Marked, Read
from pov_rt.activities.digest import WITHIN_S, Digest
from pov_rt.activities.durable import Kept
from pov_rt.activities.shown import Reason, Shown
from pov_rt.auth.grants import Grants
from pov_rt.auth.tokens import Identity
from pov_rt.connections.connection import Connection
from pov_rt.delivery.filters import Only, Since
from pov_rt.delivery.replay import Joining
from pov_rt.dispatch.handlers.publishing import PublishingContext
from pov_rt.dispatch.host import PluginHost, delegate
from pov_rt.engine.base import Position, Top
from pov_rt.plugin.interfaces import Allowed, Subscribed
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import (
    ClientError,
    EpochChanged,
    Forbidden,
    HandlerTimeout,
    InvalidMessage,
    NotFound,
    RateLimited,
    Unavailable,
)
from pov_rt.protocol.messages import Message
from pov_rt.protocol.topics import TEAM_FEED
from pov_rt.runtime import turns
from pov_rt.runtime.containment import call

SEVERAL_AT_ONCE = 32
"""Of the PoVs of one message: to begin with 200 in a turn of the loop keeps all others waiting."""
AT_ONCE = 8
"""Questions of one message at a time: even to refuse them takes time, for which others wait."""
ENDED = "The subscription was ended meanwhile"
MARKED_PART = 0.1
"""Of the time that a handler has: after so much what a user has read is not waited for any more."""
SEVERAL_PART = 0.7
"""Of the time that a handler has: of several things those are given up that take longer."""

ValueT = TypeVar("ValueT")


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


class _Wish:
    """What a message asked for, until it is answered; `kept` is what was durable before."""

    __slots__ = ("joining", "kept", "pov_id")

    def __init__(self, pov_id: str, joining: Joining) -> None:
        self.pov_id = pov_id
        self.joining = joining
        self.kept: Kept | None = None


class ConnectionContext(PublishingContext):
    """One connection during one message, as a handler sees it; implements `interfaces.Context`."""

    # What few messages need is the class's until then: most contexts live for one call.
    is_over = False
    joined: list[_Wish] | None = None
    required: set[str] | None = None
    asked: Asked | None = None
    _digests_until: float | None = None
    told: list[tuple[str, bytes]] | None = None

    def __init__(self, host: PluginHost, connection: Connection) -> None:
        self.host = host
        self._connection = connection

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
        if self.required is None:
            self.required = set()
        self.required.add(pov_id)

    async def may(self, grant: str, pov_id: str) -> bool:
        try:
            await self.require({pov_id: "povId"}, grant)
        except ClientError:
            return False
        return True

    async def check_pov(self, pov_id: str, grant: str, field: str = "povId") -> None:
        await self.require({pov_id: field}, grant, feed=True)

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
        self,
        pov_id: str,
        since: Since | None = None,
        only: Only | None = None,
        *,
        durable: bool = False,
    ) -> Subscribed:
        services, connection = self.host.services, self._connection
        if not connection.may_subscribe:
            raise NotFound("There is nothing to subscribe: open a WebSocket, or a session")
        self.grants.require_pov_or_feed(pov_id)
        self.grants.require("subscribe")
        hub, most = services.hub, services.settings.limits.subscriptions
        allowed = None
        if services.permissions.asks:
            # Or somebody is asked for nothing.
            hub.find_room(connection, self.topic(pov_id), most)
            allowed = (await self.require({pov_id: "povId"}, "subscribe", feed=True))[pov_id]
        identity = connection.identity
        name = identity.grants.topic(pov_id)
        async with services.joins:
            joining = await hub.join(connection, name, since, only or None, most=most)
        is_allowed = connection.identity is identity or (
            self.grants.topic(pov_id) == name and self.grants.may_subscribe(pov_id)
        )
        if not is_allowed:
            # Replaced meanwhile, by a token that perhaps did not see this subscription to end it.
            services.permissions.leave(connection, name)
        elif allowed is not None:
            if connection.identity is not identity:
                allowed = Allowed(0)  # it was about the other token
            services.permissions.stand(connection, pov_id, "see", allowed)
        wish = _Wish(pov_id, joining)
        if self.joined is None:
            self.joined = []
        self.joined.append(wish)
        if durable and hub.stands(joining):
            wish.kept = await services.durable.add(identity.user_id, pov_id, only or None)
        if self.is_over or not hub.stands(joining):
            self._give_up([wish])
            raise Forbidden(ENDED, field="povId")
        top, start, recovered, missed = joining.start
        # With what was missed still to come, the top is named; else the place it is served from.
        offset = top.offset if recovered else start
        return Subscribed(
            pov_id,
            top.epoch,
            offset,
            top.oldest,
            services.guarantee(name),
            recovered,
            missed,
            newest=top.offset,
            after=start if recovered else UNSET,
        )

    async def several(
        self,
        attempts: Mapping[str, Callable[[Self], Coroutine[Any, Any, ValueT]]],
        then: Callable[[dict[str, ValueT]], Coroutine[Any, Any, None]] | None = None,
    ) -> Mapping[str, ValueT | ClientError]:
        within_s = SEVERAL_PART * self.host.services.settings.limits.handler_deadline_s
        until = asyncio.get_running_loop().time() + within_s
        room = asyncio.Semaphore(SEVERAL_AT_ONCE)

        async def attempt(pov_id: str) -> ValueT | ClientError:
            error: ClientError
            try:
                async with asyncio.timeout_at(until), room:
                    return await attempts[pov_id](self)
            except TimeoutError:
                error = HandlerTimeout()
            except ClientError as refused:
                error = refused
            self._give_up([each for each in self.joined or () if each.pov_id == pov_id])
            return error

        tasks = {}
        async with asyncio.TaskGroup() as group:
            # Not all in one turn, where all is known at once and nothing waits.
            async for pov_id in turns.spread(attempts, SEVERAL_AT_ONCE):
                tasks[pov_id] = group.create_task(attempt(pov_id))
        results = {pov_id: task.result() for pov_id, task in tasks.items()}
        if then is not None:
            await then(
                {pov: each for pov, each in results.items() if not isinstance(each, ClientError)}
            )
        # What was ended while others were waited for.
        hub = self.host.services.hub
        lost = [each for each in self.joined or () if not hub.stands(each.joining)]
        self._give_up(lost)
        results |= {each.pov_id: Forbidden(ENDED, field="povId") for each in lost}
        if (withheld := self.host.services.borders.withheld) is not None:
            for pov_id, result in results.items():
                if isinstance(result, ClientError):
                    withheld(self._connection, pov_id, result)
        return results

    def check(self) -> None:
        """Raise `Forbidden` unless the subscriptions stand that the answer speaks of.

        To be called in the step in which it is sent: refreshes and other messages that wait for
        nobody act between any two steps of a handler. What was done (`has_acted`) is answered so.
        """
        for each in self.joined or ():
            if not self.host.services.hub.stands(each.joining):
                raise Forbidden(ENDED, field="povId")
        for pov_id in () if self.has_acted else self.required or ():
            if not self.subscribed(pov_id):
                raise Forbidden(ENDED, field="povId")

    def end(self, *, is_good: bool) -> None:
        """Do what was asked for, right after the answer that says so, or leave all as it was."""
        self.is_over = True
        joined = self.joined or []
        if not is_good:
            self._give_up(joined)
            return
        self.joined = None
        hub = self.host.services.hub
        for pov_id in [each.pov_id for each in joined if hub.confirm(each.joining)]:
            self.host.plugins.tell("subscribed", pov_id, connection=self._connection)

    def _give_up(self, wishes: Sequence[_Wish]) -> None:
        services, connection = self.host.services, self._connection
        self.joined = [each for each in self.joined or () if each not in wishes]
        for each in wishes:
            services.hub.undo(each.joining)
            if each.joining.topic.name not in connection.topics:
                services.permissions.forget(connection, each.pov_id)
                services.permissions.leave_channels(connection, each.pov_id)
            if each.kept is not None:
                user_id = connection.identity.user_id
                work = services.durable.put_back(user_id, each.pov_id, each.kept)
                services.hub.tasks.spawn(work)

    async def cursor(self, pov_id: str) -> Position | None:
        cursors, topic = self.host.services.cursors, self.topic(pov_id)
        with suppress(Unavailable):  # a full disk can be read; the next use enters the device
            await cursors.remember_device(self._connection)
        return await cursors.cursor(self._connection, topic)

    async def acknowledge(self, position: Position, pov_id: str | None = None) -> Position:
        topic, cursors = self._log_of(pov_id), self.host.services.cursors
        cursor = await cursors.acknowledge(self._connection, topic, position)
        self.has_acted = True
        self._tell_marked(topic, "acked", cursor)
        return cursor

    def report(
        self, position: Position, pov_id: str | None = None, reason: Reason | None = None
    ) -> None:
        shown = Shown(position, reason, self.host.clock.time())
        reports, topic = self.host.services.reports, self._log_of(pov_id)
        reports.note(self.user.user_id, self.device, topic, shown)
        if (told := self.host.services.borders.shown) is not None:
            told(self._connection, topic, position, reason)

    async def mark_read(self, position: Position, pov_id: str | None = None) -> Read:
        topic, user_id = self._log_of(pov_id), self.user.user_id
        done = await self.host.services.cursors.read(user_id, topic, position)
        self.has_acted = True
        self._tell_marked(topic, READ, done.mark)
        return done

    async def mark_seen(self, position: Position, pov_id: str | None = None) -> tuple[Marked, bool]:
        topic, user_id = self._log_of(pov_id), self.user.user_id
        done = await self.host.services.cursors.see(user_id, topic, position)
        self.has_acted = True
        self._tell_marked(topic, SEEN, Position(done[0].epoch, done[0].seen_offset))
        return done

    def _tell_marked(self, topic: str, name: str, position: Position) -> None:
        if (marked := self.host.services.borders.marked) is not None:
            marked(self._connection, topic, name, position)

    async def mark_unread(self, position: Position, pov_id: str) -> tuple[Marked, bool]:
        topic, user_id = self.topic(pov_id), self.user.user_id
        done = await self.host.services.cursors.mark_unread(user_id, topic, position)
        self.has_acted = True
        return done

    async def marked(self, subscribed: Sequence[Subscribed]) -> Mapping[str, Marked]:
        if not self.subprotocol:
            return {}
        services = self.host.services
        tops = {
            self.topic(each.pov_id): Top(each.epoch, each.newest, each.oldest_offset)
            for each in subscribed
            if each.pov_id != TEAM_FEED
        }
        if not tops:
            return {}
        within_s = MARKED_PART * services.settings.limits.handler_deadline_s
        try:
            found: Mapping[str, Marked] = await call(
                services.cursors.marked, self.user.user_id, tops, deadline_s=within_s
            )
        except (HandlerTimeout, Unavailable):
            return {}
        povs = (each.pov_id for each in subscribed if each.pov_id != TEAM_FEED)
        return dict(zip(povs, found.values(), strict=True))

    def _log_of(self, pov_id: str | None) -> str:
        return self.host.inbox(self.user.user_id) if pov_id is None else self.topic(pov_id)

    def topic(self, pov_id: str) -> str:
        return self.grants.topic(pov_id)

    def delivered(
        self, offset: int, pov_id: str | None = None, epoch: str | UnsetType = UNSET
    ) -> Position:
        if pov_id is not None:
            self.require_subscribed(pov_id)
        name = self._log_of(pov_id)
        hub = self.host.services.hub
        sent = hub.delivered_to(self._connection, name)
        if sent is None:
            raise Forbidden("This connection does not get notifications", field="inbox")
        if epoch is not UNSET and not hub.holds(name, Position(epoch, offset)):
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
        joining = None
        if hub.delivered_to(connection, name) is None:
            joining = await hub.join(connection, name)
        try:
            self._check_listen(pov_id)  # the subscription may have ended meanwhile
        except Forbidden:
            hub.leave(connection, name)
            raise
        if allowed is not None:
            services.permissions.stand(connection, pov_id, "collaborate", allowed)
        if joining is not None:
            hub.confirm(joining)

    def _check_listen(self, pov_id: str) -> None:
        self.grants.require("collaborate")
        self.require_subscribed(pov_id)

    async def digest(self, pov_id: str, after: int) -> Digest | None:
        now = asyncio.get_running_loop().time()
        if self._digests_until is None:
            self._digests_until = now + WITHIN_S
        return await self.host.digest(pov_id, after, within_s=self._digests_until - now)

    def charge(self, cost: float) -> None:
        # Its connection may have ended, and its user's budget be another one.
        self.host.services.budgets.charge_owner(self._connection.budget.owner, cost)

    def send(self, message: Message) -> None:
        if not self._connection.closed:
            self._connection.send(encode(message))

    def broadcast(self, pov_id: str, message: Message) -> None:
        name, body = self.host.topic(pov_id), encode(message)
        self.host.services.hub.broadcast(name, body)
        if self.told is None:
            self.told = []
        self.told.append((name, body))

    def spare(self, result: object) -> None:
        """Spare the caller what was broadcast if its answer is the same message."""
        if not isinstance(result, Message):
            return
        answer, hub = encode(result), self.host.services.hub
        for name, body in self.told or ():
            if body == answer:
                hub.spare(self._connection, name, body)

"""Messages that come in requests, one each, and what they are answered.

Each has a connection of its own, on which nothing but its answers is sent. What a user may send is
the same for all of them: a new request does not begin with a full bucket.

A message that speaks of a position (its type has an `epoch`) and says the epoch needs no other
connection: for as long as it takes, it is where the log ends, so that no more can be acknowledged
than there is. Others that speak of a subscription are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from pov_rt.auth.tokens import Identity
from pov_rt.connections.http import RequestConnection
from pov_rt.dispatch.dispatcher import Dispatcher
from pov_rt.dispatch.host import Services
from pov_rt.protocol.encoding import DECODE_ERRORS
from pov_rt.protocol.errors import Forbidden, InvalidId
from pov_rt.protocol.messages import Message
from pov_rt.protocol.topics import user_topic
from pov_rt.runtime.limits import Bucket
from pov_rt.server.arrivals import Arrivals
from pov_rt.transport.stream import PollTransport

MAX_SENDERS = 10_000
"""Users whose rates are remembered; the longest unheard of is forgotten."""
GRACE_S = 1.0
"""How much longer than its handler may take an answer is waited for."""


class _Named(msgspec.Struct, rename="camel"):
    """Of what a message speaks."""

    type: str
    pov_id: str | None = None
    inbox: bool = False
    epoch: str | None = None


_read = msgspec.json.Decoder(_Named).decode


class _Sender(NamedTuple):
    """What a user may still send: of all messages, and of each type that has a rate."""

    bucket: Bucket
    buckets: dict[type[Message], Bucket]


class Requests:
    """Handles messages that come in requests. Owner: the server."""

    def __init__(self, services: Services, arrivals: Arrivals, dispatcher: Dispatcher) -> None:
        self._services = services
        self._arrivals = arrivals
        self._dispatcher = dispatcher
        self._clock = services.clock
        self._senders: dict[str, _Sender] = {}
        self._positions = {
            handler.tag
            for handler in services.registry.handlers.values()
            if "epoch" in handler.spec.message.__struct_fields__
        }

    async def handle(
        self, identity: Identity, message: bytes, *, device: str, remote_ip: str, user_agent: str
    ) -> Sequence[bytes]:
        """Return what a message is answered, none if it has no answer; `message` is UTF-8."""
        now, budgets = self._clock.monotonic(), self._services.budgets
        sender = self._sender(identity.owner)
        connection = RequestConnection(
            self._arrivals,
            PollTransport(),
            self._clock.new_id(),
            identity,
            device=device,
            remote_ip=remote_ip,
            user_agent=user_agent,
            opened_at=now,
            bucket=sender.bucket,
            budget=budgets.hold(identity.owner),
        )
        connection.buckets = sender.buckets
        connection.expires_at = now + identity.expires_at - self._clock.time()
        try:
            await self._place(connection, message)
            connection.receive(message, True)
            await self._done(connection)
            return connection.answers
        finally:
            connection.end()
            budgets.release(connection.budget)
            for name in list(connection.topics):
                self._services.hub.leave(connection, name)

    async def _place(self, connection: RequestConnection, message: bytes) -> None:
        """Put a connection where the log ends of whose position a message speaks, if it may be.

        If it may not, the message is refused as any that needs a subscription. Raises `RateLimited`
        for a debt, `Unavailable`, or what a plugin refuses with otherwise than with `Forbidden`.
        """
        try:
            named = _read(message)
        except DECODE_ERRORS:
            return  # the dispatcher says what is wrong
        if named.type not in self._positions or named.epoch is None:
            return
        identity, services = connection.identity, self._services
        services.budgets.pay(identity.owner, 1)
        name = user_topic(identity.user_id) if named.inbox else ""
        if named.pov_id is not None:
            pov_id = identity.grants.scope(named.pov_id)
            try:
                await services.permissions.require(identity, pov_id, "subscribe")
            except (Forbidden, InvalidId):
                return
            name = identity.grants.topic(pov_id)
        if name:
            async with services.joins:
                services.hub.confirm(await services.hub.join(connection, name))

    def _sender(self, owner: str) -> _Sender:
        sender = self._senders.pop(owner, None)
        if sender is None:
            sender = _Sender(self._dispatcher.new_bucket(), {})
            if len(self._senders) >= MAX_SENDERS:
                del self._senders[next(iter(self._senders))]
        self._senders[owner] = sender
        return sender

    async def _done(self, connection: RequestConnection) -> None:
        """Wait until nothing works for a connection any more."""
        limit_s = self._services.settings.limits.handler_deadline_s + GRACE_S
        until = asyncio.get_running_loop().time() + limit_s
        while works := connection.works:
            left_s = until - asyncio.get_running_loop().time()
            if left_s <= 0:  # one that refuses to end was answered for
                return
            await asyncio.wait(works, timeout=left_s)

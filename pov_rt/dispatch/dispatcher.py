"""Bytes of a message -> decode -> limit -> authorise -> handler (`execution`) -> reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec
from msgspec import UNSET

from pov_rt.connections.budgets import RECEIVED_BYTE
from pov_rt.connections.connection import Connection
from pov_rt.dispatch.handlers.context import ConnectionContext
from pov_rt.dispatch.handlers.execution import Execution, require_grants
from pov_rt.dispatch.host import PluginHost, Services
from pov_rt.protocol.details.depth import find_deep, is_open, may_be_deeper
from pov_rt.protocol.encoding import DECODE_ERRORS, RequestIdValue, decode_anyway, mend_instants
from pov_rt.protocol.errors import (
    ClientError,
    CloseCode,
    InvalidActivity,
    InvalidMessage,
    RateLimited,
    TokenExpired,
    UnknownType,
)
from pov_rt.protocol.faults import MISSING, Fault, find_fault
from pov_rt.protocol.messages import Message, RequestId
from pov_rt.registry.build import Handler
from pov_rt.registry.pov_ids import find_bad_id
from pov_rt.runtime.limits import Bucket, Rate, parse_rate

FIRST_BLOCK = frozenset({"ping", "pong", "subscribe", "unsubscribe"})
"""What a client that knows only the first block of the contract sends."""


SMALL_BYTES = 1024
"""The bytes of a larger message are paid for; those of a smaller one are in its price."""


class _Head(msgspec.Struct):
    type: str


class Dispatcher:
    """Dispatches the messages of all connections of a server. Owner: the server."""

    def __init__(self, services: Services, hosts: Mapping[str, PluginHost]) -> None:
        registry, limits = services.registry, services.settings.limits
        self._handlers = services.permissions.guard(registry.handlers)
        self._decode = registry.decoder.decode
        self._limits = limits
        self._rate = parse_rate(limits.message_rate)
        self._clock = services.clock
        self._hub = services.hub
        self._budgets = services.budgets
        self._borders = services.borders
        self._execution = Execution(services, hosts)
        self._run, self._refuse = self._execution.run, self._execution.refuse
        self.release = self._execution.release
        self._by_tag = {handler.tag: handler for handler in self._handlers.values()}
        # What anybody may send at any time, such as pings: there is nothing to admit.
        self._free = frozenset(
            handler
            for handler in self._handlers.values()
            if (handler.check_ids, handler.spec.grant, handler.rate) == (None, None, None)
            and handler.spec.price == 0
            and handler.tag in FIRST_BLOCK
        )
        self._open = frozenset(
            handler for handler in self._by_tag.values() if is_open(handler.spec.message)
        )
        self.counts = dict.fromkeys(self._by_tag, 0)
        """Messages handled, by type."""
        self._execution.counts = self.counts
        self.errors = self._execution.errors
        """Errors answered, by code."""

    def new_bucket(self) -> Bucket:
        """Return a full bucket for a new connection's messages."""
        return Bucket(self._rate, self._clock.monotonic())

    def receive(self, connection: Connection, payload: bytes, is_text: bool) -> None:
        """Handle one whole message."""
        now = self._clock.monotonic()
        if (received := self._borders.received) is not None:
            received(connection, len(payload))
        wait = connection.bucket.take(self._rate, now)
        if wait:
            self._flooded(connection, payload, wait)
            return
        # Before it is looked into, whatever it is: a refusal must not cost what an answer does.
        size = len(payload)
        if size > SMALL_BYTES and (wait := connection.budget.pay(size * RECEIVED_BYTE, now)):
            self._flooded(connection, payload, wait)
            return
        if connection.rejected:
            connection.rejected -= 1
        try:
            if not is_text:
                raise InvalidMessage
            message = self._decode(payload)
        except (ClientError, *DECODE_ERRORS):
            # To say what is wrong takes another look at it, which is paid for, too.
            if wait := connection.budget.pay(1, now):
                self._refuse(connection, self._budgets.refusal(connection.budget.owner, wait))
            elif is_text and (mended := self._mend(payload)) is not None:
                self.receive(connection, mended, is_text)
            else:
                self._refuse(connection, *self._diagnose(payload, is_text))
            return
        handler = self._handlers[message.__class__]
        if handler not in self._free:
            try:
                if handler in self._open:
                    self._check_depth(handler, payload)
                self._admit(connection, handler, message, now)
            except ClientError as error:
                self._refuse(connection, error, message.id, handler.tag, message)
                return
        self.counts[handler.tag] += 1
        self._run(connection, handler, message)

    def switch(self, off: Mapping[str, str]) -> None:
        """Refuse the messages of these plugins, and no others'."""
        self._handlers = {
            handler.spec.message: _refusing(handler) if handler.plugin.name in off else handler
            for handler in self._by_tag.values()
        }

    async def close(self) -> None:
        """Cancel what still runs; called after the connections are gone."""
        await self._execution.close()

    def _check_depth(self, handler: Handler, payload: bytes) -> None:
        """Raise `InvalidMessage` for what is nested too deep for some handler to answer it."""
        levels = self._limits.details_depth
        if may_be_deeper(payload, levels):
            deep = find_deep(handler.spec.message, decode_anyway(payload), levels)
            if deep is not None:
                raise InvalidMessage(field=deep.field, detail=deep.message)

    def _admit(
        self, connection: Connection, handler: Handler, message: Message, now: float
    ) -> None:
        """Raise unless this connection may send this message now, and its user pay its price."""
        spec = handler.spec
        if (price := spec.price) != 0:
            budget = connection.budget
            if wait := budget.pay(price(message) if callable(price) else price, now):
                raise self._budgets.refusal(budget.owner, wait)
        grants = connection.identity.grants
        if grants.tenant is not None and handler.scope is not None:
            handler.scope(message, grants.tenant)
        require_grants(grants, handler, message)
        if spec.grant == "publish" and now >= connection.expires_at:
            raise TokenExpired
        if handler.rate is not None:
            self._charge(connection, handler, handler.rate, now)
        if connection.plain and handler.tag not in FIRST_BLOCK:
            self._hub.promote(connection)

    def _charge(self, connection: Connection, handler: Handler, rate: Rate, now: float) -> None:
        """Raise `RateLimited` if a connection sends too many messages of a type."""
        if connection.buckets is None:
            connection.buckets = {}
        bucket = connection.buckets.get(handler.spec.message)
        if bucket is None:
            bucket = connection.buckets[handler.spec.message] = Bucket(rate, now)
        if wait := bucket.take(rate, now):
            raise RateLimited(retry_after_s=wait)

    def _flooded(self, connection: Connection, payload: bytes, wait: float) -> None:
        connection.rejected += 1
        if connection.rejected > self._limits.rejected_messages:
            connection.close(CloseCode.FLOODING)
            return
        request_id: RequestIdValue = UNSET
        if len(payload) <= SMALL_BYTES:  # or to look for it would cost what is refused
            _, request_id = self._diagnose(payload, is_text=True)
        self._refuse(connection, RateLimited(retry_after_s=wait), request_id)

    def _mend(self, payload: bytes) -> bytes | None:
        """Return a message that did not decode with its instants as they can be decoded."""
        try:
            tag = msgspec.json.decode(payload, type=_Head).type
        except DECODE_ERRORS:
            return None
        handler = self._by_tag.get(tag)
        return None if handler is None else mend_instants(handler.spec.message, payload)

    def _diagnose(self, payload: bytes, is_text: bool) -> tuple[ClientError, RequestIdValue]:
        """Find out what is wrong with a message that did not decode, and its id if it has one.

        Decoding again is the price of the error path alone; msgspec's wording is never read.
        """
        if not is_text:
            return InvalidMessage(detail="Messages are text frames"), UNSET
        try:
            value = decode_anyway(payload)
        except DECODE_ERRORS:
            return InvalidMessage(detail="This is not JSON"), UNSET
        if not isinstance(value, dict):
            return InvalidMessage(detail="A message is a JSON object"), UNSET
        request_id: RequestIdValue = value.get("id", UNSET)
        if request_id is not UNSET and find_fault(RequestId, request_id) is not None:
            request_id = UNSET
        tag = value.get("type")
        if not isinstance(tag, str):
            problem = "must be a string" if "type" in value else MISSING
            detail = Fault("type", problem).sentence
            return InvalidMessage(field="type", detail=detail), request_id
        handler = self._by_tag.get(tag)
        if handler is None:
            return UnknownType(), request_id
        kind = handler.spec.message
        if (bad_id := find_bad_id(kind, value)) is not None:
            return bad_id, request_id
        if (fault := find_fault(kind, value)) is not None:
            return InvalidMessage(field=fault.path or None, detail=fault.sentence), request_id
        deep = find_deep(kind, value, self._limits.details_depth)
        if isinstance(deep, InvalidActivity):
            return deep, request_id
        if deep is not None:
            return InvalidMessage(field=deep.field, detail=deep.message), request_id
        # A decoder reads on only if `type` is there once, or says the same.
        return InvalidMessage(field="type", detail="'type' is there more than once"), request_id


def _refusing(handler: Handler) -> Handler:
    """Return a handler for the messages of a plugin that is off."""

    def refuse(message: Message, context: ConnectionContext) -> None:
        context.host.plugins.conduct.require(context.host.name)

    spec = replace(handler.spec, function=refuse, pipelined=False, unordered=False)
    return replace(handler, is_async=False, may_wait=False, spec=spec)

"""Bytes of a message -> decode -> limit -> authorise -> handler -> reply.

The one error boundary: whatever a handler raises costs its caller one answer and nobody else
anything. A plain handler runs at once. An `async` one runs in the connection's worker, a task that
exists only while there is work; what arrives meanwhile waits in the connection's inbox, answers to
bad messages included, so that nothing overtakes (save types declared `unordered`).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from msgspec import UNSET

from pov_rt.clock import Clock
from pov_rt.connection import Connection
from pov_rt.encoding import DECODE_ERRORS, RequestIdValue, encode_error, encode_reply
from pov_rt.errors import (
    ClientError,
    CloseCode,
    Forbidden,
    HandlerTimeout,
    Internal,
    InvalidActivity,
    InvalidMessage,
    RateLimited,
    UnknownType,
)
from pov_rt.faults import find_fault
from pov_rt.hub import Hub
from pov_rt.limits import Bucket, SeenIds, parse_rate
from pov_rt.messages import Message, RequestId
from pov_rt.registry import Handler, Registry
from pov_rt.settings import LimitSettings

log = logging.getLogger(__name__)

FIRST_BLOCK = frozenset({"ping", "pong", "subscribe", "unsubscribe"})
"""What a client that knows only the first block of the contract sends."""


class HandlerContext(Protocol):
    """What the dispatcher needs of the context it hands to a handler."""

    publishing: bool
    """Whether a publish is under way, so that a timeout has to say `outcome: unknown`."""

    starting: list[str] | None
    """Topics that were subscribed to; what they have for the client follows the answer."""


class Dispatcher:
    """Dispatches the messages of all connections of a server. Owner: the server."""

    def __init__(
        self,
        registry: Registry,
        limits: LimitSettings,
        clock: Clock,
        hub: Hub,
        *,
        make_context: Callable[[str, Connection], HandlerContext],
        close: Callable[[Connection, CloseCode], None],
    ) -> None:
        self._registry = registry
        self._handlers = registry.handlers
        self._decode = registry.decoder.decode
        self._limits = limits
        self._rate = parse_rate(limits.message_rate)
        self._clock = clock
        self._hub = hub
        self._make_context = make_context
        self._close = close
        self._by_tag = {handler.tag: handler for handler in registry.handlers.values()}
        # What anybody may send at any time, such as pings: there is nothing to admit.
        self._free = frozenset(
            handler
            for handler in registry.handlers.values()
            if (handler.find_povs, handler.spec.grant, handler.rate) == (None, None, None)
            and handler.tag in FIRST_BLOCK
        )
        self._seen = SeenIds()
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts = dict.fromkeys(self._by_tag, 0)
        """Messages handled, by type."""
        self.errors: dict[str, int] = {}
        """Errors answered, by code."""

    def new_bucket(self) -> Bucket:
        """Return a full bucket for a new connection's messages."""
        return Bucket(self._rate, self._clock.monotonic())

    def receive(self, connection: Connection, payload: bytes, is_text: bool) -> None:
        """Handle one whole message."""
        now = self._clock.monotonic()
        wait = connection.bucket.take(self._rate, now)
        if wait:
            self._flooded(connection, payload, wait)
            return
        if connection.rejected:
            connection.rejected -= 1
        try:
            if not is_text:
                raise InvalidMessage
            message = self._decode(payload)
        except (ClientError, *DECODE_ERRORS):
            error, request_id = self._diagnose(payload, is_text)
            self._answer(connection, self._error(error, request_id))
            return
        handler = self._handlers[message.__class__]
        if handler not in self._free:
            try:
                self._admit(connection, handler, message, now)
            except ClientError as error:
                self._answer(connection, self._error(error, message.id))
                return
        self.counts[handler.tag] += 1
        if handler.is_async:
            self._start_async(connection, handler, message)
        elif connection.worker is None or handler.spec.unordered:
            self._finish(connection, self._run(connection, handler, message))
        else:
            self._enqueue(connection, (handler, message))

    async def close(self) -> None:
        """Cancel what still runs; called after the connections are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Before the handler:

    def _admit(
        self, connection: Connection, handler: Handler, message: Message, now: float
    ) -> None:
        """Raise unless this connection may send this message now."""
        if handler.find_povs is not None:
            grants = connection.identity.grants
            for pov_id in handler.find_povs(message):
                try:
                    self._seen.check(pov_id, "povId")
                except InvalidActivity as error:
                    raise InvalidMessage(field="povId", detail=error.message) from None
                if not grants.sees(pov_id):
                    raise Forbidden("The token does not cover this PoV", field="povId")
        grant = handler.spec.grant
        if grant is not None and not connection.identity.grants.may(grant):
            raise Forbidden(f"The token does not grant '{grant}'")
        if handler.rate is not None:
            if connection.buckets is None:
                connection.buckets = {}
            kind = handler.spec.message
            bucket = connection.buckets.get(kind)
            if bucket is None:
                bucket = connection.buckets[kind] = Bucket(handler.rate, now)
            if wait := bucket.take(handler.rate, now):
                raise RateLimited(retry_after_s=wait)
        if connection.plain and handler.tag not in FIRST_BLOCK:
            self._hub.promote(connection)

    def _flooded(self, connection: Connection, payload: bytes, wait: float) -> None:
        connection.rejected += 1
        if connection.rejected > self._limits.rejected_messages:
            self._close(connection, CloseCode.FLOODING)
            return
        _, request_id = self._diagnose(payload, is_text=True)
        self._answer(connection, self._error(RateLimited(retry_after_s=wait), request_id))

    def _diagnose(self, payload: bytes, is_text: bool) -> tuple[ClientError, RequestIdValue]:
        """Find out what is wrong with a message that did not decode, and its id if it has one.

        Decoding again is the price of the error path alone; msgspec's wording is never read.
        """
        if not is_text:
            return InvalidMessage(detail="Messages are text frames"), UNSET
        try:
            value = msgspec.json.decode(payload)
        except DECODE_ERRORS:
            return InvalidMessage(detail="This is not JSON"), UNSET
        if not isinstance(value, dict):
            return InvalidMessage(detail="A message is a JSON object"), UNSET
        request_id: RequestIdValue = value.get("id", UNSET)
        if request_id is not UNSET and find_fault(RequestId, request_id) is not None:
            request_id = UNSET
        tag = value.get("type")
        if not isinstance(tag, str):
            return InvalidMessage(field="type"), request_id
        handler = self._by_tag.get(tag)
        if handler is None:
            return UnknownType(), request_id
        return InvalidMessage(field=find_fault(handler.spec.message, value) or None), request_id

    # The handler:

    def _run(self, connection: Connection, handler: Handler, message: Message) -> bytes | None:
        """Call a plain handler; return the encoded answer."""
        context = self._make_context(handler.plugin.name, connection)
        try:
            result = handler.spec.function(message, context)
            return self._encode(handler, result, message.id)
        except BaseException as error:
            return self._failure(connection, handler, message.id, error)

    async def _run_async(self, connection: Connection, handler: Handler, message: Message) -> None:
        context = self._make_context(handler.plugin.name, connection)
        deadline = asyncio.timeout(self._limits.handler_deadline_s)
        try:
            async with deadline:
                result = await handler.spec.function(message, context)
            body = self._encode(handler, result, message.id)
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise
            if isinstance(error, TimeoutError) and deadline.expired():
                log.warning(
                    "a handler exceeded its deadline",
                    extra={"type": handler.tag, "plugin": handler.plugin.name},
                )
                late = HandlerTimeout()
                if context.publishing:
                    late.extra["outcome"] = "unknown"
                body = self._error(late, message.id)
            else:
                body = self._failure(connection, handler, message.id, error)
        self._finish(connection, body)
        for topic in context.starting or ():
            self._hub.start(connection, topic)

    def _encode(self, handler: Handler, result: Any, request_id: RequestIdValue) -> bytes | None:
        if isinstance(result, Message):
            return encode_reply(result, request_id)
        if result is not None:
            if inspect.iscoroutine(result):
                result.close()
            raise TypeError(
                f"the handler of {handler.tag!r} at {handler.spec.source} returned "
                f"{type(result).__name__}; it must return a Message or None"
            )
        return None

    def _failure(
        self,
        connection: Connection,
        handler: Handler,
        request_id: RequestIdValue,
        error: BaseException,
    ) -> bytes:
        """Turn what a handler raised into its caller's answer."""
        if isinstance(error, ClientError):
            return self._error(error, request_id)
        if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
            raise error
        incident = self._clock.new_id()[:12]
        log.error(
            "a handler failed",
            exc_info=error,
            extra={
                "incident": incident,
                "type": handler.tag,
                "plugin": handler.plugin.name,
                "user": connection.identity.user_id,
            },
        )
        return self._error(Internal(incident=incident), request_id)

    def _error(self, error: ClientError, request_id: RequestIdValue) -> bytes:
        self.errors[error.code] = self.errors.get(error.code, 0) + 1
        return encode_error(error, request_id)

    # Order:

    def _answer(self, connection: Connection, body: bytes) -> None:
        """Answer in turn: behind what the worker still has to do."""
        if connection.worker is None:
            self._finish(connection, body)
        else:
            self._enqueue(connection, body)

    def _finish(self, connection: Connection, body: bytes | None) -> None:
        """Send the deliveries of this turn, then the reply."""
        self._hub.settle(connection)
        if body is not None:
            connection.send(body)

    def _start_async(self, connection: Connection, handler: Handler, message: Message) -> None:
        if handler.spec.unordered and len(connection.tasks or ()) < self._limits.inbox_messages:
            if connection.tasks is None:
                connection.tasks = set()
            task = self._spawn(self._run_async(connection, handler, message))
            connection.tasks.add(task)
            task.add_done_callback(connection.tasks.discard)
            return
        self._enqueue(connection, (handler, message))
        if connection.worker is None:
            connection.worker = self._spawn(self._work(connection))

    def _enqueue(self, connection: Connection, item: bytes | tuple[Handler, Message]) -> None:
        if connection.inbox is None:
            connection.inbox = deque()
        connection.inbox.append(item)
        if len(connection.inbox) >= self._limits.inbox_messages:
            connection.transport.pause_reads(True)

    async def _work(self, connection: Connection) -> None:
        """Handle a connection's inbox in order, then end."""
        try:
            while connection.inbox and not connection.closed:
                item = connection.inbox.popleft()
                if isinstance(item, bytes):
                    self._finish(connection, item)
                elif item[0].is_async:
                    await self._run_async(connection, *item)
                else:
                    self._finish(connection, self._run(connection, *item))
                if len(connection.inbox) == self._limits.inbox_messages // 2:
                    connection.transport.pause_reads(False)
        finally:
            connection.worker = connection.inbox = None
            connection.transport.pause_reads(False)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

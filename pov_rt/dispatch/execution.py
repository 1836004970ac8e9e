"""Runs handlers: plain ones at once, `async` ones in their connection's order, none for ever.

The one error boundary: whatever a handler raises costs its caller one answer and nobody else
anything. An `async` handler runs in the connection's worker, a task that exists only while there is
work, and whose first step runs at once. What arrives meanwhile waits in the connection's inbox,
answers to bad messages included, so that nothing overtakes (save types declared `unordered`).
Handlers that are `pipelined` overlap, each in a task of its own that answers after the one before;
the last of these is then the worker.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from pov_rt.activities.publishing import Outcome, outcome
from pov_rt.config.settings import LimitSettings
from pov_rt.connections.connection import Connection
from pov_rt.delivery.hub import Hub
from pov_rt.protocol.encoding import RequestIdValue, encode_error, encode_reply
from pov_rt.protocol.errors import ClientError, HandlerTimeout, Internal
from pov_rt.protocol.messages import Message
from pov_rt.registry.build import Handler
from pov_rt.runtime import containment
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.eager import start
from pov_rt.transport.frames import text_frame

log = logging.getLogger(__name__)

TURN_HANDLERS = 4
"""`async` handlers of a connection that begin in one turn of the loop; then it is read no more.
Others have their turn, and what is published is sent before more is taken."""

Item = bytes | tuple[Handler, Message]
"""What waits in an inbox: an answer, or a message for its handler."""


class Order:
    """The place of a pipelined call: it is answered when the one before was."""

    __slots__ = ("answered", "before")

    def __init__(self, before: asyncio.Future[None] | None) -> None:
        self.before = before
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """Let the next one be answered."""
        self.before = None
        if not self.answered.done():
            self.answered.set_result(None)


class HandlerContext(Protocol):
    """What is handed to a handler."""

    starting: list[str] | None
    """Topics that were subscribed to; what they have for the client follows the answer."""

    answered: bool
    """Whether the answer was sent already, in the stream of what the message published."""

    request_id: RequestIdValue
    """The message's id, for such an answer."""


class Execution:
    """Runs the handlers of all connections of a server. Owner: the dispatcher."""

    def __init__(
        self,
        limits: LimitSettings,
        clock: Clock,
        hub: Hub,
        make_context: Callable[[str, Connection], HandlerContext],
        *,
        pipelines: bool,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._hub = hub
        self._make_context = make_context
        self._pipelines = pipelines
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: dict[Connection, int] = {}
        """How many handlers began in this turn."""
        self.errors: dict[str, int] = {}
        """Errors answered, by code."""

    async def close(self) -> None:
        """Cancel what still runs; called after the connections are gone."""
        await containment.end(self._tasks, "handlers")

    def run(self, connection: Connection, handler: Handler, message: Message) -> None:
        """Run a handler and send its answer, now or in turn."""
        if handler.is_async:
            self._start_async(connection, handler, message)
        elif connection.worker is None or handler.spec.unordered:
            self._finish(connection, self._call(connection, handler, message))
        else:
            self._enqueue(connection, (handler, message))

    def refuse(
        self, connection: Connection, error: ClientError, request_id: RequestIdValue
    ) -> None:
        """Answer an error in turn: behind what the worker still has to do."""
        body = self._error(error, request_id)
        if connection.worker is None:
            self._finish(connection, body)
        else:
            self._enqueue(connection, body)

    # One handler:

    def _call(self, connection: Connection, handler: Handler, message: Message) -> bytes | None:
        """Call a plain handler; return the encoded answer."""
        context = self._make_context(handler.plugin.name, connection)
        try:
            result = handler.spec.function(message, context)
            if isinstance(result, Message):
                return encode_reply(result, message.id)
            self._refuse_result(handler, result)
        except BaseException as error:
            return self._failure(connection, handler, message.id, error)
        return None

    async def _call_async(
        self, connection: Connection, handler: Handler, message: Message, order: Order | None = None
    ) -> None:
        """Call an `async` handler and send its answer, unless it was abandoned meanwhile."""
        context = self._make_context(handler.plugin.name, connection)
        context.request_id = message.id
        body: bytes | None = None
        publications = Outcome()
        outcome.set(publications)
        task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            result = await containment.call(
                handler.spec.function,
                message,
                context,
                deadline_s=self._limits.handler_deadline_s,
                stuck=partial(self._abandon, connection, handler, message, task, order),
            )
            if isinstance(result, Message):
                body = encode_reply(result, message.id)
            else:
                self._refuse_result(handler, result)
        except HandlerTimeout as late:
            if publications.open:
                late.extra["outcome"] = "unknown"
            log.warning(
                "a handler exceeded its deadline",
                extra={"type": handler.tag, "plugin": handler.plugin.name},
            )
            body = self._error(late, message.id)
        except Exception as error:
            body = self._failure(connection, handler, message.id, error)
        if order is not None and order.before is not None:
            await order.before
        if task not in self._tasks:
            return
        if self._hub.unsettled:
            self._hub.settle(connection)
        if body is not None and not context.answered:
            connection.transport.send_soon(text_frame(body))
        for topic in context.starting or ():
            self._hub.start(connection, topic)

    def _abandon(
        self,
        connection: Connection,
        handler: Handler,
        message: Message,
        task: asyncio.Task[Any],
        order: Order | None,
    ) -> None:
        """Go on without a handler that refuses to be cancelled."""
        log.error(
            "a handler does not end although it is cancelled",
            extra={
                "type": handler.tag,
                "plugin": handler.plugin.name,
                "at": str(handler.spec.source),
            },
        )
        self._tasks.discard(task)
        if order is not None:
            order.end()
        body = self._error(HandlerTimeout(), message.id)
        if connection.worker is not task:
            self._finish(connection, body)
            return
        connection.worker = None
        self._finish(connection, body)
        if connection.inbox and not connection.closed:
            start(self._work(connection))

    def _refuse_result(self, handler: Handler, result: Any) -> None:
        """Raise TypeError for a handler's result that is no message, unless it is None."""
        if result is None:
            return
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            f"the handler of {handler.tag!r} at {handler.spec.source} returned "
            f"{type(result).__name__}; it must return a Message or None"
        )

    def _failure(
        self,
        connection: Connection,
        handler: Handler,
        request_id: RequestIdValue,
        error: BaseException,
    ) -> bytes:
        """Turn what a handler raised into its caller's answer."""
        contained = containment.contain(error)
        if isinstance(contained, ClientError):
            return self._error(contained, request_id)
        incident = self._clock.new_id()[-12:]
        log.error(
            "a handler failed",
            exc_info=contained,
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

    def _finish(self, connection: Connection, body: bytes | None) -> None:
        """Send the deliveries of this turn, then the reply."""
        if self._hub.unsettled:
            self._hub.settle(connection)
        if body is not None:
            connection.transport.send(text_frame(body))

    def _start_async(self, connection: Connection, handler: Handler, message: Message) -> None:
        self._count_turn(connection)
        if len(connection.tasks or ()) < self._limits.inbox_messages:
            if handler.spec.unordered:
                start(self._call_beside(connection, handler, message, None))
                return
            if self._overlaps(handler, message) and not connection.inbox:
                before = connection.turn
                if connection.worker is None or (before is not None and not before.done()):
                    start(self._call_in_line(connection, handler, message, Order(before)))
                    return
        self._enqueue(connection, (handler, message))
        if connection.worker is None:
            start(self._work(connection))

    def _count_turn(self, connection: Connection) -> None:
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._end_turn)
        begun = self._begun[connection] = self._begun.get(connection, 0) + 1
        if begun == TURN_HANDLERS:
            connection.transport.pause_reads(True)

    def _end_turn(self) -> None:
        begun, self._begun = self._begun, {}
        for connection, count in begun.items():
            if count >= TURN_HANDLERS:
                self._read_on(connection)

    def _read_on(self, connection: Connection) -> None:
        """Read a connection again, unless its inbox is full or its turn is over."""
        is_full = len(connection.inbox or ()) >= self._limits.inbox_messages
        if not is_full and self._begun.get(connection, 0) < TURN_HANDLERS:
            connection.transport.pause_reads(False)

    async def _call_beside(
        self, connection: Connection, handler: Handler, message: Message, order: Order | None
    ) -> None:
        """Call a handler while others are at work."""
        task = self._enter()
        if connection.tasks is None:
            connection.tasks = set()
        beside = connection.tasks
        beside.add(task)
        try:
            await self._call_async(connection, handler, message, order)
        finally:
            beside.discard(task)
            self._tasks.discard(task)

    def _overlaps(self, handler: Handler, message: Message) -> bool:
        pipelined = handler.spec.pipelined
        return self._pipelines and (pipelined(message) if callable(pipelined) else pipelined)

    async def _call_in_line(
        self, connection: Connection, handler: Handler, message: Message, order: Order
    ) -> None:
        """Call a pipelined handler; the last one does then what came behind it."""
        task = connection.worker = cast("asyncio.Task[None]", asyncio.current_task())
        connection.turn = order.answered
        try:
            await self._call_next(connection, handler, message, order)
        except BaseException:
            self._leave(connection, task)
            raise
        if connection.worker is task:
            connection.turn = None
            await self._work(connection)

    async def _call_next(
        self, connection: Connection, handler: Handler, message: Message, order: Order
    ) -> None:
        try:
            await self._call_beside(connection, handler, message, order)
        finally:
            order.end()

    async def _call_several(
        self, connection: Connection, handler: Handler, message: Message
    ) -> None:
        """Call a pipelined handler, and those that wait behind it, as many as may overlap."""
        order: Order | None = None
        while True:
            order = Order(order.answered if order is not None else None)
            start(self._call_next(connection, handler, message, order))
            inbox = connection.inbox
            is_full = len(connection.tasks or ()) >= self._limits.inbox_messages
            if not inbox or isinstance(inbox[0], bytes) or is_full or not self._overlaps(*inbox[0]):
                break
            handler, message = inbox.popleft()
        await order.answered

    def _enqueue(self, connection: Connection, item: Item) -> None:
        if connection.inbox is None:
            connection.inbox = deque()
        connection.inbox.append(item)
        if len(connection.inbox) >= self._limits.inbox_messages:
            connection.transport.pause_reads(True)

    async def _work(self, connection: Connection) -> None:
        """Handle a connection's inbox in order, then end; end at once if it was abandoned."""
        task = connection.worker = self._enter()
        try:
            while connection.worker is task and connection.inbox and not connection.closed:
                item = connection.inbox.popleft()
                if isinstance(item, bytes):
                    self._finish(connection, item)
                elif self._overlaps(*item):
                    await self._call_several(connection, *item)
                elif item[0].is_async:
                    await self._call_async(connection, *item)
                else:
                    self._finish(connection, self._call(connection, *item))
                if len(connection.inbox or ()) <= self._limits.inbox_messages // 2:
                    self._read_on(connection)
        finally:
            self._tasks.discard(task)
            self._leave(connection, task)

    def _leave(self, connection: Connection, task: asyncio.Task[None]) -> None:
        if connection.worker is task:
            connection.worker = connection.inbox = connection.turn = None
            self._read_on(connection)

    def _enter(self) -> asyncio.Task[None]:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        return task

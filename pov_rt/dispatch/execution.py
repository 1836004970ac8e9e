"""Runs handlers: plain ones at once, `async` ones in their connection's order, none for ever.

The one error boundary: whatever a handler raises costs its caller one answer and nobody else
anything.

The order of replies. A connection's answers leave in the order of its messages, those to bad
messages included, save for types declared `unordered`:

- Nothing runs: a plain handler is called and answered at once; an `async` one begins at once, in a
  task that becomes the connection's worker if it has to wait.
- A worker runs: what comes waits in line (`connection.waiting`). The worker works the line off,
  then it ends. A connection with nothing to do has neither.
- `pipelined` handlers overlap, each in a task of its own. Each is answered after the one before it
  (`Order`), and the last of them is the worker: what comes behind waits for it.
- `unordered` handlers never wait and are never waited for.

An answer comes behind what was delivered to the connection before (`connection.send` and `reply`
see to that), and before what its own subscriptions bring. The step that sends it is the one in
which what it says becomes true: before it, it is asked once more whether the token and the
subscriptions allow the answer (`context.check`; what was done is answered so), and after it the
subscriptions are confirmed, or left as they were if it is an error (`context.end`).

Bounds. In one turn of the loop few `async` handlers of a connection begin, few run beside each
other, and few messages wait in line; past each of these the socket is read no more until there is
room. A handler that exceeds its deadline is cancelled and answered `timeout`. One that refuses to
be cancelled is abandoned: it keeps its task, and the connection goes on without it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, cast

from msgspec import UNSET

from pov_rt.activities.publishing import InFlight, in_flight
from pov_rt.auth.grants import Grants
from pov_rt.connections.budgets import BYTE, LARGE_BYTES
from pov_rt.connections.connection import Connection
from pov_rt.dispatch.context import ConnectionContext
from pov_rt.dispatch.host import PluginHost, Services
from pov_rt.protocol.encoding import RequestIdValue, encode_error, encode_reply
from pov_rt.protocol.errors import ClientError, HandlerTimeout
from pov_rt.protocol.messages import Message
from pov_rt.registry.build import Handler
from pov_rt.runtime import containment, turns
from pov_rt.runtime.bounds import payer
from pov_rt.runtime.eager import start
from pov_rt.runtime.logs import Throttle

log = logging.getLogger(__name__)

LATE_PER_S, LATE_AT_ONCE = 1.0, 20.0
"""Lines of the log on handlers that exceeded their deadline."""
FAILURE = 50.0
"""What a handler's failure costs, with its traceback in the log."""
SMALL_BYTES = 1024
"""The bytes of a larger answer are charged; those of a smaller one are in its message's price."""


class Invocation(NamedTuple):
    """A message of a connection, for its handler."""

    connection: Connection
    handler: Handler
    message: Message


def require_grants(grants: Grants, handler: Handler, message: Message) -> None:
    """Raise `Forbidden` unless a token allows what a message asks for."""
    if handler.check_ids is not None:
        handler.check_ids(message, grants.require_pov)
    if handler.spec.grant is not None:
        grants.require(handler.spec.grant)


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


class Execution:
    """Runs the handlers of all connections of a server. Owner: the dispatcher."""

    def __init__(self, services: Services, hosts: Mapping[str, PluginHost]) -> None:
        self._limits = services.settings.limits
        self._clock = services.clock
        self._hub = services.hub
        self._late = Throttle(log, LATE_PER_S, self._clock, burst=LATE_AT_ONCE)
        self._pages = services.pages
        self._hosts = hosts
        # Hooks that wait could let one publication of a connection get ahead of another.
        self._pipelines = not services.registry.asks_before_publish
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: dict[Connection, int] = {}
        """How many handlers began in this turn."""
        self.errors: dict[str, int] = {}
        """Errors answered, by code."""
        self.counts: Mapping[str, int] = {}
        """Messages handled, by type: the dispatcher's."""

    async def close(self) -> None:
        """Cancel what still runs; called after the connections are gone."""
        await containment.end(self._tasks, "handlers")

    def run(self, connection: Connection, handler: Handler, message: Message) -> None:
        """Run a handler and send its answer, now or in turn."""
        if handler.is_async:
            self._start_async(Invocation(connection, handler, message))
        elif connection.worker is None or handler.spec.unordered:
            self._answer(connection, handler, message)
        else:
            self._enqueue(connection, Invocation(connection, handler, message))

    def refuse(
        self,
        connection: Connection,
        error: ClientError,
        request_id: RequestIdValue = UNSET,
    ) -> None:
        """Answer an error in turn: behind what the worker still has to do."""
        body = self._error(error, request_id)
        if connection.worker is None:
            connection.send(body)
        else:
            self._enqueue(connection, body)

    # One handler:

    def _answer(self, connection: Connection, handler: Handler, message: Message) -> None:
        """Call a plain handler and send its answer."""
        context = ConnectionContext(self._hosts[handler.plugin.name], connection)
        try:
            result = handler.spec.function(message, context)
            context.spare(result)
            body = _encode(handler, result, message.id)
        except BaseException as error:
            body = self._failure(Invocation(connection, handler, message), error)
        if body is not None:
            connection.send(body)

    async def _call_async(self, call: Invocation, order: Order | None = None) -> None:
        """Call an `async` handler and send its answer, unless it was abandoned meanwhile."""
        connection, handler, message = call
        identity = connection.identity
        context = ConnectionContext(self._hosts[handler.plugin.name], connection)
        context.request_id = message.id
        budget = connection.budget
        payer.set(budget.owner)
        publications = InFlight()
        in_flight.set(publications)
        task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            result = await containment.call(
                handler.spec.function,
                message,
                context,
                deadline_s=self._limits.handler_deadline_s,
                stuck=partial(self._abandon, call, context, task, order),
            )
            context.spare(result)
            body, is_good = _encode(handler, result, message.id), True
        except HandlerTimeout as late:
            if publications.open:
                late.extra["outcome"] = "unknown"
            words, plugin = "a handler exceeded its deadline", handler.plugin.name
            self._late.log(logging.WARNING, words, type=handler.tag, plugin=plugin)
            body, is_good = self._error(late, message.id), False
        except Exception as error:
            body, is_good = self._failure(call, error), False
        if order is not None and order.before is not None:
            await order.before
        if task not in self._tasks:
            return
        is_new_token = connection.identity is not identity
        if is_good and (is_new_token or context.joined or context.required):
            refusal = self._look_again(call, context, is_new_token=is_new_token)
            if refusal is not None:
                body, is_good = refusal, False
        if body is not None and not context.answered:
            if len(body) > SMALL_BYTES:
                budget.charge(len(body) * BYTE, self._clock.monotonic())
            if len(body) > LARGE_BYTES:
                body = self._begin_page(call, body)
            connection.reply(body)
        context.is_over = True
        if context.joined:
            context.end(is_good=is_good)

    def _look_again(
        self, call: Invocation, context: ConnectionContext, *, is_new_token: bool
    ) -> bytes | None:
        """Return the error for an answer that may not be given any more."""
        connection, handler, message = call
        try:
            context.check()
            if is_new_token and not context.has_acted:
                require_grants(connection.identity.grants, handler, message)
        except ClientError as error:
            return self._error(error, message.id)
        return None

    def _begin_page(self, call: Invocation, body: bytes) -> bytes:
        """Count a large answer until it is read; return it, or the error in its place."""
        connection, _, message = call
        owner, size = connection.budget.owner, len(body)
        try:
            self._pages.begin(owner, size)
        except ClientError as error:
            return self._error(error, message.id)
        self._hub.tasks.spawn(self._end_page(connection, owner, size))
        return body

    async def _end_page(self, connection: Connection, owner: str, size: int) -> None:
        try:
            await asyncio.sleep(0)  # it leaves at the turn's end
            await connection.transport.drained()
        finally:
            self._pages.give(owner, size)

    def _abandon(
        self,
        call: Invocation,
        context: ConnectionContext,
        task: asyncio.Task[Any],
        order: Order | None,
    ) -> None:
        """Go on without a handler that refuses to be cancelled."""
        connection, handler, message = call
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
        was_worker = connection.worker is task
        if was_worker:
            connection.worker = None
        connection.reply(body)
        context.end(is_good=False)
        if was_worker and connection.waiting and not connection.closed:
            start(self._work(connection))

    def _failure(self, call: Invocation, error: BaseException) -> bytes:
        """Turn what a handler raised into its caller's answer."""
        failure = containment.contain(error)
        if not isinstance(failure, ClientError):
            call.connection.budget.charge(FAILURE, self._clock.monotonic())
            plugin, tag = call.handler.plugin.name, call.handler.tag
            failure = self._hosts[plugin].plugins.conduct.failed(
                plugin,
                call.handler.spec.function,
                "handler",
                failure,
                user=call.connection.identity.user_id,
                calls=self.counts.get(tag),
                type=tag,
            )
        return self._error(failure, call.message.id)

    def _error(self, error: ClientError, request_id: RequestIdValue) -> bytes:
        self.errors[error.code] = self.errors.get(error.code, 0) + 1
        return encode_error(error, request_id)

    # Order:

    def _start_async(self, call: Invocation) -> None:
        connection = call.connection
        self._count_turn(connection)
        if len(connection.tasks or ()) < self._limits.inbox_messages:
            if call.handler.spec.unordered:
                start(self._call_beside(call, None))
                return
            if self._overlaps(call) and not connection.waiting:
                before = connection.last_answer
                if connection.worker is None or (before is not None and not before.done()):
                    start(self._call_in_line(call, Order(before)))
                    return
        self._enqueue(connection, call)
        if connection.worker is None:
            start(self._work(connection))

    def _count_turn(self, connection: Connection) -> None:
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._end_turn)
        begun = self._begun[connection] = self._begun.get(connection, 0) + 1
        if begun == turns.HANDLERS:
            connection.transport.pause_reads(True)

    def _end_turn(self) -> None:
        begun, self._begun = self._begun, {}
        for connection, count in begun.items():
            if count >= turns.HANDLERS:
                self._read_on(connection)

    def _read_on(self, connection: Connection) -> None:
        """Read a connection again, unless too much waits or its turn is over."""
        is_full = len(connection.waiting or ()) >= self._limits.inbox_messages
        if not is_full and self._begun.get(connection, 0) < turns.HANDLERS:
            connection.transport.pause_reads(False)

    async def _call_beside(self, call: Invocation, order: Order | None) -> None:
        """Call a handler while others are at work; the next of its order may then answer."""
        task = self._enter()
        if call.connection.tasks is None:
            call.connection.tasks = set()
        beside = call.connection.tasks
        beside.add(task)
        try:
            await self._call_async(call, order)
        finally:
            beside.discard(task)
            self._tasks.discard(task)
            if order is not None:
                order.end()

    def _overlaps(self, item: Invocation | bytes) -> bool:
        """Tell whether what waits is a call that need not wait for the one before."""
        if isinstance(item, bytes) or not self._pipelines:
            return False
        pipelined = item.handler.spec.pipelined
        return pipelined(item.message) if callable(pipelined) else pipelined

    async def _call_in_line(self, call: Invocation, order: Order) -> None:
        """Call a pipelined handler; the last one does then what came behind it."""
        connection = call.connection
        task = connection.worker = cast("asyncio.Task[None]", asyncio.current_task())
        connection.last_answer = order.answered
        try:
            await self._call_beside(call, order)
        except BaseException:
            self._leave(connection, task)
            raise
        if connection.worker is task:
            connection.last_answer = None
            await self._work(connection)

    async def _call_several(self, call: Invocation) -> None:
        """Call a pipelined handler, and those that wait behind it, as many as may overlap."""
        connection, order = call.connection, Order(None)
        start(self._call_beside(call, order))
        while (
            connection.waiting
            and len(connection.tasks or ()) < self._limits.inbox_messages
            and self._overlaps(connection.waiting[0])
        ):
            order = Order(order.answered)
            start(self._call_beside(connection.waiting.popleft(), order))
        await order.answered

    def _enqueue(self, connection: Connection, item: Invocation | bytes) -> None:
        if connection.waiting is None:
            connection.waiting = deque()
        connection.waiting.append(item)
        if len(connection.waiting) >= self._limits.inbox_messages:
            connection.transport.pause_reads(True)

    async def _work(self, connection: Connection) -> None:
        """Work off what waits in line, then end; end at once if it was abandoned."""
        task = connection.worker = self._enter()
        try:
            while connection.worker is task and connection.waiting and not connection.closed:
                item = connection.waiting.popleft()
                if isinstance(item, bytes):
                    connection.reply(item)
                elif self._overlaps(item):
                    await self._call_several(item)
                elif item.handler.is_async:
                    await self._call_async(item)
                else:
                    self._answer(*item)
                if len(connection.waiting or ()) <= self._limits.inbox_messages // 2:
                    self._read_on(connection)
        finally:
            self._tasks.discard(task)
            self._leave(connection, task)

    def _leave(self, connection: Connection, task: asyncio.Task[None]) -> None:
        if connection.worker is task:
            connection.worker = connection.waiting = connection.last_answer = None
            self._read_on(connection)

    def _enter(self) -> asyncio.Task[None]:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        return task


def _encode(handler: Handler, result: object, request_id: RequestIdValue) -> bytes | None:
    """Return what a handler answers. Raises TypeError if it is no message, nor None."""
    if isinstance(result, Message):
        return encode_reply(result, request_id)
    if result is None:
        return None
    if inspect.iscoroutine(result):
        result.close()
    raised = "raise it" if isinstance(result, BaseException) else "it must return a Message or None"
    raise TypeError(
        f"the handler of {handler.tag!r} at {handler.spec.source} returned "
        f"{type(result).__name__}; {raised}"
    )

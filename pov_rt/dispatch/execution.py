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
from pov_rt.auth.tokens import Identity
from pov_rt.connections.borders import Handled
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
from pov_rt.runtime.measure.tally import tally_of_errors
from pov_rt.runtime.process.logs import Throttle

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
        self._borders = services.borders
        self._hosts = hosts
        # Hooks that wait could let one publication of a connection get ahead of another.
        self._pipelines = not services.registry.asks_before_publish
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: dict[Connection, int] = {}
        """How many handlers began in this turn."""
        self.errors = tally_of_errors()
        """Errors answered, by code."""
        self.counts: Mapping[str, int] = {}
        """Messages handled, by type: the dispatcher's."""

    async def close(self) -> None:
        """Cancel what still runs; called after the connections are gone."""
        await containment.end(self._tasks, "handlers")

    def run(self, connection: Connection, handler: Handler, message: Message) -> None:
        """Run a handler and send its answer, now or in turn."""
        if (admitted := self._borders.admitted) is not None:
            admitted(connection, handler.tag, message)
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
        tag: str = "",
        message: Message | None = None,
    ) -> None:
        """Answer an error in turn: behind what the worker still has to do.

        `tag` and `message` are what is refused, as far as it was understood.
        """
        done = Handled(tag, message, None, error, None)
        for tell in (self._borders.handled, self._borders.failed):
            if tell is not None:
                tell(connection, done)
        body = self._error(error, request_id)
        if connection.worker is None:
            connection.send(body)
        else:
            self._enqueue(connection, body)

    # One handler:

    def _answer(self, connection: Connection, handler: Handler, message: Message) -> None:
        """Call a plain handler and send its answer."""
        context = ConnectionContext(self._hosts[handler.plugin.name], connection)
        is_timed = self._borders.handled is not None
        began = self._clock.monotonic() if is_timed else 0.0
        result: object = None
        error: ClientError | None = None
        try:
            result = handler.spec.function(message, context)
            context.spare(result)
            body = _encode(handler, result, message.id)
        except BaseException as raised:
            error = self._failure(Invocation(connection, handler, message), raised)
            body = self._error(error, message.id)
        if is_timed or error is not None:
            self._tell(Invocation(connection, handler, message), result, error, began)
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
        began = self._clock.monotonic()
        body: bytes | None = None
        result: object = None
        error: ClientError | None = None
        try:
            result = await containment.call(
                handler.spec.function,
                message,
                context,
                deadline_s=self._limits.handler_deadline_s,
                stuck=partial(self._abandon, call, context, task, order),
            )
            context.spare(result)
            body = _encode(handler, result, message.id)
        except HandlerTimeout as late:
            error = self._note_late(handler, late, publications)
        except Exception as raised:
            error = self._failure(call, raised)
        ended = self._clock.monotonic()
        if order is not None and order.before is not None:
            await order.before
        if task not in self._tasks:
            return
        if error is None:
            error = self._look_again(call, context, identity)
        is_good = error is None
        if body is not None and is_good and not context.answered:
            if len(body) > SMALL_BYTES:
                budget.charge(len(body) * BYTE, self._clock.monotonic())
            if len(body) > LARGE_BYTES:
                error = self._begin_page(call, len(body))
        self._tell(call, result, error, began, ended)
        if error is not None:
            body = self._error(error, message.id)
        if body is not None and not context.answered:
            connection.reply(body)
        context.is_over = True
        if context.joined:
            context.end(is_good=is_good)

    def _note_late(
        self, handler: Handler, late: HandlerTimeout, publications: InFlight
    ) -> HandlerTimeout:
        """Log that a handler exceeded its deadline, and return what its caller is answered."""
        if publications.open:
            late.extra["outcome"] = "unknown"
        words, plugin = "a handler exceeded its deadline", handler.plugin.name
        self._late.log(logging.WARNING, words, type=handler.tag, plugin=plugin)
        return late

    def _tell(
        self,
        call: Invocation,
        result: object,
        error: ClientError | None,
        began: float,
        ended: float | None = None,
    ) -> None:
        """Tell who wants to know what became of a message; times are `Clock.monotonic`."""
        handled, failed = self._borders.handled, self._borders.failed
        if handled is None and (failed is None or error is None):
            return
        took_s = (self._clock.monotonic() if ended is None else ended) - began
        answer = result if error is None else None
        done = Handled(call.handler.tag, call.message, answer, error, took_s)
        if handled is not None:
            handled(call.connection, done)
        if failed is not None and error is not None:
            failed(call.connection, done)

    def _look_again(
        self, call: Invocation, context: ConnectionContext, identity: Identity
    ) -> ClientError | None:
        """Return the error in the place of an answer that may not be given any more.

        `identity` is the sender's when the message came.
        """
        connection, handler, message = call
        is_new_token = connection.identity is not identity
        if not (is_new_token or context.joined or context.required):
            return None
        try:
            context.check()
            if is_new_token and not context.has_acted:
                require_grants(connection.identity.grants, handler, message)
        except ClientError as error:
            return error
        return None

    def _begin_page(self, call: Invocation, size: int) -> ClientError | None:
        """Count a large answer until it is read; return the error in its place, if any."""
        owner = call.connection.budget.owner
        try:
            self._pages.begin(owner, size)
        except ClientError as error:
            return error
        self._hub.tasks.spawn(self._end_page(call.connection, owner, size))
        return None

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
        late = HandlerTimeout()
        now = self._clock.monotonic()
        self._tell(call, None, late, now - self._limits.handler_deadline_s, now)
        body = self._error(late, message.id)
        was_worker = connection.worker is task
        if was_worker:
            connection.worker = None
        connection.reply(body)
        context.end(is_good=False)
        if was_worker and connection.waiting and not connection.closed:
            start(self._work(connection))

    def _failure(self, call: Invocation, error: BaseException) -> ClientError:
        """Turn what a handler raised into what its caller is answered."""
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
        return failure

    def _error(self, error: ClientError, request_id: RequestIdValue) -> bytes:
        self.errors.add(error.code)
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
        if connection.worker is None:
            start(self._work(connection, call))
        else:
            self._enqueue(connection, call)

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

    async def _work(self, connection: Connection, first: Invocation | None = None) -> None:
        """Call a handler, if there is one, and work off what waits in line behind it, then end.

        End at once if it was abandoned.
        """
        task = connection.worker = self._enter()
        try:
            if first is not None:
                await self._call(first)
            while connection.worker is task and connection.waiting and not connection.closed:
                item = connection.waiting.popleft()
                if isinstance(item, bytes):
                    connection.reply(item)
                else:
                    await self._call(item)
                if len(connection.waiting or ()) <= self._limits.inbox_messages // 2:
                    self._read_on(connection)
        finally:
            self._tasks.discard(task)
            self._leave(connection, task)

    async def _call(self, call: Invocation) -> None:
        """Call a handler whose turn it is."""
        if self._overlaps(call):
            await self._call_several(call)
        elif call.handler.is_async:
            await self._call_async(call)
        else:
            self._answer(*call)

    def _leave(self, connection: Connection, task: asyncio.Task[None]) -> None:
        if connection.worker is task:
            has_waited = connection.waiting is not None
            connection.worker = connection.waiting = connection.last_answer = None
            if has_waited:  # else nothing is held back but what a turn has had enough of
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

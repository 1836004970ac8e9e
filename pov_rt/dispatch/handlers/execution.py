"""Runs handlers: plain ones at once, `async` ones in their connection's order, none for ever.

The one error boundary: whatever a handler raises costs its caller one answer and nobody else
anything.

The order of replies. A connection's answers leave in the order of its messages, those to bad
messages included, save for types declared `unordered`. A handler returns its answer, or a future of
it; an `async` one is a task, which is such a future. Then its message keeps a slot in
`connection.line`, and so does whatever comes until the line is empty again:

- A slot that is done is answered once it is the first.
- The first slot's handler is called. So is one of `pipelined` slots behind it, if all before it are
  such, too. Any other waits until it is the first.
- `unordered` handlers never wait and are never waited for (`connection.beside`).
- Without a line a plain handler needs no slot: it is called and answered at once.

An answer comes behind what was delivered to the connection before (`connection.send` and `reply`
see to that), and before what its own subscriptions bring. The step that sends it is the one in
which what it says becomes true: before it, it is asked once more whether the token and the
subscriptions allow the answer (`context.check`; what was done is answered so), and after it the
subscriptions are confirmed, or left as they were if it is an error (`context.end`).

Bounds. In one turn of the loop few handlers of a connection begin that have others wait, and few
messages are in line; past each of these the socket is read no more until there is room. A handler
that exceeds its deadline is cancelled and answered `timeout`. One that refuses to be cancelled is
abandoned: the connection goes on without it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from asyncio import Future
from collections import deque
from collections.abc import Mapping
from functools import partial
from itertools import islice, takewhile
from typing import Any, cast

from msgspec import UNSET

from pov_rt.activities.publishing import InFlight, in_flight
from pov_rt.auth.grants import Grants
from pov_rt.connections.borders import Handled
from pov_rt.connections.budgets import BYTE, LARGE_BYTES
from pov_rt.connections.connection import Connection
from pov_rt.dispatch.handlers.context import ConnectionContext
from pov_rt.dispatch.handlers.slot import Refusal, Slot
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


def require_grants(grants: Grants, handler: Handler, message: Message) -> None:
    """Raise `Forbidden` unless a token allows what a message asks for."""
    if handler.check_ids is not None:
        handler.check_ids(message, grants.require_pov)
    if handler.spec.grant is not None:
        grants.require(handler.spec.grant)


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
        self._budgets = services.budgets
        # Hooks that wait could let one publication of a connection get ahead of another.
        self._pipelines = not services.registry.asks_before_publish
        self._watch = containment.Watch(self._limits.handler_deadline_s, self._abandon)
        self._works: set[Future[None]] = set()
        self._begun: dict[Connection, int] = {}
        """How many handlers began in this turn that have others wait."""
        self.errors = tally_of_errors()
        """Errors answered, by code."""
        self.counts: Mapping[str, int] = {}
        """Messages handled, by type: the dispatcher's."""

    async def close(self) -> None:
        """Cancel what still runs; called after the connections are gone."""
        await containment.end(self._works, "handlers")

    def run(self, connection: Connection, handler: Handler, message: Message) -> None:
        """Run a handler and send its answer, now or in turn."""
        if (admitted := self._borders.admitted) is not None:
            admitted(connection, handler.tag, message)
        unordered = handler.spec.unordered
        has_room = not handler.may_wait or connection.beside is None or self._has_room(connection)
        if not handler.is_async and has_room and (connection.line is None or unordered):
            self._answer(connection, handler, message)
            return
        self._count_turn(connection)
        slot = Slot(connection, handler, message, overlaps=self._overlaps(handler, message))
        if unordered and has_room:
            slot.is_beside = True
            self._begin(slot)
            if slot.is_done:
                self._finish(slot)
            else:
                self._put_beside(slot)
        else:
            self._enter(slot)

    def release(self, connection: Connection) -> None:
        """Cancel what is at work for a connection that has ended, and forget what waits."""
        for each in (*(connection.line or ()), *(connection.beside or ())):
            if each.work is not None:
                each.work.cancel()
        connection.line = connection.beside = None

    def refuse(
        self,
        connection: Connection,
        error: ClientError,
        request_id: RequestIdValue = UNSET,
        tag: str = "",
        message: Message | None = None,
    ) -> None:
        """Answer an error in turn: behind what is still at work, and what waits.

        `tag` and `message` are what is refused, as far as it was understood.
        """
        done = Handled(tag, message, None, error, None)
        for tell in (self._borders.handled, self._borders.failed):
            if tell is not None:
                tell(connection, done)
        body = self._error(error, request_id)
        if connection.line is None:
            connection.send(body)
        else:
            connection.line.append(Refusal(body, is_open=connection.line[-1].is_open))
            self._hold(connection)

    # One handler:

    def _answer(self, connection: Connection, handler: Handler, message: Message) -> None:
        """Call a plain handler and send its answer, unless that is still to come."""
        context = ConnectionContext(self._hosts[handler.plugin.name], connection)
        context.request_id = message.id
        is_timed = self._borders.handled is not None
        began = self._clock.monotonic() if is_timed else 0.0
        result: object = None
        error: ClientError | None = None
        try:
            result = handler.spec.function(message, context)
            if handler.may_wait and isinstance(result, Future):
                self._count_turn(connection)
                if not result.done():
                    self._keep(connection, handler, message, context, began, result)
                    return
                result = result.result()
            if context.told is not None:
                context.spare(result)
            body = None if context.answered else _encode(handler, result, message.id)
        except BaseException as raised:
            error = self._failure(connection, handler, raised)
            body = None if context.answered else self._error(error, message.id)
        if is_timed or error is not None:
            self._tell(connection, handler, message, result, error, began)
        if body is not None:
            connection.send(body)

    def _keep(
        self,
        connection: Connection,
        handler: Handler,
        message: Message,
        context: ConnectionContext,
        began: float,
        work: Future[Any],
    ) -> None:
        """Give a message a slot whose plain handler was called: its answer is still to come."""
        slot = Slot(connection, handler, message, overlaps=self._overlaps(handler, message))
        slot.context, slot.began = context, began
        self._await(slot, work)
        if handler.spec.unordered:
            slot.is_beside = True
            self._put_beside(slot)
        else:
            connection.line = deque((slot,))

    def _begin(self, slot: Slot) -> None:
        """Call a handler. It is done when this returns, or `slot.work` is there."""
        connection, handler = slot.connection, slot.handler
        context = ConnectionContext(self._hosts[handler.plugin.name], connection)
        context.request_id = slot.message.id
        slot.context, slot.identity = context, connection.identity
        slot.began = self._clock.monotonic()
        if handler.is_async:
            work = start(self._call(slot, context))
            if not slot.is_done:
                slot.work = work
                self._works.add(work)
                work.add_done_callback(self._works.discard)
            return
        try:
            result = handler.spec.function(slot.message, context)
            if handler.may_wait and isinstance(result, Future):
                if not result.done():
                    self._await(slot, result)
                    return
                result = result.result()
            slot.result = result
        except BaseException as raised:
            slot.error = self._failure(connection, handler, raised)
        self._end(slot)

    def _await(self, slot: Slot, work: Future[Any]) -> None:
        """Go on when a plain handler's future is done, or its time is over."""
        slot.work = work
        self._watch.add(slot)
        work.add_done_callback(partial(self._resolve, slot))

    def _resolve(self, slot: Slot, work: Future[Any]) -> None:
        """Take over what a plain handler's future has become."""
        is_abandoned = slot.is_done
        if not is_abandoned:
            self._watch.remove(slot)
        if is_abandoned or slot.connection.closed:  # so that nobody is told
            if not work.cancelled():
                work.exception()
            slot.work = None
            return
        try:
            slot.result = work.result()
        except BaseException as raised:
            if slot.has_expired and work.cancelled():
                slot.error = self._note_late(slot, HandlerTimeout())
            else:
                slot.error = self._failure(slot.connection, slot.handler, raised)
        self._end(slot)
        self._go_on(slot)

    async def _call(self, slot: Slot, context: ConnectionContext) -> None:
        """Call an `async` handler, and go on when it is done, unless it was abandoned meanwhile."""
        payer.set(slot.connection.budget.owner)
        publications = InFlight()
        in_flight.set(publications)
        result: object = None
        error: ClientError | None = None
        try:
            result = await containment.call(
                slot.handler.spec.function,
                slot.message,
                context,
                deadline_s=self._limits.handler_deadline_s,
                stuck=partial(self._abandon, slot),
            )
        except HandlerTimeout as late:
            context.has_published = publications.open > 0
            error = self._note_late(slot, late)
        except Exception as raised:
            error = self._failure(slot.connection, slot.handler, raised)
        except BaseException:  # it cancelled itself, or its connection has ended
            if not slot.connection.closed:
                context.answered = True
                self._end(slot)
                self._go_on(slot)
            raise
        if slot.is_done:
            return
        slot.result, slot.error = result, error
        has_waited = slot.work is not None
        self._end(slot)
        if has_waited:
            self._go_on(slot)

    def _end(self, slot: Slot) -> None:
        """Take note that a handler is done."""
        slot.ended = self._clock.monotonic()
        slot.work = None
        slot.is_done = True

    def _finish(self, slot: Slot) -> None:
        """Answer a message whose handler is done."""
        connection, handler = slot.connection, slot.handler
        context = cast("ConnectionContext", slot.context)
        result, error, request_id = slot.result, slot.error, slot.message.id
        body: bytes | None = None
        is_new_token = connection.identity is not slot.identity
        if error is None and (is_new_token or context.joined or context.required):
            error = self._look_again(slot, context, is_new_token=is_new_token)
        if error is None and not context.answered:
            try:
                if context.told is not None:
                    context.spare(result)
                body = _encode(handler, result, request_id)
            except Exception as raised:
                error = self._failure(connection, handler, raised)
        if body is not None and len(body) > SMALL_BYTES:
            error = self._charge_large(connection, len(body))
        if self._borders.handled is not None or error is not None:
            self._tell(connection, handler, slot.message, result, error, slot.began, slot.ended)
        if error is not None:
            body = self._error(error, request_id)
        if body is not None and not context.answered:
            connection.reply(body)
        context.is_over = True
        if context.joined:
            context.end(is_good=error is None)

    def _charge_large(self, connection: Connection, size: int) -> ClientError | None:
        """Charge for a large answer; return the error in its place, if there is no room for it."""
        connection.budget.charge(size * BYTE, self._clock.monotonic())
        return self._begin_page(connection, size) if size > LARGE_BYTES else None

    def _note_late(self, slot: Slot, late: HandlerTimeout) -> HandlerTimeout:
        """Log that a handler exceeded its deadline, and return what its caller is answered."""
        if slot.context is not None and slot.context.has_published:
            late.extra["outcome"] = "unknown"
        words, handler = "a handler exceeded its deadline", slot.handler
        self._late.log(logging.WARNING, words, type=handler.tag, plugin=handler.plugin.name)
        return late

    def _tell(
        self,
        connection: Connection,
        handler: Handler,
        message: Message,
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
        done = Handled(handler.tag, message, answer, error, took_s)
        if handled is not None:
            handled(connection, done)
        if failed is not None and error is not None:
            failed(connection, done)

    def _look_again(
        self, slot: Slot, context: ConnectionContext, *, is_new_token: bool
    ) -> ClientError | None:
        """Return the error in the place of an answer that may not be given any more."""
        try:
            context.check()
            if is_new_token and not context.has_acted:
                grants = slot.connection.identity.grants
                require_grants(grants, slot.handler, slot.message)
        except ClientError as error:
            return error
        return None

    def _begin_page(self, connection: Connection, size: int) -> ClientError | None:
        """Count a large answer until it is read; return the error in its place, if any."""
        owner = connection.budget.owner
        try:
            self._pages.begin(owner, size)
        except ClientError as error:
            return error
        self._hub.tasks.spawn(self._end_page(connection, owner, size))
        return None

    async def _end_page(self, connection: Connection, owner: str, size: int) -> None:
        try:
            await asyncio.sleep(0)  # it leaves at the turn's end
            await connection.transport.drained()
        finally:
            self._pages.give(owner, size)

    def _abandon(self, slot: Slot) -> None:
        """Go on without a handler that refuses to be cancelled."""
        handler = slot.handler
        log.error(
            "a handler does not end although it is cancelled",
            extra={
                "type": handler.tag,
                "plugin": handler.plugin.name,
                "at": str(handler.spec.source),
            },
        )
        if slot.work is not None:
            self._works.discard(slot.work)
        slot.error = HandlerTimeout()
        self._end(slot)
        self._go_on(slot)

    def _failure(
        self, connection: Connection, handler: Handler, error: BaseException
    ) -> ClientError:
        """Turn what a handler raised into what its caller is answered."""
        failure = containment.contain(error)
        if not isinstance(failure, ClientError):
            # The connection may have ended, and its user's budget be another one.
            self._budgets.charge_owner(connection.budget.owner, FAILURE)
            plugin, tag = handler.plugin.name, handler.tag
            failure = self._hosts[plugin].plugins.conduct.failed(
                plugin,
                handler.spec.function,
                "handler",
                failure,
                user=connection.identity.user_id,
                calls=self.counts.get(tag),
                type=tag,
            )
        return failure

    def _error(self, error: ClientError, request_id: RequestIdValue) -> bytes:
        self.errors.add(error.code)
        return encode_error(error, request_id)

    # Order:

    def _overlaps(self, handler: Handler, message: Message) -> bool:
        """Tell whether a message need not wait for those before it that overlap, too."""
        pipelined = handler.spec.pipelined
        if not pipelined or not self._pipelines:
            return False
        return pipelined(message) if callable(pipelined) else pipelined

    def _enter(self, slot: Slot) -> None:
        """Put a message into its connection's line, and call its handler if it is its turn."""
        connection = slot.connection
        line = connection.line
        if line is None:
            self._begin(slot)
            if slot.is_done:
                self._finish(slot)
            else:
                connection.line = deque((slot,))
            return
        has_room = len(line) < self._limits.inbox_messages
        slot.is_open = slot.overlaps and has_room and line[-1].is_open
        line.append(slot)
        if slot.is_open:
            self._begin(slot)
        self._hold(connection)

    def _has_room(self, connection: Connection) -> bool:
        """Tell whether another handler may be at work beside the line."""
        return len(connection.beside or ()) < self._limits.inbox_messages

    def _put_beside(self, slot: Slot) -> None:
        connection = slot.connection
        if connection.beside is None:
            connection.beside = set()
        connection.beside.add(slot)

    def _go_on(self, slot: Slot) -> None:
        """Answer what is done now, and call the handlers whose turn it is."""
        connection = slot.connection
        if slot.is_beside:
            if connection.beside is not None:
                connection.beside.discard(slot)
            self._finish(slot)
            return
        line = connection.line
        if line is None:
            return
        before = len(line)
        while line and not connection.closed:
            first = line[0]
            if first.is_done:
                line.popleft()
                if isinstance(first, Refusal):
                    connection.reply(first.body)
                else:
                    self._finish(first)
            elif first.context is None:
                self._begin(first)
            else:
                break
        if connection.closed:
            self.release(connection)
            return
        if not line:
            connection.line = None
        elif not line[-1].is_open:
            self._open(line)
        # Half of it at once, or a socket would be read and left with every answer.
        if len(line) <= self._limits.inbox_messages // 2 < before:
            self._read_on(connection)

    def _open(self, line: deque[Slot | Refusal]) -> None:
        """Call the handlers that need not wait for those before them any more."""
        some = list(islice(line, self._limits.inbox_messages))
        for each in takewhile(lambda each: each.overlaps, some):
            each.is_open = True
            if isinstance(each, Slot) and each.context is None:
                self._begin(each)

    def _count_turn(self, connection: Connection) -> None:
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._end_turn)
        begun = self._begun[connection] = self._begun.get(connection, 0) + 1
        if begun >= turns.HANDLERS:
            connection.transport.pause_reads(True)

    def _end_turn(self) -> None:
        begun, self._begun = self._begun, {}
        for connection, count in begun.items():
            if count >= turns.HANDLERS:
                self._read_on(connection)

    def _hold(self, connection: Connection) -> None:
        """Read a connection no more if its line is full."""
        if len(connection.line or ()) > self._limits.inbox_messages:
            connection.transport.pause_reads(True)

    def _read_on(self, connection: Connection) -> None:
        """Read a connection again, unless its line is full or its turn is over."""
        is_full = len(connection.line or ()) > self._limits.inbox_messages
        if not is_full and self._begun.get(connection, 0) < turns.HANDLERS:
            connection.transport.pause_reads(False)


def _encode(handler: Handler, result: object, request_id: RequestIdValue) -> bytes | None:
    """Return what a handler answers. Raises TypeError if it is no message, nor None."""
    if isinstance(result, Message):
        return encode_reply(result, request_id)
    if result is None:
        return None
    if inspect.iscoroutine(result):
        result.close()
    raised = "it must return a Message or None"
    if isinstance(result, BaseException):
        raised = "raise it"
    elif isinstance(result, Future):
        raised = "say so where it is declared: `-> Future[Answer]`"
    raise TypeError(
        f"the handler of {handler.tag!r} at {handler.spec.source} returned "
        f"{type(result).__name__}; {raised}"
    )

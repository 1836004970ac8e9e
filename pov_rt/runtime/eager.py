"""Tasks whose first step runs at once, as Python 3.12 has them.

Most handlers never wait. One that runs at once is answered in the turn of the loop in which its
message came, and not in the next, which on a busy node is later (docs/measurements.md, first
steps).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Coroutine
from contextvars import Context, copy_context
from sys import getrefcount
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")

_NOTHING: Any = object()


def begun(work: Awaitable[ResultT]) -> asyncio.Future[ResultT]:
    """Return a future as it is, and what else is to be awaited as one that was begun."""
    if isinstance(work, asyncio.Future):
        return work
    return start(work if isinstance(work, Coroutine) else _wait_for(work))


async def _wait_for(work: Awaitable[ResultT]) -> ResultT:
    return await work


class Begun(Coroutine[Any, Any, ResultT]):
    """A coroutine that was run until it waits for `awaited`."""

    def __init__(self, coroutine: Coroutine[Any, Any, ResultT], awaited: Any = _NOTHING) -> None:
        self.awaited = awaited
        self.has_ended = False
        """Its result is known already; whoever goes on finds the end."""
        self._coroutine = coroutine

    @property
    def cr_await(self) -> Coroutine[Any, Any, ResultT]:
        """What goes on in it, as coroutines tell whoever looks for where a task waits."""
        return self._coroutine

    def send(self, value: Any) -> Any:
        """Tell what it waits for, the first time; then go on."""
        if self.has_ended:
            raise StopIteration
        awaited, self.awaited = self.awaited, _NOTHING
        if awaited is _NOTHING:
            return self._coroutine.send(value)
        _mark(awaited, True)
        return awaited

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        if self.has_ended:
            raise StopIteration
        self.awaited = _NOTHING
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End it."""
        self._coroutine.close()

    def __await__(self) -> Begun[ResultT]:
        return self

    def __iter__(self) -> Begun[ResultT]:
        return self

    def __next__(self) -> Any:
        return self.send(None)


def _mark(awaited: Any, handed_over: bool) -> None:
    """Mark a future as just handed to a task, or not: until a task has it others may await it too.

    The protocol between futures and tasks, see `asyncio.Future.__await__`.
    """
    if getattr(awaited, "_asyncio_future_blocking", None) is not None:
        awaited._asyncio_future_blocking = handed_over  # noqa: SLF001  (asyncio's own duck type)


if sys.version_info >= (3, 12):

    def start(work: Coroutine[Any, Any, ResultT]) -> asyncio.Future[ResultT]:
        """Run a coroutine until it waits; return a task that goes on, or its result."""
        return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)

else:
    from asyncio.tasks import _enter_task, _leave_task

    class _Carrier(Begun[Any]):
        """What a task is made for before it is known whether its coroutine waits.

        A task costs far more than the coroutines that need none. So one that has not been needed is
        there for the next, until the loop comes to it at the end of the turn
        (docs/measurements.md, first steps).
        """

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self.has_ended = True
            self.loop = loop
            self.task: asyncio.Task[Any] = asyncio.Task(self, loop=loop)
            self.references = getrefcount(self.task)

        def carry(self, work: Coroutine[Any, Any, Any], context: Context, awaited: Any) -> None:
            """Go on with a coroutine that waits, in its own context."""
            super().__init__(work, awaited)
            self._context = context
            self.has_ended = False

        @property
        def is_unused(self) -> bool:
            """Whether nobody knows the task, who could cancel it or wait for it."""
            task = self.task
            return getrefcount(task) <= self.references + 1 and not task.cancelling()

        def send(self, value: Any) -> Any:
            if self.has_ended or self.awaited is not _NOTHING:
                return super().send(value)
            return self._context.run(self._coroutine.send, value)

        def throw(self, *error: Any) -> Any:
            if self.has_ended:
                return super().throw(*error)
            self.awaited = _NOTHING
            return self._context.run(self._coroutine.throw, *error)

    _spare: _Carrier | None = None
    """Of this thread's loop or another's."""

    def start(work: Coroutine[Any, Any, ResultT]) -> asyncio.Future[ResultT]:
        """Run a coroutine until it waits; return a task that goes on, or its result.

        During that first step, too, the task is the current one: what the coroutine makes, such as
        a timeout, may refer to it (see "Task lifetime support" in the documentation of asyncio).
        """
        global _spare
        loop, context = asyncio.get_running_loop(), copy_context()
        outer = asyncio.current_task(loop)
        carrier, _spare = _spare, None
        if carrier is None or carrier.loop is not loop or carrier.task.done():
            carrier = _Carrier(loop)
        if outer is not None:
            _leave_task(loop, outer)
        _enter_task(loop, carrier.task)
        try:
            awaited = context.run(work.send, None)
        except BaseException as raised:
            error = raised
        else:
            _mark(awaited, False)
            carrier.carry(work, context, awaited)
            return carrier.task
        finally:
            _leave_task(loop, carrier.task)
            if outer is not None:
                _enter_task(loop, outer)
        if carrier.is_unused:
            _spare = carrier
        return _ended(loop, error)

    def _ended(loop: asyncio.AbstractEventLoop, error: BaseException) -> asyncio.Future[Any]:
        """Return the result of a coroutine that raised this at its end."""
        ended: asyncio.Future[Any] = loop.create_future()
        if isinstance(error, StopIteration):
            ended.set_result(error.value)
        elif isinstance(error, asyncio.CancelledError):
            ended.cancel()
        elif isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error
        else:
            ended.set_exception(error)
        return ended

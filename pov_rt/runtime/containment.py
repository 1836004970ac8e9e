"""Keeps what plugins do wrong to themselves: what they raise, and how long they take."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, cast
from weakref import WeakKeyDictionary

from pov_rt.protocol.errors import HandlerTimeout, Internal, Unavailable
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.eager import Begun, start

log = logging.getLogger(__name__)

END_S = 1.0
"""How long tasks that are cancelled at the end may take."""
STUCK_S = 1.0
"""How long a call that exceeded its deadline may take to be cancelled."""


class PluginExit(Exception):
    """A plugin raised something that would have ended a task or the process, such as SystemExit."""


def contain(error: BaseException) -> Exception:
    """Return what a plugin raised as an ordinary error.

    What is not the plugin's goes on: Ctrl-C, a generator's end, and the cancellation of the task
    that called it.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
        raise error
    if isinstance(error, asyncio.CancelledError) and is_cancelled():
        raise error
    contained = PluginExit(f"the plugin raised {error!r}")
    contained.__cause__ = error
    return contained


def is_cancelled(*, but: int = 0) -> bool:
    """Tell whether somebody cancelled the current task, more than `but` times."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop
        return False
    return task is not None and task.cancelling() > but


async def call(
    function: Callable[..., Any],
    *arguments: Any,
    deadline_s: float,
    stuck: Callable[[], None] | None = None,
) -> Any:
    """Call a plugin's function, plain or `async`, and return its result.

    Raises `HandlerTimeout` after `deadline_s` seconds, else what the function raised, contained.
    `stuck` is called if it goes on for `STUCK_S` more although it was cancelled.

    The deadline begins when the function first waits; most never do, and need no timer.
    """
    entry: Watched | None = None
    try:
        result = function(*arguments)
        rest: Awaitable[Any] = result
        if inspect.iscoroutine(result):
            try:
                rest = Begun(result, result.send(None))
            except StopIteration as end:
                return end.value
        elif not inspect.isawaitable(result):
            return result
        watch, entry = _watch(deadline_s), _Called(stuck)
        watch.add(entry)
        return await rest
    except BaseException as error:
        is_late = entry is not None and entry.has_expired and not is_cancelled(but=1)
        if is_late and isinstance(error, asyncio.CancelledError):
            raise HandlerTimeout from None
        contained = contain(error)
        try:
            raise contained from contained.__cause__
        finally:
            del contained  # it knows this frame: together they would wait for the collector
    finally:
        if entry is not None:
            watch.remove(entry)


class Watched:
    """Something that is waited for. Its work is cancelled at its deadline, once.

    `due` and `has_expired` are the watch's; a subclass has more about it.
    """

    __slots__ = ("due", "has_expired", "work")

    def __init__(self, work: asyncio.Future[Any] | None) -> None:
        self.due = 0.0
        self.work = work
        self.has_expired = False


class _Called(Watched):
    """A function's task."""

    __slots__ = ("_stuck",)

    def __init__(self, stuck: Callable[[], None] | None) -> None:
        super().__init__(asyncio.current_task())
        self._stuck = stuck

    def give_up(self) -> None:
        """Say that it goes on though it was cancelled."""
        if self._stuck is not None:
            self._stuck()


class Watch:
    """What is waited for with the same deadline, the oldest first: one timer does for all.

    asyncio would have two for each (docs/measurements.md, deadlines). It cancels a future after
    `deadline_s` seconds, unless `remove` was called before, and calls `stuck` with what is not
    removed `STUCK_S` after that.
    """

    def __init__(self, deadline_s: float, stuck: Callable[[Any], None]) -> None:
        self._deadline_s = deadline_s
        self._stuck = stuck
        self._waiting: dict[Watched, None] = {}
        self._expired: dict[Watched, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, entry: Watched) -> None:
        """Watch something."""
        loop = asyncio.get_running_loop()
        entry.due = loop.time() + self._deadline_s
        self._waiting[entry] = None
        if self._timer is None:
            self._timer = loop.call_at(entry.due, self._look)

    def remove(self, entry: Watched) -> None:
        """Watch it no longer; what cancelled it is over."""
        if entry.has_expired:
            self._expired.pop(entry, None)
            if isinstance(entry.work, asyncio.Task):
                entry.work.uncancel()
        else:
            self._waiting.pop(entry, None)
        if self._timer is not None and not self._waiting and not self._expired:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now, self._timer = loop.time(), None
        for entry in list(takewhile(lambda each: each.due <= now, self._waiting)):
            del self._waiting[entry]
            entry.has_expired = True
            entry.due = now + STUCK_S
            self._expired[entry] = None
            if entry.work is not None:
                entry.work.cancel()
        for entry in list(takewhile(lambda each: each.due <= now, self._expired)):
            del self._expired[entry]
            self._stuck(entry)
        left = [next(iter(each)).due for each in (self._waiting, self._expired) if each]
        if left:
            self._timer = loop.call_at(min(left), self._look)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, Watch]] = WeakKeyDictionary()


def _watch(deadline_s: float) -> Watch:
    watches = _watches.setdefault(asyncio.get_running_loop(), {})
    found = watches.get(deadline_s)
    if found is None:
        found = watches[deadline_s] = Watch(deadline_s, _Called.give_up)
    return found


def internal(
    clock: Clock,
    logger: logging.Logger,
    message: str,
    *arguments: object,
    error: BaseException | None,
    **fields: object,
) -> Internal:
    """Log a failure, with its traceback, as a new incident; return what the caller is told of it.

    `fields` go to the log alone.
    """
    incident = clock.new_id()[-12:]
    extra = {"incident": incident, **fields}
    logger.error(message, *arguments, exc_info=error, extra=extra)
    return Internal(incident=incident)


@contextmanager
def logged(
    logger: logging.Logger, message: str, *arguments: object, **extra: object
) -> Iterator[None]:
    """Log what a plugin raises in the block, and go on.

    That nobody can do it now, as on a full disk, is no fault of the plugin's, and has no traceback.
    """
    try:
        yield
    except BaseException as error:
        contained = contain(error)
        if isinstance(contained, Unavailable):
            what = message % arguments
            logger.warning("%s: %s", what, contained.message, extra=extra)
            return
        logger.log(logging.ERROR, message, *arguments, exc_info=contained, extra=extra)


async def end(tasks: Collection[asyncio.Future[Any]], what: str) -> bool:
    """Cancel tasks and wait for them, but not for ever: a plugin may refuse to be cancelled.

    Returns whether all have ended.
    """
    for task in tasks:
        task.cancel()
    if tasks:
        _, left = await asyncio.wait(tasks, timeout=END_S)
        if left:
            log.error("%d tasks of %s do not end although they are cancelled", len(left), what)
            return False
    return True


class Tasks:
    """Tasks that end with their owner; one that fails is logged as `what` failing."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._log = logger
        self._what = what
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Start a task whose first step runs at once; return it, or its end if that was all."""
        task = start(work)
        if task.done():
            self._done(task)
        else:
            self._tasks.add(cast("asyncio.Task[None]", task))
            task.add_done_callback(self._done)
        return task

    def __len__(self) -> int:
        return len(self._tasks)

    async def finish(self, within_s: float) -> None:
        """Let what still runs come to its end by itself; cancel what has not by then."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        await self.end()

    def cancel(self) -> None:
        """Cancel what still runs."""
        for task in self._tasks:
            task.cancel()

    async def end(self) -> None:
        """Cancel what still runs, and wait for it, but not for ever."""
        await end(self._tasks, self._what)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(cast("asyncio.Task[None]", task))
        if not task.cancelled() and (error := task.exception()) is not None:
            # A caller that waits for the task gets the same error; this line is for the others.
            self._log.warning("%s failed", self._what, exc_info=error)


async def end_all() -> None:
    """End every other task; end the process at once if one refuses, for nothing else would."""
    rest = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    if not await end(rest, "plugins"):
        logging.shutdown()
        os._exit(0)

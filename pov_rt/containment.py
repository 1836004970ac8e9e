"""Keeps what plugins do wrong to themselves: what they raise, and how long they take."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from pov_rt.eager import Begun
from pov_rt.errors import HandlerTimeout

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


def is_cancelled() -> bool:
    """Tell whether somebody cancelled the current task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop
        return False
    return task is not None and task.cancelling() > 0


async def call(
    function: Callable[..., Any],
    *arguments: Any,
    deadline_s: float,
    stuck: Callable[[], None] | None = None,
) -> Any:
    """Call a plugin's function, plain or `async`, and return its result.

    Raises `HandlerTimeout` after `deadline_s` seconds, else what the function raised, contained.
    `stuck` is called if it goes on for `STUCK_S` more although it was cancelled.

    The timers are set when it first waits, which most never do: they are half of what a call costs
    (a subscription with them takes 66 us, without 55).
    """
    try:
        result = function(*arguments)
        if not inspect.isawaitable(result):
            return result
        rest: Awaitable[Any] = result
        if inspect.iscoroutine(result):
            try:
                rest = Begun(result, result.send(None))
            except StopIteration as end:
                return end.value
    except BaseException as error:
        raise contain(error) from error.__cause__
    return await _bounded(rest, deadline_s, stuck)


async def _bounded(
    work: Awaitable[Any], deadline_s: float, stuck: Callable[[], None] | None
) -> Any:
    deadline = asyncio.timeout(deadline_s)
    timer = stuck and asyncio.get_running_loop().call_later(deadline_s + STUCK_S, stuck)
    try:
        async with deadline:
            return await work
    except BaseException as error:
        if isinstance(error, TimeoutError) and deadline.expired():
            raise HandlerTimeout from None
        raise contain(error) from error.__cause__
    finally:
        if timer:
            timer.cancel()


@contextmanager
def logged(
    logger: logging.Logger, message: str, *arguments: object, **extra: object
) -> Iterator[None]:
    """Log what a plugin raises in the block, and go on."""
    try:
        yield
    except BaseException as error:
        contained = contain(error)
        logger.log(logging.ERROR, message, *arguments, exc_info=contained, extra=extra)


async def end(tasks: Collection[asyncio.Task[Any]], what: str) -> bool:
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


async def end_all() -> None:
    """End every other task; end the process at once if one refuses, for nothing else would."""
    rest = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    if not await end(rest, "plugins"):
        logging.shutdown()
        os._exit(0)

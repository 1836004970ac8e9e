"""What a process is doing, for who looks at it from outside: the stacks of its threads and tasks.

Fatal signals (SIGSEGV, and SIGABRT, by which systemd's watchdog ends a process that hangs) write
the stack of each thread to standard error before the process ends. SIGUSR1 writes the same and goes
on, and then logs what the tasks of the loop wait for. The first half needs no Python and no loop,
for it is just when these hang that somebody asks.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any, TextIO

log = logging.getLogger(__name__)

SIGNAL = signal.SIGUSR1
MOST_PLACES = 50
"""Lines of the log at one signal: tasks that wait at the same place are one."""
MOST_FRAMES = 12


def answer_signals(loop: asyncio.AbstractEventLoop, stream: TextIO) -> None:
    """Have stacks written to `stream` at the signals; it must be a file of the system's."""
    faulthandler.enable(stream)
    loop.add_signal_handler(SIGNAL, log_tasks)
    # After the loop's own handler, which it calls when it has written.
    faulthandler.register(SIGNAL, stream, all_threads=True, chain=True)


def log_tasks() -> None:
    """Log what the tasks of the running loop wait for, the most frequent place first."""
    places = Counter(" < ".join(describe(task)) for task in asyncio.all_tasks())
    log.warning("%d tasks wait at %d places", places.total(), len(places))
    for place, count in places.most_common(MOST_PLACES):
        log.warning("%d tasks: %s", count, place)
    if (more := len(places) - MOST_PLACES) > 0:
        log.warning("and at %d places more", more)


def describe(task: asyncio.Task[Any]) -> Iterator[str]:
    """Yield where a task waits, from the inside out to where it began."""
    frames: list[str] = []
    step: Any = task.get_coro()
    while step is not None and len(frames) < MOST_FRAMES:
        frame = getattr(step, "cr_frame", None) or getattr(step, "gi_frame", None)
        if frame is not None:
            code = frame.f_code
            frames.append(f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})")
        step = getattr(step, "cr_await", None) or getattr(step, "gi_yieldfrom", None)
    return reversed(frames)

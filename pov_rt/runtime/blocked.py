"""Names what blocks the event loop: a thread asks for a sign of life and looks at the stack.

Nothing can be done about a handler that blocks but to say, file and line, which one it is.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Collection
from types import FrameType

log = logging.getLogger(__name__)


class BlockWatch:
    """Watches one event loop. `files` are the plugins', which are blamed before anything else."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limit_s: float, files: Collection[str]
    ) -> None:
        self._loop = loop
        self._limit_s = limit_s
        self._files = frozenset(files)
        self._loop_thread = threading.get_ident()
        self._alive = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="block-watch", daemon=True)
        self.blocks = 0
        """How often the loop was found blocked."""

    def start(self) -> None:
        """Begin to watch; call it on the loop's thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching and wait for the thread."""
        self._stop.set()
        self._alive.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._limit_s):
            self._alive.clear()
            # Looked at after the clearing, which else could take `stop`'s wake-up away for good.
            if self._stop.is_set():
                return
            try:
                self._loop.call_soon_threadsafe(self._alive.set)
            except RuntimeError:  # the loop is closed
                return
            if not self._alive.wait(self._limit_s):
                self.blocks += 1
                self._report()
                self._alive.wait()

    def _report(self) -> None:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001  (the documented way)
        if frame is None:
            return
        culprit = self._find_culprit(frame)
        where = f"{culprit.f_code.co_filename}:{culprit.f_lineno}"
        log.warning(
            "the event loop is blocked for more than %g s at %s in %s",
            self._limit_s,
            where,
            culprit.f_code.co_name,
            extra={"stack": " < ".join(_describe(each) for each in _frames(frame)[:8])},
        )

    def _find_culprit(self, frame: FrameType) -> FrameType:
        """Return the innermost frame of a plugin, or else the innermost of all."""
        for each in _frames(frame):
            if each.f_code.co_filename in self._files:
                return each
        return frame


def _frames(frame: FrameType) -> list[FrameType]:
    """Return the stack, innermost first."""
    return [each for each, _ in traceback.walk_stack(frame)]


def _describe(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"

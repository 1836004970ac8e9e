"""Names what blocks the event loop: a thread asks for a sign of life and looks at the stack.

Nothing can be done about a handler that blocks but to say, file and line, which one it is.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress

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
        self.on_block: Callable[[str, int], None] | None = None
        """Called on the loop, once it goes on, with the file and the line that held it up."""
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
        # Innermost first: the plugin's that is nearest, or else the innermost of all. A function
        # that is just being entered, or left, is at no line.
        stack = [
            (each.f_code.co_filename, line or each.f_code.co_firstlineno, each.f_code.co_name)
            for each, line in traceback.walk_stack(frame)
        ]
        file, line, name = next((each for each in stack if each[0] in self._files), stack[0])
        log.warning(
            "the event loop is blocked for more than %g s at %s:%d in %s",
            self._limit_s,
            file,
            line,
            name,
            extra={"stack": " < ".join(f"{file}:{line}" for file, line, _ in stack[:8])},
        )
        if self.on_block is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.on_block, file, line)

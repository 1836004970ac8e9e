"""An event loop that calls the readers of clients' sockets with nothing in between.

The stock loop makes a list of what is ready, a handle of each item, puts the handles into a queue
and runs them in a context. Readers are plain methods of wires here; they are called while the list
is gone through. Everything else is as it was.
"""

from __future__ import annotations

import asyncio
import logging
import math
import select
import selectors
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVarTuple, cast

log = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
OUT = select.EPOLLOUT


class DirectSelector(selectors.EpollSelector):
    """Calls the `readers` (by file number) of what is ready, and reports the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[int, Callable[[], None]] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, call the readers, and return what else is ready."""
        if timeout is None:
            wait = -1.0
        else:
            # Rounded up to what epoll can tell, or the loop would spin for the rest.
            wait = math.ceil(timeout * 1e3) * 1e-3 if timeout > 0 else 0.0
        keys: Any = self._fd_to_key  # type: ignore[attr-defined]
        ready = []
        for fd, event in self._selector.poll(wait, max(len(keys), 1)):  # type: ignore[attr-defined]
            reader = self.readers.get(fd)
            if reader is not None and event & ~OUT:
                try:
                    reader()
                except Exception:  # a bug of ours; it must not end the loop
                    log.exception("reading a socket failed")
                event &= OUT
                if not event:
                    continue
            # A reader may have closed it meanwhile.
            key = keys.get(fd)
            if key is not None:
                found = (READ if event & ~OUT else 0) | (WRITE if event & ~select.EPOLLIN else 0)
                if found & key.events:
                    ready.append((key, found & key.events))
        return ready

    def watch(self, fd: int, reader: Callable[[], None]) -> None:
        """Call a reader when there is something to read."""
        self.readers[fd] = reader
        keys: Any = self._fd_to_key  # type: ignore[attr-defined]
        key = keys.get(fd)
        if key is None:
            self._selector.register(fd, select.EPOLLIN)  # type: ignore[attr-defined]
            # What the loop keeps there: its own reader, and its writer.
            keys[fd] = selectors.SelectorKey(fd, fd, READ, (None, None))
        else:
            self.modify(fd, key.events | READ, (None, key.data[1]))


class DirectLoop(asyncio.SelectorEventLoop):
    """The loop of a server process."""

    def __init__(self) -> None:
        self._direct = DirectSelector()
        super().__init__(self._direct)

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call something in the next turn, without the stock way through four functions."""
        if self._debug or self._closed:  # type: ignore[attr-defined]
            return super().call_soon(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        """Call `callback` when there is something to read; directly, if it needs no arguments.

        That is for file numbers alone: what is given a socket object expects the stock way.
        """
        if isinstance(fd, int) and not args:
            self._direct.watch(fd, cast(Callable[[], None], callback))
        else:
            self._direct.readers.pop(fd, None)
            super().add_reader(fd, callback, *args)

    def remove_reader(self, fd: Any) -> bool:
        """Call it no more; return whether anything was called."""
        was_direct = self._direct.readers.pop(fd, None) is not None
        return super().remove_reader(fd) or was_direct

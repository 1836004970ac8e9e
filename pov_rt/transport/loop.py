"""An event loop that calls the readers of clients' sockets with nothing in between.

The stock loop makes a list of what is ready, a handle of each item, puts the handles into a queue
and runs them in a context. Readers are called here while the list is gone through, and are all that
is kept of a socket (docs/measurements.md, idle parts). Everything else is as it was.
"""

from __future__ import annotations

import asyncio
import logging
import math
import select
import selectors
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Protocol, TypeVarTuple

log = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
IN, OUT = select.EPOLLIN, select.EPOLLOUT


class Reader(Protocol):
    """Who reads a socket."""

    def readable(self) -> None:
        """Read what there is."""


class DirectSelector(selectors.EpollSelector):
    """Calls the `readers` (by file number) of what is ready, and reports the rest.

    A key has what else is waited for: to write, and who reads without being a `Reader`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[int, Reader] = {}
        self._keys: dict[int, selectors.SelectorKey] = self._fd_to_key  # type: ignore[attr-defined]
        self._epoll: select.epoll = self._selector  # type: ignore[attr-defined]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, call the readers, and return what else is ready."""
        if timeout is None:
            wait = -1.0
        else:
            # Rounded up to what epoll can tell, or the loop would spin for the rest.
            wait = math.ceil(timeout * 1e3) * 1e-3 if timeout > 0 else 0.0
        keys, readers = self._keys, self.readers
        ready = []
        for fd, event in self._epoll.poll(wait, len(keys) + len(readers) or 1):
            reader = readers.get(fd)
            if reader is not None and event & ~OUT:
                try:
                    reader.readable()
                except Exception:  # a bug of ours; it must not end the loop
                    log.exception("reading a socket failed")
                event &= OUT
                if not event:
                    continue
            # A reader may have closed it meanwhile.
            key = keys.get(fd)
            if key is not None:
                found = (READ if event & ~OUT else 0) | (WRITE if event & ~IN else 0)
                if found & key.events:
                    ready.append((key, found & key.events))
        return ready

    def has_key(self, fd: int) -> bool:
        """Tell whether anything else is waited for."""
        return fd in self._keys

    def watch(self, fd: int, reader: Reader) -> None:
        """Call a reader when there is something to read."""
        if fd in self._keys:
            self._epoll.modify(fd, IN | OUT)
        elif fd not in self.readers:
            self._epoll.register(fd, IN)
        self.readers[fd] = reader

    def unwatch(self, fd: int) -> bool:
        """Call it no more; return whether there was one."""
        if self.readers.pop(fd, None) is None:
            return False
        with suppress(OSError):  # it may be closed
            if fd in self._keys:
                self._epoll.modify(fd, OUT)
            else:
                self._epoll.unregister(fd)
        return True

    # Where there is a reader, a key is for writing alone:

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Wait for something else, too."""
        if fileobj not in self.readers:
            return super().register(fileobj, events, data)
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, fileobj, events, data)
        self._epoll.modify(fileobj, IN | OUT)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Wait for it no more."""
        if fileobj not in self.readers:
            return super().unregister(fileobj)
        with suppress(OSError):
            self._epoll.modify(fileobj, IN)
        return self._keys.pop(fileobj)

    def close(self) -> None:
        """Wait for nothing more."""
        self.readers.clear()
        super().close()


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

    def watch(self, fd: int, reader: Reader) -> None:
        """Call a reader when there is something to read; `remove_reader` ends it."""
        if self._direct.has_key(fd):
            super().remove_reader(fd)
        self._direct.watch(fd, reader)

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        """Call `callback` when there is something to read, as every loop does."""
        self._direct.unwatch(fd)
        super().add_reader(fd, callback, *args)

    def remove_reader(self, fd: Any) -> bool:
        """Call it no more; return whether anything was called."""
        return self._direct.unwatch(fd) or super().remove_reader(fd)


def watch(loop: asyncio.AbstractEventLoop, fd: int, reader: Reader) -> None:
    """Have a loop call a reader, directly if it can; `remove_reader` ends it."""
    if isinstance(loop, DirectLoop):
        loop.watch(fd, reader)
    else:
        loop.add_reader(fd, reader.readable)

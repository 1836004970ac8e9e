"""A topic's newest messages, for those who missed some: from memory, and the log read once for all.

Encoded bodies, for whatever framing asks: each piece that is sent is framed when it is joined.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from pov_rt.transport.bounds import Framing

RING_ENTRIES = 256
RING_BYTES = 256 * 1024
"""What a ring holds at least, if there is as much; it may grow to twice that before it is cut."""
RINGS_BYTES = 64 * 1024 * 1024
"""What all rings may hold together; the longest unused one goes first."""
RING_IDLE_S = 60.0
"""A ring that nobody used for this long is released."""


class Page(NamedTuple):
    """All that follows an offset, for those with this framing, plain or not: ready to be sent.

    Nothing, if they are not told of any of it. `cost` is what it is charged.
    """

    of: tuple[int, Framing, bool]
    data: bytes
    cost: float


class Ring:
    """A topic's newest messages without a hole; `first` is the offset of the oldest.

    `page` is the last one that was made of them (the replay's).
    """

    __slots__ = ("bodies", "first", "loading", "page", "size", "used")

    def __init__(self, first: int) -> None:
        self.first = first
        self.bodies: list[bytes] = []
        self.size = 0
        self.used = True
        self.page: Page | None = None
        self.loading: asyncio.Task[None] | None = None

    @property
    def held(self) -> int:
        """The bytes that it holds."""
        return self.size + (0 if self.page is None else len(self.page.data))

    def add(self, bodies: Sequence[bytes]) -> None:
        """Add the next messages; the oldest go when there are too many."""
        self.page = None
        self.bodies += bodies
        self.size += sum(map(len, bodies))
        if len(self.bodies) > 2 * RING_ENTRIES or self.size > 2 * RING_BYTES:
            self._cut()

    def fill(self, older: Sequence[bytes]) -> None:
        """Put messages before the oldest."""
        self.page = None
        self.bodies[:0] = older
        self.first -= len(older)
        self.size += sum(map(len, older))
        self._cut()

    def after(self, offset: int) -> Sequence[bytes] | None:
        """Return the messages after an offset; None if they do not reach back so far."""
        return self.bodies[offset + 1 - self.first :] if offset + 1 >= self.first else None

    def _cut(self) -> None:
        kept, size = 0, 0
        for body in reversed(self.bodies):
            size += len(body)
            if kept and (kept >= RING_ENTRIES or size > RING_BYTES):
                size -= len(body)
                break
            kept += 1
        self.first += len(self.bodies) - kept
        self.bodies = self.bodies[len(self.bodies) - kept :]
        self.size = size

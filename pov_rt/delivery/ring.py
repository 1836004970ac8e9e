"""A topic's newest frames, for those who missed some."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

RING_ENTRIES = 256


RING_BYTES = 256 * 1024
"""What a ring holds at least, if there is as much; it may grow to twice that before it is cut."""


class Ring:
    """A topic's newest frames without a hole; `first` is the offset of the oldest."""

    __slots__ = ("first", "frames", "loading", "size", "used")

    def __init__(self, first: int) -> None:
        self.first = first
        self.frames: list[bytes] = []
        self.size = 0
        self.used = True
        self.loading: asyncio.Task[None] | None = None

    def add(self, frames: Sequence[bytes]) -> None:
        """Add the next frames; the oldest go when there are too many."""
        self.frames += frames
        self.size += sum(map(len, frames))
        if len(self.frames) > 2 * RING_ENTRIES or self.size > 2 * RING_BYTES:
            self._cut()

    def fill(self, older: Sequence[bytes]) -> None:
        """Put frames before the oldest."""
        self.frames[:0] = older
        self.first -= len(older)
        self.size += sum(map(len, older))
        self._cut()

    def after(self, offset: int) -> Sequence[bytes] | None:
        """Return the frames after an offset; None if they do not reach back so far."""
        return self.frames[offset + 1 - self.first :] if offset + 1 >= self.first else None

    def _cut(self) -> None:
        kept, size = 0, 0
        for frame in reversed(self.frames):
            size += len(frame)
            if kept and (kept >= RING_ENTRIES or size > RING_BYTES):
                size -= len(frame)
                break
            kept += 1
        self.first += len(self.frames) - kept
        self.frames = self.frames[len(self.frames) - kept :]
        self.size = size


class Progress:
    """Up to which offset a connection that is not live has everything."""

    __slots__ = ("offset", "started")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.started = False

"""Bytes that wait for one socket: references to shared frames, and never a copy of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

BUFFERS_AT_ONCE = 64
"""Pieces given to one `sendmsg`; IOV_MAX is 1,024, but a socket buffer is full long before."""


HELD_BYTES = 64 * 1024
"""Answers that are held back to leave together: more could be a flood's worth of memory. And what
may stand before a close frame: the client has to see that before it is cut off."""


def is_much(pieces: Sequence[bytes]) -> bool:
    """Tell whether too much is held back."""
    return sum(map(len, pieces)) > HELD_BYTES


def joined(pieces: Sequence[bytes]) -> Sequence[bytes]:
    """Return what was held back in one piece, if that is small.

    A large one stays as it is, shared with other clients, rather than be copied for this one.
    """
    return (b"".join(pieces),) if sum(map(len, pieces)) <= 2 * HELD_BYTES else pieces


class SendQueue:
    """Pieces in order; `size` is their bytes. Owner: a wire, which has one while bytes wait.

    `since` is when the first of them began to (the loop's time): nothing has been all sent since.
    """

    __slots__ = ("_pieces", "since", "size")

    def __init__(self, since: float) -> None:
        self._pieces: deque[bytes | memoryview] = deque()
        self.since = since
        self.size = 0

    def add(self, data: bytes | memoryview) -> None:
        """Put a piece behind the others."""
        self._pieces.append(data)
        self.size += len(data)

    def first(self) -> Sequence[bytes | memoryview]:
        """Return what to send next."""
        return list(islice(self._pieces, BUFFERS_AT_ONCE))

    def remove(self, sent: int) -> None:
        """Drop bytes that were sent."""
        self.size -= sent
        while sent:
            size = len(self._pieces[0])
            if sent < size:
                self._pieces[0] = memoryview(self._pieces[0])[sent:]
                return
            sent -= size
            self._pieces.popleft()

    def keep_head(self) -> None:
        """Drop all but the first piece, of which the peer may have a part already."""
        head = self._pieces[0]
        self._pieces.clear()
        self._pieces.append(head)
        self.size = len(head)

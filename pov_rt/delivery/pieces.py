"""A fan-out in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from pov_rt.connections.connection import Connection

JOIN_BYTES = 64 * 1024
"""Frames are joined up to this size, so that one send is never a slow client's whole allowance."""


Shares = dict[Connection, tuple[bytes, ...]]
"""What each connection is to be sent, perhaps of several topics: pieces that many may share."""


class Outbox:
    """What many connections are to be sent, some of them in each turn. Owner: the hub.

    To send to a thousand takes 10 ms, for which everybody else would wait.
    """

    def __init__(self) -> None:
        self._shares: Shares = {}
        self._queue: Iterator[Connection] = iter(())

    def __len__(self) -> int:
        return len(self._shares)

    def fill(self, shares: Shares) -> None:
        """Take what is to be sent. It must be empty, or what waits longest would not come first."""
        self._shares, self._queue = shares, iter(list(shares))

    def settle(self, connection: Connection) -> None:
        """Send a connection its share now."""
        share = self._shares.pop(connection, None)
        if share is not None:
            send_share(connection, share)

    def drain(self, most: int) -> None:
        """Send their shares to the next so many connections."""
        pop = self._shares.pop
        for connection in islice(self._queue, most):
            share = pop(connection, None)
            if share is not None:
                if len(share) == 1:  # as `send_share` does, whose call is 3 % of a delivery
                    connection.transport.send(share[0])
                else:
                    send_share(connection, share)
        if not self._shares:
            self._queue = iter(())  # it would keep those who are gone


def send_share(connection: Connection, share: tuple[bytes, ...]) -> None:
    """Send what a connection is to be sent, in as few pieces as fit."""
    for data in share if len(share) == 1 else chunks(share):
        connection.transport.send(data)


def chunks(frames: Sequence[bytes]) -> Iterator[bytes]:
    """Join frames into pieces of about `JOIN_BYTES`."""
    return map(b"".join, pieces(frames))


def pieces(frames: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Divide frames into what is joined."""
    start, size = 0, 0
    for index, frame in enumerate(frames):
        size += len(frame)
        if size > JOIN_BYTES and index > start:
            yield frames[start:index]
            start, size = index, len(frame)
    if start < len(frames):
        yield frames[start:]

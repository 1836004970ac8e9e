"""A fan-out in pieces: joined for one socket, and for many sockets spread over several turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from pov_rt.connections.connection import Connection
from pov_rt.connections.directory import TRANSPORTS
from pov_rt.runtime.measure.tally import OTHER, Tally
from pov_rt.transport.bounds import Framing

JOIN_BYTES = 64 * 1024
"""Messages are joined up to this size: one send is never a slow client's whole allowance."""


Shares = dict[Connection, tuple[bytes, ...]]
"""What each connection is to be sent, perhaps of several topics: framed pieces that many share."""


class Spread:
    """What many connections are to be sent, some of them in each turn. Owner: the hub.

    To send to a thousand takes a while, for which everybody else would wait (docs/measurements.md,
    fan-outs).
    """

    def __init__(self) -> None:
        self.delivered = Tally(TRANSPORTS, OTHER)
        """Messages handed to clients as they were published, since the start, by transport.

        Topics count what they hand out.
        """
        self.shares: Shares = {}
        """What is still to be sent; nobody else changes it."""
        self._queue: Iterator[Connection] = iter(())

    def fill(self, shares: Shares) -> None:
        """Take what is to be sent. It must be empty, or what waits longest would not come first."""
        self.shares, self._queue = shares, iter(list(shares))

    def settle(self, connection: Connection) -> None:
        """Send a connection its share now."""
        share = self.shares.pop(connection, None)
        if share is not None:
            send_share(connection, share)

    def drain(self, budget: int) -> None:
        """Send their shares to the next connections, up to `budget` of them."""
        pop = self.shares.pop
        for connection in islice(self._queue, budget):
            share = pop(connection, None)
            if share is not None:
                if len(share) == 1:  # as `send_share` does, without its call
                    connection.transport.send(share[0])
                else:
                    send_share(connection, share)
        if not self.shares:
            self._queue = iter(())  # it would keep those who are gone


def send_share(connection: Connection, share: tuple[bytes, ...]) -> None:
    """Send what a connection is to be sent, in as few pieces as fit."""
    for data in share if len(share) == 1 else map(b"".join, divide(share)):
        connection.transport.send(data)


def join(framing: Framing, bodies: Sequence[bytes]) -> Iterable[bytes]:
    """Frame messages, joined into pieces of about `JOIN_BYTES`."""
    if len(bodies) == 1:
        return (framing.frame(bodies[0]),)
    if sum(map(len, bodies)) <= JOIN_BYTES:
        return (framing.join(bodies),) if bodies else ()
    parts = list(divide(bodies))
    return [framing.join(part, up_to_date=part is parts[-1]) for part in parts]


def divide(bodies: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Divide messages into what is joined."""
    start, size = 0, 0
    for index, body in enumerate(bodies):
        size += len(body)
        if size > JOIN_BYTES and index > start:
            yield bodies[start:index]
            start, size = index, len(body)
    if start < len(bodies):
        yield bodies[start:]

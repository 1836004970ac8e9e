"""One topic's subscribers on this node, and what waits to be sent to them.

What one turn of the event loop publishes is joined once per group and leaves in one send per
connection. A connection that must get its share earlier (`settle`) or not all of it (`spare`) is
remembered as special until the end of the turn; the others are sent to in a tight loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pov_rt.connection import Connection
from pov_rt.topics import wire_id

if TYPE_CHECKING:
    from pov_rt.replay import Ring

JOIN_BYTES = 64 * 1024
"""Frames are joined up to this size, so that one send is never a slow client's whole allowance."""

Send = Callable[[bytes], None]


class Pending(NamedTuple):
    """A frame that waits for the end of the turn; `spare` is the connection not to send it to."""

    frame: bytes
    signal: bool
    spare: Connection | None


Outbox = dict[Connection, list[bytes]]
"""What each connection is to be sent, where several topics have something for it."""


class Progress:
    """Up to which offset a connection that is not live has everything."""

    __slots__ = ("offset", "started")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.started = False


class Topic:
    """A topic with subscribers on this node. Owner: the hub.

    `kind` is the first part of its name. `offset` is the newest entry that was taken over from the
    engine, `seen` the newest that was told while none could be taken over. `catching_up` has the
    connections that are not live. `ring` has its newest frames while somebody missed some.
    """

    __slots__ = (
        "catching_up",
        "epoch",
        "full",
        "idle_since",
        "kind",
        "name",
        "offset",
        "opening",
        "pending",
        "pending_bytes",
        "plain",
        "repairing",
        "ring",
        "seen",
        "special",
        "users",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = name.partition("/")[0]
        self.epoch = ""
        self.offset = 0
        self.seen = 0
        self.opening: asyncio.Task[None] | None = None
        self.repairing = False
        # Two groups: `plain` clients know only the first block of the contract and get activities;
        # `full` ones get signals too. The values are the transports' bound send methods.
        self.plain: dict[Connection, Send] = {}
        self.full: dict[Connection, Send] = {}
        self.catching_up: dict[Connection, Progress] = {}
        self.ring: Ring | None = None
        self.pending: list[Pending] = []
        self.pending_bytes = 0
        self.special: dict[Connection, int] = {}
        self.users = 0
        self.idle_since: float | None = None

    @property
    def is_subscription(self) -> bool:
        """Whether a client subscribed to it: not its inbox, nor a plugin's channel."""
        return self.kind in ("pov", "team")

    @property
    def wire_id(self) -> str:
        """What clients call it: the PoV's id, or `*`."""
        return wire_id(self.name)

    def group(self, connection: Connection) -> dict[Connection, Send]:
        """Return the group that the connection belongs to."""
        return self.plain if connection.plain else self.full

    def go_live(self, connection: Connection) -> None:
        """Deliver to a connection that has everything up to `offset`."""
        self.flush()
        del self.catching_up[connection]
        self.group(connection)[connection] = connection.transport.send

    def hold(self, connection: Connection, offset: int) -> None:
        """Deliver nothing live to a connection until it has caught up from `offset`."""
        self.settle(connection)
        self.special.pop(connection, None)
        self.group(connection).pop(connection, None)
        self.catching_up[connection] = Progress(offset)

    def delivered(self, connection: Connection) -> int:
        """Return up to which offset a connection was sent everything."""
        progress = self.catching_up.get(connection)
        return self.offset if progress is None else progress.offset

    def remove(self, connection: Connection) -> None:
        """Send a connection its share of what waits, and nothing after it."""
        self.settle(connection)
        self.group(connection).pop(connection, None)
        self.catching_up.pop(connection, None)
        self.special.pop(connection, None)

    def settle(self, connection: Connection) -> None:
        """Send a connection now what waits for it."""
        if self.pending and connection in self.group(connection):
            self._send_share(connection, self.special.get(connection, 0))
            self.special[connection] = len(self.pending)

    def flush(self, outbox: Outbox | None = None) -> int:
        """Send everything that waits, or put it into the outbox; return the number of messages."""
        if not self.pending:
            return 0
        for item in self.pending:
            if item.spare is not None:
                self.special.setdefault(item.spare, 0)
        sent = self._send_group(self.full, [item.frame for item in self.pending], outbox)
        if self.plain:
            frames = [item.frame for item in self.pending if not item.signal]
            sent += self._send_group(self.plain, frames, outbox)
        for connection, start in self.special.items():
            self._send_share(connection, start, outbox)
        self.special = {}
        self.pending = []
        self.pending_bytes = 0
        return sent

    def _send_group(
        self, group: dict[Connection, Send], frames: Sequence[bytes], outbox: Outbox | None
    ) -> int:
        special = self.special
        for data in chunks(frames):
            if outbox is not None:
                for connection in group:
                    if connection not in special:
                        outbox.setdefault(connection, []).append(data)
            elif special:
                for connection, send in group.items():
                    if connection not in special:
                        send(data)
            else:
                for send in group.values():
                    send(data)
        return len(frames) * len(group)

    def _send_share(self, connection: Connection, start: int, outbox: Outbox | None = None) -> None:
        send = self.group(connection).get(connection)
        if send is None:
            return
        mine = [
            item.frame
            for item in self.pending[start:]
            if item.spare is not connection and not (connection.plain and item.signal)
        ]
        if outbox is not None:
            outbox.setdefault(connection, []).extend(mine)
            return
        for data in chunks(mine):
            send(data)


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

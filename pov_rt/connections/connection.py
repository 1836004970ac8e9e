"""One client: a socket with its identity, and what the server remembers of it.

This module knows no Tornado and no socket; `Transport` says what it needs of one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from pov_rt.auth.tokens import Identity
from pov_rt.protocol.errors import CloseCode
from pov_rt.protocol.messages import Message
from pov_rt.runtime.limits import Bucket
from pov_rt.transport.frames import text_frame


class Transport(Protocol):
    """What a connection needs of a socket.

    No method raises, blocks, or calls back into the connection or the hub before it returns: a gone
    peer is normal, and the hub iterates over its members while it sends.
    """

    def send(self, data: bytes) -> None:
        """Take ready frames, in order; bytes that do not fit the socket wait here."""

    def send_soon(self, data: bytes) -> None:
        """Take ready frames that leave with what else this turn of the loop brings, in order."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the peer to read."""

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes received and sent since the handshake."""

    def ping(self) -> None:
        """Send a ping frame."""

    def heard(self) -> bool:
        """Tell whether any byte arrived since the last call."""

    def pause_reads(self, paused: bool) -> None:
        """Stop or go on reading, so that a full inbox holds the peer back."""

    async def drained(self) -> None:
        """Wait until little is unsent, or the socket is gone."""

    def close(self, code: CloseCode, last: bytes = b"") -> None:
        """Send `last`, then a close frame; end the socket after the peer's answer, within 1 s.

        Of what waits for the client much is dropped, so that it sees why before it is cut off.
        """

    def abort(self) -> None:
        """Drop the socket now, unsent bytes included."""


class Followed(Protocol):
    """A topic that a connection gets, as others than the hub see it."""

    name: str
    kind: str

    @property
    def is_subscription(self) -> bool:
        """Whether a client subscribed to it: not its inbox, nor a plugin's channel."""

    @property
    def wire_id(self) -> str:
        """What clients call it: the PoV's id, or `*`."""

    def settle(self, connection: Connection) -> None:
        """Send a connection now what waits for it."""


class Receiver(Protocol):
    """Who handles a connection's messages and its end."""

    def receive(self, connection: Connection, payload: bytes, is_text: bool) -> None:
        """Handle one whole message."""

    def lagging(self, connection: Connection) -> None:
        """Learn that a client reads more slowly than it is sent to."""

    def closed(self, connection: Connection, reason: str) -> None:
        """Learn that the socket is gone. Called once."""


class Connection:
    """A socket with its identity. Owner: the server, from `opened` to `closed`.

    It is slotted and holds None where nothing is needed yet: at 10,000 idle connections each
    attribute that is not there saves half a megabyte.
    """

    __slots__ = (
        "__weakref__",
        "bucket",
        "buckets",
        "close_reason",
        "closed",
        "device",
        "expires_at",
        "id",
        "identity",
        "inbox",
        "opened_at",
        "pinged",
        "plain",
        "receiver",
        "rejected",
        "remembered",
        "remote_ip",
        "tasks",
        "topics",
        "transport",
        "turn",
        "user_agent",
        "v1",
        "warned",
        "worker",
    )

    transport: Transport

    def __init__(
        self,
        receiver: Receiver,
        connection_id: str,
        identity: Identity,
        *,
        device: str,
        remote_ip: str,
        user_agent: str,
        v1: bool,
        opened_at: float,
        expires_at: float,
        bucket: Bucket,
    ) -> None:
        self.receiver = receiver
        self.id = connection_id
        self.identity = identity
        self.device = device
        self.remote_ip = remote_ip
        self.user_agent = user_agent
        self.v1 = v1
        # A client that knows only the first block of the contract must not be sent more than that
        # until it has asked for something outside of it.
        self.plain = not v1
        self.opened_at = opened_at
        self.expires_at = expires_at
        self.bucket = bucket
        self.buckets: dict[type[Message], Bucket] | None = None
        self.topics: dict[str, Followed] = {}
        self.inbox: deque[Any] | None = None
        self.worker: asyncio.Task[None] | None = None
        self.tasks: set[asyncio.Task[None]] | None = None
        self.turn: asyncio.Future[None] | None = None
        self.rejected = 0
        self.remembered = False
        self.pinged = False
        self.warned = False
        self.closed = False
        self.close_reason: str | None = None

    def receive(self, payload: bytes, is_text: bool) -> None:
        """Take one whole message from the transport (text is valid UTF-8)."""
        self.receiver.receive(self, payload, is_text)

    def send(self, body: bytes) -> None:
        """Send one encoded message."""
        self.transport.send(text_frame(body))

    def lagging(self) -> None:
        """Learn from the transport that much is unsent."""
        if not self.closed:
            self.receiver.lagging(self)

    def lost(self, reason: str) -> None:
        """Learn from the transport that the socket is gone; `reason` is what the log will say."""
        if not self.closed:
            self.closed = True
            self.receiver.closed(self, self.close_reason or reason)

"""One client: a socket with its identity, and what the server remembers of it.

This module knows no Tornado, no socket and no topic; `Transport`, `Followed` and `ConnectionOwner`
say what it needs of them. What leaves by `send`, `reply` and `close` comes after what was delivered
before, by construction: nobody else has to think of it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from pov_rt.auth.tokens import Identity
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode
from pov_rt.protocol.messages import Closing, Message
from pov_rt.runtime.limits import Bucket, Budget
from pov_rt.transport.bounds import Framing


class Transport(Protocol):
    """What a connection needs of a socket.

    No method raises, blocks, or calls back into the connection or the hub before it returns: a gone
    peer is normal, and the hub iterates over its members while it sends. Once it is closing,
    whoever ended it, what is sent is dropped, and `close` does nothing.
    """

    @property
    def framing(self) -> Framing:
        """How messages become what `send` takes."""

    def send(self, data: bytes) -> None:
        """Take framed messages, in order; bytes that do not fit the socket wait here."""

    def send_soon(self, data: bytes) -> None:
        """As `send`, but they leave with what else this turn of the loop brings, in order."""

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
        """Stop or go on reading, so that a client with too many waiting messages is held back."""

    async def drained(self) -> None:
        """Wait until little is unsent, or the socket is gone."""

    def close(self, code: CloseCode, body: bytes = b"") -> None:
        """Send a last message, then a close frame; end the socket after the answer, within 1 s.

        Of what waits for the client much is dropped, so that it sees why before it is cut off.
        """

    def abort(self) -> None:
        """Drop the socket now, unsent bytes included."""


class Followed(Protocol):
    """A topic that a connection gets, as others than the hub see it."""

    name: str
    kind: str
    """The first part of the name: `pov`, `team`, `user`, or a plugin's."""

    @property
    def is_subscription(self) -> bool:
        """Whether a client subscribed to it: not its inbox, nor a plugin's channel."""

    @property
    def pov_id(self) -> str:
        """What clients call it: the PoV's id, or `*`."""

    def settle(self, connection: Connection) -> None:
        """Send a connection now what waits for it."""

    def behind(self, connection: Connection) -> int:
        """Return how many of its entries a connection has not been sent yet."""


class Deliveries(Protocol):
    """What waits for the end of the turn: the hub, as connections see it."""

    unsettled: bool
    """Whether anything waits, for anybody."""

    def settle(self, connection: Connection) -> None:
        """Send a connection now what waits for it."""


class ConnectionOwner(Protocol):
    """Who opened a connection, and handles its messages and its end."""

    @property
    def deliveries(self) -> Deliveries:
        """Where what is published to the connection may be waiting."""

    def receive(self, connection: Connection, payload: bytes, is_text: bool) -> None:
        """Handle one whole message."""

    def lagging(self, connection: Connection) -> None:
        """Send less to a client that reads more slowly than it is sent to."""

    def closed(self, connection: Connection, reason: str) -> None:
        """Release what a connection had; its socket is gone. Called once."""

    def come_back_after_s(self) -> float:
        """Return when the next client that is closed may come back, each at another instant."""


class Connection:
    """A socket with its identity. Owner: a `ConnectionOwner`, from its opening to `closed`.

    It is slotted, and holds None where nothing is needed yet, for there are many idle ones. The
    constructor says whose each slot is: nobody else writes it.
    """

    # What differs for some over HTTP (`connections/http`).
    is_present = True
    """Whether its user counts as being there: plugins are told of it."""
    is_exact = False
    """Whether it is told where it is as soon as it was sent all, and with each piece before."""
    has_grace = True
    """Whether it outlives its token for a while, in which another may come."""
    may_subscribe = True
    """Whether it lasts, so that something can come later."""
    ends_at = math.inf
    """When it is ended in any case (monotonic)."""

    __slots__ = (
        "__weakref__",
        "_deliveries",
        "beside",
        "bucket",
        "buckets",
        "budget",
        "close_reason",
        "closed",
        "device",
        "due_in",
        "expires_at",
        "id",
        "identity",
        "line",
        "opened_at",
        "owner",
        "pinged",
        "plain",
        "rejected",
        "remembered_until",
        "remote_ip",
        "silent_at",
        "topics",
        "transport",
        "user_agent",
        "v1",
        "warned",
    )

    def __init__(
        self,
        owner: ConnectionOwner,
        transport: Transport,
        connection_id: str,
        identity: Identity,
        *,
        device: str,
        remote_ip: str,
        user_agent: str,
        v1: bool,
        opened_at: float,
        bucket: Bucket,
        budget: Budget,
    ) -> None:
        # What it is, from the handshake on.
        self.owner = owner
        self.transport = transport
        self._deliveries = owner.deliveries
        self.id = connection_id
        self.device = device
        self.remote_ip = remote_ip
        self.user_agent = user_agent
        self.v1 = v1
        self.opened_at = opened_at
        # Whose it is; a newer token replaces it (`host.regrant`).
        self.identity = identity
        # The hub's: what it is subscribed to, by topic; and whether it is to be sent the first
        # block of the contract alone, as long as it has asked for nothing outside of it.
        self.topics: dict[str, Followed] = {}
        self.plain = not v1
        # The dispatcher's: what it may still send, of all messages and of each type that has a rate
        # (None: none was sent yet), what all that its user does may cost, and how many of its
        # messages were refused of late.
        self.bucket = bucket
        self.budget = budget
        self.buckets: dict[type[Message], Bucket] | None = None
        self.rejected = 0
        # The execution's: the messages that are answered in their order, from the first one that is
        # still at work on, and those that are at work beside them.
        self.line: deque[Any] | None = None
        self.beside: set[Any] | None = None
        # The context's: whether its device is entered among the user's.
        self.remembered_until = 0.0
        # The deadlines': with which others it is due next; when its token ends, and when it is
        # pinged, or was silent for too long (monotonic); whether a ping is on its way, and whether
        # it was told that its token ends.
        self.due_in: dict[Connection, None] | None = None
        self.expires_at = self.silent_at = opened_at
        self.pinged = False
        self.warned = False
        # Its own: whether its socket is gone, and why it is being closed from here.
        self.closed = False
        self.close_reason: str | None = None

    @property
    def gets_positions(self) -> bool:
        """Whether it is told how far a subscription has come that is not sent all."""
        return self.is_exact or not self.plain

    @property
    def works(self) -> Sequence[asyncio.Future[Any]]:
        """What its messages wait for."""
        slots = (*(self.line or ()), *(self.beside or ()))
        return [slot.work for slot in slots if slot.work is not None]

    def receive(self, payload: bytes, is_text: bool) -> None:
        """Take one whole message from the transport (text is valid UTF-8)."""
        self.owner.receive(self, payload, is_text)

    def send(self, body: bytes) -> None:
        """Send one encoded message, after what was delivered before."""
        if self._deliveries.unsettled:
            self._deliveries.settle(self)
        transport = self.transport
        transport.send(transport.framing.frame(body))

    def reply(self, body: bytes) -> None:
        """Send an answer: as `send`, together with the other answers of this turn."""
        if self._deliveries.unsettled:
            self._deliveries.settle(self)
        transport = self.transport
        transport.send_soon(transport.framing.frame(body))

    def tell_position(self, body: bytes) -> None:
        """Send the message that says how far a subscription has come."""
        self.send(body)

    def subscription_ended(self, body: bytes) -> None:
        """Send the message that one of its subscriptions has ended, which nobody had asked for."""
        self.send(body)

    def close(self, code: CloseCode) -> None:
        """Close it, after what was delivered before, and tell its client why.

        Nothing happens if it is closing already.
        """
        if self.closed or self.close_reason is not None:
            return
        self.close_reason = code.reason
        self._deliveries.settle(self)
        if not self.v1:
            self.transport.close(code)
            return
        closing = Closing(code=code.code, reason=code.reason)
        if code.reconnect:
            after = round(self.owner.come_back_after_s(), 3)
            closing = Closing(code=code.code, reason=code.reason, retry_after=after)
        self.transport.close(code, encode(closing))

    def lagging(self) -> None:
        """Tell the owner that much is unsent; for the transport."""
        if not self.closed:
            self.owner.lagging(self)

    def lost(self, reason: str) -> None:
        """End it: the socket is gone, for a reason that the log will say; for the transport."""
        if not self.closed:
            self.closed = True
            self.owner.closed(self, self.close_reason or reason)

"""Messages over HTTP: server-sent events on a socket of its own, or one answer to a long poll.

Both are transports like a WebSocket, so that all that is above them is the same: who gets what,
replay at the client's pace, the bounds on what waits, revocation, drain. They differ in how
messages are written:

    session Each message as an event of its own.
    events  All that a piece has, as one event `data`, with a list; then an event `control`, with
            the place behind it. The read side of Durable Streams has them so, and so does every
            library for server-sent events. A pair leaves in one piece and is cut by nothing but a
            connection that breaks: a client that saw half of it would ask for it again.
    lines   One message a line, for whoever makes an answer of them.

A place is written as a token: the log's epoch, and the offset in as many digits as any has, so that
those of one epoch sort.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pov_rt.protocol.errors import CloseCode
from pov_rt.protocol.messages import MAX_SAFE_INTEGER
from pov_rt.transport.bounds import Bounds, Framing, Peer
from pov_rt.transport.frames import FrameError, Opcode
from pov_rt.transport.liveness import has_hung_up
from pov_rt.transport.wire import Parser, Wire

POSITION: Final = b'{"type":"position"'
"""How a message begins that says only how far a subscription has come."""
HEARTBEAT: Final = b":\n\n"
OVER: Final = "its time was over"
ANSWERED: Final = "answered"
UNANSWERED: Final = "nothing happened"
"""Why a connection ends that nothing is wrong with: the client asks for what follows."""
SCRAP_BYTES: Final = 1024
"""So much of what a client sends, which nobody reads, costs as a control frame does."""

_OFFSET: Final = b'"offset":'
_NUMBER = re.compile(rb"\d+")
_EPOCH = re.compile(rb'"epoch":"([0-9A-Za-z.-]+)","offset":')
_TOKEN = re.compile(r"([0-9A-Za-z.-]{1,64})_(\d{16})", re.ASCII)


def write_token(epoch: str, offset: int) -> str:
    """Return a place as a token."""
    return f"{epoch}_{offset:016d}"


def read_token(text: str) -> tuple[str, int] | None:
    """Return the epoch and the offset that a token names; None of what is none."""
    match = _TOKEN.fullmatch(text)
    if match is None or int(match[2]) > MAX_SAFE_INTEGER:
        return None
    return match[1], int(match[2])


def epoch_of(body: bytes) -> str | None:
    """Return the epoch that an encoded position says a log has now, if it says one."""
    match = _EPOCH.search(body)
    return None if match is None else match[1].decode()


def offset_of(body: bytes) -> int:
    """Return the offset that an encoded message says, behind all else that has one."""
    match = _NUMBER.match(body, body.rindex(_OFFSET) + len(_OFFSET))
    if match is None:
        raise ValueError("a message has no offset")
    return int(match[0])


class HasEpoch(Protocol):
    """A log, or its state."""

    @property
    def epoch(self) -> str:
        """The epoch that it has now."""


class EventFraming:
    """How a log's messages are written as events. One for all that follow the log.

    `log` is what knows the epoch of all that is written. `now_ms` is for the cursor, by which
    caches would tell requests apart.
    """

    __slots__ = ("__weakref__", "_now_ms", "log")

    transport = "sse"

    def __init__(self, log: HasEpoch, now_ms: Callable[[], int]) -> None:
        self.log = log
        self._now_ms = now_ms

    def frame(self, body: bytes) -> bytes:
        """Return one message, or the place that it says, as it is sent."""
        return self.join((body,))

    def join(self, bodies: Sequence[bytes], *, up_to_date: bool = True) -> bytes:
        """Return messages as a pair of events; of places alone only the second one."""
        epoch = self.log.epoch
        token = write_token(epoch, offset_of(bodies[-1]))
        fields = f'"streamNextOffset":"{token}","streamCursor":"{self._now_ms()}"'
        if up_to_date:
            fields += ',"upToDate":true'
        control = f"event: control\ndata:{{{fields}}}\n\n".encode()
        items = [body for body in bodies if not body.startswith(POSITION)]
        if not items:
            return control
        last = write_token(epoch, offset_of(items[-1]))
        # Without the space behind `data:`, as some look for `data:{`.
        return b"event: data\nid: %b\ndata:[%b]\n\n%b" % (last.encode(), b",".join(items), control)


class MessageFraming:
    """Each message as an event of its own: all that a WebSocket gets, for a session."""

    __slots__ = ()

    transport = "sse"

    def frame(self, body: bytes) -> bytes:
        """Return one message as it is sent."""
        return b"data:%b\n\n" % body

    def join(self, bodies: Sequence[bytes], *, up_to_date: bool = True) -> bytes:
        """Return several messages."""
        return b"".join(map(self.frame, bodies))


MESSAGE_FRAMING: Final = MessageFraming()


class LineFraming:
    """One message a line. Encoded ones have no line breaks."""

    __slots__ = ()

    transport = "poll"

    def frame(self, body: bytes) -> bytes:
        """Return one message."""
        return body + b"\n"

    def join(self, bodies: Sequence[bytes], *, up_to_date: bool = True) -> bytes:
        """Return several messages."""
        return b"\n".join(bodies) + b"\n"


LINE_FRAMING: Final = LineFraming()


class _Scrap:
    """Throws away what comes behind a request, and counts it."""

    controls = 0
    error: FrameError | None = None
    ended = True

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        self.controls += 1 + len(data) // SCRAP_BYTES
        return []


_SCRAP: Final = _Scrap()
"""One for all: what a wire feeds it the wire charges at once."""


class EventWire(Wire):
    """A socket on which events are sent, and nothing is read, until it ends.

    What the client of a session says comes in requests of its own (`receive`).

    The answer has neither a length nor chunks: its end is the connection's, so that the end of a
    server is nothing else to a client than the end of an answer.
    """

    __slots__ = ("framing",)

    def __init__(
        self,
        sock: socket.socket,
        bounds: Bounds,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[Wire], None],
        framing: Framing,
    ) -> None:
        super().__init__(sock, bounds, loop, ended)
        self.framing = framing

    def ping(self) -> None:
        self.send(HEARTBEAT)

    def heard(self) -> bool:
        """Tell whether the client took all that it was sent, or some of it since the last call."""
        return super().heard() or (not self.unsent_bytes and not has_hung_up(self._fd))

    def _make_parser(self) -> Parser:
        return _SCRAP

    def receive(self, messages: Sequence[bytes]) -> bool:
        """Handle messages that came by requests, as if they had come here; UTF-8, in order.

        Returns whether it does: not while those that came before wait, nor once it is closing.
        """
        if self._closing or self._events or self._paused:
            return False
        self._heard = True
        self._take([(Opcode.TEXT, message) for message in messages])
        return True

    def _last_words(self, code: CloseCode, body: bytes) -> bytes:
        return self.framing.frame(body) if body else b""

    @property
    def _close_wait_s(self) -> float:
        # What waits are whole pairs, which a slow client may still want.
        return self._bounds.slow_s

    def _end(self, reason: str) -> None:
        super()._end(reason or OVER)


class PollTransport:
    """Takes what a log's follower is sent first, for one answer. Owner: who answers."""

    framing = LINE_FRAMING

    __slots__ = ("_drained", "_lines", "_peer", "woken")

    def __init__(self) -> None:
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when there is something to answer, or the connection is to end."""
        self._drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines: list[bytes] = []
        self._peer: Peer | None = None

    def start(self, peer: Peer) -> None:
        """Begin."""
        self._peer = peer

    def take(self) -> Sequence[bytes]:
        """Return the messages that came."""
        return b"".join(self._lines).splitlines()

    def end(self, reason: str) -> None:
        """End the connection; nothing happens if it has ended."""
        peer, self._peer = self._peer, None
        if peer is not None:
            self._wake()
            self._drained.set_result(None)
            peer.lost(reason)

    @property
    def unsent_bytes(self) -> int:
        return 0

    @property
    def traffic(self) -> tuple[int, int]:
        return 0, sum(map(len, self._lines))

    def send(self, data: bytes) -> None:
        if self._peer is not None:
            self._lines.append(data)
            self._wake()

    def send_soon(self, data: bytes) -> None:
        self.send(data)

    def ping(self) -> None:
        """Do nothing: an answer is sent in one piece."""

    def heard(self) -> bool:
        """Agree: a client that goes away ends the request."""
        return True

    def pause_reads(self, paused: bool) -> None:
        """Do nothing: nothing is read."""

    async def drained(self) -> None:
        if self._lines:  # what it has fills an answer
            await asyncio.shield(self._drained)

    def close(self, code: CloseCode, body: bytes = b"") -> None:
        """Have it answered without anything more."""
        self._wake()

    def abort(self) -> None:
        self._wake()

    def _wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)

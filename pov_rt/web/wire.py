"""The data path: one client's socket after the handshake, read and written without a layer between.

Everything that RFC 6455 asks of a connection's life is here; its bytes are `frames`' business.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, Protocol

from pov_rt.errors import CloseCode
from pov_rt.frames import FrameParser, Opcode, close_frame, ping_frame, pong_frame

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
CLOSE_WAIT_S = 1.0
"""How long a peer has to read the close frame and to hang up."""
BUFFERS_AT_ONCE = 64
"""Buffers given to one `sendmsg`; IOV_MAX is 1,024, but a socket buffer is full long before."""
CORKED_FRAMES = 64
"""Answers that are held back to leave together; more could be a flood's worth of memory."""
EMPTY_CLOSE = b"\x88\x00"
INBOX, BACKLOG = 1, 2
"""Why a socket is not read: its connection has enough to do, or its client does not read."""
PING = ping_frame()


class Bounds(NamedTuple):
    """How much may wait for one client: `queue_bytes` ever, `slow_bytes` for `slow_s` seconds."""

    message_bytes: int
    queue_bytes: int
    slow_bytes: int
    slow_s: float


class Peer(Protocol):
    """Who handles the messages of a wire: a connection."""

    def receive(self, payload: bytes, is_text: bool) -> None:
        """Take one whole message."""

    def lost(self, reason: str) -> None:
        """Learn that the socket is ending; called once."""


class Wire:
    """A client's socket; the `Transport` of a connection. Owner: the loop, until `ended` is called.

    What a read causes to be sent leaves in one piece after it. What does not fit the socket waits
    as references to shared frames, within `bounds`. While much waits, nothing more is read: who
    asks without reading the answers is held back, and only who does that for long is closed.
    """

    __slots__ = (
        "_backlog",
        "_bounds",
        "_bytes_in",
        "_bytes_out",
        "_closing",
        "_corked",
        "_drained",
        "_ended",
        "_fd",
        "_heard",
        "_loop",
        "_parser",
        "_paused",
        "_peer",
        "_queue",
        "_queued",
        "_reason",
        "_socket",
        "_timer",
    )

    def __init__(
        self,
        sock: socket.socket,
        bounds: Bounds,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[Wire], None],
    ) -> None:
        self._socket = sock
        # The loop is given the number: for a socket object it formats a repr, 8 % of a handshake.
        self._fd = sock.fileno()
        self._bounds = bounds
        self._loop = loop
        self._ended: Callable[[Wire], None] | None = ended
        self._peer: Peer | None = None
        self._parser = FrameParser(bounds.message_bytes)
        self._queue: deque[bytes | memoryview] | None = None
        self._queued = 0
        self._corked: list[bytes] | None = None
        self._backlog: Sequence[tuple[int, bytes]] = ()
        self._paused = 0
        self._heard = False
        self._closing = False
        self._reason: str | None = None
        self._drained: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._bytes_in = 0
        self._bytes_out = 0

    def start(self, peer: Peer, received: bytes) -> None:
        """Begin to read; `received` is what came behind the handshake."""
        self._peer = peer
        if self._ended is None or self._closing:
            self._loop.call_soon(self._tell, self._reason or "closed")
            return
        self._loop.add_reader(self._fd, self._readable)
        if received:
            self._loop.call_soon(self._feed, received)

    # What a connection does with it:

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the peer to read."""
        return self._queued

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes received and sent since the handshake."""
        return self._bytes_in, self._bytes_out

    def send(self, data: bytes) -> None:
        """Take ready frames, in order; once it is closing, they are dropped."""
        if self._closing:
            return
        if self._corked is not None:
            self._corked.append(data)
        elif self._queue is not None:
            self._enqueue(data)
        else:
            self._write(data)

    def ping(self) -> None:
        """Send a ping frame."""
        self.send(PING)

    def heard(self) -> bool:
        """Tell whether any byte arrived since the last call; yes while nobody is listening."""
        heard, self._heard = self._heard or self._paused != 0, False
        return heard

    def pause_reads(self, paused: bool) -> None:
        """Stop or go on reading."""
        self._pause(INBOX, paused)

    async def drained(self) -> None:
        """Wait until little is unsent, or the socket is ending."""
        if self._queued > self._bounds.slow_bytes // 2 and not self._closing:
            if self._drained is None:
                self._drained = self._loop.create_future()
            # Shielded: several topics may wait, and one that is cancelled must not end the others.
            await asyncio.shield(self._drained)

    def close(self, code: CloseCode) -> None:
        """Send a close frame and end the socket after the peer's answer, within 1 s."""
        if self._closing:
            return
        if self._queue and code is CloseCode.SLOW_CONSUMER:
            # What waits would keep the close frame from a client that reads again; the part of a
            # frame that it has already must be completed.
            head = self._queue[0]
            self._queue.clear()
            self._queue.append(head)
            self._queued = len(head)
        self.send(close_frame(code.code, code.reason))
        self._end(code.reason)

    def abort(self) -> None:
        """Drop the socket now, unsent bytes included."""
        self._drop("aborted")

    # Reading:

    def _pause(self, why: int, paused: bool) -> None:
        before = self._paused
        self._paused = before | why if paused else before & ~why
        if self._closing or (before == 0) == (self._paused == 0):
            return
        if self._paused:
            self._loop.remove_reader(self._fd)
            return
        self._loop.add_reader(self._fd, self._readable)
        if self._backlog:
            self._loop.call_soon(self._resume)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._drop(f"connection lost: {error.strerror}")
            return
        if not data:
            self._drop("the client went away")
            return
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        self._bytes_in += len(data)
        self._heard = True
        # Once it is closing, bytes are only read away: unread ones would turn the end into a reset,
        # and a reset can take the close frame from the client (RFC 6455, section 7.1.1).
        if not self._closing:
            self._take(self._parser.feed(data))

    def _resume(self) -> None:
        # It may have been paused again meanwhile.
        if not self._closing and not self._paused:
            events, self._backlog = self._backlog, ()
            self._take(events)

    def _take(self, events: Sequence[tuple[int, bytes]]) -> None:
        self._corked = []
        try:
            self._handle(events)
            if self._parser.error is not None and not self._backlog:
                log.info("a client broke the protocol: %s", self._parser.error)
                self.close(self._parser.error.close)
        except Exception:  # a bug of ours; it must end this client only
            log.exception("handling a message failed")
            self.close(CloseCode.INTERNAL)
        finally:
            self._uncork()
            self._corked = None
            if self._closing:
                self._finish_writing()

    def _uncork(self) -> None:
        """Let go of the answers that are held back."""
        corked = self._corked
        if corked:
            self._corked = []
            data = corked[0] if len(corked) == 1 else b"".join(corked)
            if self._queue is None:
                self._write(data)
            else:
                self._enqueue(data)

    def _handle(self, events: Sequence[tuple[int, bytes]]) -> None:
        peer = self._peer
        for index, (opcode, payload) in enumerate(events):
            if self._corked and len(self._corked) >= CORKED_FRAMES:
                self._uncork()
            if self._closing or peer is None:
                return
            if self._paused:
                self._backlog = events[index:]
                return
            if opcode == Opcode.TEXT:
                peer.receive(payload, True)
            elif opcode == Opcode.BINARY:
                peer.receive(payload, False)
            elif opcode == Opcode.PING:
                self.send(pong_frame(payload))
            elif opcode == Opcode.CLOSE:
                code = int.from_bytes(payload[:2])
                self.send(close_frame(code, "") if code else EMPTY_CLOSE)
                self._end(f"closed by the client with {code}" if code else "closed by the client")

    # Writing:

    def _write(self, data: bytes) -> None:
        """Give the kernel what it takes; the rest waits. Nothing waits already."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        self._bytes_out += sent
        if sent < len(data):
            self._enqueue(memoryview(data)[sent:] if sent else data)

    def _enqueue(self, data: bytes | memoryview) -> None:
        if self._queue is None:
            self._queue = deque()
            self._loop.add_writer(self._fd, self._writable)
        elif self._queued + len(data) > self._bounds.queue_bytes and not self._closing:
            self._reason = f"slow consumer, {self._queued} bytes unsent"
            self.close(CloseCode.SLOW_CONSUMER)
            return
        self._queue.append(data)
        self._queued += len(data)
        if self._queued > self._bounds.slow_bytes and self._timer is None:
            self._timer = self._loop.call_later(self._bounds.slow_s, self._too_slow)
            self._pause(BACKLOG, True)

    def _too_slow(self) -> None:
        self._reason = f"slow consumer, {self._queued} bytes unsent for {self._bounds.slow_s:g} s"
        self.close(CloseCode.SLOW_CONSUMER)

    def _writable(self) -> None:
        queue = self._queue
        if queue is None:
            return
        try:
            sent = self._socket.sendmsg(list(islice(queue, BUFFERS_AT_ONCE)))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._drop(f"connection lost: {error.strerror}")
            return
        self._queued -= sent
        self._bytes_out += sent
        while sent:
            size = len(queue[0])
            if sent < size:
                queue[0] = memoryview(queue[0])[sent:]
                break
            sent -= size
            queue.popleft()
        if not queue:
            self._loop.remove_writer(self._fd)
            self._queue = None
        if self._queued <= self._bounds.slow_bytes // 2:
            self._release_waiters()
            self._pause(BACKLOG, False)
        if self._closing:
            self._finish_writing()
        elif self._timer is not None and self._queued <= self._bounds.slow_bytes:
            self._timer.cancel()
            self._timer = None

    # The end:

    def _end(self, reason: str) -> None:
        """Accept nothing more to send; hang up when all is written, or after a second."""
        self._closing = True
        self._reason = self._reason or reason
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(CLOSE_WAIT_S, self._drop, reason)
        self._loop.call_soon(self._tell, reason)
        if self._paused:
            self._loop.add_reader(self._fd, self._readable)
        self._release_waiters()
        if self._corked is None:
            self._finish_writing()

    def _finish_writing(self) -> None:
        """Half-close once all is written: the peer sees the close frame, then the end."""
        if self._queue is None and self._ended is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def _fail(self, error: OSError) -> None:
        """End after a failed write, but not before the sender is done with its other sockets."""
        self._closing = True
        self._loop.call_soon(self._drop, f"connection lost: {error.strerror}")

    def _drop(self, reason: str) -> None:
        if self._ended is None:
            return
        ended, self._ended = self._ended, None
        self._closing = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._socket.close()
        if self._timer is not None:
            self._timer.cancel()
        self._queue = None
        self._queued = 0
        self._backlog = ()
        self._release_waiters()
        self._tell(reason)
        ended(self)

    def _tell(self, reason: str) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.lost(self._reason or reason)

    def _release_waiters(self) -> None:
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

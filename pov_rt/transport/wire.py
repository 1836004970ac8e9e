"""The data path: one client's socket after the handshake, read and written without a layer between.

Everything that RFC 6455 asks of a connection's life is here; its bytes are `frames`' business.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from tornado.util import _websocket_mask

from pov_rt.protocol.errors import CloseCode
from pov_rt.runtime.limits import Bucket
from pov_rt.transport.bounds import Bounds, Framing, Peer
from pov_rt.transport.frames import (
    EMPTY_CLOSE,
    EMPTY_PING,
    TEXT_FRAMING,
    FrameError,
    FrameParser,
    Opcode,
    close_frame,
    control_frame,
)
from pov_rt.transport.liveness import has_hung_up, unread_bytes
from pov_rt.transport.loop import watch
from pov_rt.transport.sendqueue import HELD_BYTES, SendQueue, is_much, joined

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
CLOSE_WAIT_S = 1.0  # how long a peer has to read the close frame, to answer it and to hang up
TEXT = Opcode.TEXT
WENT_AWAY = "the client went away"
LOST = "connection lost"
CLOSED_BY_CLIENT = "closed by the client"
ABORTED = "aborted"
"""Why a socket ends; behind some of them the log has more."""
Events = list[tuple[int, bytes]]
"""Messages with the opcodes of their frames."""
BUSY, UNREAD = 1, 2
"""Why a socket is not read: its connection has enough to do, or its client does not read."""


class Parser(Protocol):
    """Takes apart what a client sends: a `FrameParser`, or what throws it away."""

    controls: int
    """How much came that no message pays for; the wire charges it and sets it back."""

    @property
    def error(self) -> FrameError | None:
        """What the client did wrong."""

    @property
    def ended(self) -> bool:
        """Whether nothing more of the client's is waited for: it said so, or did wrong."""

    def feed(self, data: bytes) -> Events:
        """Return the messages, with the opcodes of their frames, that `data` completes.

        The list is the caller's.
        """


class Wire:
    """A client's socket; the `Transport` of a connection. Owner: the loop, until `ended` is called.

    What a read causes to be sent leaves in one piece after it. What does not fit waits as
    references to shared frames, within `bounds`. While much waits, nothing is read: who asks
    without reading the answers is held back, and only who does that for long is closed.
    """

    framing: Framing = TEXT_FRAMING

    __slots__ = (
        "_bounds",
        "_bytes_in",
        "_bytes_out",
        "_closing",
        "_controls",
        "_corked",
        "_drained",
        "_ended",
        "_eof",
        "_events",
        "_fd",
        "_heard",
        "_loop",
        "_parser",
        "_paused",
        "_peer",
        "_queue",
        "_reads",
        "_reason",
        "_socket",
        "_timer",
        "_unread",
    )

    def __init__(
        self,
        sock: socket.socket,
        bounds: Bounds,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[Wire], None],
    ) -> None:
        self._socket = sock
        # The loop is given the number: for a socket object it formats a repr, which every handshake
        # would pay for (docs/measurements.md, handshakes).
        self._fd = sock.fileno()
        self._bounds = bounds
        self._loop = loop
        self._ended: Callable[[Wire], None] | None = ended
        self._peer: Peer | None = None
        self._parser = self._make_parser()
        self._queue: SendQueue | None = None
        self._corked: list[bytes] | None = None
        self._controls: Bucket | None = None
        self._events: Events | None = None
        self._paused = 0
        self._reads = False
        self._heard = False
        self._unread = 0
        self._eof = self._closing = False
        self._reason: str | None = None
        self._drained: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._bytes_in = self._bytes_out = 0

    def hold(self, data: bytes) -> None:
        """Take the first bytes, which leave in one piece with all that is sent before `start`."""
        self._corked = [data]

    def start(self, peer: Peer, received: bytes) -> None:
        """Begin to read; `received` is what came behind the handshake."""
        self._peer = peer
        self._end_cork()
        if self._ended is None or self._closing:
            self._loop.call_soon(self._tell, self._reason or WENT_AWAY)
            return
        if received:
            self._bytes_in, self._heard = len(received), True
            self._events = self._parser.feed(received)
            self._loop.call_soon(self._resume)
        # Also while it is paused: what has read the socket so far does no more.
        self._read_on()

    @property
    def paused(self) -> bool:
        """Whether the peer is not read at the moment."""
        return self._paused != 0

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._queue is None else self._queue.size

    @property
    def unsent_since(self) -> float | None:
        """Since when bytes have been waiting (the loop's time); None while none are."""
        return None if self._queue is None else self._queue.since

    @property
    def traffic(self) -> tuple[int, int]:
        return self._bytes_in, self._bytes_out

    def send(self, data: bytes) -> None:
        """Take ready frames, in order; once it is closing, they are dropped."""
        if self._closing:
            return
        if (corked := self._corked) is not None:
            corked.append(data)
            if (len(data) > 1024 or not len(corked) % 64) and is_much(corked):
                self._uncork()
        elif self._queue is not None:
            self._enqueue(data)
        else:
            self._write(data)

    def send_soon(self, data: bytes) -> None:
        """Take ready frames that leave with what else this turn of the loop brings, in order."""
        if self._corked is None and not self._closing:
            self._corked = []
            self._loop.call_soon(self._end_cork)
        self.send(data)

    def ping(self) -> None:
        self.send(EMPTY_PING)

    def heard(self) -> bool:
        """Tell whether the client showed life since the last call: it sent, or read what waited.

        While the socket is not read, what came is looked at from outside.
        """
        heard, self._heard = self._heard, False
        if heard or not self._paused or self._ended is None:
            return heard
        if has_hung_up(self._fd):
            self._loop.call_soon(self._drop, WENT_AWAY)
            return False
        before, self._unread = self._unread, unread_bytes(self._fd)
        return self._unread != before

    def pause_reads(self, paused: bool) -> None:
        self._pause(BUSY, paused)

    async def drained(self) -> None:
        # Again after waking: who woke first may have sent.
        while self.unsent_bytes > self._bounds.slow_bytes // 2 and not self._closing:
            if self._drained is None:
                self._drained = self._loop.create_future()
            # Shielded: several topics may wait, and one that is cancelled must not end the others.
            await asyncio.shield(self._drained)

    def close(self, code: CloseCode, body: bytes = b"") -> None:
        """Send a last message and why; end the socket after the answer, within `_close_wait_s`."""
        if not self._closing:
            self._uncork()
        if self._closing:  # what was held back may have been too much for it
            return
        data = self._last_words(code, body)
        if self._queue is None:
            self._write(data)
        else:
            if self._queue.size > HELD_BYTES:
                # What waits would keep the close frame from a client that reads again; the part of
                # a frame that it has already must be completed.
                self._queue.keep_head()
            self._queue.add(data)
        self._end(code.reason)

    def abort(self) -> None:
        self._drop(ABORTED)

    # What another way to write and to read messages over the same socket brings of its own:

    def _make_parser(self) -> Parser:
        return FrameParser(self._bounds.message_bytes, _websocket_mask)

    def _last_words(self, code: CloseCode, body: bytes) -> bytes:
        """Return what is sent before the end: a last message, if there is one, and why."""
        data = close_frame(code.code, code.reason)
        return self.framing.frame(body) + data if body else data

    @property
    def _close_wait_s(self) -> float:
        return CLOSE_WAIT_S

    def _pause(self, why: int, paused: bool) -> None:
        before = self._paused
        self._paused = before | why if paused else before & ~why
        if self._closing or (before == 0) == (self._paused == 0):
            return
        # While it is paused the loop still looks, until something comes: most pauses are for what
        # is left of a turn, and end before that.
        if not self._paused:
            if not self._reads:
                self._read_on()
            if self._events:
                self._loop.call_soon(self._resume)

    def _read_on(self) -> None:
        self._reads = True
        watch(self._loop, self._fd, self)

    def _read_no_more(self) -> None:
        self._reads = False
        self._loop.remove_reader(self._fd)

    def readable(self) -> None:
        """Read what there is; the loop's part."""
        if self._paused and not self._closing:
            self._read_no_more()
            return
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._drop(f"{LOST}: {error.strerror}")
            return
        if data:
            self._feed(data)
        elif self._queue is None:
            self._drop(WENT_AWAY)
        else:
            # It may have closed its side only, and still read what waits.
            self._eof = True
            self._read_no_more()
            if not self._closing:
                self._end(WENT_AWAY)

    def _feed(self, data: bytes) -> None:
        self._bytes_in += len(data)
        self._heard = True
        events = self._parser.feed(data)
        # Once it is closing, bytes are only read away: unread ones would turn the end into a reset,
        # and a reset can take the close frame from the client (RFC 6455, section 7.1.1).
        if self._closing:
            if self._corked is None:
                self._finish_writing()
            return
        if self._parser.controls and self._is_flooding():
            words = "a client sends too many control frames or fragments"
            self._bounds.complaint.log(logging.INFO, words)
            self.close(CloseCode.FLOODING)
        elif self._paused or self._events:  # which the loop may not have come to yet
            self._events = [*(self._events or ()), *events]
        else:
            self._take(events)

    def _is_flooding(self) -> bool:
        """Charge the client for frames that no message pays for."""
        rate, now = self._bounds.control_rate, self._loop.time()
        if self._controls is None:
            self._controls = Bucket(rate, now)
        count, self._parser.controls = self._parser.controls, 0
        return self._controls.take(rate, now, count) > 0

    def _resume(self) -> None:
        # It may have been paused again meanwhile.
        if not self._closing and not self._paused:
            events, self._events = self._events or [], None
            self._take(events)

    def _take(self, events: Events) -> None:
        self._corked = self._corked or []
        try:
            for index, (opcode, payload) in enumerate(events):
                if self._closing or self._peer is None:
                    break
                if self._paused:
                    # In place: a chunk may hold hundreds, of which a turn takes four.
                    del events[:index]
                    self._events = events
                    break
                if opcode == TEXT:
                    self._peer.receive(payload, True)
                else:
                    self._handle(self._peer, opcode, payload)
            if self._parser.error is not None and not self._events:
                error = self._parser.error
                self._bounds.complaint.log(logging.INFO, "a client broke the protocol: %s", error)
                self.close(error.close)
        except Exception:  # a bug of ours; it must end this client only
            log.exception("handling a message failed")
            self.close(CloseCode.INTERNAL)
        finally:
            self._end_cork()

    def _end_cork(self) -> None:
        corked = self._corked
        if corked is None:
            return
        if len(corked) == 1 and self._queue is None and not self._closing:  # as nearly always
            self._corked = None
            self._write(corked[0])
        else:
            if corked:
                self._uncork()
            self._corked = None
        if self._closing:
            self._finish_writing()

    def _uncork(self) -> None:
        """Send the answers that are held back, the last ones of a closing socket too."""
        if not (corked := self._corked):
            return
        # Meanwhile nothing is held back: what `_enqueue` closes with comes after.
        self._corked, was_closing = None, self._closing
        for data in corked if len(corked) == 1 else joined(corked):
            if self._closing and not was_closing:
                break
            if self._queue is None:
                self._write(data)
            else:
                self._enqueue(data)
        self._corked = []

    def _handle(self, peer: Peer, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.BINARY:
            peer.receive(payload, False)
        elif opcode == Opcode.PING:
            self.send(control_frame(Opcode.PONG, payload))
        elif opcode == Opcode.CLOSE:
            code = int.from_bytes(payload[:2])
            self.send(close_frame(code, "") if code else EMPTY_CLOSE)
            self._end(f"{CLOSED_BY_CLIENT} with {code}" if code else CLOSED_BY_CLIENT)

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
            self._queue = SendQueue(self._loop.time())
            self._loop.add_writer(self._fd, self._writable)
        elif self._queue.size + len(data) > self._bounds.queue_bytes and not self._closing:
            self._reason = f"slow consumer, {self._queue.size} bytes unsent"
            self.close(CloseCode.SLOW_CONSUMER)
            return
        self._queue.add(data)
        if self._queue.size == len(data):
            self._tell_written(len(data))
        if self._queue.size > self._bounds.slow_bytes and self._timer is None:
            self._timer = self._loop.call_later(self._bounds.slow_s, self._too_slow)
            self._pause(UNREAD, True)
            # Not at once: whoever sends is going through its subscribers.
            self._loop.call_soon(self._lag)

    def _tell_written(self, unsent: int) -> None:
        borders, peer = self._bounds.borders, self._peer
        if borders is not None and peer is not None and (written := borders.written) is not None:
            written(peer, unsent)

    def _lag(self) -> None:
        if self._peer is not None:
            self._peer.lagging()

    def _too_slow(self) -> None:
        self._reason = (
            f"slow consumer, {self.unsent_bytes} bytes unsent for {self._bounds.slow_s:g} s"
        )
        self.close(CloseCode.SLOW_CONSUMER)

    def _writable(self) -> None:
        queue = self._queue
        if queue is None:
            return
        try:
            sent = self._socket.sendmsg(queue.first())
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._drop(f"{LOST}: {error.strerror}")
            return
        queue.remove(sent)
        self._bytes_out += sent
        self._heard = True
        if not queue.size:
            self._loop.remove_writer(self._fd)
            self._queue = None
            self._tell_written(0)
        if queue.size <= self._bounds.slow_bytes // 2:
            self._release_waiters()
            self._pause(UNREAD, False)
        if self._closing:
            self._finish_writing()
        elif self._timer is not None and queue.size <= self._bounds.slow_bytes:
            self._timer.cancel()
            self._timer = None

    def _end(self, reason: str) -> None:
        """Accept nothing more to send; hang up when all is written, or after a second."""
        self._closing = True
        self._reason = self._reason or reason
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._close_wait_s, self._drop, reason)
        self._loop.call_soon(self._tell, reason)
        if self._ended is not None and not self._eof:
            # Also if it was paused, or not begun: the peer's own end is waited for.
            self._read_on()
        self._release_waiters()
        if self._corked is None:
            self._finish_writing()

    def _finish_writing(self) -> None:
        """Half-close once all is written, and the peer's own close frame is here.

        A browser that saw the end before it had answered would call the end unclean.
        """
        if self._queue is None and self._ended is not None:
            if self._eof:
                self._drop(self._reason or WENT_AWAY)
                return
            if not self._parser.ended:
                return
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def _fail(self, error: OSError) -> None:
        """End after a failed write, but not before the sender is done with its other sockets."""
        self._closing = True
        self._loop.call_soon(self._drop, f"{LOST}: {error.strerror}")

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
        self._queue = self._corked = None
        self._events = None
        self._release_waiters()
        try:
            self._tell(reason)
        finally:
            ended(self)

    def _tell(self, reason: str) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.lost(self._reason or reason)

    def _release_waiters(self) -> None:
        waiter, self._drained = self._drained, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

"""A session that is fetched: what it is sent waits until its client's next request has it.

For networks that show a client nothing of an answer before its end. Each answer is complete, and
has what came since the place that the request named, or what comes next:

    data:{...}              each message, an event of its own, as in a session that has no end
    id:C_0000000000000012   behind the last one: the place that the next request is to name

What was answered is kept until a request names the place behind it, for an answer may never arrive.
Above, it is a transport like a socket: `Bounds` says how much may wait, and for how long.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from pov_rt.protocol.errors import CloseCode
from pov_rt.transport.bounds import Bounds, Peer
from pov_rt.transport.stream import MessageFraming

log = logging.getLogger(__name__)

ANSWER_BYTES = 1024 * 1024
"""Of one answer, save for a piece that is larger by itself: it may come from another node."""
SPACING_S = 0.1
"""How soon after an answer the next one comes: what happens meanwhile travels together."""


class PolledFraming(MessageFraming):
    """Messages as a session's events, for answers that end."""

    __slots__ = ()

    transport = "poll"


POLLED_FRAMING = PolledFraming()


class PolledSession:
    """The `Transport` of a session that is fetched. Owner: the loop, until `ended` is called.

    It begins with `start`. Places are numbers of pieces: 0 is the beginning.
    """

    framing = POLLED_FRAMING

    __slots__ = (
        "_bounds",
        "_bytes_in",
        "_bytes_out",
        "_closing",
        "_count",
        "_drained",
        "_ended",
        "_fetching",
        "_heard",
        "_is_busy",
        "_loop",
        "_messages",
        "_next_at",
        "_peer",
        "_pieces",
        "_reason",
        "_timer",
        "unsent_bytes",
    )

    def __init__(
        self,
        bounds: Bounds,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[PolledSession], None],
    ) -> None:
        self._bounds = bounds
        self._loop = loop
        self._ended: Callable[[PolledSession], None] | None = ended
        self._peer: Peer | None = None
        self._pieces: deque[bytes] = deque()
        self._count = 0
        self.unsent_bytes = 0
        self._messages: deque[bytes] = deque()
        self._is_busy = self._heard = self._closing = False
        self._reason: str | None = None
        self._next_at = 0.0
        # The request that waits, the tasks that wait for room, and the end of what takes long.
        self._fetching: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._bytes_in = self._bytes_out = 0

    def start(self, peer: Peer) -> None:
        """Begin."""
        self._peer = peer

    async def fetch(
        self, after: int, wait_s: float, gone: asyncio.Future[None]
    ) -> tuple[bytes, int]:
        """Return what follows a place, or what comes within `wait_s`, and the place behind it.

        `gone` is done when nobody waits for it any more. A request that comes meanwhile takes the
        place of one before. Raises LookupError for a place that is none, or that was passed.
        """
        if not self._count - len(self._pieces) <= after <= self._count:
            raise LookupError(after)
        self._forget(after)
        self._heard = True
        self._wake()
        fetching = self._fetching = self._loop.create_future()
        try:
            if not self._pieces and not self._closing:
                await _wait([fetching, gone], wait_s)
            if not self._closing:
                await _wait([gone], self._next_at - self._loop.time())
            if self._fetching is not fetching or gone.done():
                return b"", after
            self._next_at = self._loop.time() + SPACING_S
            pieces = self._first()
            data, place = b"".join(pieces), self._count - len(self._pieces) + len(pieces)
            self._bytes_out += len(data)
            if self._closing and place == self._count:
                self._drop()  # and it is gone: these were its last words
            return data, place
        finally:
            if self._fetching is fetching:
                self._fetching = None

    def receive(self, messages: Sequence[bytes]) -> bool:
        """Handle messages that came by requests; UTF-8, in order.

        Returns whether it does: not while those that came before wait, nor once it is closing.
        """
        if self._closing or self._messages or self._is_held:
            return False
        self._heard = True
        self._bytes_in += sum(map(len, messages))
        self._messages.extend(messages)
        self._resume()
        return True

    @property
    def traffic(self) -> tuple[int, int]:
        return self._bytes_in, self._bytes_out

    def send(self, data: bytes) -> None:
        if self._closing:
            return
        if self._pieces and self.unsent_bytes + len(data) > self._bounds.queue_bytes:
            self._slow(f"slow consumer, {self.unsent_bytes} bytes unsent")
            return
        self._add(data)
        if self.unsent_bytes > self._bounds.slow_bytes and self._timer is None:
            why = f"slow consumer, much unsent for {self._bounds.slow_s:g} s"
            self._timer = self._loop.call_later(self._bounds.slow_s, self._slow, why)
            # Not at once: whoever sends is going through its subscribers.
            self._loop.call_soon(self._lag)

    def send_soon(self, data: bytes) -> None:
        self.send(data)

    def ping(self) -> None:
        """Do nothing: an answer would end that a client waits for."""

    def heard(self) -> bool:
        """Tell whether a request waits, or one came since the last call."""
        heard, self._heard = self._heard or self._fetching is not None, False
        return heard

    def pause_reads(self, paused: bool) -> None:
        self._is_busy = paused
        if not paused:
            self._loop.call_soon(self._resume)

    async def drained(self) -> None:
        while self.unsent_bytes > self._bounds.slow_bytes // 2 and not self._closing:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def close(self, code: CloseCode, body: bytes = b"") -> None:
        """Have a last message fetched; what waits is there for so long as a slow client has."""
        if self._closing:
            return
        if body:
            self._add(self.framing.frame(body))
        self._closing = True
        self._reason = self._reason or code.reason
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._bounds.slow_s, self._drop)
        self._loop.call_soon(self._tell)
        self._messages.clear()
        self._wake()
        self._release()

    def abort(self) -> None:
        self._closing = True
        self._reason = self._reason or "aborted"
        self._drop()

    @property
    def _is_held(self) -> bool:
        """Whether no message is handled now: enough is to be done, or to be fetched."""
        return self._is_busy or self._timer is not None

    def _add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._count += 1
        self.unsent_bytes += len(data)
        self._wake()

    def _first(self) -> Sequence[bytes]:
        """Return the pieces of one answer."""
        pieces, size = list[bytes](), 0
        for piece in self._pieces:
            size += len(piece)
            if pieces and size > ANSWER_BYTES:
                break
            pieces.append(piece)
        return pieces

    def _forget(self, after: int) -> None:
        """Let go of what the client has."""
        while self._count - len(self._pieces) < after:
            self.unsent_bytes -= len(self._pieces.popleft())
        if self._closing:
            return
        if self._timer is not None and self.unsent_bytes <= self._bounds.slow_bytes:
            self._timer.cancel()
            self._timer = None
            self._loop.call_soon(self._resume)
        if self.unsent_bytes <= self._bounds.slow_bytes // 2:
            self._release()

    def _resume(self) -> None:
        try:
            while self._messages and self._peer is not None and not self._is_held:
                self._peer.receive(self._messages.popleft(), True)
        except Exception:  # a bug of ours; it must end this client only
            log.exception("handling a message failed")
            self.close(CloseCode.INTERNAL)

    def _lag(self) -> None:
        if self._peer is not None:
            self._peer.lagging()

    def _slow(self, why: str) -> None:
        self._reason = self._reason or why
        self.close(CloseCode.SLOW_CONSUMER)

    def _tell(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.lost(self._reason or "closed")

    def _drop(self) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._pieces.clear()
        self._messages.clear()
        self.unsent_bytes = 0
        self._wake()
        self._release()
        try:
            self._tell()
        finally:
            ended(self)

    def _wake(self) -> None:
        if self._fetching is not None and not self._fetching.done():
            self._fetching.set_result(None)

    def _release(self) -> None:
        waiter, self._drained = self._drained, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


async def _wait(futures: Sequence[asyncio.Future[None]], wait_s: float) -> None:
    """Wait until one of them is done, but not for longer."""
    if wait_s > 0:
        await asyncio.wait(futures, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)

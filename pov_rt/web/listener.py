"""Accepts connections, but never more than the process has room for.

The stock accept loop spins when file descriptors run out: full CPU and megabytes of log, for
anybody who opens sockets. Here who has not asked for anything makes room for who comes; and while
nobody can, the listening sockets rest.
"""

from __future__ import annotations

import asyncio
import logging
import math
import resource
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from tornado.httpserver import HTTPServer

from pov_rt.runtime import turns
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.limits import Bucket, Rate
from pov_rt.runtime.process.logs import Throttle
from pov_rt.web.stream import Refusal, Stream

log = logging.getLogger(__name__)

RESERVE = 64
"""Descriptors for everything that is no client: log, engine, listeners, requests out."""
ADMIN_CONNECTIONS = 24
"""Connections to the admin port, out of the reserve."""
UNSENT_BYTES = 128 * 1024
"""What the kernel holds of one client's unsent bytes (TCP_NOTSENT_LOWAT)."""
LINGER_S = 2.0
"""How long the rest of a refused request is read away."""
EVICTIONS = Rate(per_second=1000.0, burst=200.0)
"""How many connections make room for others: those who come again at once must not take a core."""
REST_S = 0.1


def capacity(wanted: int = 0) -> int:
    """Raise the soft limit of open files to the hard one; return how many clients there may be.

    That is `wanted`, but never more than fit; 0 stands for all that fit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fit = max(16, min(hard, 1 << 20) - RESERVE)
    if wanted > fit:
        log.warning(
            "limits.connections is %d, but only %d fit below the limit of open files (LimitNOFILE)",
            wanted,
            fit,
        )
    return min(wanted or fit, fit)


class Listener:
    """Accepts for one HTTP server, and owns its streams.

    `bound` counts all that is open here, and with `others` what has become of it. At most
    `per_peer` streams (0: any number) belong to one peer, as `peer_of` names it by its address; not
    to None. `refused` is called with the address and the refusal of each request that no handler
    sees. Few sockets are opened while `is_behind` tells that open ones wait to be served.
    """

    def __init__(
        self,
        http: HTTPServer,
        sockets: Sequence[socket.socket],
        *,
        name: str,
        setting: str = "",
        capacity: int,
        refused: Callable[[str, Refusal], None],
        complaint: Throttle,
        others: Callable[[], int] = lambda: 0,
        per_peer: int = 0,
        peer_of: Callable[[str], str | None] = lambda _: None,
        is_behind: Callable[[], bool] = lambda: False,
    ) -> None:
        self.sockets = tuple(sockets)
        self._refused = refused
        self.bound = Bound(name, setting, capacity, lambda: self.open + others())
        self.requests = turns.Slots(turns.REQUESTS)
        self.handshakes = turns.Slots(turns.HANDSHAKES, turns.FEW_HANDSHAKES, is_behind)
        self._http = http
        http.conn_params.header_timeout = None  # `sweep` is in its place
        self._per_peer = per_peer
        self._peer_of = peer_of
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._complaint = complaint
        self._stopped = False
        self._leaves_at = math.inf
        # By when they began to wait; those who never asked are apart, for they go first.
        self._silent: dict[Stream, None] = {}
        self._idle: dict[Stream, None] = {}
        self._streams: dict[Stream, None] = {}
        self._awaited: set[Stream] = set()
        self._by_peer: dict[str, dict[Stream, None]] = {}
        self._leaving: dict[socket.socket, asyncio.TimerHandle] = {}
        self._evictions = Bucket(EVICTIONS, self._loop.time())
        self._scrap = bytearray(1 << 16)
        self._changed: asyncio.Future[None] | None = None
        self._listen()

    @property
    def open(self) -> int:
        """How many connections are open for HTTP."""
        return len(self._streams) + len(self._leaving)

    def sweep(self, request_s: float, keepalive_s: float) -> None:
        """Hang up on those who take too long to ask; to be called about once a second.

        Tornado has one limit for both the wait for a request and its arrival; with ten seconds for
        both, every client that reuses its connection would find it closed. Its timer for each would
        also cost every handshake (docs/measurements.md, handshakes).
        """
        now = self._loop.time()
        for stream in list(self._streams):
            if stream.is_overdue(now, request_s, keepalive_s):
                stream.close()

    def stop(self) -> None:
        """Accept no more; the listening sockets stay open, for whoever owns them."""
        self._stopped = True
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        for sock in self.sockets:
            self._loop.remove_reader(sock.fileno())

    def leave_at(self, instant: float) -> None:
        """Accept nobody from this instant of the loop's clock on, as after `stop`.

        However late the loop is: who connects after it is left for whoever has the port next.
        """
        self._leaves_at = instant

    async def finish(self, most_s: float) -> None:
        """Wait until all that is under way now is answered; what comes meanwhile is as ever.

        Not for what waits for something to happen, which has no end of its own.
        """
        self._awaited = {
            stream
            for stream in self._streams
            if not (stream in self._silent or stream in self._idle or stream.waits_for_news)
        }
        await self._wait(lambda: not self._awaited, most_s)

    async def settle(self, ask_s: float, answer_s: float) -> None:
        """Wait until what is under way is answered, for `answer_s` at most.

        Who has connected and not asked yet has `ask_s` for that: it is just about to.
        """
        await self._wait(lambda: not self._silent, ask_s)
        waiting = self._silent, self._idle
        await self._wait(lambda: len(self._streams) == sum(map(len, waiting)), answer_s)

    async def _wait(self, condition: Callable[[], bool], most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while not condition():
                    self._changed = self._loop.create_future()
                    await self._changed

    def _change(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def close(self) -> None:
        """Stop, and end what is still read away."""
        self.stop()
        for sock in list(self._leaving):
            self._leave(sock)

    def waits(self, stream: Stream) -> None:
        """Enter who waits for a request."""
        self._awaited.discard(stream)
        (self._idle if stream.has_asked else self._silent)[stream] = None
        self._change()

    def asks(self, stream: Stream) -> None:
        """Take out whose request has come."""
        (self._silent if stream in self._silent else self._idle).pop(stream, None)
        self._change()

    def lasts(self, stream: Stream) -> None:
        """Wait no more for a request that itself waits."""
        self._awaited.discard(stream)
        self._change()

    def ended(self, stream: Stream) -> None:
        """Let go of a stream."""
        self._awaited.discard(stream)
        self._streams.pop(stream, None)
        self.asks(stream)
        if stream.peer is not None:
            streams = self._by_peer[stream.peer]
            streams.pop(stream, None)
            if not streams:
                del self._by_peer[stream.peer]

    def malformed(self, stream: Stream, refusal: Refusal) -> None:
        """Tell of a request that no handler sees."""
        self._refused(stream.address, refusal)

    def read_away(self, sock: socket.socket) -> None:
        """Read for a while, and then close: closed with bytes unread, it would be reset."""
        with suppress(OSError):  # the client has gone
            sock.shutdown(socket.SHUT_WR)
        self._leaving[sock] = self._loop.call_later(LINGER_S, self._leave, sock)
        self._loop.add_reader(sock.fileno(), self._read_away, sock)

    def _read_away(self, sock: socket.socket) -> None:
        try:
            count = sock.recv_into(self._scrap)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        if not count:
            self._leave(sock)

    def _leave(self, sock: socket.socket) -> None:
        self._leaving.pop(sock).cancel()
        self._loop.remove_reader(sock.fileno())
        sock.close()

    def _listen(self) -> None:
        self._rest = None
        for sock in self.sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        if self._loop.time() >= self._leaves_at:
            self.stop()
            return
        for _ in range(turns.ACCEPTS):
            busy = self.bound.used()
            is_full = busy >= self.bound.limit
            if is_full and not self._may_make_room():
                self._pause(f"{busy:g} sockets are open, which is all there is room for")
                return
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(str(error.strerror))
                return
            if is_full:
                self._make_room()
            stream = Stream(sock, self._loop.time(), self)
            if sock.family != socket.AF_UNIX:
                # Without it a second small write waits for the acknowledgement of the first one
                # (docs/measurements.md, small writes).
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # The kernel would take up to 4 MiB for a client that does not read, on top of the
                # bytes we bound.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
                stream.address = address[0]
                stream.peer = self._peer_of(address[0])
            self._enter(stream, address)

    def _enter(self, stream: Stream, address: tuple[str, int]) -> None:
        if stream.peer is not None:
            streams = self._by_peer.setdefault(stream.peer, {})
            streams[stream] = None
            if 0 < self._per_peer < len(streams):
                # The new one itself, if all others have asked for something.
                waiting = (each for each in streams if each in self._silent or each in self._idle)
                oldest = next(waiting, stream)
                self.bound.refuse(
                    stream.peer, f"one address has {self._per_peer} that are no sockets yet"
                )
                oldest.close()
                if oldest is stream:
                    return
        self._streams[stream] = None
        self._http.handle_stream(stream, address)

    def _may_make_room(self) -> bool:
        if not (self._leaving or self._silent or self._idle):
            return False
        return self._evictions.take(EVICTIONS, self._loop.time()) == 0.0

    def _make_room(self) -> None:
        """End what has waited for a request for the longest."""
        if self._leaving:
            self._leave(next(iter(self._leaving)))
            return
        oldest = next(iter(self._silent or self._idle))
        self.bound.refuse(oldest.peer or "", "all are in use; the oldest that asks nothing goes")
        oldest.close()

    def _pause(self, why: str) -> None:
        self._complaint.log(logging.WARNING, "not accepting connections: %s", why)
        for sock in self.sockets:
            self._loop.remove_reader(sock.fileno())
        if not self._stopped:
            self._rest = self._loop.call_later(REST_S, self._listen)

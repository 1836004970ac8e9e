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
from typing import Any

from tornado.httpserver import HTTPServer

from pov_rt.runtime import turns
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.limits import Bucket, Rate
from pov_rt.runtime.process.logs import Throttle
from pov_rt.web.publication.head import frame
from pov_rt.web.publication.intake import Intake
from pov_rt.web.publication.kept import Done, Kept
from pov_rt.web.stream import Refusal, Stream, Verdict
from pov_rt.web.upgrade.accepted import Accepted
from pov_rt.web.upgrade.entry import Entry

Caller = Accepted | Kept | Stream
"""Who is connected, and has not become a socket."""

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


def accept(listening: socket.socket, family: int) -> tuple[socket.socket, Any]:
    """Accept a connection that does not block; return it with the address of who connects.

    As `socket.accept` does, which looks up the names of family and type for each
    (docs/measurements.md, everybody back).
    """
    fd, address = listening._accept()  # type: ignore[attr-defined]  # noqa: SLF001
    sock = socket.socket(family, socket.SOCK_STREAM, 0, fd)
    sock.setblocking(False)
    return sock, address


class Listener:
    """Accepts for one HTTP server, and owns its streams.

    `bound` counts all that is open here, and with `others` what has become of it. At most
    `per_peer` streams (0: any number) belong to one peer, as `peer_of` names it by its address; not
    to None. `refused` is called with the address and the refusal of each request that no handler
    sees. With an `entry` well-formed upgrades go there, and never to the HTTP server, and with an
    `intake` such publications go there. Few upgrades are begun while `is_behind` tells that open
    sockets wait to be served.
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
        entry: Entry | None = None,
        intake: Intake | None = None,
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
        self._entry = entry
        self._intake = intake
        http.conn_params.header_timeout = None  # `sweep` is in its place
        self._per_peer = per_peer
        self._peer_of = peer_of
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._complaint = complaint
        self._stopped = False
        self._leaves_at = math.inf
        # By when they began to wait; those who never asked are apart, for they go first.
        # By their sockets, so that a place is kept when HTTP begins to be spoken.
        self._silent: dict[socket.socket, Caller] = {}
        self._idle: dict[socket.socket, Caller] = {}
        self._callers: dict[socket.socket, Caller] = {}
        self._awaited: set[socket.socket] = set()
        self._by_peer: dict[str, dict[socket.socket, Caller]] = {}
        self._leaving: dict[socket.socket, asyncio.TimerHandle] = {}
        self._evictions = Bucket(EVICTIONS, self._loop.time())
        self._scrap = bytearray(1 << 16)
        self._changed: asyncio.Future[None] | None = None
        for sock in self.sockets:
            if sock.family != socket.AF_UNIX:
                # What is accepted has them from here. Without the first a second small write waits
                # for the acknowledgement of the first one (docs/measurements.md, small writes).
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # The kernel would take up to 4 MiB for a client that does not read, on top of the
                # bytes we bound.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._listen()

    @property
    def open(self) -> int:
        """How many connections are open for HTTP."""
        return len(self._callers) + len(self._leaving)

    def sweep(self, request_s: float, keepalive_s: float) -> None:
        """Hang up on those who take too long to ask; to be called about once a second.

        Tornado has one limit for both the wait for a request and its arrival; with ten seconds for
        both, every client that reuses its connection would find it closed. Its timer for each would
        also cost every handshake (docs/measurements.md, handshakes).
        """
        now = self._loop.time()
        for caller in list(self._callers.values()):
            if caller.is_overdue(now, request_s, keepalive_s):
                caller.close()

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
            key
            for key, caller in self._callers.items()
            if not (key in self._silent or key in self._idle or caller.waits_for_news)
        }
        await self._wait(lambda: not self._awaited, most_s)

    async def settle(self, ask_s: float, answer_s: float) -> None:
        """Wait until what is under way is answered, for `answer_s` at most.

        Who has connected and not asked yet has `ask_s` for that: it is just about to.
        """
        await self._wait(lambda: not self._silent, ask_s)
        waiting = self._silent, self._idle
        await self._wait(lambda: len(self._callers) == sum(map(len, waiting)), answer_s)

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
        """Stop, and end what has asked nothing and what is still read away."""
        self.stop()
        for caller in list(self._callers.values()):
            caller.close()
        for sock in list(self._leaving):
            self._leave(sock)

    def enters(self, caller: Caller) -> bool:
        """Enter a connection; close it, and return False, if its peer has too many."""
        key, peer = caller.key, caller.peer
        if key in self._callers:
            return True
        self._callers[key] = caller
        if peer is None:
            return True
        mine = self._by_peer.setdefault(peer, {})
        mine[key] = caller
        if not 0 < self._per_peer < len(mine):
            return True
        # The new one itself, if all others have asked for something.
        waiting = (each for key, each in mine.items() if key in self._silent or key in self._idle)
        oldest = next(waiting, caller)
        self.bound.refuse(peer, f"one address has {self._per_peer} that are no sockets yet")
        oldest.close()
        return oldest is not caller

    def speaks(
        self,
        caller: Accepted | Kept,
        received: bytes,
        *,
        verdict: Verdict | None = None,
        outcome: Done = None,
        unsent: bytes = b"",
    ) -> None:
        """Have HTTP spoken on a connection, on which some bytes have been received.

        First what is `unsent` is sent. A verdict or an outcome is that of the first request.
        """
        if not self.enters(caller):
            return
        stream = Stream(caller.key, caller.at, self, received)
        stream.address, stream.peer, stream.came_from = caller.ip, caller.peer, caller.address
        stream.verdict, stream.outcome, stream.has_asked = verdict, outcome, caller.has_asked
        self._replace(caller, stream)
        if unsent:
            written = stream.write(unsent)
            written.add_done_callback(lambda _: self._http.handle_stream(stream, stream.came_from))
        else:
            self._http.handle_stream(stream, stream.came_from)

    def keeps(self, caller: Accepted, intake: Intake, received: bytes) -> None:
        """Keep a connection without HTTP, which begins with a publication."""
        if self.enters(caller):
            kept = Kept(caller.key, caller.address, caller.ip, caller.peer, self, intake)
            self._replace(caller, kept)
            kept.begin(received)

    def takes_back(self, stream: Stream, head: bytes) -> bool:
        """Keep a connection without HTTP from here on, if it goes on with such a publication."""
        if self._intake is None or frame(head, None, stream.address, is_unix=False) is None:
            return False
        sock, behind = stream.release()
        kept = Kept(sock, stream.came_from, stream.address, stream.peer, self, self._intake)
        kept.has_asked = True
        if self.enters(kept):
            kept.begin(head + behind)
        return True

    def _replace(self, caller: Caller, other: Caller) -> None:
        """Have something else speak on a connection, which keeps its places."""
        key, peer = caller.key, caller.peer
        self._callers[key] = other
        for waiting in (self._silent, self._idle):
            if key in waiting:
                waiting[key] = other
        if peer is not None:
            self._by_peer[peer][key] = other

    def waits(self, caller: Caller) -> None:
        """Enter who waits for a request."""
        self._awaited.discard(caller.key)
        (self._idle if caller.has_asked else self._silent)[caller.key] = caller
        self._change()

    def asks(self, caller: Caller) -> None:
        """Take out whose request has come."""
        key = caller.key
        (self._silent if key in self._silent else self._idle).pop(key, None)
        self._change()

    def lasts(self, stream: Stream) -> None:
        """Wait no more for a request that itself waits."""
        self._awaited.discard(stream.key)
        self._change()

    def ended(self, caller: Caller) -> None:
        """Let go of a connection, if it has been entered."""
        key, peer = caller.key, caller.peer
        if self._callers.pop(key, None) is None:
            return
        self._awaited.discard(key)
        self.asks(caller)
        if peer is not None:
            mine = self._by_peer[peer]
            del mine[key]
            if not mine:
                del self._by_peer[peer]

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
        now = self._loop.time()
        if now >= self._leaves_at:
            self.stop()
            return
        room = self.bound.limit - self.bound.used()
        family = int(listening.family)
        is_unix = family == socket.AF_UNIX
        for _ in range(turns.ACCEPTS):
            if room <= 0 and not self._may_make_room():
                busy = self.bound.used()
                self._pause(f"{busy:g} sockets are open, which is all there is room for")
                return
            try:
                sock, address = accept(listening, family)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(str(error.strerror))
                return
            if room <= 0:
                self._make_room()
            else:
                room -= 1
            caller = Accepted(sock, address, now, self)
            if not is_unix:
                caller.peer = self._peer_of(address[0])
            if self._is_crowded(caller.peer) and not self.enters(caller):
                continue
            if self._entry is None or self._intake is None:
                self.speaks(caller, b"")
            else:
                caller.begin(self._entry, self._intake)

    def _is_crowded(self, peer: str | None) -> bool:
        """Tell whether one of a peer's connections goes if another comes."""
        return peer is not None and 0 < self._per_peer <= len(self._by_peer.get(peer, ()))

    def _may_make_room(self) -> bool:
        if not (self._leaving or self._silent or self._idle):
            return False
        return self._evictions.take(EVICTIONS, self._loop.time()) == 0.0

    def _make_room(self) -> None:
        """End what has waited for a request for the longest."""
        if self._leaving:
            self._leave(next(iter(self._leaving)))
            return
        oldest = next(iter((self._silent or self._idle).values()))
        self.bound.refuse(oldest.peer or "", "all are in use; the oldest that asks nothing goes")
        oldest.close()

    def _pause(self, why: str) -> None:
        self._complaint.log(logging.WARNING, "not accepting connections: %s", why)
        for sock in self.sockets:
            self._loop.remove_reader(sock.fileno())
        if not self._stopped:
            self._rest = self._loop.call_later(REST_S, self._listen)

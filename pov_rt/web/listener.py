"""Accepts connections, but never more than the process has room for.

The stock accept loop spins when file descriptors run out: full CPU and megabytes of log, for
anybody who opens sockets. Here the listening sockets rest while there is no room.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import cast

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from pov_rt.protocol.encoding import http_error
from pov_rt.protocol.errors import InvalidRequest
from pov_rt.runtime import turns
from pov_rt.runtime.logs import Throttle

log = logging.getLogger(__name__)

RESERVE = 64
"""Descriptors for everything that is no client: log, engine, listeners, requests out."""
ADMIN_CONNECTIONS = 24
"""Connections to the admin port, out of the reserve."""
UNSENT_BYTES = 128 * 1024
"""What the kernel holds of one client's unsent bytes (TCP_NOTSENT_LOWAT)."""
MUCH_BYTES = 32 * 1024
"""A read of as many bytes is a part of a large request. The kernel must not delay its
acknowledgement: the sender may have filled the window, and waits for that before it sends the rest
(docs/measurements.md, large requests).
"""
UNREAD_S = 30.0
"""How long a client may read nothing of an answer, which waits in memory: a page may have 1 MiB."""
REST_S = 0.1
STOCK_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""Tornado's answer to what is no HTTP."""
_BODY = http_error(InvalidRequest("This is not a request as HTTP has it"))
REFUSAL = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n%b" % (len(_BODY), _BODY)
)


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


class Stream(IOStream):
    """A client's connection as long as it speaks HTTP."""

    _released = False
    _served = False
    _waits_for: str | int | None = None
    _waits_since = 0.0

    def __init__(self, sock: socket.socket, now: float, malformed: Callable[[], None]) -> None:
        super().__init__(sock)
        self._accepted_at = now
        self._malformed = malformed

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Read some bytes; have the kernel acknowledge much at once."""
        count = super().read_from_fd(buf)
        if count is not None and count >= MUCH_BYTES and self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return count

    def write(self, data: bytes | memoryview) -> Future[None]:
        """Send an answer."""
        self._served = True
        self._waits_for = None
        if data == STOCK_REFUSAL:
            self._malformed()
            data = REFUSAL
        return super().write(data)

    def is_overdue(self, now: float, request_s: float, idle_s: float) -> bool:
        """Tell whether a request has been on its way for too long, or none has come for too long.

        Or an answer is not read: nothing of it, for `UNREAD_S`. Ask about once a second. The first
        request is on its way from the start: who connects has something to say.
        """
        waits_for: str | int | None = None
        if self._read_regex is not None:
            waits_for = "the rest" if not self._served or self._read_buffer_size else "a request"
        elif self._write_buffer:
            waits_for = self._total_write_done_index
        if waits_for != self._waits_for:
            self._waits_for = waits_for
            self._waits_since = now if self._served else self._accepted_at
        limit_s = {"the rest": request_s, "a request": idle_s}.get(str(waits_for), UNREAD_S)
        return waits_for is not None and now - self._waits_since >= limit_s

    def release(self) -> tuple[socket.socket, bytes]:
        """Return the socket, open, and the bytes that came behind the request; the stream ends."""
        sock, received = self.socket, bytes(self._read_buffer)
        self._released = True
        self.close()
        return sock, received

    def close_fd(self) -> None:
        """Close the socket, unless it has another owner."""
        if not self._released:
            super().close_fd()

    def _maybe_add_error_listener(self) -> None:
        """Don't have the loop watch for a hang-up while a request is handled: nobody asks for it.

        To begin and end that would cost every handshake (docs/measurements.md, handshakes).
        """


class Listener:
    """Accepts for one HTTP server. `busy` counts the sockets that are open already.

    `malformed` is called for each request that Tornado refuses before a handler sees it.
    """

    def __init__(
        self,
        http: HTTPServer,
        sockets: Sequence[socket.socket],
        *,
        capacity: int,
        busy: Callable[[], int],
        complaint: Throttle,
        malformed: Callable[[], None],
    ) -> None:
        self.sockets = tuple(sockets)
        self._http = http
        http.conn_params.header_timeout = None  # `sweep` is in its place
        self._capacity = capacity
        self._busy = busy
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._complaint = complaint
        self._malformed = malformed
        self._stopped = False
        self._listen()

    def sweep(self, handshake_s: float, keepalive_s: float) -> None:
        """Hang up on those who take too long to ask; to be called about once a second.

        Tornado has one limit for both the wait for a request and its arrival; with ten seconds for
        both, every client that reuses its connection would find it closed. Its timer for each would
        also cost every handshake (docs/measurements.md, handshakes).
        """
        now = self._loop.time()
        for connection in list(self._http._connections):  # noqa: SLF001  (no public list)
            stream = cast(Stream, connection.stream)
            if stream.is_overdue(now, handshake_s, keepalive_s):
                stream.close()

    def stop(self) -> None:
        """Accept no more; the sockets stay open, for whoever owns them."""
        self._stopped = True
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        for sock in self.sockets:
            self._loop.remove_reader(sock.fileno())

    def _listen(self) -> None:
        self._rest = None
        if self._busy() >= self._capacity:
            self._rest = self._loop.call_later(REST_S, self._listen)
            return
        for sock in self.sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(turns.ACCEPTS):
            busy = self._busy()
            if busy >= self._capacity:
                self._pause(f"{busy} sockets are open, which is all there is room for")
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
            if sock.family != socket.AF_UNIX:
                # Without it a second small write waits for the acknowledgement of the first one
                # (docs/measurements.md, small writes).
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # The kernel would take up to 4 MiB for a client that does not read, on top of the
                # bytes we bound.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            self._http.handle_stream(Stream(sock, self._loop.time(), self._malformed), address)

    def _pause(self, why: str) -> None:
        self._complaint.log(logging.WARNING, "not accepting connections: %s", why)
        for sock in self.sockets:
            self._loop.remove_reader(sock.fileno())
        if not self._stopped:
            self._rest = self._loop.call_later(REST_S, self._listen)

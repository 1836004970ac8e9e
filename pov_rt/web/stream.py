"""A client's connection as long as it speaks HTTP: whom it keeps waiting, and how it ends.

One private name of Tornado's is used in this room, for there is no public twin:
`IOStream._maybe_add_error_listener`, which is made to do nothing.
"""

from __future__ import annotations

import re
import socket
from asyncio import Future
from collections.abc import Awaitable
from email.utils import formatdate
from types import TracebackType
from typing import Any, NamedTuple, Protocol, cast

from tornado.httputil import HTTPInputError
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from pov_rt.auth.tokens import Identity
from pov_rt.protocol.encoding import http_error
from pov_rt.protocol.errors import ClientError, InvalidRequest, TooLarge
from pov_rt.runtime import turns

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

MAX_HEADER_BYTES = 32 * 1024
"""A request's head: its first line and its headers. Proxies pass as much on."""
MAX_LINE_BYTES = 17 * 1024
"""One line of it: a token of 16 KiB fits."""
MAX_CHUNK_BYTES = 1024
"""A chunk's size with what is said of it, which is no part of the body."""
MAX_EXTRA_BYTES = 16 * 1024
"""All of a body that is none of it: what is said of its chunks, and fields behind it."""
HEAD_CHUNK_BYTES = 8 * 1024
"""How much is read at once of a head. Most are smaller, and Tornado makes a buffer of this size."""
BODY_CHUNK_BYTES = 64 * 1024
MUCH_BYTES = 32 * 1024
"""A read of as many bytes is a part of a large request. The kernel must not delay its
acknowledgement: the sender may have filled the window, and waits for that before it sends the rest
(docs/measurements.md, large requests).
"""
UNREAD_S = 30.0
"""How long a client may read nothing of an answer, which waits in memory: a page may have 1 MiB."""
STOCK_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""Tornado's answer to what is no HTTP."""


CRLF = b"\r\n"

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n")
_UPGRADE = re.compile(rb"\nupgrade:", re.IGNORECASE)
_OTHER_HTTP = re.compile(rb"[^\r\n]* HTTP/(?!1\.)[0-9]\.[0-9]\r\n")


class Refusal(NamedTuple):
    """Why a request is answered before a handler sees it."""

    status: int
    reason: str
    error: ClientError

    def answer(self) -> bytes:
        """Return all that is sent."""
        body = http_error(self.error)
        return (
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"X-Content-Type-Options: nosniff\r\nConnection: close\r\nDate: %b\r\n\r\n%b"
        ) % (
            self.status,
            self.reason.encode(),
            len(body),
            formatdate(usegmt=True).encode(),
            body,
        )


NO_HTTP = Refusal(
    400, "Bad Request", InvalidRequest("This is not a request as HTTP/1.1 or HTTP/1.0 has it")
)
OTHER_VERSION = Refusal(
    505, "HTTP Version Not Supported", InvalidRequest("The server speaks HTTP/1.1 and HTTP/1.0")
)
LONG_LINE = Refusal(
    414, "URI Too Long", TooLarge(f"The URL is too long: a line has {MAX_LINE_BYTES} bytes")
)
LONG_HEAD = Refusal(
    431,
    "Request Header Fields Too Large",
    TooLarge(
        f"The headers are too large: a line has {MAX_LINE_BYTES} bytes, and all of them "
        f"{MAX_HEADER_BYTES}"
    ),
)


class Verdict(NamedTuple):
    """Why a request is refused, and whose token it had, if that was good."""

    error: ClientError
    identity: Identity | None


class Owner(Protocol):
    """Who accepted a stream: a `Listener`."""

    requests: turns.Slots
    """Which requests may go on in this turn."""
    handshakes: turns.Slots
    """Which of those may that would become sockets."""

    def waits(self, stream: Stream) -> None:
        """Learn that a request is waited for."""

    def asks(self, stream: Stream) -> None:
        """Learn that the head of a request has come."""

    def lasts(self, stream: Stream) -> None:
        """Learn that a request is one that waits for something to happen."""

    def takes_back(self, stream: Stream, head: bytes) -> bool:
        """Take the socket over if it needs no HTTP for a request, of which the head has come."""

    def ended(self, stream: Stream) -> None:
        """Learn that the stream has ended, or has let its socket go."""

    def malformed(self, stream: Stream, refusal: Refusal) -> None:
        """Learn that a request was refused before a handler saw it."""

    def read_away(self, sock: socket.socket) -> None:
        """Take a socket over on which nothing will be sent any more."""


class Stream(IOStream):
    """A client's connection."""

    address = ""
    """Who is connected; on a Unix socket nobody that has one."""
    peer: str | None = None
    """What stands for the address where addresses are counted, as this one's is."""
    key: socket.socket
    """By which its owner knows it, from the connection's beginning to its end."""
    verdict: Verdict | None = None
    """What is wrong with its request, if that was found out before HTTP was spoken."""
    outcome: Any = None
    """What became of its first request, if that was done before HTTP was spoken."""
    came_from: Any = None
    """The socket's address as it was accepted."""
    has_asked = False
    """A request has come on it, complete with its headers."""
    is_last = False
    """The answer to this request ends the connection."""
    waits_for_news = False
    """This request is answered when something happens: no stop of the server waits for that."""
    lingers = False
    """Bytes will come that nobody reads: ended at once, they would reset the connection, which can
    take the answer from the client."""

    _is_waiting = False
    _served = False
    _released = False
    _got = 0
    _sent = 0
    _has_line = False
    _no_http = NO_HTTP
    _extra = 0
    _is_body_read = False
    _waits_for: str | int | None = None
    _waits_since = 0.0

    def __init__(
        self, sock: socket.socket, now: float, owner: Owner, received: bytes = b""
    ) -> None:
        super().__init__(sock)
        self.key = sock
        self._accepted_at = now
        self._owner = owner
        self._received = received

    async def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> bytes:
        """Return the head of a request; Tornado asks for it.

        Raises `HTTPInputError` where lines end otherwise than HTTP has it: a proxy in front may
        have seen other lines than we do.
        """
        if self.is_last:
            self.lingers = True  # what it asks for behind the answer would reset that
            self.close()
        if self.closed():  # what it asked for behind the answer that it did not wait for
            raise StreamClosedError
        self._is_waiting, self._has_line = True, False
        self.read_chunk_size = HEAD_CHUNK_BYTES
        self._owner.waits(self)
        head = await super().read_until_regex(regex, max_bytes)
        self._is_waiting = False
        # Not its first one: that was left to HTTP.
        if self._served and self._owner.takes_back(self, head):
            raise StreamClosedError
        self.read_chunk_size = BODY_CHUNK_BYTES
        self.has_asked, self.waits_for_news = True, False
        self._owner.asks(self)
        await (self._owner.handshakes if _UPGRADE.search(head) else self._owner.requests).take()
        if head.count(b"\n") != head.count(CRLF):
            raise HTTPInputError("a line does not end with CR LF")
        if len(head) > MAX_LINE_BYTES:
            self._check_lines(head)
        if b" HTTP/1." not in head and _OTHER_HTTP.match(head):
            self._no_http = OTHER_VERSION
            raise HTTPInputError("another version of HTTP")
        self._extra, self._is_body_read = 0, False
        return head

    def read_until(self, delimiter: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Return the line with a chunk's size; Tornado asks for it, and knows nothing else there.

        So what the sender says of the chunk is left out here, and so are the fields that follow the
        body: both are to be ignored (RFC 9112, sections 7.1.1 and 7.1.2). Raises `HTTPInputError`
        for what is neither, or too much.
        """
        read: Awaitable[bytes] = super().read_until(delimiter, max_bytes=MAX_CHUNK_BYTES)
        if isinstance(read, Future) and read.done() and read.exception() is None:
            size = self._read_size(read.result())
            if int(size, 16):
                done: Future[bytes] = Future()
                done.set_result(size)
                return done
            return self._read_end(size)
        return self._wait_for_size(read)

    def read_bytes(self, num_bytes: int, partial: bool = False) -> Awaitable[bytes]:
        """Return some bytes; those at the end of chunks were read before the fields there."""
        if self._is_body_read:
            self._is_body_read = False
            done: Future[bytes] = Future()
            done.set_result(CRLF)
            return done
        return super().read_bytes(num_bytes, partial)

    async def _wait_for_size(self, read: Awaitable[bytes]) -> bytes:
        size = self._read_size(await read)
        return size if int(size, 16) else await self._read_end(size)

    def _read_size(self, line: bytes) -> bytes:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise HTTPInputError("a chunk without its size")
        self._spend(len(line) - match.end(1) - len(CRLF))
        return match[1] + CRLF

    async def _read_end(self, size: bytes) -> bytes:
        while (line := await super().read_until(CRLF, max_bytes=MAX_LINE_BYTES)) != CRLF:
            if not _FIELD.fullmatch(line):
                raise HTTPInputError("a field behind the body is none")
            self._spend(len(line))
        self._is_body_read = True
        return size

    def _spend(self, size: int) -> None:
        self._extra += size
        if self._extra > MAX_EXTRA_BYTES:
            raise HTTPInputError("much that is no part of the body")

    def _check_lines(self, head: bytes) -> None:
        """Refuse a head with a line that is too long."""
        first, *fields = head.split(CRLF)
        if len(first) > MAX_LINE_BYTES:
            self._refuse_head(LONG_LINE)
        elif max(map(len, fields)) > MAX_LINE_BYTES:
            self._refuse_head(LONG_HEAD)
        else:
            return
        self.close()
        raise StreamClosedError

    def _refuse_head(self, refusal: Refusal) -> None:
        self._owner.malformed(self, refusal)
        self.lingers = True
        try:
            self.socket.send(refusal.answer())
        except OSError:  # it has gone, or reads nothing: then it is not told
            self.lingers = False

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Read some bytes; have the kernel acknowledge much at once."""
        if self._received:  # before HTTP was spoken
            count: int | None = min(len(buf), len(self._received))
            buf[:count] = self._received[:count]
            self._received = self._received[count:]
        else:
            count = super().read_from_fd(buf)
        if count:
            self._got += count
            if self._is_waiting and not self._has_line and isinstance(buf, bytearray):
                self._has_line = buf.find(b"\n", 0, count) >= 0
            if count >= MUCH_BYTES and self.socket.family != socket.AF_UNIX:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return count

    def write_to_fd(self, data: memoryview) -> int:
        """Send some bytes."""
        try:
            count = super().write_to_fd(data)
        finally:
            del data  # a traceback would keep the buffer from moving on
        self._sent += count
        return count

    def write(self, data: bytes | memoryview) -> Future[None]:
        """Send an answer."""
        self._served = True
        self._waits_for = None
        self._got = 0  # what comes from here on is of the next request
        if data == STOCK_REFUSAL:
            self._owner.malformed(self, self._no_http)
            self.lingers = True
            data = self._no_http.answer()
        return super().write(data)

    def is_overdue(self, now: float, request_s: float, idle_s: float) -> bool:
        """Tell whether a request has been on its way for too long, or none has come for too long.

        Or an answer is not read: nothing of it, for `UNREAD_S`. Ask about once a second. The first
        request is on its way from the start: who connects has something to say.
        """
        waits_for: str | int | None = None
        if self._is_waiting:
            waits_for = "the rest" if not self._served or self._got else "a request"
        elif self.writing():
            waits_for = self._sent
        if waits_for != self._waits_for:
            self._waits_for = waits_for
            self._waits_since = now if self._served else self._accepted_at
        limit_s = {"the rest": request_s, "a request": idle_s}.get(str(waits_for), UNREAD_S)
        return waits_for is not None and now - self._waits_since >= limit_s

    def watch_end(self) -> None:
        """Notice when the client goes away while its request waits for something to happen."""
        self.waits_for_news = True
        self._owner.lasts(self)
        super()._maybe_add_error_listener()

    def release(self) -> tuple[socket.socket, bytes]:
        """Return the socket, open, and the bytes that came behind the request; the stream ends."""
        self._released = True
        self.close()
        # Of a closed stream, that is what Tornado has read and not used: the socket is not asked.
        unused = cast("Future[bytes]", self.read_until_close())
        return self.socket, unused.result() + self._received

    def close(self, exc_info: bool | BaseException | ExcInfo | None = False) -> None:
        """End the connection; who has sent too long a head is told so."""
        if isinstance(exc_info, UnsatisfiableReadError) and not (self.closed() or self.writing()):
            if not self._is_waiting:
                self._refuse_head(NO_HTTP)
            else:
                self._refuse_head(LONG_HEAD if self._has_line else LONG_LINE)
        super().close(exc_info)
        if self.error is not None:
            # It would keep what was being sent, for as long as anything knows the stream.
            self.error.__traceback__ = None

    def close_fd(self) -> None:
        """Close the socket, unless it has another owner."""
        if self.lingers:
            self._owner.read_away(self.socket)
        elif not self._released:
            super().close_fd()
        self._owner.ended(self)

    def _maybe_add_error_listener(self) -> None:
        """Don't have the loop watch for a hang-up while a request is handled: nobody asks for it.

        To begin and end that would cost every handshake (docs/measurements.md, handshakes).
        """

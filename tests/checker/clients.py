"""The checker's sockets: WebSocket and HTTP clients that can be cut off at any instant.

They are not `pov_rt.client`'s, which hides what is checked here: it drops what comes twice, fills
holes and comes back by itself. These do what no good client does: they end with a reset in the
middle of a frame, read at a pace of their own into a small buffer, and say what they like.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import jwt

from pov_rt.transport.frames import Opcode
from tests.frames import masked_frame

SECRET = "the secret of the delivery checker, no secret"
PATIENCE_S = 10.0
"""How long a client waits for a server that may be stopped meanwhile."""
LOST = (OSError, EOFError)
"""What a connection that is lost raises; a timeout is an OSError."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 seconds: the end is a reset, and what is on its way is lost."""
PASSING = ("unavailable", "timeout", "rate_limited")
"""Errors after which a client tries again: they are no violation."""
MAX_LINE = 16 * 1024 * 1024
LOOPBACK = "127.0.0.1"
TOKEN_S = 86400
"""Tokens outlast every step of the server's clock."""


def make_token(user: str, team: str, *, service: bool = False, age: int = 0, **claims: Any) -> str:
    """Return a token for everything, unless the claims say otherwise.

    One that is to replace another on an open socket has a higher `age`.
    """
    claims = {
        "userId": user,
        "povs": "*",
        "teamId": team,
        "can": ["subscribe", "collaborate", "publish"],
        "exp": int(time.time()) + TOKEN_S + age,
        **claims,
    }
    if service:
        claims["aud"] = "pov-rt.service"
    return jwt.encode(claims, SECRET, "HS256")


def wait_s(problem: Mapping[str, Any]) -> float:
    """Return for how long an error asks to wait."""
    return float(problem.get("retryAfter", 0.0))


class WebSocket(asyncio.Protocol):
    """A client's socket; `receive` is called with each message. Begin with `connect`."""

    def __init__(self, receive: Callable[[bytes], None], request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.close_code: int | None = None
        self.pace: Callable[[int], None] | None = None
        """Is told how many bytes came: a reader's own speed."""
        self._receive = receive
        self._request = request
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    @property
    def transport(self) -> asyncio.Transport:
        """The socket's transport."""
        assert self._transport is not None
        return self._transport

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; what is sent into a lost connection is lost."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(masked_frame(Opcode.TEXT, json.dumps(message).encode()))

    def reset(self) -> None:
        """End with a reset; what came with what one ends it for is lost, too."""
        self._receive = ignore
        reset(self._transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take apart what came."""
        buffer = self._buffer + data if self._buffer else data
        if not self.opened.done():
            head, end, rest = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = buffer
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionRefusedError(repr(head[:60])))
                self.reset()
                return
            self.opened.set_result(None)
            buffer = rest
        self._buffer = self._parse(buffer)
        if self.pace is not None:
            self.pace(len(data))

    def connection_lost(self, _: Exception | None) -> None:
        """Tell those who wait."""
        if not self.opened.done():
            self.opened.set_exception(ConnectionResetError("lost while it was opened"))
        self.opened.exception()  # nobody may have asked
        if not self.lost.done():
            self.lost.set_result(None)

    def _parse(self, buffer: bytes) -> bytes:
        """Handle all whole frames, which a server never masks; return the rest."""
        start, size = 0, len(buffer)
        while size - start >= 2:
            body, length = start + 2, buffer[start + 1]
            if length >= 126:
                width = 2 if length == 126 else 8
                if size - body < width:
                    break
                length = int.from_bytes(buffer[body : body + width])
                body += width
            if size - body < length:
                break
            self._handle(buffer[start] & 15, buffer[body : body + length])
            start = body + length
        return buffer[start:]

    def _handle(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.TEXT:
            self._receive(payload)
        elif opcode == Opcode.PING:
            self.transport.write(masked_frame(Opcode.PONG, payload))
        elif opcode == Opcode.CLOSE:
            self.close_code = int.from_bytes(payload[:2])
            self.transport.close()


def ignore(_: bytes) -> None:
    """Take no notice of a message."""


async def connect(
    port: int,
    token: str,
    receive: Callable[[bytes], None],
    *,
    device: str = "default",
    receive_bytes: int = 0,
    plain: bool = False,
    host: str = LOOPBACK,
) -> WebSocket:
    """Return an open client of `pov-rt.v1`, or with `plain` one of no subprotocol.

    Raises one of `LOST`.
    """
    key = base64.b64encode(b"delivery checker")
    target = f"/ws/?token={token}" if plain else f"/ws/?device={device}"
    protocol = "" if plain else f"Sec-WebSocket-Protocol: pov-rt.v1, bearer.{token}\r\n"
    request = (
        f"GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{protocol}"
        f"Sec-WebSocket-Key: {key.decode()}\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        async with asyncio.timeout(PATIENCE_S):
            await loop.sock_connect(sock, (host, port))
            _, client = await loop.create_connection(lambda: WebSocket(receive, request), sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(client.opened)
    except BaseException:
        client.reset()
        raise
    return client


class Reply(NamedTuple):
    """An answer over HTTP, or a line of one; names of headers are in small letters."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Http:
    """One HTTP connection, one request at a time; it is opened anew when it was lost."""

    def __init__(self, port: int, token: str, host: str = LOOPBACK) -> None:
        self._host = host
        self._port = port
        self._token = token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, target: str, body: bytes = b"", *, lines: bool = False, patience_s: float = PATIENCE_S
    ) -> Reply:
        """Return the answer: to a GET, or to a POST where there is a body.

        Raises one of `LOST`; the request may then have been handled or not.
        """
        try:
            async with asyncio.timeout(patience_s):
                status, headers, reader = await self._ask(target, body, lines=lines)
                size = int(headers.get("content-length", 0))  # a 204 has none
                return Reply(status, await reader.readexactly(size), headers)
        except BaseException:
            self.reset()
            raise

    async def lines(self, target: str, patience_s: float) -> AsyncIterator[Reply]:
        """Yield the lines of an answer that has no end, or the whole of one that refuses it.

        Raises one of `LOST` at its end, or when nothing comes for so long.
        """
        self.reset()  # another one may have come before
        try:
            async with asyncio.timeout(patience_s):
                status, headers, reader = await self._ask(target)
                if status != 200:
                    size = int(headers.get("content-length", 0))
                    yield Reply(status, await reader.readexactly(size), headers)
                    return
            while True:
                async with asyncio.timeout(patience_s):
                    line = await reader.readuntil(b"\n")
                yield Reply(status, line, headers)
        finally:
            self.reset()

    async def _ask(
        self, target: str, body: bytes = b"", *, lines: bool = False
    ) -> tuple[int, Mapping[str, str], asyncio.StreamReader]:
        """Send a request, and read the head of its answer."""
        kind = "application/x-ndjson" if lines else "application/json"
        head = (
            f"{'POST' if body else 'GET'} {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
            f"Authorization: Bearer {self._token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=MAX_LINE)
        reader, writer = self._streams
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = answer.split("\r\n")
        fields = (line.partition(":") for line in rest if line)
        return int(first[9:12]), {name.lower(): value.strip() for name, _, value in fields}, reader

    def reset(self) -> None:
        """End with a reset."""
        if self._streams is not None:
            reset(self._streams[1].transport)
            self._streams = None


def reset(transport: asyncio.BaseTransport | None) -> None:
    """End a connection with a reset."""
    if transport is None or transport.is_closing():
        return
    sock = transport.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    assert isinstance(transport, asyncio.Transport)
    transport.abort()

"""Requests through the public URL as any client's, with what came back as it came."""

from __future__ import annotations

import io
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import parse_headers
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from pov_rt.protocol.bodies import ErrorAnswer
from pov_rt.protocol.encoding import DECODE_ERRORS

WAIT_S = 15.0
"""How long an answer may take to come."""
MOST_BYTES = 1 << 20
SUBPROTOCOL = "pov-rt.v1"
PING = 0x9

_error = msgspec.json.Decoder(ErrorAnswer)


class Answer(NamedTuple):
    """An answer, and its body as far as it was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """The code of an error that pov-rt answered; None: the answer is not its own."""
        try:
            return _error.decode(self.body).error.code
        except DECODE_ERRORS:
            return None


class Gone(OSError):
    """The connection ended, or nothing came, before what was waited for."""


class Line:
    """A connection through the public URL. Raises `OSError` for whatever does not work on it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""

    @property
    def own_address(self) -> str:
        """The address of this end."""
        return str(self._sock.getsockname()[0])

    @property
    def certificate(self) -> Mapping[str, object]:
        """The certificate of the other end; without TLS an empty one."""
        return (self._sock.getpeercert() or {}) if isinstance(self._sock, ssl.SSLSocket) else {}

    def wait(self, seconds: float) -> None:
        """Have what is read next come within a time."""
        self._sock.settimeout(seconds)

    def send(self, data: bytes) -> None:
        """Send bytes; one who answers before it has them all may have hung up."""
        with suppress(OSError):
            self._sock.sendall(data)

    def head(self) -> Answer:
        """Read an answer's head."""
        while b"\r\n\r\n" not in self._rest:
            self._read_more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, _, lines = head.partition(b"\r\n")
        try:
            status = int(first.split()[1])
        except (IndexError, ValueError):
            raise Gone("what answers there speaks no HTTP") from None
        found = parse_headers(io.BytesIO(lines + b"\r\n\r\n"))
        return Answer(status, {name.lower(): value for name, value in found.items()}, b"")

    def answer(self) -> Answer:
        """Read an answer to its end, or as much of it as anybody needs."""
        head = self.head()
        length = head.headers.get("content-length", "")
        size = min(int(length), MOST_BYTES) if length.isdigit() else MOST_BYTES
        try:
            while len(self._rest) < size:
                self._read_more()
        except Gone:
            if length:
                raise
        body, self._rest = self._rest[:size], self._rest[size:]
        return head._replace(body=body)

    def some(self) -> bytes:
        """Read the first bytes of a body, as soon as they come."""
        while not self._rest:
            self._read_more()
        return self._rest

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Yield what a WebSocket brings: opcode and payload."""
        while True:
            size, start = self._header(1), 2
            size &= 0x7F
            if size >= 126:
                width = 2 if size == 126 else 8
                self._header(start + width - 1)
                size, start = int.from_bytes(self._rest[2 : 2 + width]), 2 + width
            while len(self._rest) < start + size:
                self._read_more()
            opcode, payload = self._rest[0] & 0xF, self._rest[start : start + size]
            self._rest = self._rest[start + size :]
            yield opcode, payload

    def _header(self, place: int) -> int:
        while len(self._rest) <= place:
            self._read_more()
        return self._rest[place]

    def _read_more(self) -> None:
        try:
            data = self._sock.recv(65536)
        except TimeoutError:
            raise Gone("nothing came in time") from None
        except (ConnectionResetError, ssl.SSLError):
            data = b""
        if not data:
            raise Gone("the connection was ended")
        self._rest += data


class Public:
    """The server by its public URL. `place` is connected to in its host's place, if not None.

    `authorities` is a file with certificates that are trusted beside the system's, `source` the
    address of this machine to connect from.
    """

    def __init__(
        self,
        url: str,
        place: tuple[str, int] | None = None,
        authorities: str | None = None,
        source: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        self.is_tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self._netloc = parts.netloc
        self._base = parts.path.rstrip("/")
        self._place = place or (self.host, parts.port or (443 if self.is_tls else 80))
        self._source = None if source is None else (source, 0)
        self._tls = ssl.create_default_context()
        if authorities is not None:
            self._tls.load_verify_locations(authorities)

    @contextmanager
    def open(self) -> Iterator[Line]:
        """Connect; it ends with the block. Raises `OSError`."""
        with socket.create_connection(self._place, WAIT_S, self._source) as plain:
            if not self.is_tls:
                yield Line(plain)
                return
            with self._tls.wrap_socket(plain, server_hostname=self.host) as sock:
                yield Line(sock)

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] = {},
        body: bytes = b"",
    ) -> Answer:
        """Make a request, and return its whole answer."""
        with self.open() as line:
            self.request(line, method, path, {"Connection": "close", **headers}, body)
            return line.answer()

    def request(
        self,
        line: Line,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> None:
        """Send a request."""
        said = {"Host": self._netloc, "User-Agent": "pov-rt-doctor", **headers}
        if body:
            said["Content-Length"] = str(len(body))
        lines = [f"{method} {self._base}{path} HTTP/1.1", *(f"{n}: {v}" for n, v in said.items())]
        line.send("\r\n".join([*lines, "", ""]).encode() + body)

    def upgrade(self, line: Line, token: str, headers: Mapping[str, str] = {}) -> Answer:
        """Ask for a WebSocket with a token that no log of a proxy gets, and read the answer."""
        asked = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Protocol": f"{SUBPROTOCOL}, bearer.{token}",
        }
        self.request(line, "GET", "/ws/", asked | dict(headers))
        head = line.head()
        if head.status == 101:
            return head
        size = head.headers.get("content-length", "0")
        return head._replace(body=line.some()) if size.isdigit() and int(size) else head

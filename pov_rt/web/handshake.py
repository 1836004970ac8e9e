"""The WebSocket entry: everything up to the 101, then the socket is `wire`'s and this is gone."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha1
from urllib.parse import unquote

from pov_rt.auth.grants import Kind
from pov_rt.connections.connection import Connection
from pov_rt.protocol.errors import ClientError, InvalidRequest, TokenError
from pov_rt.protocol.messages import check_id
from pov_rt.transport.bounds import Bounds
from pov_rt.transport.frames import binary_frame
from pov_rt.transport.wire import Wire
from pov_rt.web.hosts import has_word, one_header
from pov_rt.web.http import JsonHandler, bearer, parse_query
from pov_rt.web.stream import Stream

SUBPROTOCOL = "pov-rt.v1"
BEARER = "bearer."
MAX_DEVICE_CHARS = 64

SOCKET = frozenset({Kind.SOCKET})

ACCEPTING = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What a server shows that it knows (RFC 6455, section 1.3)."""

_TOKEN_CHARS = re.compile(r"[!-~]+")


class UpgradeRequired(ClientError):
    """The path is for WebSockets of version 13 (RFC 6455, section 4.4)."""

    code = "upgrade_required"
    status = 426
    message = "Connect with a WebSocket client, version 13"


class SocketHandler(JsonHandler):
    """`GET /ws/...`."""

    CORS_METHODS = "GET"
    TELLS_REFUSED_PAGES = True

    kind: type[Connection] = Connection
    bounds: Bounds
    started: Callable[[Wire], None]
    ended: Callable[[Wire], None]
    key: str
    device: str
    v1: bool

    def clear(self) -> None:
        """Make headers, but not when the constructor calls it: a 101 needs none.

        Making them costs time (docs/measurements.md, handshakes). An error is answered after
        another call.
        """
        if hasattr(self, "server"):
            super().clear()

    def takes_upgrade(self) -> bool:
        """Agree, unless the path leads elsewhere to those who resolve it."""
        path = unquote(self.request.path)
        return ".." not in path and "\0" not in path

    def authorize(self) -> None:
        """Check all there is to check before the upgrade, and upgrade in the same turn.

        So nothing can change between the two.
        """
        if not self.is_upgrade:
            self._check_without_upgrade()
            return
        self._check_upgrade()
        try:
            query = parse_query(self.request.query)
        except InvalidRequest as error:
            raise TokenError from error
        offered = self._offered()
        tokens = _tokens(query, offered)
        if tokens and SUBPROTOCOL not in offered and any(map(_has_token, offered)):
            # A browser drops a connection that takes none of what it offered, and a page that does
            # not know why tries again for ever.
            raise InvalidRequest(
                f"Offer the subprotocol '{SUBPROTOCOL}' beside '{BEARER}...', which is no "
                "subprotocol but the token: a browser drops a connection whose server takes none"
            )
        self._check_token(tokens)
        self.v1 = SUBPROTOCOL in offered
        self.device = read_device(query)
        self.server.admit(self.identity, self.device)
        self._upgrade()

    def options(self) -> None:
        """Answer a page's preflight request."""
        self.clear()
        super().options()

    def get(self) -> None:
        """Be a method that there is; `authorize` has upgraded or raised."""
        raise UpgradeRequired

    def _check_without_upgrade(self) -> None:
        """Raise what an upgrade would be refused for: a browser cannot see why."""
        query, given = parse_query(self.request.query), bearer(self.request)
        self._check_token(_tokens(query, self._offered()) if given is None else [given])
        self.pay()
        self.server.admit(self.identity, read_device(query))
        raise UpgradeRequired(
            "The token is good, but this is no WebSocket handshake: "
            f"{' and '.join(self._missing())}. If a WebSocket client sent it, a proxy in front "
            "does not pass that on: it has to send the headers Upgrade and Connection, by HTTP/1.1"
        )

    def _missing(self) -> Iterator[str]:
        if self.request.version != "HTTP/1.1":
            yield f"it came as {self.request.version}"
        if self.request.method != "GET":
            yield f"its method is {self.request.method}"
        if not has_word(self.request, "Upgrade", "websocket"):
            yield "it has no header 'Upgrade: websocket'"
        if not has_word(self.request, "Connection", "upgrade"):
            yield "it has no header 'Connection: Upgrade'"

    def refuse(self, error: ClientError) -> None:
        """Send an error."""
        if error.status == 426:
            self.set_header("Sec-WebSocket-Version", "13")
            self.set_header("Upgrade", "websocket")
            self.ending = "Upgrade, close"
        super().refuse(error)

    def _upgrade(self) -> None:
        """Answer 101, bind user and grants to the socket, and let go of all else."""
        stream: Stream = self.detach()  # type: ignore[assignment]  # the listener made it
        if stream.closed():  # the client was gone before its answer was ready
            return
        # One ready piece: with set_header and finish a handshake takes much more CPU
        # (docs/measurements.md, handshakes).
        accept = base64.b64encode(sha1(self.key.encode() + ACCEPTING).digest()).decode()  # noqa: S324
        selected = f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n" if self.v1 else ""
        response = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{selected}\r\n"
        ).encode()
        sock, received = stream.release()
        wire = Wire(sock, self.bounds, asyncio.get_running_loop(), self.ended)
        wire.send(response)
        self.started(wire)
        connection = self.server.arrivals.open(
            wire,
            self.identity,
            device=self.device,
            remote_ip=self.ip,
            user_agent=self.request.headers.get("User-Agent", "")[:200],
            v1=self.v1,
            kind=self.kind,
        )
        wire.start(connection, received)
        # What refers to each other would wait for the collector (docs/measurements.md, handshakes).
        self.ui = None  # type: ignore[assignment]

    def _check_upgrade(self) -> None:
        if one_header(self.request, "Sec-WebSocket-Version") != "13":
            raise UpgradeRequired
        self.key = one_header(self.request, "Sec-WebSocket-Key") or ""
        try:
            nonce = base64.b64decode(self.key, validate=True)
        except (binascii.Error, ValueError):
            nonce = b""
        if len(nonce) != 16:
            raise InvalidRequest("Sec-WebSocket-Key is not 16 bytes in base64")

    def _offered(self) -> list[str]:
        given = self.request.headers.get("Sec-WebSocket-Protocol", "")
        return [name.strip() for name in given.split(",")]

    def _check_token(self, tokens: Sequence[str]) -> None:
        if len(tokens) != 1:
            raise TokenError from ValueError("more than one token" if tokens else "no token")
        if not _TOKEN_CHARS.fullmatch(tokens[0]):
            raise TokenError from ValueError("an empty token" if not tokens[0] else "not ASCII")
        self.verify(tokens[0], SOCKET)


def read_device(query: Sequence[tuple[str, str]]) -> str:
    """Return the name of the user's device. Raises `InvalidRequest` or `InvalidId`."""
    given = [value for name, value in query if name == "device"]
    if not given:
        return "default"
    if len(given) > 1:
        raise InvalidRequest("There is more than one device", field="device")
    check_id(given[0], "device", longest=MAX_DEVICE_CHARS)
    return given[0]


def _has_token(name: str) -> bool:
    return name.startswith(BEARER)


def _tokens(query: Sequence[tuple[str, str]], offered: Sequence[str]) -> list[str]:
    """Return the tokens of the URL, and of the subprotocols that are offered."""
    tokens = [value for name, value in query if name == "token"]
    return tokens + [name.removeprefix(BEARER) for name in offered if _has_token(name)]


class EchoConnection(Connection):
    """A connection that sends every message back as it came."""

    __slots__ = ()

    def receive(self, payload: bytes, is_text: bool) -> None:
        """Send it back."""
        frame = self.transport.framing.frame if is_text else binary_frame
        self.transport.send(frame(payload))


class EchoHandler(SocketHandler):
    """`GET /ws/_echo` for protocol conformance suites: all is as it is for other sockets."""

    kind = EchoConnection

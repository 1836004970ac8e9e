"""The WebSocket entry: what every upgrade is asked, and what it gets, whichever way it comes."""

from __future__ import annotations

import asyncio
import re
import socket
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import NamedTuple

from pov_rt.auth.grants import Kind
from pov_rt.auth.tokens import Identity
from pov_rt.connections.connection import Connection
from pov_rt.protocol.errors import ClientError, InvalidRequest, TokenError
from pov_rt.protocol.messages import check_id
from pov_rt.runtime.bounds import payer
from pov_rt.runtime.texts import shared
from pov_rt.server.server import Server
from pov_rt.transport.bounds import Bounds
from pov_rt.transport.wire import Wire
from pov_rt.web.addresses import Failures
from pov_rt.web.hosts import HostRules, check_host, check_origin, one_header
from pov_rt.web.http import parse_query
from pov_rt.web.stream import Verdict
from pov_rt.web.upgrade.head import Asked, Head

SUBPROTOCOL = "pov-rt.v1"
BEARER = "bearer."
MAX_DEVICE_CHARS = 64

SOCKET = frozenset({Kind.SOCKET})

ACCEPTING = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What a server shows that it knows (RFC 6455, section 1.3)."""

_TOKEN_CHARS = re.compile(r"[!-~]+")
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
"""16 bytes in base64."""


class UpgradeRequired(ClientError):
    """The path is for WebSockets of version 13 (RFC 6455, section 4.4)."""

    code = "upgrade_required"
    status = 426
    message = "Connect with a WebSocket client, version 13"


class Wish(NamedTuple):
    """What an upgrade asks for, as far as its head is well-formed."""

    key: str
    token: str
    query: Sequence[tuple[str, str]]
    v1: bool


class Admitted(NamedTuple):
    """Who may come in, and how."""

    identity: Identity
    device: str
    ip: str
    user_agent: str
    key: str
    v1: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """Lets WebSockets in. Owner: the web server, which `started` and `ended` tell of wires."""

    server: Server
    host_rules: HostRules
    failures: Failures
    bounds: Bounds
    loop: asyncio.AbstractEventLoop
    started: Callable[[Wire], None]
    ended: Callable[[Wire], None]

    def judge(self, head: Head) -> Admitted | Verdict:
        """Return who may come in, or why nobody may; `open` then has to follow in this very turn.

        Raises `ClientError` for what is wrong before the token is looked at: then nobody has taken
        note of anything yet.
        """
        server = self.server
        settings = server.settings
        client = self.failures.client(head, settings.server)
        check_origin(head, check_host(head, settings, self.host_rules), settings)
        wish = read_wish(head)
        identity: Identity | None = None
        try:
            identity = self.failures.verify(server.tokens, wish.token, SOCKET, client)
            device = read_device(wish.query)
            server.admit(identity, device)
        except ClientError as error:
            return Verdict(error, identity)
        agent = shared(head.headers.get("user-agent", "")[:200])  # of many it is the same
        return Admitted(identity, device, client.ip, agent, wish.key, wish.v1)

    def open(
        self,
        sock: socket.socket,
        received: bytes,
        admitted: Admitted,
        kind: type[Connection] = Connection,
    ) -> None:
        """Answer 101 and bind user and grants to the socket, which is a wire's from here on.

        `received` is what came behind the request.
        """
        # One ready piece: with set_header and finish a handshake takes much more CPU
        # (docs/measurements.md, handshakes).
        accept = b2a_base64(sha1(admitted.key.encode() + ACCEPTING).digest(), newline=False)  # noqa: S324
        selected = b"Sec-WebSocket-Protocol: pov-rt.v1\r\n" if admitted.v1 else b""
        wire = Wire(sock, self.bounds, self.loop, self.ended)
        wire.hold(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, selected)
        )
        self.started(wire)
        before = payer.set(admitted.identity.owner)
        try:
            connection = self.server.arrivals.open(
                wire,
                admitted.identity,
                device=admitted.device,
                remote_ip=admitted.ip,
                user_agent=admitted.user_agent,
                v1=admitted.v1,
                kind=kind,
            )
        except BaseException:
            wire.abort()
            raise
        finally:
            payer.reset(before)
        wire.start(connection, received)


def read_wish(asked: Asked) -> Wish:
    """Return what an upgrade asks for. Raises `UpgradeRequired`, `InvalidRequest`, `TokenError`."""
    if one_header(asked, "Sec-WebSocket-Version") != "13":
        raise UpgradeRequired
    key = one_header(asked, "Sec-WebSocket-Key") or ""
    if _KEY.fullmatch(key) is None:
        raise InvalidRequest("Sec-WebSocket-Key is not 16 bytes in base64")
    try:
        query = parse_query(asked.query)
    except InvalidRequest as error:
        raise TokenError from error
    offered = offered_by(asked)
    tokens = tokens_in(query, offered)
    v1 = SUBPROTOCOL in offered
    if tokens and not v1 and any(map(_has_token, offered)):
        # A browser drops a connection that takes none of what it offered, and a page that does
        # not know why tries again for ever.
        raise InvalidRequest(
            f"Offer the subprotocol '{SUBPROTOCOL}' beside '{BEARER}...', which is no "
            "subprotocol but the token: a browser drops a connection whose server takes none"
        )
    return Wish(key, only_token(tokens), query, v1)


def offered_by(asked: Asked) -> list[str]:
    """Return the subprotocols that are offered."""
    given: str = asked.headers.get("Sec-WebSocket-Protocol", "")
    return [name.strip() for name in given.split(",")]


def tokens_in(query: Sequence[tuple[str, str]], offered: Sequence[str]) -> list[str]:
    """Return the tokens of the URL, and of the subprotocols that are offered."""
    tokens = [value for name, value in query if name == "token"]
    return tokens + [name.removeprefix(BEARER) for name in offered if _has_token(name)]


def only_token(tokens: Sequence[str]) -> str:
    """Return the one that there has to be. Raises `TokenError`."""
    if len(tokens) != 1:
        raise TokenError from ValueError("more than one token" if tokens else "no token")
    if not _TOKEN_CHARS.fullmatch(tokens[0]):
        raise TokenError from ValueError("an empty token" if not tokens[0] else "not ASCII")
    return tokens[0]


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

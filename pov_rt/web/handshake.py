"""The WebSocket entry for what is no well-formed upgrade, or is refused: what HTTP has to say."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from pov_rt.connections.connection import Connection
from pov_rt.protocol.errors import ClientError
from pov_rt.runtime.bounds import payer
from pov_rt.transport.frames import binary_frame
from pov_rt.web.hosts import has_word
from pov_rt.web.http import JsonHandler, bearer, parse_query
from pov_rt.web.stream import Stream
from pov_rt.web.upgrade.entry import (
    SOCKET,
    Admitted,
    Entry,
    UpgradeRequired,
    Wish,
    offered_by,
    only_token,
    read_device,
    read_wish,
    tokens_in,
)


class SocketHandler(JsonHandler):
    """`GET /ws/...`."""

    CORS_METHODS = "GET"
    TELLS_REFUSED_PAGES = True

    kind: type[Connection] = Connection
    entry: Entry

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
        self._repeat_verdict()
        wish = read_wish(self.request)
        self.verify(wish.token, SOCKET)
        device = read_device(wish.query)
        self.server.admit(self.identity, device)
        self._upgrade(wish, device)

    def _repeat_verdict(self) -> None:
        """Raise what the request was found to be refused for before HTTP was spoken, if it was."""
        known, self._stream.verdict = self._stream.verdict, None
        if known is None:
            return
        if known.identity is not None:
            self.identity = known.identity
            payer.set(known.identity.owner)
        try:
            raise known.error
        finally:
            del known  # its error knows this frame: together they would wait for the collector

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
        tokens = tokens_in(query, offered_by(self.request)) if given is None else [given]
        self.verify(only_token(tokens), SOCKET)
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

    def _upgrade(self, wish: Wish, device: str) -> None:
        """Hand the socket over, and let go of all else."""
        stream: Stream = self.detach()  # type: ignore[assignment]  # the listener made it
        if stream.closed():  # the client was gone before its answer was ready
            return
        agent = self.request.headers.get("User-Agent", "")[:200]
        admitted = Admitted(self.identity, device, self.ip, agent, wish.key, wish.v1)
        self.entry.open(*stream.release(), admitted, self.kind)
        # What refers to each other would wait for the collector (docs/measurements.md, handshakes).
        self.ui = None  # type: ignore[assignment]


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

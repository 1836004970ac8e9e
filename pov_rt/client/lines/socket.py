"""WebSockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pov_rt.client.errors import ConnectionLost, SessionEnded
from pov_rt.client.lines.base import Line, TokenRefused, end_of, explain, refusal_of
from pov_rt.remote.addresses import Address
from pov_rt.remote.answers import (
    MAX_ANSWER_BYTES,
    NO_TOKEN,
    TOKEN,
    HttpAnswer,
    read_retry_after,
)

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

OPEN_S = 20.0
CLOSE_S = 1.0
QUEUE = 64
"""Messages that wait in the line itself; of more the kernel, and then the server, keeps them."""
SUBPROTOCOL = "pov-rt.v1"
CUT = 1006
"""What a connection that ended without a close code has in its place."""


def spoken(token: str) -> Sequence[str]:
    """Return the subprotocols that a client offers; a token is one of them."""
    return [SUBPROTOCOL, f"bearer.{token}"]


class Socket:
    """A WebSocket; see `Line`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        """Send a message."""
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(text)
        except ConnectionClosed as error:
            raise self._end() from error

    async def receive(self) -> str | bytes:
        """Return the next message."""
        from websockets.exceptions import ConnectionClosed

        try:
            received: str | bytes = await self._connection.recv()
        except ConnectionClosed as error:
            raise self._end() from error
        return received

    async def close(self) -> None:
        """Close it."""
        await self._connection.close(1000)

    def _end(self) -> Exception:
        code = self._connection.close_code
        return end_of(None if code == CUT else code, self._connection.close_reason)


async def connect(
    address: Address, url: str, protocols: Sequence[str] = (), **options: Any
) -> ClientConnection:
    """Open a WebSocket at a URL of a server's, wherever its names lead to.

    It is of the package websockets, as what it raises and the options are.
    """
    need_websockets()
    from websockets.asyncio.client import connect, unix_connect
    from websockets.typing import Subprotocol

    options["subprotocols"] = [Subprotocol(each) for each in protocols] or None
    if address.unix is not None:
        return await unix_connect(address.unix, url, **options)
    if address.place is not None:
        options |= zip(("host", "port"), address.place, strict=True)
    return await connect(url, proxy=None, **options)


def need_websockets() -> None:
    """Raise ImportError that says what to install. Who only publishes needs no sockets."""
    try:
        import websockets  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "WebSockets need the package websockets: pip install 'pov-rt[client]', or for tests "
            "pip install 'pov-rt[testing]'"
        ) from error


async def open_socket(address: Address, token: str, device: str | None = None) -> Line:
    """Open a WebSocket; see `Opener`."""
    need_websockets()
    from websockets.exceptions import InvalidHandshake, InvalidStatus

    if not TOKEN.fullmatch(token):
        raise TokenRefused(NO_TOKEN)
    url = address.socket
    if device is not None:
        url += f"{'&' if '?' in url else '?'}device={quote(device, safe='')}"
    options: dict[str, Any] = {
        "compression": None,
        "open_timeout": OPEN_S,
        # The client asks itself whether the server is there: it does not read while it is full.
        "ping_interval": None,
        "close_timeout": CLOSE_S,
        "max_size": MAX_ANSWER_BYTES,
        "max_queue": QUEUE,
    }
    try:
        connection = await connect(address, url, spoken(token), **options)
    except InvalidStatus as error:
        found = error.response
        wait_s = read_retry_after(found.headers.get("Retry-After"))
        answer = HttpAnswer(found.status_code, wait_s, bytes(found.body))
        raise refusal_of(address, answer) from error
    except InvalidHandshake as error:
        if isinstance(error.__cause__, EOFError | OSError):  # cut, as by a proxy that starts anew
            raise ConnectionLost(explain(address, error.__cause__)) from error
        raise SessionEnded(f"{address.name} is no pov-rt server: {error}") from error
    except (OSError, EOFError) as error:  # TimeoutError is one of the first
        raise ConnectionLost(explain(address, error)) from error
    if connection.subprotocol != SUBPROTOCOL:
        await connection.close()
        raise SessionEnded(f"{address.name} is no pov-rt server: it takes no {SUBPROTOCOL}")
    return Socket(connection)

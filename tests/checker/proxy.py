"""A TCP proxy whose connections are cut in the middle of anything, or stand still for a while."""

from __future__ import annotations

import asyncio
from random import Random

from tests.checker.clients import reset


class Side(asyncio.Protocol):
    """One end of a connection through the proxy."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the socket."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self.pair.forward(self, data)

    def connection_lost(self, _: Exception | None) -> None:
        """Cut the other end, too."""
        self.pair.cut()


class Client(Side):
    """The end at which a client connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the server on its behalf."""
        super().connection_made(transport)
        self.pair.begin()


class Pair:
    """A connection: from the client to the proxy, and from there to the server."""

    def __init__(self, proxy: Proxy) -> None:
        self.left: int | None = None
        """Bytes from the server that still pass before the connection is cut; None: all."""
        self.client = Client(self)
        self._server = Side(self)
        self._proxy = proxy
        self._waiting: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Connect to the server."""
        self._proxy.pairs[self] = None
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def forward(self, side: Side, data: bytes) -> None:
        """Pass bytes on, perhaps the last ones."""
        other = self._server if side is self.client else self.client
        if self.left is not None and side is self._server:
            data, self.left = data[: self.left], max(0, self.left - len(data))
        if other.transport is None:
            self._waiting.append(data)
        elif not other.transport.is_closing():
            other.transport.write(data)
        if self.left == 0:
            # Not at once: what was written last is to arrive before the reset.
            asyncio.get_running_loop().call_soon(self.cut)

    def cut(self) -> None:
        """End both connections with resets."""
        self._proxy.pairs.pop(self, None)
        if self._connecting is not None:
            self._connecting.cancel()
        for side in (self.client, self._server):
            reset(side.transport)

    def stall(self, seconds: float) -> None:
        """Pass on nothing for a while, in neither direction."""
        for side in (self.client, self._server):
            if side.transport is not None and not side.transport.is_closing():
                side.transport.pause_reading()
                asyncio.get_running_loop().call_later(seconds, side.transport.resume_reading)

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self._server, "127.0.0.1", self._proxy.server_port
            )
        except OSError:
            self.cut()
            return
        assert self._server.transport is not None
        self._server.transport.writelines(self._waiting)
        self._waiting.clear()


class Proxy:
    """Listens on `port` and passes on to the server. Owner: the run, which closes it."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.port = 0
        self.pairs: dict[Pair, None] = {}
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Pair(self).client, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    def disturb(self, random: Random) -> None:
        """Let each connection be cut within its next bytes, stand still, or be spared."""
        for pair in list(self.pairs):
            what = random.random()
            if what < 0.4:
                pair.left = random.randrange(4000)
            elif what < 0.7:
                pair.stall(random.uniform(0.2, 2))

    def close(self) -> None:
        """End everything."""
        if self._listener is not None:
            self._listener.close()
        for pair in list(self.pairs):
            pair.cut()

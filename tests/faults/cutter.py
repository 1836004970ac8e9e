"""The network between a node and its Redis, as a TCP proxy: cut one way or both, far or lossy.

While a way is cut nothing goes through it, not even that a connection has ended: whoever sends
waits, and new connections come to nothing. What was on its way arrives when the way is healed, as
TCP sends it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random

from tests.checker.clients import LOOPBACK, reset

RESENT_S = 0.2
"""How much later what was lost on the way arrives: TCP sends it again."""
END = b""


class Way:
    """One direction, for all connections that go through."""

    def __init__(self, chance: Random) -> None:
        self.delay_s = 0.0
        self.lost = 0.0
        """Which part of all that is sent has to be sent again."""
        self._chance = chance

    def lag_s(self) -> float:
        """Return for how long the next piece is on its way."""
        return self.delay_s + (RESENT_S if self._chance.random() < self.lost else 0.0)


class Pipe(asyncio.Protocol):
    """An end of a connection, and all that comes in there: it goes out at `other`."""

    def __init__(self, pair: Pair, way: Way) -> None:
        self.way = way
        self.other: Pipe
        self.transport: asyncio.Transport | None = None
        self._pair = pair
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the socket."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._pair.made(self)

    def data_received(self, data: bytes) -> None:
        """Pass it on in its time, behind what came before."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self.way.lag_s()
        if self._waiting:
            due = max(due, self._waiting[-1][0])
        self._waiting.append((due, data))
        self._flush()

    def connection_lost(self, _: Exception | None) -> None:
        """Have the other end hear of it, behind what came before."""
        self.data_received(END)

    def hold(self, *, is_cut: bool) -> None:
        """Stop reading, or go on."""
        if self.transport is not None and not self.transport.is_closing():
            if is_cut:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _flush(self) -> None:
        self._timer = None
        loop, target = asyncio.get_running_loop(), self.other.transport
        while self._waiting and self._waiting[0][0] <= loop.time():
            _, data = self._waiting.popleft()
            if data == END or target is None or target.is_closing():
                self._waiting.clear()
                self._pair.end()
                return
            target.write(data)
        if self._waiting and self._timer is None:
            self._timer = loop.call_at(self._waiting[0][0], self._flush)


class Pair:
    """A connection: from the node to here, and from here to Redis."""

    def __init__(self, cutter: Cutter) -> None:
        self._cutter = cutter
        self.node = Pipe(self, cutter.to_redis)
        self.redis = Pipe(self, cutter.from_redis)
        self.node.other, self.redis.other = self.redis, self.node
        self._connecting: asyncio.Task[None] | None = None

    def made(self, pipe: Pipe) -> None:
        """Connect to Redis, once a node has connected to here; what it says waits meanwhile."""
        if pipe is self.node:
            pipe.hold(is_cut=True)
            self._cutter.pairs[self] = None
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def hold(self) -> None:
        """Let through what may go through now."""
        if self.redis.transport is not None:
            self.node.hold(is_cut=self._cutter.is_cut_to)
            self.redis.hold(is_cut=self._cutter.is_cut_from)

    def end(self) -> None:
        """End both sides with resets."""
        self._cutter.pairs.pop(self, None)
        if self._connecting is not None:
            self._connecting.cancel()
        for pipe in (self.node, self.redis):
            reset(pipe.transport)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        await self._cutter.whole.wait()
        try:
            await loop.create_connection(lambda: self.redis, LOOPBACK, self._cutter.upstream)
        except OSError:
            self.end()
            return
        self.hold()


class Cutter:
    """Listens on `port` of a host and passes on to `upstream`. Owner: the world, which closes it.

    Like the fixed address of a service: `upstream` may become another server's.
    """

    def __init__(self, upstream: int, chance: Random, host: str = LOOPBACK) -> None:
        self.upstream = upstream
        self.host = host
        self.port = 0
        self.to_redis, self.from_redis = Way(chance), Way(chance)
        self.is_cut_to = self.is_cut_from = False
        self.whole = asyncio.Event()
        """Whether nothing is cut, so that a connection can be made."""
        self.whole.set()
        self.pairs: dict[Pair, None] = {}
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Pair(self).node, self.host, 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    def cut(self, *, to_redis: bool, from_redis: bool) -> None:
        """Let nothing through that way; both false: heal it."""
        self.is_cut_to, self.is_cut_from = to_redis, from_redis
        if to_redis or from_redis:
            self.whole.clear()
        else:
            self.whole.set()
        for pair in list(self.pairs):
            pair.hold()

    def slow(self, delay_s: float, lost: float = 0.0) -> None:
        """Have everything take so long each way, and a part of it be sent twice."""
        for way in (self.to_redis, self.from_redis):
            way.delay_s, way.lost = delay_s, lost

    def reset(self) -> None:
        """End all connections."""
        for pair in list(self.pairs):
            pair.end()

    def close(self) -> None:
        """End everything."""
        if self._listener is not None:
            self._listener.close()
        self.reset()

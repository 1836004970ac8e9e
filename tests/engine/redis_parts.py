"""What the tests of parts of the Redis engine share: calls of its functions, and a clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pov_rt.engine.base import Entry, Lease
from pov_rt.engine.redis.client.address import parse_address
from pov_rt.engine.redis.client.connection import Connection, Reply, pack
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.link import Link
from pov_rt.engine.redis.layout import Partitions
from pov_rt.runtime.clock import Clock, ManualClock
from tests.redis_servers import RedisServer

PARTITIONS = 128


async def nothing(connection: Connection) -> None:
    """Need nothing of a new connection."""


@asynccontextmanager
async def calling(
    server: RedisServer, prefix: str, clock: Clock | None = None
) -> AsyncIterator[Functions]:
    """Call functions for the block: by a clock, or by Redis's own."""
    link = Link(parse_address(server.url), "test", 10.0, nothing)
    link.start()
    try:
        now = (lambda: 0) if clock is None else (lambda: round(clock.monotonic() * 1e6))
        yield Functions(link, Partitions(prefix, PARTITIONS), now)
    finally:
        await link.close()


async def keys(functions: Functions, prefix: str) -> list[bytes]:
    """Return the names of all keys, without what they all begin with, sorted."""
    (found,) = await functions.link.send(pack("KEYS", f"{prefix}:*"), 1)
    return sorted(
        each.rpartition(b"}:")[2].removeprefix(b"%b:" % prefix.encode()) for each in found
    )


async def ask(functions: Functions, *command: bytes | str | int) -> Reply:
    """Send a command of Redis's own."""
    (reply,) = await functions.link.send(pack(*command), 1)
    return reply


async def plant(
    functions: Functions, topic: str, entries: Sequence[tuple[bytes, str, int]], first: int = 1
) -> None:
    """Have a topic consist of entries: body, the other topic that has it, and its offset there.

    Of a topic `team/...` the others are sources, else feeds. The instant of each is its offset in
    milliseconds.
    """
    own = functions.partitions.of(topic)
    side = "<" if topic.startswith("team/") else ">"
    values = []
    for at, (body, other, offset) in enumerate(entries, first):
        partition = functions.partitions.of(other)[-5:-2].decode()
        place = f"{side}{partition} {offset} {other}" if other else ""
        values.append(b"%d %d\0o\0%b\0%b" % (at * 1000, at, place.encode(), body))
    run, _ = await functions.call("probe", "")
    state = f"{first + len(entries) - 1} epoch {run.decode()} 1"
    await ask(functions, "UNLINK", own + b"s:" + topic.encode())
    await ask(functions, "RPUSH", own + b"s:" + topic.encode(), *values)
    await ask(functions, "HSET", own + b"m", topic, state)


async def bodies(functions: Functions, topic: str) -> list[bytes]:
    """Return the bodies of a topic."""
    key = functions.partitions.of(topic) + b"s:" + topic.encode()
    values = await ask(functions, "LRANGE", key, 0, -1)
    return [value.split(b"\0", 3)[3] for value in values]


class Heard:
    """A follower that keeps who has left."""

    def __init__(self) -> None:
        self.gone: list[tuple[str, str]] = []

    def entries(self, topic: str, epoch: str, entries: Sequence[Entry]) -> None:
        """Fail: nothing is appended."""
        raise AssertionError(topic)

    def signal(self, topic: str, body: bytes, origin: str) -> None:
        """Fail: no signal is sent."""
        raise AssertionError(topic)

    def uncertain(self, topic: str) -> None:
        """Fail: no connection is lost."""
        raise AssertionError(topic)

    def rewritten(self, topic: str) -> None:
        """Fail: nothing is rewritten."""
        raise AssertionError(topic)

    def left(self, topic: str, leases: Sequence[Lease]) -> None:
        """Keep who has left."""
        self.gone.extend((topic, lease.member) for lease in leases)


__all__ = ["Heard", "ManualClock", "ask", "bodies", "calling", "keys", "plant"]

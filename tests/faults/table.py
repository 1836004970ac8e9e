"""The faults: each is a block in which something is broken, and mended at its end."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any, NamedTuple

from tests.engine.redis.engines import until
from tests.faults.world import CHANNELS, PASSWORD, USER, World
from tests.redis_servers import RedisServer

Block = Callable[[World, Random], AbstractAsyncContextManager[Sequence[int]]]
"""Breaks something; the value are the numbers of the nodes that have to say so."""
ALL = (0, 1)
NOBODY: Sequence[int] = ()
TAIL_BYTES = 20_000
"""At most so much of the end of the append-only file is lost."""
ROOM_BYTES = 4096


class Fault(NamedTuple):
    """A fault, and what is so while it is there."""

    block: Block
    words: str = ""
    """What `/readyz` of those nodes has in it then; empty: it need not say anything."""
    hold_s: tuple[float, float] = (0.5, 2.5)
    refuses: bool = False
    """Whether publishers are told to come again."""
    weight: float = 1.0
    """How often it is chosen, beside others."""
    may_lose: bool = False
    """Whether what was acknowledged may be gone after it."""
    hits: str = "redis"
    """Of each of `redis`, `network` and `node` one can be broken at a time."""


async def told(server: RedisServer, *words: str | int) -> None:
    """Have Redis do something that it must not refuse."""
    answer = await asyncio.to_thread(server.command, *words)
    assert not answer.startswith(b"-"), (words, answer)


# Redis:


@asynccontextmanager
async def killed(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Kill it; what it had acknowledged is in its file."""
    world.redis.kill()
    yield ALL
    await asyncio.to_thread(world.redis.start)


@asynccontextmanager
async def frozen(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Stop it, so that it takes connections and says nothing."""
    world.redis.stop()
    yield ALL
    world.redis.cont()


@asynccontextmanager
async def loading(world: World, chance: Random) -> AsyncIterator[Sequence[int]]:
    """Have it read its file for long."""
    world.redis.kill()
    delay_us = chance.randrange(100, 600)
    starting = asyncio.create_task(
        asyncio.to_thread(world.redis.start, "--key-load-delay", str(delay_us))
    )
    yield NOBODY  # if its file is small, it has read it before anybody asks
    while not starting.done():
        await asyncio.to_thread(try_command, world.redis, "CONFIG", "SET", "key-load-delay", "0")
        await asyncio.wait([starting], timeout=0.2)
    await starting


def try_command(server: RedisServer, *words: str) -> None:
    """Have Redis do something if it is there."""
    try:
        server.command(*words)
    except OSError:
        return


@asynccontextmanager
async def busy(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Have it run somebody's script that does not end."""
    script = ("EVAL", "while true do end", "0")
    thread = Thread(target=world.redis.command, args=script, daemon=True)
    thread.start()
    yield ALL
    while thread.is_alive():  # it may be too early, or too late
        await asyncio.to_thread(world.redis.command, "SCRIPT", "KILL")
        await asyncio.to_thread(thread.join, 0.1)


@asynccontextmanager
async def read_only(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Make it a replica of nobody."""
    await told(world.redis, "REPLICAOF", "127.0.0.1", 1)
    yield ALL
    await told(world.redis, "REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def out_of_memory(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Leave it no memory."""
    await told(world.redis, "CONFIG", "SET", "maxmemory", 1)
    yield ALL
    await told(world.redis, "CONFIG", "SET", "maxmemory", 0)


@asynccontextmanager
async def out_of_disk(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Leave no room for its append-only file.

    Redis 7.0 takes away the wrong part of what it could not write whole, and cannot read the file
    any more, if it began it as a replica: so one that was is started anew before.
    """
    if world.was_replica:
        world.redis.kill()
        await asyncio.to_thread(world.redis.start)
    assert await asyncio.to_thread(world.disk.fill, ROOM_BYTES)
    yield ALL
    await asyncio.to_thread(world.disk.free)


@asynccontextmanager
async def other_password(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Have it know us by another password."""
    await told(world.redis, "ACL", "SETUSER", USER, "resetpass", ">other")
    await told(world.redis, "CLIENT", "KILL", "USER", USER)
    yield ALL
    await told(world.redis, "ACL", "SETUSER", USER, "resetpass", f">{PASSWORD}")


@asynccontextmanager
async def channel_denied(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Forbid the channels whose names end so, of one PoV that is."""
    await told(world.redis, "ACL", "SETUSER", USER, "resetchannels", "&*[^0]")
    yield ALL
    await told(world.redis, "ACL", "SETUSER", USER, *CHANNELS)


@asynccontextmanager
async def certificate_expired(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Show a certificate that has expired to who connects."""
    await show_certificate(world.redis, world.expired)
    for kind in ("normal", "pubsub"):
        await told(world.redis, "CLIENT", "KILL", "TYPE", kind)
    yield (1,)
    await show_certificate(world.redis, world.certificates)


async def show_certificate(server: RedisServer, files: tuple[Path, Path]) -> None:
    """Have it show another certificate from now on."""
    certificate, key = map(str, files)
    await told(server, "CONFIG", "SET", "tls-cert-file", certificate, "tls-key-file", key)


@asynccontextmanager
async def functions_gone(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Have it forget its functions, at times more than once."""
    await told(world.redis, "FUNCTION", "FLUSH")
    yield NOBODY
    await told(world.redis, "FUNCTION", "FLUSH")


@asynccontextmanager
async def connections_killed(world: World, chance: Random) -> AsyncIterator[Sequence[int]]:
    """Have it end connections: those that listen more often than the others."""
    for _ in range(chance.randrange(1, 4)):
        kind = chance.choice(("pubsub", "pubsub", "normal"))
        await told(world.redis, "CLIENT", "KILL", "TYPE", kind)
        await asyncio.sleep(chance.uniform(0, 0.3))
    yield NOBODY


# Redis, and what it had acknowledged:


@asynccontextmanager
async def restarted_empty(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Kill it, and start it without its file."""
    world.redis.kill()
    shutil.rmtree(world.redis.folder / "appendonlydir")
    yield ALL
    await asyncio.to_thread(world.redis.start)


@asynccontextmanager
async def tail_lost(world: World, chance: Random) -> AsyncIterator[Sequence[int]]:
    """Kill it, and take the end from its file, as when the power fails."""
    kill_with_tail(world.redis, chance)
    yield ALL
    await asyncio.to_thread(world.redis.start)


@asynccontextmanager
async def tail_lost_unseen(world: World, chance: Random) -> AsyncIterator[Sequence[int]]:
    """The same, but one node is cut off, and the logs have gone on when it comes back."""
    node = chance.randrange(2)
    world.cutters[node].cut(to_redis=True, from_redis=True)
    kill_with_tail(world.redis, chance)
    await asyncio.to_thread(world.redis.start)
    yield (node,)
    world.cutters[node].cut(to_redis=False, from_redis=False)


def kill_with_tail(redis: RedisServer, chance: Random) -> None:
    """Kill a Redis, and take the end from its file: from some byte on.

    Mostly that is in the middle of a transaction, of which Redis 7.0 leaves a part in the file, and
    does that when it is started the next time after.
    """
    redis.kill()
    files = (redis.folder / "appendonlydir").glob("*.incr.aof")
    file = max(files, key=lambda path: path.stat().st_mtime_ns)
    size = file.stat().st_size
    with file.open("r+b") as cut:
        cut.truncate(max(0, size - chance.randrange(TAIL_BYTES)))


@asynccontextmanager
async def emptied(world: World, _: Random) -> AsyncIterator[Sequence[int]]:
    """Take all keys away."""
    yield NOBODY
    await told(world.redis, "FLUSHALL")


@asynccontextmanager
async def replaced(world: World, chance: Random) -> AsyncIterator[Sequence[int]]:
    """Have its replica take over at its address, which may not have got the last of it."""
    primary = world.redis
    replica, tls_port = await asyncio.to_thread(
        world.start_redis, "--replicaof", "127.0.0.1", str(primary.port)
    )
    await until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
    if chance.random() < 0.7:
        await told(primary, "ACL", "SETUSER", "default", "-psync", "-sync")
        await told(primary, "CLIENT", "KILL", "TYPE", "replica")
    yield NOBODY
    primary.kill()
    await told(replica, "REPLICAOF", "NO", "ONE")
    world.promote(replica, tls_port)


# The network between Redis and one node, or both:


def some(chance: Random) -> Sequence[int]:
    """Return one node or both."""
    return chance.choice(((0,), (1,), ALL))


def cut(*, to_redis: bool, from_redis: bool) -> Block:
    """Return a fault that lets nothing through that way."""

    @asynccontextmanager
    async def block(world: World, chance: Random) -> AsyncIterator[Sequence[int]]:
        nodes = some(chance)
        for node in nodes:
            world.cutters[node].cut(to_redis=to_redis, from_redis=from_redis)
        yield nodes
        for node in nodes:
            world.cutters[node].cut(to_redis=False, from_redis=False)

    return block


def slowed(delay_s: float, lost: float = 0.0) -> Block:
    """Return a fault that has everything take so long each way."""

    @asynccontextmanager
    async def block(world: World, chance: Random) -> AsyncIterator[Sequence[int]]:
        nodes = some(chance)
        for node in nodes:
            world.cutters[node].slow(delay_s, lost)
        yield nodes
        for node in nodes:
            world.cutters[node].slow(0.0)

    return block


@asynccontextmanager
async def reset(world: World, chance: Random) -> AsyncIterator[Sequence[int]]:
    """End all connections of a node to Redis, again and again."""
    for _ in range(chance.randrange(1, 6)):
        world.cutters[chance.randrange(2)].reset()
        await asyncio.sleep(chance.uniform(0, 0.4))
    yield NOBODY


# A node:


@asynccontextmanager
async def node_killed(world: World, chance: Random) -> AsyncIterator[Sequence[int]]:
    """Kill a node; whatever is wrong then, it is started anew."""
    node = chance.choice(world.nodes)
    node.kill()
    yield NOBODY
    node.spawn()


@asynccontextmanager
async def node_stopped(world: World, chance: Random) -> AsyncIterator[Sequence[int]]:
    """Have a node stand still."""
    node = chance.choice(world.nodes)
    node.send(signal.SIGSTOP)
    yield NOBODY
    node.send(signal.SIGCONT)


LONG_S = (3.0, 6.0)


def redis(block: Block, words: str = "", **more: Any) -> Fault:
    """Return a fault of Redis itself: with words, nothing can be published meanwhile."""
    return Fault(block, words, **{"refuses": bool(words), **more})


def network(block: Block, words: str = "", **more: Any) -> Fault:
    """Return a fault of the network."""
    return Fault(block, words, hits="network", **more)


CUT: dict[str, Any] = {"words": "Redis at", "hold_s": LONG_S, "refuses": True, "weight": 2}
FAULTS = {
    "killed": redis(killed, "Redis at", weight=2),
    "frozen": redis(frozen, "Redis at", hold_s=LONG_S),
    "loading": redis(loading),
    "busy": redis(busy, "BUSY"),
    "read-only": redis(read_only, "name the primary in engine.url"),
    "out of memory": redis(out_of_memory, "OOM"),
    "out of disk": redis(out_of_disk, "MISCONF"),
    "another password": redis(other_password, "WRONGPASS"),
    "a channel denied": redis(channel_denied, "does not let this node hear on", refuses=False),
    "certificate expired": redis(certificate_expired, "certificate has expired"),
    "functions gone": redis(functions_gone),
    "connections killed": redis(connections_killed, weight=2),
    "restarted empty": redis(restarted_empty, "Redis at", may_lose=True),
    "tail lost": redis(tail_lost, "Redis at", weight=3, may_lose=True),
    "tail lost, one node away": redis(
        tail_lost_unseen, "Redis at", weight=3, may_lose=True, hold_s=LONG_S
    ),
    "emptied": redis(emptied, may_lose=True),
    "replaced": redis(replaced, weight=3, may_lose=True),
    "slow by 200 ms": network(slowed(0.11), "it is slow", hold_s=LONG_S),
    "cut off": network(cut(to_redis=True, from_redis=True), **CUT),
    "cut off, to Redis": network(cut(to_redis=True, from_redis=False), **CUT),
    "cut off, from Redis": network(cut(to_redis=False, from_redis=True), **CUT),
    "80 ms and 2 % loss": network(slowed(0.08, 0.02), weight=2),
    "connections reset": network(reset, weight=2),
    "node killed": Fault(node_killed, hits="node", weight=2),
    "node stopped": Fault(node_stopped, hits="node", hold_s=(0.5, 4.0)),
}
DEGRADED = (
    "killed", "frozen", "slow by 200 ms", "loading", "busy", "read-only", "out of memory",
    "restarted empty", "another password", "a channel denied", "out of disk",
    "certificate expired",
)  # fmt: skip
"""What may be wrong with a Redis while everybody stays connected."""

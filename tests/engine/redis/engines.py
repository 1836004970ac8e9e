"""Engines on a Redis server for the tests of what goes wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pov_rt.config.settings import EngineSettings, RedisSettings
from pov_rt.engine.base import NewEntry
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.client.sentinels import parse_place
from pov_rt.engine.redis.engine import RedisEngine
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import ManualClock, SystemClock
from pov_rt.suites import Recorder
from tests.redis_servers import RedisServer

WAIT_S = 20.0
A, B, FEED = "pov/a", "pov/b", "team/main"


class Heard(Recorder):
    """A follower that keeps signals, too, and says when it was told something."""

    def __init__(self) -> None:
        super().__init__()
        self.signals: list[tuple[str, bytes, str]] = []

    def signal(self, topic: str, body: bytes, origin: str) -> None:
        """Keep another node's signal."""
        self.signals.append((topic, body, origin))


def make(
    server: RedisServer,
    prefix: str = "pr",
    node: str = "node-1",
    url: str = "",
    redis: dict[str, Any] | None = None,
    keeping: Keeping | None = None,
    clock: ManualClock | None = None,
    ca_file: str = "",
    **settings: Any,
) -> RedisEngine:
    """Return an engine, not started: by a clock, or by Redis's own."""
    own = RedisSettings(
        prefix=prefix, **{"ca_file": ca_file, "deadline_s": WAIT_S, **(redis or {})}
    )
    address = parse_place(url or server.url, own, node)
    whole = EngineSettings(redis=own, **settings)
    if clock is None:
        return RedisEngine(address, whole, SystemClock(), node, keeping)
    now = lambda: round(clock.monotonic() * 1e6)  # noqa: E731
    return RedisEngine(address, whole, clock, node, keeping, now)


@asynccontextmanager
async def opened(
    server: RedisServer, prefix: str = "pr", **more: Any
) -> AsyncIterator[tuple[RedisEngine, Heard]]:
    """Run an engine for the block."""
    engine, heard = make(server, prefix, **more), Heard()
    await engine.start(heard)
    try:
        yield engine, heard
    finally:
        await engine.close()


async def until(is_so: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    """Return when something is so."""
    async with asyncio.timeout(wait_s):
        while not is_so():  # noqa: ASYNC110  (many things, of many parts)
            await asyncio.sleep(0.01)


async def appended(engine: RedisEngine, entry: NewEntry, wait_s: float = WAIT_S) -> Any:
    """Append an entry, however often that has to be tried."""
    async with asyncio.timeout(wait_s):
        while True:
            try:
                return (await engine.log.append([entry]))[0]
            except Unavailable:
                await asyncio.sleep(0.01)


def entries(number: int, topic: str = A, start: int = 1, feed: str = "") -> list[NewEntry]:
    """Return entries whose keys and bodies are their numbers."""
    keys = range(start, start + number)
    return [NewEntry(topic, "p", str(key), b"%d" % key, feed) for key in keys]

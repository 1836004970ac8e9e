"""A Redis that no node uses, to copy from or to.

Whoever copies stands in the directory of nodes meanwhile, as one with which no node can talk: so
none starts, and no other copy begins. While a copy into it is under way, and after one that ended
half-way, its keys are of the schema `UNFINISHED`, with which no version starts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.client.address import Place
from pov_rt.engine.redis.client.connection import Connection, Reply, ServerError, pack
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.library import library
from pov_rt.engine.redis.client.link import Link, refusal
from pov_rt.engine.redis.client.sentinels import Sentinels
from pov_rt.engine.redis.health.canary import BEAT_S, COPYING, GONE_S, directory_entry
from pov_rt.engine.redis.layout import Partitions
from pov_rt.engine.redis.moving.records import RedisCopying
from pov_rt.engine.redis.server import (
    SCHEMA,
    UNFINISHED,
    Facts,
    admit,
    check_rights,
    look,
)
from pov_rt.protocol.errors import Unavailable

NAME = "pov-rt db copy"
DEADLINE_S = 30.0
"""How long Redis may take for a step: nobody waits for it but the copy."""
SCANNED = 1000


class _Database:
    """One connection to a Redis, with the place in its directory."""

    def __init__(self, place: Place, settings: EngineSettings) -> None:
        self.place = place
        self.link = Link(place, "pov-rt-copy", DEADLINE_S, self._prepare)
        self.partitions = Partitions(settings.redis.prefix, settings.redis.partitions)
        self.functions = Functions(self.link, self.partitions)
        self.is_unfinished = False
        self._settings = settings.redis
        self._name = f"{NAME}/{uuid4().hex[:12]}"
        self._started = 0.0
        self._task: asyncio.Task[None] | None = None

    async def open(self, *, may_be_unfinished: bool) -> None:
        """Connect, and make sure that no node is there. Raises `Unavailable`."""
        self._may_be_unfinished = may_be_unfinished
        if isinstance(self.place, Sentinels):
            self.place.start()
        self.link.start()
        await self.link.tried()
        if not self.link.is_up:
            raise Unavailable(self.link.problem)
        await self._beat()
        self._task = asyncio.create_task(self._keep_beating(), name="copy beats")
        await self._refuse_nodes()

    async def _prepare(self, connection: Connection) -> None:
        facts = await look(connection, self._settings)
        admit(self._fit(facts), self._settings, str(self.place))
        await library().load(connection)
        await check_rights(connection, self.partitions.all[0], str(self.place))

    def _fit(self, facts: Facts) -> Facts:
        self.is_unfinished = facts.schema == UNFINISHED
        if self.is_unfinished and self._may_be_unfinished:
            return facts._replace(schema=SCHEMA)
        return facts

    async def close(self) -> None:
        """Leave the directory, and end the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            with suppress(Unavailable):  # then it is there for a while
                await self.link.send(pack("HDEL", self._directory, self._name), 1)
        await self.link.close()
        if isinstance(self.place, Sentinels):
            await self.place.close()

    @property
    def _directory(self) -> str:
        return self.partitions.key("node")

    async def _beat(self) -> None:
        now_s, us = await self.ask("TIME")
        at = int(now_s) * 1_000_000 + int(us)
        self._started = self._started or at / 1e6
        entry = directory_entry((NAME, NAME), COPYING, self._started, at, {})
        await self.ask("HSET", self._directory, self._name, entry)

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            with suppress(Unavailable):  # of which the copy hears as well
                await self._beat()

    async def _refuse_nodes(self) -> None:
        found = await self.ask("HGETALL", self._directory)
        entries = {
            name: json.loads(text) for name, text in zip(found[::2], found[1::2], strict=True)
        }
        mine = entries.pop(self._name.encode())
        nodes = sorted(
            f"{each['id']} on {each['address']}"
            for each in entries.values()
            if each["at"] > mine["at"] - GONE_S * 1e6
        )
        if nodes:
            raise Unavailable(
                f"Redis at {self.place} is in use by {', '.join(nodes)}: stop all nodes, then copy "
                f"again. One that was killed counts as there for {GONE_S:g} s"
            )

    async def check_is_empty(self) -> None:
        """Raise `Unavailable` if something is there that is not to be overwritten."""
        calls = [self.functions.pack("copy_is_used", prefix) for prefix in self.partitions.all]
        if any(await self.functions.call_all(calls)):
            raise Unavailable(
                f"Redis at {self.place} has logs, marks or values under {self.partitions.prefix}:* "
                "already, and a copy overwrites nothing: name another database "
                "(redis://HOST/NUMBER), set engine.redis.prefix, or delete those keys"
            )

    async def clear(self) -> None:
        """Remove what a copy left that ended half-way."""
        cursor, kept = b"0", {self._directory.encode(), self.partitions.key("meta").encode()}
        while True:
            pattern = f"{self.partitions.prefix}:*"
            cursor, keys = await self.ask("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED)
            if gone := [key for key in keys if key not in kept]:
                await self.ask("UNLINK", *gone)
            if cursor == b"0":
                return

    async def mark(self, schema: str) -> None:
        """Say of which schema the keys are."""
        await self.ask("HSET", self.partitions.key("meta"), "schema", schema)

    async def ask(self, *command: bytes | str | int) -> Reply:
        """Send one command of Redis's own. Raises `Unavailable`."""
        (reply,) = await self.link.send(pack(*command), 1)
        if isinstance(reply, ServerError):
            if reply.code == "NOPERM" and command[0] == "SCAN":
                raise Unavailable(
                    "an interrupted copy has left keys, and to find them our user needs +scan: "
                    f"allow it, or name another database ({reply})"
                )
            raise refusal(reply)
        return reply


@asynccontextmanager
async def source(
    place: Place, settings: EngineSettings, keeping: Keeping
) -> AsyncIterator[RedisCopying]:
    """Open a Redis to copy from, for the block. Raises `Unavailable`.

    If that ends well, its logs go over to another epoch should they be used once more.
    """
    database = _Database(place, settings)
    try:
        await database.open(may_be_unfinished=False)
        copying = RedisCopying(database.functions, settings, keeping)
        yield copying
        await copying.leave()
    finally:
        await database.close()


@asynccontextmanager
async def target(
    place: Place, settings: EngineSettings, keeping: Keeping
) -> AsyncIterator[RedisCopying]:
    """Open a Redis that has nothing to copy to, for the block.

    Unless that ends well, no server starts on it. Raises `Unavailable`.
    """
    database = _Database(place, settings)
    try:
        await database.open(may_be_unfinished=True)
        if database.is_unfinished:
            await database.clear()
        else:
            await database.check_is_empty()
        await database.mark(UNFINISHED)
        yield RedisCopying(database.functions, settings, keeping)
        await database.mark(SCHEMA)
    finally:
        await database.close()

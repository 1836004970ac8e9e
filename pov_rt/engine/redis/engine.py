"""The engine on Redis: its connections, its parts, and how it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Follower, Health, Peer, State, Survives, Top
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.appending import Appending
from pov_rt.engine.redis.client.address import Place
from pov_rt.engine.redis.client.connection import Connection, ServerError
from pov_rt.engine.redis.client.functions import Functions, by_redis
from pov_rt.engine.redis.client.library import library
from pov_rt.engine.redis.client.link import Link, Unfit
from pov_rt.engine.redis.client.sentinels import Sentinels
from pov_rt.engine.redis.health.canary import Canary
from pov_rt.engine.redis.health.conditions import Conditions
from pov_rt.engine.redis.health.mending import mended
from pov_rt.engine.redis.layout import Partitions
from pov_rt.engine.redis.log import RedisLog
from pov_rt.engine.redis.moving.records import RedisCopying
from pov_rt.engine.redis.past.fading import Fading
from pov_rt.engine.redis.past.scrubbing import scrub
from pov_rt.engine.redis.reader import Reader
from pov_rt.engine.redis.server import (
    Facts,
    admit,
    check_rights,
    find_dangers,
    find_faults,
    look,
    survives,
)
from pov_rt.engine.redis.signals import RedisSignals
from pov_rt.engine.redis.state.leases import RedisLeases
from pov_rt.engine.redis.state.marks import RedisMarks
from pov_rt.engine.redis.state.sets import RedisSets
from pov_rt.engine.redis.state.store import RedisStore
from pov_rt.engine.redis.tidying import Tidying
from pov_rt.engine.redis.writer import Writer
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock

LOOK_S = 10.0
"""How often Redis is asked what it is."""
LEFT = b"l"
"""The kind of message that tells of members who have left."""


class RedisEngine:
    """All parts on a Redis; see `base.Engine`. Bounded by `EngineSettings`, over all nodes.

    `node` names this process among those that share the Redis. `now` gives microseconds since 1970
    to go by instead of Redis's own clock.
    """

    def __init__(
        self,
        address: Place,
        settings: EngineSettings,
        clock: Clock,
        node: str,
        keeping: Keeping | None = None,
        now: Callable[[], int] = by_redis,
    ) -> None:
        self.address = address
        self.settings = settings
        self.keeping = keeping or Keeping(settings)
        self.facts: Facts | None = None
        """What Redis was when it was asked last."""
        self._clock = clock
        self.conditions = Conditions(clock)
        self._own = own = settings.redis
        self._sentinels = address if isinstance(address, Sentinels) else None
        self._partitions = partitions = Partitions(own.prefix, own.partitions)
        self._asker = Link(address, f"pov-rt-asker-{node}", own.deadline_s, self._prepare)
        self._sender = Link(address, f"pov-rt-writer-{node}", own.deadline_s, self._prepare)
        self.functions = functions = Functions(self._asker, partitions, now)
        self._appending = appending = Appending(settings, self.keeping, partitions)
        self.reader = Reader(address, functions, node, own.deadline_s)
        self.writer = Writer(
            Functions(self._sender, partitions, now),
            appending,
            settings.backlog_bytes,
            own.deadline_s,
            self._count_replicas,
            own.wait_ms,
        )
        self.marks = RedisMarks(functions, settings, self.keeping.ages[-1])
        self.leases = RedisLeases(functions, clock, node, self.reader.watched)
        self.sets = RedisSets(functions)
        self.store = RedisStore(functions, settings)
        self.copying = RedisCopying(functions, settings, self.keeping)
        self.signals = RedisSignals(self.writer, partitions, node)
        self._tidying = Tidying(functions, appending, self.keeping, clock)
        fading = Fading(functions, self.keeping)
        self._tidying.chores = (self.marks.tidy, self.sets.tidy, fading.round)
        self._tidying.counts = (self.marks.count, self.store.count)
        self.log = RedisLog(
            functions,
            self.writer,
            self.reader,
            appending,
            self.keeping,
            clock,
            self.marks,
            settings,
            self._tidying,
        )
        self.reader.on[LEFT] = self.leases.hear
        self.canary = Canary(functions, self.reader, self.conditions, node, clock)
        self.links = (self._asker, self._sender, self.reader.link)
        """Its connections, each of which comes back by itself."""
        for link in self.links:
            link.on_turned_away = self._leave
        if self._sentinels is not None:
            self._sentinels.on_moved = self._leave
        self._look_task: asyncio.Task[None] | None = None
        self._state: State = "ok"
        self._since = 0.0
        self._is_started = False

    @property
    def guarantee(self) -> Survives:
        """What an acknowledged append survives, as Redis is set up now."""
        return survives(self.facts, self._own) if self.facts is not None else "primary"

    @property
    def waiting_bytes(self) -> int:
        """What was accepted and is not acknowledged yet."""
        return int(self.writer.backlog.used)

    @property
    def log_bytes(self) -> Mapping[str, int]:
        """Nothing: Redis's files are not on this machine, or not ours."""
        return {}

    @property
    def measures(self) -> Mapping[str, float]:
        """What Redis has said of itself, and what this node noticed of it; see docs/operations."""
        facts = self.facts
        return {
            "nodes": len(self.canary.entries),
            "beat_seconds": self.canary.lag_s,
            "readers_replaced": self.canary.replaced,
            "connections_lost": sum(link.losses for link in self.links),
            "refusals": self.conditions.refusals,
            "signals_dropped": self.writer.dropped,
            "channels_denied": self.reader.denied,
            "replicas": 0 if facts is None else facts.replicas,
            "evicted_keys": 0 if facts is None else facts.evicted,
            "used_bytes": 0 if facts is None else facts.used_bytes,
            "most_bytes": 0 if facts is None else facts.most_bytes,
        }

    @property
    def bounds(self) -> Sequence[Bound]:
        """What all nodes share, as far as this one knows, and what waits here."""
        return (
            self._appending.topics,
            self.marks.rules.bound,
            self.writer.backlog.bound,
            self.store.rules.bound,
            self._appending.producers,
        )

    @property
    def peers(self) -> Sequence[Peer]:
        return self.canary.peers()

    async def start(self, follower: Follower, name: str = "") -> None:
        """Begin to connect. Raises `Unavailable` where Redis will not do, or does not let us in.

        One that is away, or is loading its data, is waited for in the background.
        """
        self.canary.called = name
        if self._sentinels is not None:
            self._sentinels.start()
        self._asker.start()
        try:
            await self._asker.tried()
            self._check_fit()
            self.reader.follower = self.leases.follower = follower
            self._is_started = True
            self.writer.start()
            self._sender.start()
            self.reader.start()
            self._tidying.start()
            self._look_task = asyncio.create_task(self._keep_looking(), name="redis facts")
            if self._asker.is_up:
                # So that the first who come are not told that Redis is away.
                await asyncio.gather(self._sender.tried(), self.reader.link.tried())
                await asyncio.gather(self._tidying.count(), self.leases.renew(), self.canary.beat())
                self.canary.admit()
            self.canary.start()
        except BaseException:
            await self.close()
            raise

    def _check_fit(self) -> None:
        if self._asker.is_refused:
            raise Unavailable(self._asker.problem)

    async def close(self) -> None:
        """Finish what was accepted, then end all connections. May be called twice."""
        if self._look_task is not None:
            self._look_task.cancel()
            await asyncio.wait([self._look_task])
            self._look_task = None
        await self.canary.close()
        if self._is_started:
            await self.writer.close()
            await self.reader.close()
            self.reader.follower = self.leases.follower = None
        await self._tidying.close()
        await self._sender.close()
        await self._asker.close()
        if self._sentinels is not None:
            await self._sentinels.close()

    async def watch(self, topic: str) -> Top:
        return await self.log.watch(topic)

    async def unwatch(self, topic: str) -> None:
        self.reader.unwatch(topic)

    async def scrub(self) -> None:
        await scrub(self._asker)

    def health(self) -> Health:
        """Return how Redis is, seen from here."""
        line = "; ".join(self._troubles())
        state: State = "deaf" if self.canary.is_deaf else "degraded" if line else "ok"
        if state != self._state:
            self._state = state
            self._since = self._clock.time() if line else 0.0
        return Health(state, line, self._since)

    def _troubles(self) -> Iterator[str]:
        where = f"Redis at {self.address}"
        if not self._is_started:
            return
        if self.canary.is_deaf:
            yield from self.canary.lines()
        for link in self.links:
            if not link.is_up:
                yield mended(link.problem or f"{where}: a connection has ended")
                return
        if self._sentinels is not None and self._sentinels.problem:
            yield mended(self._sentinels.problem)
        if self.facts is None:
            yield f"{where} was not asked yet"
            return
        facts = (find_faults(self.facts, self._own), find_dangers(self.facts, self._own))
        seen = (self.conditions.lines(), () if self.canary.is_deaf else self.canary.lines())
        if found := "; ".join(chain(*facts, *seen)):
            yield f"{where}: {found}"
        if self.reader.denied:
            yield mended(
                f"{where} does not let this node hear on {self.reader.denied} channels (NOPERM)"
            )

    def _count_replicas(self) -> int:
        """Return how many replicas must have an entry before it is acknowledged."""
        if self._own.replicas and self._sentinels is not None:
            return max(self._own.replicas, self._sentinels.replicas)
        return self._own.replicas

    def _leave(self, reason: str) -> None:
        """Have all connections find the primary anew: no two may talk to different servers."""
        for link in self.links:
            link.leave(reason)

    async def _prepare(self, connection: Connection) -> None:
        """Make sure that a new connection is to a server that will do, and that it has the library.

        What somebody has to mend refuses the start; later it is waited for.
        """
        facts = await look(connection, self._own)
        admit(facts, self._own, str(self.address))
        await library().load(connection)
        await check_rights(connection, self._partitions.all[0], str(self.address))
        self.facts, self.conditions.unfit = facts, ""
        connection.observer = self.conditions

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            connection = self._asker.connection
            if connection is not None:
                with contextlib.suppress(Unavailable, ServerError):
                    self.facts = await look(connection, self._own)
                    await self._check_rights(connection)
                    await self._tidying.count()  # of what other nodes added, too

    async def _check_rights(self, connection: Connection) -> None:
        """Note what is not allowed any more. Raises `Away`, `ServerError`."""
        try:
            await check_rights(connection, self._partitions.all[0], str(self.address))
        except Unfit as error:
            self.conditions.unfit = str(error)
        else:
            self.conditions.unfit = ""

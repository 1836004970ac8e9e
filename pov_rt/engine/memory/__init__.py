"""The engine in this process's memory: nothing survives it, and there is no other node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Follower, Health, Peer, Survives, Top
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.local import MemoryLeases, MemorySignals
from pov_rt.engine.memory.copying import MemoryCopying
from pov_rt.engine.memory.log import MemoryLog
from pov_rt.engine.state import MemoryMarks, MemorySets, MemoryStore
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock

__all__ = ["MemoryEngine", "MemoryLog"]


class MemoryEngine:
    """All parts in memory; `memory://`. Bounded by `EngineSettings`."""

    guarantee: Survives = "process"
    waiting_bytes = 0
    log_bytes: Mapping[str, int] = {}
    measures: Mapping[str, float] = {}

    def __init__(
        self,
        settings: EngineSettings,
        clock: Clock,
        node: str,
        keeping: Keeping | None = None,
    ) -> None:
        keeping = keeping or Keeping(settings)
        self.marks = MemoryMarks(settings, clock, keeping.ages[-1])
        self.log = MemoryLog(settings, clock, self.marks, keeping)
        self.signals = MemorySignals()
        self.leases = MemoryLeases(clock, node, self.log.watched)
        self.sets = MemorySets(clock)
        self.store = MemoryStore(settings)
        self.copying = MemoryCopying(self.log, self.marks, self.sets, self.store, keeping, clock)
        self.bounds: Sequence[Bound] = (
            self.log.count.bound,
            self.marks.rules.bound,
            self.log.ids,
            self.log.producers.rules.bound,
            self.store.rules.bound,
        )

    @property
    def peers(self) -> Sequence[Peer]:
        return ()

    async def start(self, follower: Follower, name: str = "") -> None:
        self.log.follower = self.leases.follower = follower

    async def close(self) -> None:
        self.log.follower = self.leases.follower = None

    async def watch(self, topic: str) -> Top:
        self.log.watch(topic)
        return await self.log.top(topic)

    async def unwatch(self, topic: str) -> None:
        self.log.watched.pop(topic, None)

    async def scrub(self) -> None:
        """Return at once: it has no files."""

    def health(self) -> Health:
        """Return that it works, as memory does for as long as the process."""
        return Health()

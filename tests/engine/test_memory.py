"""The memory engine keeps every guarantee of engines."""

from __future__ import annotations

from typing import Any

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Engine
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.memory import MemoryEngine
from pov_rt.runtime.clock import ManualClock
from pov_rt.suites import EngineSuite, Povs, stub


class TestMemoryEngine(EngineSuite):
    def make(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
        own = EngineSettings(**settings)
        keeping = Keeping(own, povs, stub)
        return MemoryEngine(own, clock, "node-1", keeping)

"""The engine of the tests that loses the end of its logs is one, and loses nothing else."""

from __future__ import annotations

from typing import Any

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.keeping import Keeping
from pov_rt.runtime.clock import ManualClock
from pov_rt.suites import EngineSuite, Povs, stub
from pov_rt.suites.losing import LosingSuite
from tests.engine.losing import LosingEngine


class TestLosingEngine(EngineSuite):
    """It is an engine like any other, as long as it loses nothing."""

    def make(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> LosingEngine:
        own = EngineSettings(**settings)
        return LosingEngine(own, clock, "node-1", Keeping(own, povs, stub))


class TestItLoses(LosingSuite):
    """What it loses, and what not."""

    engine: LosingEngine

    def make(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> LosingEngine:
        return TestLosingEngine().make(clock, povs, **settings)

    async def lose(self, number: int) -> None:
        self.engine.lose(number)

"""For engine authors: `EngineSuite` tests every guarantee of `engine.base`.

Subclass it in a test module and say how to open the engine:

    class TestMyEngine(EngineSuite):
        def make(self, clock, povs=None, **settings):
            own = EngineSettings(**settings)
            return MyEngine(own, clock, "node-1", Keeping(own, povs, stub))

And, if two that are opened so share what they have, how to open another one: `make_other`.
"""

from __future__ import annotations

from typing import get_args

from pov_rt.engine.base import Health, NewEntry, Survives
from pov_rt.suites.copying import CopyingSuite
from pov_rt.suites.keeping import KeepingSuite
from pov_rt.suites.logs import LogSuite
from pov_rt.suites.past import PastSuite
from pov_rt.suites.producers import ProducerSuite
from pov_rt.suites.state import StateSuite
from pov_rt.suites.store import StoreSuite
from pov_rt.suites.support import A, Povs, Recorder, on_engine, stub

__all__ = ["EngineSuite", "Povs", "Recorder", "stub"]


class EngineSuite(
    LogSuite, KeepingSuite, PastSuite, ProducerSuite, StateSuite, StoreSuite, CopyingSuite
):
    """What every engine must do. Each test has a fresh engine and a clock that stands still."""

    @on_engine()
    async def test_it_is_healthy_says_its_guarantee_and_closes_twice(self) -> None:
        assert self.engine.health() == Health()
        assert self.engine.guarantee in get_args(Survives)
        await self.engine.log.append([NewEntry(A, "p", "1", b"{}")])
        assert self.engine.waiting_bytes == 0
        await self.engine.watch(A)
        assert self.engine.signals.send(A, b"signal", "origin")
        await self.engine.close()
        await self.engine.close()
        assert self.told.told == []

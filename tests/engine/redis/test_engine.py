"""The Redis engine keeps every guarantee of engines, on Redis and on Valkey."""

from __future__ import annotations

from typing import Any

import pytest

from pov_rt.config.settings import EngineSettings, RedisSettings
from pov_rt.engine.base import Engine
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.client.address import parse_address
from pov_rt.engine.redis.engine import RedisEngine
from pov_rt.runtime.clock import ManualClock
from pov_rt.suites import EngineSuite, Povs, stub
from tests.redis_servers import RedisServer

WAIT_S = 20.0


class TestRedisEngine(EngineSuite):
    @pytest.fixture(autouse=True)
    def server(self, shared_redis: RedisServer, prefix: str) -> None:
        self.redis = shared_redis
        self.prefix = prefix

    def make(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
        redis = RedisSettings(prefix=self.prefix, deadline_s=WAIT_S)
        own = EngineSettings(redis=redis, **settings)
        return RedisEngine(
            parse_address(self.redis.url),
            own,
            clock,
            "node-1",
            Keeping(own, povs, stub),
            now=lambda: round(clock.monotonic() * 1e6),
        )

    def make_other(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
        self.prefix = f"other-{self.prefix}"
        return self.make(clock, povs, **settings)

"""What is too old for its PoV leaves its feed in Redis."""

from __future__ import annotations

import asyncio

from pov_rt.config.settings import EngineSettings, PovSettings
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.past.fading import STEP, Fading
from pov_rt.suites import stub
from tests.engine.redis_parts import bodies, calling, plant
from tests.redis_servers import RedisServer

SHORT, LONG, FEED = "pov/short", "pov/long", "team/main"
DEFAULT = EngineSettings(max_age_s=100.0)


def test_stubs_are_left_of_what_is_too_old_for_its_pov(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        number = STEP * 3
        keeping = Keeping(DEFAULT, {"short": PovSettings(max_age_s=1.0)}, stub)
        async with calling(shared_redis, prefix) as functions:
            # Each came in the millisecond of its number; two seconds and a half have passed.
            functions.now = lambda: 2_500_500
            sources = [(SHORT, LONG, "")[n % 3] for n in range(1, number + 1)]
            entries = [(b"%d" % n, source, n) for n, source in enumerate(sources, 1)]
            await plant(functions, FEED, entries)
            await plant(functions, SHORT, entries)
            await Fading(functions, keeping).round()
            expected = [
                stub(body) if source == SHORT and at * 1000 < 1_500_500 else body
                for at, (body, source, _) in enumerate(entries, 1)
            ]
            assert await bodies(functions, FEED) == expected
            assert await bodies(functions, SHORT) == [body for body, _, _ in entries]
            functions.now = lambda: 9_000_000
            await Fading(functions, keeping).round()
            assert await bodies(functions, FEED) == [
                stub(body) if source == SHORT else body for body, source, _ in entries
            ]

    asyncio.run(work())


def test_where_all_is_kept_for_as_long_nothing_is_looked_at(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            functions.now = lambda: 99_000_000
            await plant(functions, FEED, [(b"1", SHORT, 1)])
            await Fading(functions, Keeping(DEFAULT)).round()
            assert await bodies(functions, FEED) == [b"1"]

    asyncio.run(work())

"""Whatever engine a copy is of, and wherever it goes: it reads the same and goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from pov_rt.config.settings import EngineSettings, RedisSettings
from pov_rt.engine.base import Appended, Engine, NewEntry, Position
from pov_rt.engine.copying import copy
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.memory import MemoryEngine
from pov_rt.engine.redis.client.address import parse_address
from pov_rt.engine.redis.engine import RedisEngine
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.runtime.clock import ManualClock
from pov_rt.suites import Povs, Recorder, stub
from pov_rt.suites.copying import CopyingSuite
from tests.engine.redis.engines import A, B, opened
from tests.redis_servers import RedisServer, Start

WAIT_S = 20.0
Given = dict[str, Any]


class Engines:
    """Opens engines of each kind, each of which has nothing."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.server = redis
        self.folder = folder

    def memory(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
        own = EngineSettings(**settings)
        return MemoryEngine(own, clock, "node-1", Keeping(own, povs, stub))

    def sqlite(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
        own = EngineSettings(**settings)
        path = self.folder / f"{uuid4().hex}.db"
        return SqliteEngine(path, own, clock, "node-1", Keeping(own, povs, stub))

    def redis(
        self,
        clock: ManualClock,
        povs: Povs | None = None,
        partitions: int = 128,
        **settings: Any,
    ) -> Engine:
        prefix = f"test-{uuid4().hex[:12]}"
        redis = RedisSettings(prefix=prefix, deadline_s=WAIT_S, partitions=partitions)
        own = EngineSettings(redis=redis, **settings)
        now = lambda: round(clock.monotonic() * 1e6)  # noqa: E731
        address = parse_address(self.server.url)
        return RedisEngine(address, own, clock, "node-1", Keeping(own, povs, stub), now)


class Over(CopyingSuite):
    """Copies from one kind of engine to another."""

    source, target = "memory", "memory"
    more: ClassVar[Given] = {}

    @pytest.fixture(autouse=True)
    def engines(self, shared_redis: RedisServer, tmp_path: Path) -> None:
        self.kinds = Engines(shared_redis, tmp_path)

    def make(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
        engine: Engine = getattr(self.kinds, self.source)(clock, povs, **settings)
        return engine

    def make_other(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
        made: Engine = getattr(self.kinds, self.target)(clock, povs, **settings, **self.more)
        return made


class TestFromAFile(Over):
    source, target = "sqlite", "redis"


class TestToAFile(Over):
    source, target = "redis", "sqlite"


class TestToMemory(Over):
    source, target = "redis", "memory"


class TestToOtherPartitions(Over):
    source, target = "redis", "redis"
    more: ClassVar[Given] = {"partitions": 20}


async def copied(source: Engine, target: Engine, clock: ManualClock) -> Engine:
    await target.start(Recorder())
    await copy(source.copying, target.copying, clock.time(), lambda _: None)
    return target


def test_who_waits_for_a_log_that_is_not_there_yet_goes_on_from_its_beginning(
    shared_redis: RedisServer, tmp_path: Path
) -> None:
    engines, clock = Engines(shared_redis, tmp_path), ManualClock()

    async def work() -> None:
        first = engines.sqlite(clock)
        await first.start(Recorder())
        place = Position((await first.log.top(A)).epoch, 0)
        second = await copied(first, engines.redis(clock), clock)
        other = await copied(second, engines.redis(clock), clock)
        wider = await copied(other, engines.redis(clock, partitions=256), clock)
        for engine in (second, other, wider):
            assert await engine.log.top(A) == (place.epoch, 0, 1)
            assert await engine.log.holds(A, place)
        await second.log.append([NewEntry(B, "p", "1", b"")])
        await second.log.drop(B, stub)  # so that logs of this partition begin with another epoch
        assert not await second.log.holds(B, place)
        for third in (engines.sqlite(clock), engines.memory(clock)):
            await copied(second, third, clock)
            assert await third.log.holds(A, place)
            await third.log.append([NewEntry(A, "p", "1", b"")])
            assert await third.log.holds(A, place)
            assert not await third.log.holds(A, place._replace(offset=1))
            await third.log.drop(A, stub)
            assert not await third.log.holds(A, place), "an entry has come and gone"
            await third.close()
        for engine in (first, second, other, wider):
            await engine.close()

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_places_of_older_epochs_and_what_was_lost_behind_them_are_known(
    start_redis: Start, shared_redis: RedisServer, tmp_path: Path, kind: str
) -> None:
    server, clock = start_redis("--appendonly", "yes"), ManualClock()
    engines = Engines(server, tmp_path)

    async def work() -> None:
        places: list[Position] = []
        for start in (1, 3):
            async with opened(server, clock=clock) as (engine, _):
                batch = [NewEntry(A, "p", str(start + n), b"%d" % n) for n in range(2)]
                (_, last) = await engine.log.append(batch)
                await engine.marks.advance(A, "ana", "read", Position(last.epoch, last.offset))
                places.append(Position(last.epoch, last.offset))
            server.kill()
            server.start()
        async with opened(server, clock=clock) as (engine, _):
            target = await copied(engine, getattr(engines, kind)(clock), clock)
            source_top = await engine.log.top(A)
            assert source_top.epoch not in {place.epoch for place in places}
            assert await target.log.top(A) == source_top
            for log in (engine.log, target.log):
                assert [await log.holds(A, place) for place in places] == [True, True]
                beyond = [place._replace(offset=place.offset + 1) for place in places]
                assert [await log.holds(A, place) for place in beyond] == [False, False]
            mark = Position(source_top.epoch, 4)
            assert await target.marks.get(A, "ana", "read") == mark
            (retry,) = await target.log.append([NewEntry(A, "p", "1", b"0")])
            assert retry == Appended(source_top.epoch, 1, True)
            await target.close()

    asyncio.run(work())


def test_more_than_a_page_of_everything_comes_once(
    shared_redis: RedisServer, tmp_path: Path
) -> None:
    engines, clock = Engines(shared_redis, tmp_path), ManualClock()

    async def work() -> None:
        source = engines.redis(clock)
        await source.start(Recorder())
        batch = [NewEntry(A, "p", str(n), b"%d" % n, "team/t") for n in range(2300)]
        batch += [
            NewEntry(f"pov/{n}", f"p{n}", "1", b"", producer="x", seq=n) for n in range(1, 700)
        ]
        for start in range(0, len(batch), 500):
            await source.log.append(batch[start : start + 500])
        for n in range(700):
            await source.sets.add("set", str(n), b"")
            await source.marks.advance(f"pov/{n}", "ana", "read", Position("e", n))
            await source.store.put("space", str(n), b"x" * 3000, "ana")
        target = await copied(source, engines.sqlite(clock), clock)
        for topic in (A, "team/t"):
            assert await target.log.read(topic, 0, 9999) == await source.log.read(topic, 0, 9999)
        assert len(await target.sets.members("set")) == len(await target.marks.of("ana")) == 700
        back = await copied(target, engines.redis(clock), clock)
        assert await back.log.read(A, 0, 9999) == await source.log.read(A, 0, 9999)
        assert await back.marks.of("ana") == await source.marks.of("ana")
        assert await back.store.read("space", limit=999) == await source.store.read(
            "space", limit=999
        )
        for engine in (source, target, back):
            await engine.close()

    asyncio.run(work())

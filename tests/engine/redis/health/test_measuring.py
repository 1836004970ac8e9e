"""What became of entries, and where topics were found, is counted."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.engine.base import NewEntry
from pov_rt.engine.redis import reader as reader_module
from pov_rt.engine.redis.engine import RedisEngine
from pov_rt.engine.redis.health.measuring import APPENDS, POSITIONS
from pov_rt.protocol.errors import Unavailable
from tests.engine.redis.engines import A, B, appended, entries, opened, until
from tests.redis_servers import RedisServer, Start


def counts(engine: RedisEngine, name: str) -> dict[str, int]:
    """Return what a counter has that is not 0."""
    return {outcome: count for outcome, count in engine.counters[name].items() if count}


def test_all_is_there_before_anything_happens_and_entries_are_counted_by_outcome(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with opened(shared_redis, prefix, max_topics=1) as (engine, _):
            assert engine.counters == {
                "appends": dict.fromkeys(APPENDS, 0),
                "positions": dict.fromkeys(POSITIONS, 0),
            }
            await engine.log.append([*entries(3), *entries(1), NewEntry(A, "p", "2", b"other")])
            assert counts(engine, "appends") == {"appended": 3, "duplicate": 1, "conflict": 1}
            with pytest.raises(Unavailable, match="max_topics"):
                await engine.log.append(entries(2, B))
            assert counts(engine, "appends")["refused"] == 2
            found = {name: each.buckets()[-1][1] for name, each in engine.histograms.items()}
            assert found["append_seconds"] == found["batch_entries"] > 0
            assert found["replicas_seconds"] == 0
            await engine.canary.beat()
            await until(lambda: engine.histograms["beat_seconds"].sum > 0)

    asyncio.run(work())


def test_what_was_not_confirmed_and_what_came_late_are_told_apart(start_redis: Start) -> None:
    server = start_redis()

    async def work() -> None:
        alone = {"replicas": 1, "wait_ms": 1, "deadline_s": 0.5}
        async with opened(server, redis=alone) as (engine, _):
            with pytest.raises(Unavailable, match="fewer than 1 replicas"):
                await engine.log.append(entries(2))
            assert counts(engine, "appends") == {"unconfirmed": 2}
            assert engine.histograms["replicas_seconds"].buckets()[-1][1] >= 1
            server.stop()
            with pytest.raises(Unavailable):
                await engine.log.append(entries(1))
            server.cont()
            await until(lambda: counts(engine, "appends") == {"unconfirmed": 2, "late": 1})

    asyncio.run(work())


def test_positions_are_counted_by_where_their_topics_were_found(
    start_redis: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "DENIED_S", 0.02)
    server = start_redis()

    async def work() -> None:
        async with opened(server) as (engine, told):
            await engine.watch(A)
            await engine.log.append(entries(1))
            await engine.reader.check([A], is_sure=True)
            assert counts(engine, "positions") == {"same": 1}
            known = engine.reader.watched[A]
            assert known is not None
            known.offset = 0  # as if it had not been heard
            await engine.reader.check([A], is_sure=False)
            assert counts(engine, "positions")["coming"] == 1
            await until(lambda: counts(engine, "positions").get("missed") == 1)
            await engine.log.watch(A)
            server.kill()
            server.start()
            await until(lambda: engine.measures["epochs_changed"] == 1)
            assert counts(engine, "positions")["rotated"] == 1
            assert f"? {A}" in told.changed
            await appended(engine, entries(1)[0])

    asyncio.run(work())

"""What happens when another server becomes the primary, by accident or as planned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from pov_rt.engine.base import Appended, Health, Position
from pov_rt.engine.redis.client import sentinels
from pov_rt.engine.redis.client.connection import pack
from pov_rt.engine.redis.client.sentinels import Sentinels
from pov_rt.engine.redis.engine import RedisEngine
from pov_rt.protocol.errors import Unavailable
from tests.engine.redis.engines import A, B, appended, entries, opened, until
from tests.redis_sentinels import PATIENCE_S, Group

pytestmark = pytest.mark.timeout(4 * PATIENCE_S)
SAFE = {"replicas": 1, "wait_ms": 2000}
QUICK = {"deadline_s": 0.5}


def found(engine: RedisEngine) -> int:
    """Return the port at which an engine has found the primary."""
    assert isinstance(engine.address, Sentinels)
    assert engine.address.found is not None
    return engine.address.found.port


def test_the_primary_is_found_and_says_how_safe_an_entry_is(group: Group, prefix: str) -> None:
    async def work() -> None:
        async with opened(group.primary, prefix, url=group.url, redis=SAFE) as (engine, told):
            await engine.watch(A)
            assert (await appended(engine, entries(1)[0])).offset == 1
            await until(lambda: told.offsets(A) == [1])
            await until(lambda: found(engine) == group.primary.port)
            await until(lambda: engine.health() == Health())
            assert engine.guarantee == "replicated"
        more = {"replicas": 3, "wait_ms": 1}
        async with opened(group.primary, prefix, url=group.url, redis=more) as (engine, _):
            line = "it has 2 replicas, and engine.redis.replicas = 3"
            await until(lambda: line in engine.health().line)
            assert engine.guarantee == "primary"

    asyncio.run(work())


def test_sentinels_that_nobody_vouches_for_are_not_believed(tls_group: Group, prefix: str) -> None:
    async def work() -> None:
        async with opened(tls_group.primary, prefix, url=tls_group.url, redis=QUICK) as (engine, _):
            await until(lambda: "certificate verify failed" in engine.health().line)
            with pytest.raises(Unavailable):
                await engine.log.append(entries(1))

    asyncio.run(work())


@pytest.mark.parametrize(
    "fault", [lambda group: group.primary.kill(), Group.fail_over], ids=["killed", "planned"]
)
def test_what_a_replica_has_is_there_once_when_it_is_the_primary(
    any_group: Group, prefix: str, fault: Callable[[Group], None]
) -> None:
    group, old = any_group, any_group.primary
    more: dict[str, Any] = {"url": group.url, "redis": SAFE}
    if old.certificate is not None:
        more["ca_file"] = str(old.certificate[0])

    async def work() -> None:
        async with (
            opened(old, prefix, **more) as (engine, _),
            opened(old, prefix, node="node-2", **more) as (other, told),
        ):
            await other.watch(A)
            done: list[Appended] = []
            is_enough = asyncio.Event()

            async def publish() -> None:
                for number in count(1):
                    if is_enough.is_set():
                        return
                    done.append(await appended(engine, entries(1, start=number)[0], PATIENCE_S))

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(publish())
                await until(lambda: len(done) >= 20, PATIENCE_S)
                fault(group)
                await until(lambda: found(engine) != old.port, PATIENCE_S)
                before = len(done)
                await until(lambda: len(done) >= before + 20, PATIENCE_S)
                is_enough.set()
            page = await engine.log.read(A, 0, 10_000)
            assert [int(each.body) for each in page.entries] == list(range(1, len(done) + 1))
            assert [each.offset for each in done] == list(range(1, len(done) + 1))
            # Who listens elsewhere is told of the last ones, and had to look for what was before.
            await until(lambda: told.offsets(A)[-1] == len(done))
            heard = told.offsets(A)
            gaps = [b for a, b in zip([0, *heard], heard, strict=False) if b != a + 1]
            assert not gaps or f"? {A}" in told.changed
            assert found(engine) == found(other) != old.port

    asyncio.run(work())


def test_a_replica_that_is_back_has_to_have_an_entry_before_anybody_was_told(
    group: Group, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinels, "POLL_S", PATIENCE_S)
    replica = next(each for each in group.servers if each is not group.primary)

    async def work() -> None:
        short = {"replicas": 1, "wait_ms": 20}
        async with opened(group.primary, prefix, url=group.url, redis=short) as (engine, _):
            replica.kill()
            first = await appended(engine, entries(1)[0], PATIENCE_S)
            await asyncio.to_thread(group.heal)
            # What the engine was told last is that this one is down; the other one has all.
            replica.stop()
            try:
                lacks = f"the sentinels may choose 127.0.0.1:{replica.port}, which has not got it"
                with pytest.raises(Unavailable, match=lacks):
                    await engine.log.append(entries(1, start=2))
                # Until they say that it is down, and the other one is enough.
                assert (await appended(engine, entries(1, start=2)[0], PATIENCE_S)).offset == 2
            finally:
                replica.cont()
            assert await appended(engine, entries(1)[0], PATIENCE_S) == Appended(
                first.epoch, 1, duplicate=True
            )

    asyncio.run(work())


def test_a_primary_that_comes_back_empty_is_not_used(group: Group, prefix: str) -> None:
    old = group.primary

    async def work() -> None:
        async with opened(old, prefix, url=group.url, redis=SAFE) as (engine, _):
            await engine.log.append(entries(5))
            old.kill()
            await appended(engine, entries(1, start=6)[0], PATIENCE_S)
            old.start()  # and it calls itself a primary, until a sentinel says otherwise
            for link in engine.links:
                link.leave("cut by the test")
            done = await appended(engine, entries(1, start=7)[0], PATIENCE_S)
            assert (done.offset, (await engine.log.top(A)).offset) == (7, 7)
            assert b"pov-rt-" not in old.command("CLIENT", "LIST")

    asyncio.run(work())


def test_what_no_replica_had_is_not_held_and_the_rest_is(group: Group, prefix: str) -> None:
    both = {"replicas": 2, "wait_ms": 2000}

    async def work() -> None:
        async with (
            opened(group.primary, prefix, url=group.url, redis=both, node="node-2") as (sure, _),
            opened(group.primary, prefix, url=group.url) as (engine, told),
        ):
            for topic in (A, B):
                await engine.watch(topic)
            first, *_ = [await appended(sure, each) for each in entries(5)]
            quiet = await appended(sure, entries(1, B)[0])
            group.cut_replicas()
            lost = await engine.log.append(entries(5, start=6))
            assert [each.offset for each in lost] == [6, 7, 8, 9, 10]
            old = group.primary
            old.kill()
            await until(lambda: found(engine) != old.port, PATIENCE_S)
            # More come than were lost, so that by their offsets alone nothing would be missing.
            await appended(engine, entries(1, start=20)[0], PATIENCE_S)
            await engine.log.append(entries(9, start=21))
            assert (await engine.log.top(A)).offset == 15
            held = [await engine.log.holds(A, Position(first.epoch, at)) for at in range(1, 11)]
            assert held == [True] * 5 + [False] * 5
            assert await engine.log.holds(B, Position(quiet.epoch, 1))
            await until(lambda: f"? {A}" in told.changed)
            again, kept = await engine.log.append([*entries(1, start=7), *entries(1, start=3)])
            assert again == Appended(again.epoch, 16), "its entry is gone, so this is none before"
            assert kept == Appended(kept.epoch, 3, duplicate=True)

    asyncio.run(work())


def test_one_connection_that_is_told_it_is_at_a_replica_moves_all(
    group: Group, prefix: str
) -> None:
    async def work() -> None:
        async with opened(group.primary, prefix, url=group.url) as (engine, _):
            before = [link.connection for link in engine.links]
            (asker, *_) = engine.links
            assert before[0] is not None
            script = "return redis.error_reply('READONLY said by the test')"
            await asker.send(pack("EVAL", script, 0), 1)
            await until(lambda: all(link.is_up for link in engine.links))
            assert all(link.losses == 1 for link in engine.links)

    asyncio.run(work())

"""Several nodes on one Redis: what one of them does the others are told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from pov_rt.config.settings import EngineSettings, PovSettings, RedisSettings
from pov_rt.engine.base import Amended, Amendment, Lease, NewEntry, Position, Rewrite
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.client.address import parse_address
from pov_rt.engine.redis.engine import RedisEngine
from pov_rt.runtime.clock import ManualClock
from pov_rt.suites import Recorder, stub
from tests.engine.redis_parts import bodies
from tests.redis_servers import RedisServer

A, B, FEED = "pov/a", "pov/b", "team/main"
WAIT_S, LOOK_S = 20.0, 0.01


class Node(Recorder):
    """A node, which keeps what it is told and who has left."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[tuple[str, str]] = []
        self._has_heard = asyncio.Event()

    def rewritten(self, topic: str) -> None:
        super().rewritten(topic)
        self._has_heard.set()

    def uncertain(self, topic: str) -> None:
        super().uncertain(topic)
        self._has_heard.set()

    def left(self, topic: str, leases: Sequence[Lease]) -> None:
        self.gone.extend((topic, lease.member) for lease in leases)
        self._has_heard.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something that is told has come about."""
        async with asyncio.timeout(WAIT_S):
            while not is_so():
                self._has_heard.clear()
                await self._has_heard.wait()


@asynccontextmanager
async def nodes(
    server: RedisServer, prefix: str, clock: ManualClock, **settings: Any
) -> AsyncIterator[list[tuple[RedisEngine, Node]]]:
    """Run two nodes for the block."""
    own = EngineSettings(redis=RedisSettings(prefix=prefix, deadline_s=WAIT_S), **settings)
    keeping = Keeping(own, {"short": PovSettings(max_age_s=10.0)}, stub)
    async with AsyncExitStack() as stack:
        found = []
        for name in ("node-1", "node-2"):
            engine = RedisEngine(
                parse_address(server.url), own, clock, name, keeping,
                now=lambda: round(clock.monotonic() * 1e6),
            )  # fmt: skip
            node = Node()
            await engine.start(node)
            stack.push_async_callback(engine.close)
            found.append((engine, node))
        yield found


def entry(topic: str, key: str, body: bytes, feed: str = "") -> NewEntry:
    return NewEntry(topic, "p", key, body, feed)


def test_other_nodes_are_told_of_what_is_rewritten_watched_or_not(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with nodes(shared_redis, prefix, ManualClock()) as ((one, _), (two, other)):
            await two.watch(A)
            await one.log.append([entry(A, "1", b"old", FEED)])
            change = Amendment(Rewrite(A, 1, b"old", b"new"), entry("", "2", b"change"))
            assert isinstance(await one.log.amend(change), Amended)
            await two.log.edit([Rewrite(A, 2, b"change", b"changed")])
            assert other.told == [
                (A, other.told[0][1], 1, b"old"),
                (A, "", 0, b""),
                (FEED, "", 0, b""),
                (A, other.told[0][1], 2, b"change"),
                (A, "", 0, b""),
                (FEED, "", 0, b""),
            ]
            assert [each.body for each in (await two.log.read(FEED, 0, 9)).entries] == [
                b"new",
                b"changed",
            ]

    asyncio.run(work())


def test_a_node_that_was_cut_off_learns_what_was_rewritten_meanwhile(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with nodes(shared_redis, prefix, ManualClock()) as ((one, _), (two, other)):
            await one.log.append([entry(A, "1", b"old")])
            await two.log.read(A, 0, 9)
            two.reader.link.address = parse_address("redis://127.0.0.1:1")
            assert two.reader.link.connection is not None
            two.reader.link.connection.abort("cut by the test")
            await one.log.edit([Rewrite(A, 1, b"old", b"new")])
            assert other.changed == []
            two.reader.link.address = two.address
            await other.until(lambda: other.changed == [A])

    asyncio.run(work())


def test_a_topic_that_is_dropped_on_one_node_is_another_one_on_all(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with nodes(shared_redis, prefix, ManualClock()) as ((one, _), (two, other)):
            await one.log.append([entry(A, "1", b"1", FEED), entry(A, "2", b"2")])
            before = await two.watch(A)
            await one.marks.advance(A, "ana", "read", Position(before.epoch, 1))
            await one.log.drop(A, lambda body: b"-" + body)
            await other.until(lambda: f"? {A}" in other.changed)
            after = await two.log.top(A)
            assert (after.offset, after.epoch == before.epoch) == (0, False)
            assert await two.marks.all(A, "read") == {}
            assert await bodies(two.functions, FEED) == [b"-1"]
            (done,) = await two.log.append([entry(A, "1", b"again")])
            assert (done.epoch, done.offset) == (after.epoch, 1)
            assert other.told[-1] == (A, after.epoch, 1, b"again")

    asyncio.run(work())


def test_of_a_node_that_ends_each_member_is_told_once_to_who_watches(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with nodes(shared_redis, prefix, clock) as ((one, mine), (two, other)):
            await one.watch(A)
            await two.watch(A)
            for member in ("ana", "ben"):
                await one.leases.put(A, member, b"")
            await two.leases.put(A, "ben", b"moved")
            await one.leases.put(B, "cem", b"")
            await one.close()
            for _ in range(4):
                clock.advance(10)
                await two.leases.renew()
            found = await two.leases.expire()
            assert sorted((topic, lease.member) for topic, lease in found) == [
                (A, "ana"),
                (B, "cem"),
            ]
            assert other.gone == [(A, "ana")]
            assert mine.gone == []
            assert [each.member for each in await two.leases.members(A)] == ["ben"]

    asyncio.run(work())


def test_what_is_too_old_leaves_with_the_hourly_round_of_one_node(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        clock = ManualClock()
        ages = dict.fromkeys(("mark_age_s", "max_age_s", "id_window_s"), 7000.0)
        async with nodes(shared_redis, prefix, clock, **ages) as ((one, _), (two, _other)):
            await one.log.append([entry("pov/short", "1", b"1", FEED)])
            (done,) = await one.log.append([entry(B, "1", b"1")])
            await one.marks.advance(B, "ana", "read", Position(done.epoch, 1))
            await one.sets.add("set", "a", expires_at=clock.time() + 5)
            # A round tells nobody that it is over.
            async with asyncio.timeout(WAIT_S):
                clock.advance(3660)
                while await bodies(two.functions, FEED) != [stub(b"1")]:
                    await two.log.top(B)
                    await asyncio.sleep(LOOK_S)
                assert await two.sets.drop("set") == 0
                assert one.marks.rules.number == 1
                clock.advance(3660)
                while two.marks.rules.number:
                    await one.log.top(B)
                    await asyncio.sleep(LOOK_S)
                    await two.marks.count()

    asyncio.run(work())

"""Entries of two lists that are one: what is rewritten, what is dropped, and what is let alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Rewrite
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.appending import Appending
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.past import rewriting as rewriting_module
from pov_rt.engine.redis.past.rewriting import Rewriting
from pov_rt.engine.redis.state.marks import RedisMarks
from tests.engine.redis_parts import bodies, calling, keys, plant
from tests.redis_servers import RedisServer

A, B, FEED = "pov/a", "pov/b", "team/main"


async def settled() -> None:
    """Wait for nobody."""


def rewriting(functions: Functions) -> Rewriting:
    settings = EngineSettings()
    appending = Appending(settings, Keeping(settings), functions.partitions)
    return Rewriting(functions, appending, RedisMarks(functions, settings), settled)


async def rewritten(functions: Functions, since: int = 0) -> Sequence[bytes]:
    """Return the topics that are known to have been rewritten."""
    return sorted(await functions.call("rewritten_since", "", since))


def test_an_entry_is_rewritten_on_both_sides_or_on_the_one_it_has(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            await plant(functions, A, [(b"1", FEED, 2), (b"2", FEED, 3)], first=5)
            # The feed has begun anew since the second: its third entry is another one's.
            await plant(functions, FEED, [(b"0", "", 0), (b"1", A, 5), (b"x", A, 9)])
            done = await rewriting(functions).edit(
                [
                    Rewrite(A, 5, b"1", b"one"),
                    Rewrite(A, 6, b"2", b"two"),
                    Rewrite(FEED, 3, b"x", b"X"),
                    Rewrite(A, 4, b"gone", b"?"),
                    Rewrite(A, 7, b"none", b"?"),
                    Rewrite(A, 0, b"none", b"?"),
                ]
            )
            assert done == [True, True, True, False, False, False]
            assert await bodies(functions, A) == [b"one", b"two"]
            assert await bodies(functions, FEED) == [b"0", b"one", b"X"]
            assert await rewritten(functions) == [A.encode(), FEED.encode()]

    asyncio.run(work())


def test_what_was_rewritten_is_known_for_an_hour(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        now = 1_000_000
        async with calling(shared_redis, prefix) as functions:
            functions.now = lambda: now
            for topic in (A, B):
                await plant(functions, topic, [(b"1", "", 0)])
            await rewriting(functions).edit([Rewrite(A, 1, b"1", b"2")])
            now += 3_599_000_000
            await rewriting(functions).edit([Rewrite(B, 1, b"1", b"2")])
            assert await rewritten(functions) == [A.encode(), B.encode()]
            assert await rewritten(functions, now) == [B.encode()]
            now += 2_000_000
            await rewriting(functions).edit([Rewrite(B, 1, b"2", b"3")])
            assert await rewritten(functions) == [B.encode()]

    asyncio.run(work())


def test_a_topic_goes_in_steps_and_its_feed_keeps_stubs(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            number = rewriting_module.STEP_ENTRIES * 5 // 2
            mine = [(b"%d" % n, FEED if n % 2 else "", n) for n in range(1, number + 1)]
            fed = [(b"%d" % n, A if n % 2 else B, n) for n in range(1, number + 1)]
            await plant(functions, A, mine)
            await plant(functions, FEED, fed)
            steps: list[bytes] = []

            def stub(body: bytes) -> bytes:
                steps.append(body)
                return b"-" + body

            await rewriting(functions).drop(A, stub)
            assert steps == [b"%d" % n for n in range(1, number + 1) if n % 2]
            assert await bodies(functions, A) == []
            assert await bodies(functions, FEED) == [
                b"-%d" % n if n % 2 else b"%d" % n for n in range(1, number + 1)
            ]
            # What is left is the feed's own.
            done = await rewriting(functions).edit([Rewrite(FEED, 1, b"-1", b"other")])
            assert done == [True]
            await rewriting(functions).drop(FEED, stub)
            assert set(await keys(functions, prefix)) == {b"base", b"rewritten"}

    asyncio.run(work())


def test_a_feed_that_is_dropped_leaves_all_to_the_topics(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            await plant(functions, A, [(b"1", FEED, 1)])
            await plant(functions, FEED, [(b"1", A, 1)])
            await rewriting(functions).drop(FEED, lambda _: b"stub")
            assert await bodies(functions, A) == [b"1"]
            await plant(functions, FEED, [(b"2", A, 2)])
            assert await rewriting(functions).edit([Rewrite(A, 1, b"1", b"one")]) == [True]
            assert await bodies(functions, FEED) == [b"2"]

    asyncio.run(work())


def test_what_comes_while_a_topic_is_dropped_goes_as_well(
    shared_redis: RedisServer, prefix: str
) -> None:
    async def work() -> None:
        async with calling(shared_redis, prefix) as functions:
            await plant(functions, A, [(b"1", FEED, 1)])
            await plant(functions, FEED, [(b"1", A, 1)])
            stale = await functions.call("drop_page", A, A, 9)
            await plant(functions, A, [(b"1", FEED, 1), (b"2", "", 0)])
            drop = ("drop_some", A, A, stale[0], stale[1])
            assert await functions.call(*drop, 1, b"hash", 1000, b"-1", b"-2") is None, (
                "a stub too many"
            )
            assert await functions.call(*drop, 1, b"hash", 1000, b"-1") == 0
            assert await functions.call(*drop, 1, b"hash", 1000, b"-1") is None, (
                "it has begun with 2"
            )
            await rewriting(functions).drop(A, lambda body: body)
            assert await bodies(functions, A) == []
            assert await bodies(functions, FEED) == [b"-1"]

    asyncio.run(work())

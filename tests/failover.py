"""`scripts/check_failover`: what was acknowledged is there once, in order, after each failover.

A trio of sentinels watches a primary and two replicas. Publishers append, each to a PoV of its
own, while the primary is killed or replaced, one time after the other. Half of the times a replica
was away for so long that entries were acknowledged without it, and comes back, empty, at most
`RETURNED_S` before: it is being brought up to date just then, or has just begun to count again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path

from pov_rt.engine.base import Appended, NewEntry
from pov_rt.engine.redis.client.sentinels import Sentinels
from pov_rt.engine.redis.engine import RedisEngine
from tests.engine.redis.engines import appended, opened, until
from tests.redis_sentinels import NAME, PATIENCE_S, Group, group_running

PUBLISHERS = 8
COMPARED = 5
"""Failovers after which all is compared, and the figures so far are printed."""
READ = 1000
"""Entries that are read at a time."""
RETURNED_S = 1.5
ABORTED_S = 15.0
"""A planned failover that has not been by then was given up: sentinels do, where two of them are
at odds for a moment about the one that was chosen."""


class Publisher:
    """Appends 1, 2, ... to a topic, each again until it is acknowledged."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.done: list[Appended] = []
        self.last_at = 0.0
        self.longest_s = 0.0
        """How long it had to wait at most between two acknowledgements."""

    async def run(self, engine: RedisEngine) -> None:
        """Go on until cancelled."""
        for number in count(len(self.done) + 1):
            body = b"%d" % number
            entry = NewEntry(self.topic, "p", str(number), body)
            done = await appended(engine, entry, PATIENCE_S)
            now = time.monotonic()
            if self.last_at:
                self.longest_s = max(self.longest_s, now - self.last_at)
            self.last_at = now
            self.done.append(done)

    async def compare(self, engine: RedisEngine) -> tuple[int, int]:
        """Return how many acknowledged entries are not where they were said to be, and doubles."""
        done = list(self.done)  # more come meanwhile
        found: dict[int, int] = {}
        doubled, offset = 0, 0
        seen: set[int] = set()
        while True:
            page = await engine.log.read(self.topic, offset, READ)
            for entry in page.entries:
                offset, number = entry.offset, int(entry.body)
                found[offset] = number
                doubled += number in seen
                seen.add(number)
            if not page.entries:
                break
        lost = sum(found.get(each.offset) != at for at, each in enumerate(done, 1))
        return lost, doubled


def has_moved(engine: RedisEngine, port: int) -> bool:
    """Tell whether an engine has found the primary at another port."""
    assert isinstance(engine.address, Sentinels)
    assert engine.address.found is not None
    return engine.address.found.port != port


async def check(group: Group, failovers: int, replicas: int, chance: random.Random) -> bool:
    """Do so many failovers; print what was lost and doubled, and return whether nothing was."""
    redis = {"replicas": replicas, "deadline_s": 2.0}
    publishers = [Publisher(f"pov/{at}") for at in range(PUBLISHERS)]
    killed, returned, is_good = 0, 0, True
    longest: list[float] = []
    async with opened(group.primary, url=group.url, redis=redis, max_entries=10**9) as (engine, _):
        tasks = [asyncio.create_task(each.run(engine)) for each in publishers]
        for at in range(1, failovers + 1):
            await asyncio.to_thread(group.heal)
            # The engine learns within a second which replicas there are to wait for.
            await until(partial(knows_all, engine, group), PATIENCE_S)
            goal = [len(each.done) + 5 for each in publishers]
            await until(partial(have, publishers, goal), PATIENCE_S)
            for each in publishers:
                each.longest_s = 0.0
            old = group.primary
            is_killed, is_returning = chance.random() < 0.5, chance.random() < 0.5
            if is_returning:
                returned += 1
                replica = chance.choice([each for each in group.servers if each is not old])
                replica.kill()
                # As soon as the sentinels count it as down nobody waits for it any more.
                goal = [len(each.done) + 100 for each in publishers]
                await until(partial(have, publishers, goal), PATIENCE_S)
                replica.start("--replicaof", "127.0.0.1", str(old.port))
                await asyncio.sleep(chance.uniform(0, RETURNED_S))
                for each in publishers:
                    each.longest_s = 0.0
            if is_killed:
                old.kill()
                killed += 1
                await until(partial(has_moved, engine, old.port), PATIENCE_S)
            else:
                await fail_over(engine, group, old.port)
            goal = [len(each.done) + 5 for each in publishers]
            await until(partial(have, publishers, goal), PATIENCE_S)
            longest.append(max(each.longest_s for each in publishers))
            if at % COMPARED == 0 or at == failovers:
                lost, doubled = await compare_all(engine, publishers)
                longest.sort()
                print(
                    f"{at} failovers, {killed} of them killed, {returned} with a replica just "
                    "back; "
                    f"{sum(len(each.done) for each in publishers):,} acknowledged, "
                    f"{lost:,} lost, {doubled:,} doubled; seconds without an acknowledgement: "
                    f"half {longest[len(longest) // 2]:.1f}, most {longest[-1]:.1f}",
                    flush=True,
                )
                is_good = is_good and not (lost or doubled)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks), "a publisher ended by itself"
    return is_good


async def fail_over(engine: RedisEngine, group: Group, port: int) -> None:
    """Have another server be the primary than the one at a port, and the engine know it."""
    async with asyncio.timeout(PATIENCE_S):
        while not has_moved(engine, port):
            answer = group.sentinels[0].command("SENTINEL", "FAILOVER", NAME)
            assert answer.startswith((b"+OK", b"-INPROG")), answer
            with contextlib.suppress(TimeoutError):
                await until(partial(has_moved, engine, port), ABORTED_S)


def knows_all(engine: RedisEngine, group: Group) -> bool:
    """Tell whether an engine knows of all replicas that could be the next primary."""
    assert isinstance(engine.address, Sentinels)
    views = engine.address.views
    return all(len(view) == len(group.servers) - 1 for view in views)


async def compare_all(engine: RedisEngine, publishers: list[Publisher]) -> tuple[int, int]:
    """Return how many acknowledged entries of all are lost, and doubles."""
    lost = doubled = 0
    for each in publishers:
        found = await each.compare(engine)
        lost, doubled = lost + found[0], doubled + found[1]
    return lost, doubled


def have(publishers: list[Publisher], goal: list[int]) -> bool:
    """Tell whether each publisher has as many acknowledged as it is to have."""
    return all(len(each.done) >= most for each, most in zip(publishers, goal, strict=True))


def main() -> int:
    """Return 0 if nothing acknowledged was lost or doubled."""
    parser = argparse.ArgumentParser(prog="scripts/check_failover", description=__doc__)
    parser.add_argument("--failovers", type=int, default=20, help="so many (default 20)")
    parser.add_argument(
        "--replicas", type=int, default=1, help="engine.redis.replicas (default 1; 0 loses some)"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="check-failover-"))
    with group_running(folder) as group:
        chance = random.Random(given.seed)
        is_good = asyncio.run(check(group, given.failovers, given.replicas, chance))
    if not is_good:
        print(f"\nseed {given.seed} failed; all logs are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

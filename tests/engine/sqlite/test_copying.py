"""A database that was copied to is in the order of its time, and is cleared as any other."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Appended, NewEntry, Position
from pov_rt.engine.copying import Begun, CopiedLog, CopiedMark, copy
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.memory import MemoryEngine
from pov_rt.engine.sqlite.backups import renew
from pov_rt.runtime.clock import ManualClock
from tests.engine.sqlite_parts import check_bodies, opened, rows, tidied

A, B, FEED = "pov/a", "pov/b", "team/main"


async def restored(path: Path, clock: ManualClock) -> None:
    """Fill a file with a copy of entries of two topics by turns."""
    settings = EngineSettings(max_age_s=100.0)
    source = MemoryEngine(settings, clock, "node-1", Keeping(settings))
    for number in range(20):
        topic = (A, B)[number % 2]
        await source.log.append([NewEntry(topic, "p", str(number), b"%d" % number, FEED)])
        clock.advance(1)
    async with opened(path, clock) as (engine, _):
        await copy(source.copying, engine.copying, clock.time(), lambda _: None)


def test_bodies_are_there_once_and_in_the_order_of_their_time(path: Path) -> None:
    asyncio.run(restored(path, ManualClock()))
    found = rows(path, "SELECT body, topic, feed FROM bodies ORDER BY id")
    assert [int(body) for body, _, _ in found] == list(range(20))
    assert all(topic and feed for _, topic, feed in found)
    assert not rows(path, "SELECT name FROM sqlite_schema WHERE name LIKE 'copied%'")
    with closing(sqlite3.connect(path)) as connection:
        check_bodies(connection)


def test_what_was_copied_leaves_when_it_is_too_old(path: Path) -> None:
    clock = ManualClock()

    async def work() -> None:
        await restored(path, clock)
        clock.advance(90.5)
        async with opened(path, clock, max_age_s=100.0) as (engine, _):
            await tidied(engine, 2)

    asyncio.run(work())
    left = [int(body) for (body,) in rows(path, "SELECT body FROM bodies ORDER BY id")]
    assert left == list(range(11, 20))


def test_ids_that_were_copied_are_forgotten_after_their_window(path: Path) -> None:
    clock = ManualClock()

    async def work() -> None:
        await restored(path, clock)
        retry = NewEntry(A, "p", "18", b"18")
        async with opened(path, clock, id_window_s=50.0) as (engine, _):
            (first,) = await engine.log.append([retry])
            assert (first.offset, first.duplicate) == (10, True)  # type: ignore[union-attr]
            clock.advance(51)
            (again,) = await engine.log.append([retry])
            assert again == Appended(first.epoch, 11)
            (again,) = await engine.log.append([retry])
            assert again == Appended(first.epoch, 11, True)

    asyncio.run(work())


def test_a_new_epoch_voids_those_that_logs_had_elsewhere_and_marks_go_over(path: Path) -> None:
    clock = ManualClock()

    async def work() -> None:
        async with opened(path, clock) as (engine, _):
            copying = engine.copying
            await copying.restore([Begun(("base",))])
            await copying.restore([CopiedLog(A, 5, (("own-3", 5), ("older", 2)), 0)])
            at = int(clock.time())
            marks = [("own-3", 4), ("own-3-filter", 3), ("own-30", 2), ("other", 1)]
            await copying.restore(
                [CopiedMark(A, epoch, "ana", epoch, offset, at) for epoch, offset in marks]
            )
            await copying.finish()
            assert await engine.log.top(A) == ("own-3", 5, 6)
            assert await engine.log.holds(A, Position("older", 2))
            assert await engine.log.holds(B, Position("base", 0))
        epoch = renew(path)
        async with opened(path, clock) as (engine, _):
            assert await engine.log.top(A) == (epoch, 5, 6)
            for old in ("own-3", "older", "base"):
                assert not await engine.log.holds(A, Position(old, 0))
                assert not await engine.log.holds(B, Position(old, 0))
            found = {name: place for _, name, place in await engine.marks.of("ana")}
            assert found == {
                "own-3": (epoch, 4),
                "own-3-filter": (f"{epoch}-filter", 3),
                "own-30": ("own-30", 2),
                "other": ("other", 1),
            }

    asyncio.run(work())


def test_a_batch_may_have_ids_that_were_copied_and_others(path: Path) -> None:
    clock = ManualClock()

    async def work() -> None:
        await restored(path, clock)
        async with opened(path, clock) as (engine, _):
            batch = [NewEntry(A, "p", key, b"%d" % int(key)) for key in ("0", "new", "2")[::2]]
            batch.insert(1, NewEntry(A, "p", "new", b"new"))
            done = await engine.log.append(batch)
            assert [each.offset for each in done] == [1, 11, 2]

    asyncio.run(work())

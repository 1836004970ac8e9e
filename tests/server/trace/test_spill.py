"""The file survives, stays within its bytes and hours, and forgets a user who is erased."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Sequence
from pathlib import Path

from pov_rt.config.settings import TraceSettings
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.trace.events import Event, line_of
from pov_rt.server.trace.spill import NEWER, OLDER, Spill


def event(clock: ManualClock, number: int, user: str = "ana", **more: str) -> bytes:
    return line_of(Event(clock.time(), "opened", "run", number, user, "phone", "c", "", 0, more))


def content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def numbers(events: Sequence[Event]) -> list[int]:
    return [each.number for each in events]


def test_what_was_written_is_read_by_the_next_node(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        first = Spill(tmp_path, TraceSettings(), clock)
        await first.write([event(clock, 1), event(clock, 2, "ben"), event(clock, 3, "", a="ana")])
        next_one = Spill(tmp_path, TraceSettings(), clock)
        await next_one.write([event(clock, 4)])
        assert numbers(await next_one.read("ana")) == [1, 3, 4], "the node's own, too"
        assert numbers(await next_one.read("nobody")) == []

    asyncio.run(run())
    assert stat.S_IMODE((tmp_path / NEWER).stat().st_mode) == 0o600


def test_it_stays_within_its_bytes_and_keeps_the_newest(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        spill = Spill(tmp_path, TraceSettings(file_bytes=4000), clock)
        for number in range(200):
            await spill.write([event(clock, number)])
            assert len(content(tmp_path)) == spill.bytes <= 4000
        kept = numbers(await spill.read("ana"))
        assert kept == list(range(kept[0], 200))
        assert len(kept) > 10

    asyncio.run(run())
    assert {path.name for path in tmp_path.iterdir()} == {NEWER, OLDER}


def test_what_is_too_old_is_not_told_and_then_gone(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        spill = Spill(tmp_path, TraceSettings(max_age_s=100), clock)
        await spill.write([event(clock, 1)])
        clock.advance(60)
        await spill.write([event(clock, 2)])
        assert numbers(await spill.read("ana")) == [1, 2]
        clock.advance(60)
        assert numbers(await spill.read("ana")) == [2]
        await spill.write([event(clock, 3)])
        clock.advance(60)
        await spill.write([event(clock, 4)])
        assert b'"run",1,' not in content(tmp_path)

    asyncio.run(run())


def test_a_line_that_a_crash_cut_short_is_passed_over(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        spill = Spill(tmp_path, TraceSettings(), clock)
        await spill.write([event(clock, 1), event(clock, 2)])
        whole = (tmp_path / NEWER).read_bytes()
        (tmp_path / NEWER).write_bytes(whole[:-20])
        await spill.write([event(clock, 3)])
        assert numbers(await spill.read("ana")) == [1, 3]

    asyncio.run(run())


def test_nothing_of_an_erased_user_is_left(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        spill = Spill(tmp_path, TraceSettings(file_bytes=2000), clock)
        for number in range(30):
            await spill.write([event(clock, number, "ben" if number % 2 else "ana")])
        await spill.erase("ana")
        assert numbers(await spill.read("ana")) == []
        assert len(await spill.read("ben")) > 1
        await spill.write([event(clock, 20)])
        assert numbers(await spill.read("ana")) == [20]

    asyncio.run(run())
    assert {path.name for path in tmp_path.iterdir()} == {NEWER, OLDER}


def test_a_folder_that_cannot_be_written_is_said_and_breaks_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        spill = Spill(tmp_path / "none", TraceSettings(), clock)
        await spill.write([event(clock, 1)])
        assert await spill.read("ana") == []

    asyncio.run(run())

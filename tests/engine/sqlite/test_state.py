"""Marks and members of sets leave the file when their time is over."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pov_rt.engine.base import Position
from pov_rt.runtime.clock import ManualClock
from tests.engine.sqlite_parts import opened, rows, tidied

A = "pov/a"


def test_marks_that_nobody_uses_and_members_that_expired_leave_the_file(path: Path) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with opened(path, clock, mark_age_s=10.0, max_age_s=1.0) as (engine, _):
            for user in ("ana", "ben"):
                await engine.marks.advance(A, user, "read", Position("e", 1))
                await engine.sets.add("s", user, expires_at=clock.time() + 5)
            clock.advance(8)
            await engine.marks.advance(A, "ben", "read", Position("e", 1))
            clock.advance(8)
            await engine.sets.add("s", "eve")
            await tidied(engine)
            assert rows(path, "SELECT user FROM marks") == [("ben",)]
            assert rows(path, "SELECT member FROM members") == [("eve",)]

    asyncio.run(work())

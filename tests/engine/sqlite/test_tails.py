"""Where topics end is remembered, whichever of them are in use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pov_rt.engine.base import NewEntry
from pov_rt.engine.sqlite import tails as tails_module
from tests.engine.sqlite_parts import COUNTS, offsets, opened, rows, tidied

FEED = "team/main"


def test_more_topics_than_are_cached_lose_no_offset(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails_module, "CACHED_TOPICS", 3)
    topics = [f"pov/{number}" for number in range(10)]

    async def work() -> None:
        async with opened(path, max_entries=20) as (engine, told):
            for topic in (*topics, FEED):
                await engine.watch(topic)
            for turn in range(30):
                batch = [NewEntry(topic, "p", f"{turn}", b"{}", FEED) for topic in topics * 2]
                done = await engine.log.append(batch)
                assert [each.offset for each in done] == [turn + 1] * 20
            for topic in topics:
                assert told.offsets(topic) == list(range(1, 31))
                assert await offsets(engine, topic) == list(range(11, 31))
            assert told.offsets(FEED) == list(range(1, 301))
            await tidied(engine, 2)  # one step is for so many topics
            assert {count for (count,) in rows(path, COUNTS)} == {20}

    asyncio.run(work())

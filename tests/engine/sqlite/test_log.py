"""What a group of batches becomes in the log: each its offset, in order, and retries none."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pov_rt.engine.base import Appended, Conflict
from pov_rt.engine.sqlite import log as log_module
from pov_rt.engine.sqlite import writer as writer_module
from pov_rt.engine.sqlite.schema import file_size
from pov_rt.protocol.errors import Unavailable
from tests.engine.sqlite_parts import WAIT_S, entries, held, offsets, opened

A, B = "pov/a", "pov/b"


def test_a_batch_that_ends_half_way_is_told_as_far_as_it_went(path: Path) -> None:
    async def work() -> None:
        async with opened(path, max_topics=1) as (engine, told):
            await engine.watch(A)
            await engine.log.append(entries(A, 1))
            with pytest.raises(Unavailable, match="max_topics"):
                await engine.log.append([*entries(A, 2, start=1), *entries(B, 1)])
            await engine.log.append(entries(A, 1, start=3))
            assert told.offsets(A) == await offsets(engine, A) == [1, 2, 3, 4]

    asyncio.run(work())


def test_retries_within_a_group_and_among_new_entries_keep_their_offsets(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as (engine, told):
            await engine.watch(A)
            await engine.log.append(entries(A, 500))
            with held(engine) as writer:
                tasks = [asyncio.ensure_future(engine.log.append(entries(B, 1)))]
                await asyncio.wait_for(writer.reached.wait(), WAIT_S)
                # These three are one group: 500 old ones among 1,000, a copy of all, a conflict.
                for batch in (entries(A, 1000), entries(A, 1000), entries(A, 1, b"x", start=999)):
                    tasks.append(asyncio.ensure_future(engine.log.append(batch)))
                await asyncio.sleep(0)
            _, mixed, again, (conflict,) = await asyncio.gather(*tasks)
            assert [each.offset for each in mixed] == list(range(1, 1001))
            assert [isinstance(each, Appended) and each.duplicate for each in mixed] == [
                number < 500 for number in range(1000)
            ]
            assert again == [Appended(engine.epoch, n, duplicate=True) for n in range(1, 1001)]
            assert conflict == Conflict(engine.epoch, 1000)
            assert told.offsets(A) == await offsets(engine, A) == list(range(1, 1001))

    asyncio.run(work())


def test_more_than_a_group_holds_is_written_in_order(path: Path) -> None:
    async def work() -> None:
        size = writer_module.GROUP_BYTES
        async with opened(path) as (engine, told):
            await engine.watch(A)
            (large,) = await engine.log.append(entries(A, 1, b"x" * (size + 1)))
            assert large.offset == 1
            tasks = [
                asyncio.ensure_future(engine.log.append(entries(A, 1, b"y" * (size // 5), start=n)))
                for n in range(1, 20)
            ]
            done = await asyncio.gather(*tasks)
            assert [each[0].offset for each in done] == list(range(2, 21))
            assert told.offsets(A) == list(range(1, 21))

    asyncio.run(work())


def test_the_sizes_of_the_files_are_known_and_a_long_reader_is_told_of(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_module, "LONG_PAGES", 50)
    monkeypatch.setattr(writer_module, "REST_PAGES", 1)

    async def work() -> None:
        async with opened(path) as (engine, _):
            loop, copied = asyncio.get_running_loop(), asyncio.Semaphore(0)
            store: Any = engine.writer.store
            copy = store.copy

            def tell() -> None:
                copy()
                loop.call_soon_threadsafe(copied.release)

            store.copy = tell
            with closing(sqlite3.connect(path)) as foreign:
                foreign.execute("BEGIN")
                foreign.execute("SELECT count(*) FROM entries").fetchone()
                for number in range(0, 400, 100):
                    await engine.log.append(entries("pov/a", 100, b"x" * 4000, start=number))
                    async with asyncio.timeout(WAIT_S):
                        await copied.acquire()
                sizes.update(engine.log_bytes)
                on_disk.update(database=file_size(path), journal=file_size(journal))

    sizes: dict[str, int] = {}
    on_disk: dict[str, int] = {}
    journal = path.with_name(f"{path.name}-wal")
    asyncio.run(work())
    assert sizes == on_disk
    assert sizes["journal"] > 1_000_000
    (told,) = [each for each in caplog.records if "write-ahead log" in each.message]
    assert "another program" in told.message

"""Topics that nothing needs leave the file, and no epoch is used twice, over restarts too."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import NewEntry, Position
from pov_rt.engine.bounds import ROUND_S
from pov_rt.engine.sqlite import forgetting as module
from pov_rt.engine.sqlite.schema import begin, open_writer, read_epoch, read_generation
from pov_rt.runtime.clock import ManualClock
from tests.engine.sqlite_parts import NobodyWatches, entries, open_store, opened, rows, tidied

A, B = "pov/a", "pov/b"


def names(path: Path) -> list[str]:
    return [name for (name,) in rows(path, "SELECT name FROM topics ORDER BY id")]


def test_a_round_looks_at_a_few_topics_at_a_time_and_then_rests(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP_TOPICS", 4)
    clock = ManualClock()
    with closing(open_writer(path)) as connection:
        settings = EngineSettings(max_age_s=10.0, id_window_s=10.0)
        store = open_store(connection, settings, clock, read_epoch(connection))
        store.append([entries(f"pov/{n}", 1) for n in range(10)])
        clock.advance(11)
        for _ in range(3):
            store.tidy()
        assert len(names(path)) == 10, "no round is due"
        clock.advance(ROUND_S)
        left = []
        for _ in range(4):
            store.tidy()
            left.append(len(names(path)))
            store.tidy()  # too soon after the last step
            clock.advance(module.STEP_S)
        assert left == [6, 2, 0, 0]
        assert read_generation(connection) == 1
        assert rows(path, "SELECT count(*) FROM entries") == [(0,)]
        store.append([entries(A, 1)])
        clock.advance(11)
        store.tidy()
        assert names(path) == [A], "the next round is an hour later"


def test_when_there_are_nearly_too_many_rounds_do_not_rest(path: Path) -> None:
    clock = ManualClock()
    with closing(open_writer(path)) as connection:
        settings = EngineSettings(max_age_s=10.0, id_window_s=10.0, max_topics=10)
        store = open_store(connection, settings, clock, read_epoch(connection))
        for publisher in "pq":
            batch = [NewEntry(f"{publisher}/{n}", publisher, "1", b"") for n in range(4)]
            store.append([batch])
        clock.advance(11)
        store.tidy()
        assert names(path) == []


def test_what_failed_half_way_is_done_again(path: Path) -> None:
    clock = ManualClock()
    with closing(open_writer(path)) as connection:
        settings = EngineSettings(max_age_s=10.0, id_window_s=10.0)
        store = open_store(connection, settings, clock, read_epoch(connection))
        (first,) = store.append([entries(A, 1)])
        store.tidy()  # which commits
        clock.advance(ROUND_S + 11)
        begin(connection)
        store.tails.remove([(1, A, 0)])
        connection.execute("ROLLBACK")
        store.forget()
        assert (read_generation(connection), store.tails.count.number) == (0, 0)
        (kept,) = store.append([entries(A, 1, start=1)])
        assert [kept.results[0].epoch, kept.results[0].offset] == [first.results[0].epoch, 2]
        clock.advance(ROUND_S + 11)
        store.tidy()
        assert names(path) == []
        (again,) = store.append([entries(A, 1)])
        assert again.results[0].epoch != first.results[0].epoch
        assert again.epochs == {A: again.results[0].epoch}
        assert store.tails.count.number == 1


def test_a_forgotten_topic_has_another_epoch_after_a_restart_too(path: Path) -> None:
    async def work() -> None:
        clock = ManualClock()
        settings = {"max_age_s": 10.0, "id_window_s": 10.0}
        epochs = []
        for _ in range(3):
            async with opened(path, clock, **settings) as (engine, _):
                (done,) = await engine.log.append(entries(A, 1))
                assert done.offset == 1
                epochs.append(done.epoch)
                await engine.marks.advance(B, "ana", "read", Position(done.epoch, 1))
                clock.advance(ROUND_S + 11)
                while names(path):
                    clock.advance(1)
                    await tidied(engine)
            async with opened(path, clock, **settings) as (engine, _):
                top = await engine.log.top(A)
                assert (top.offset, top.oldest) == (0, 1)
                assert top.epoch not in epochs
        assert len(set(epochs)) == 3

    asyncio.run(work())


def test_a_topic_that_is_forgotten_just_when_it_comes_to_be_watched_is_another(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer had looked whether it was watched before it was."""

    async def work() -> None:
        clock = ManualClock()
        async with opened(path, clock, max_age_s=10.0, id_window_s=10.0) as (engine, told):
            (old,) = await engine.log.append(entries(A, 3)[2:])
            clock.advance(11)
            await tidied(engine, 2)
            before = await engine.watch(A)
            assert (before.epoch, before.offset) == (old.epoch, 1)
            tails = engine.writer.store.tails
            monkeypatch.setattr(tails, "watched", NobodyWatches())
            clock.advance(ROUND_S)
            while names(path):
                clock.advance(1)
                await tidied(engine)
            monkeypatch.setattr(tails, "watched", engine.log)
            (new,) = await engine.log.append(entries(A, 1))
            assert new.offset == 1
            assert new.epoch != old.epoch
            assert [epoch for _, epoch, _, _ in told.told] == [new.epoch]
            top = await engine.log.top(A)
            assert (top.epoch, top.offset) == (new.epoch, 1)
            assert (await engine.log.read(A, 0, 9)).top == top

    asyncio.run(work())

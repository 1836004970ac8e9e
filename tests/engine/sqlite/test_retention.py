"""What leaves a SQLite log, in which steps, and that nothing leaves that is to be kept."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import EngineSettings, PovSettings
from pov_rt.engine.base import Appended, NewEntry, Position
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.engine.sqlite import retention as retention_module
from pov_rt.engine.sqlite import tails as tails_module
from pov_rt.engine.sqlite import writer as writer_module
from pov_rt.engine.sqlite.schema import commit, open_writer, read_epoch
from pov_rt.runtime.clock import ManualClock
from pov_rt.suites import stub
from tests.engine.sqlite_parts import (
    COUNTS,
    PLACES,
    WAIT_S,
    check_bodies,
    content,
    entries,
    offsets,
    open_store,
    opened,
    rows,
    tidied,
)

A, B, FEED = "pov/a", "pov/b", "team/main"
SHORT, LONG = PovSettings(max_age_s=7.0), PovSettings(max_age_s=50.0, max_entries=50)
FEW = PovSettings(max_entries=2)
COUNTS_BY_NAME = """
    SELECT name, count(*) FROM entries JOIN topics ON topics.id = entries.topic GROUP BY name
"""
BODY_AT = """
    SELECT bodies.body FROM entries LEFT JOIN bodies ON bodies.id = entries.body
    JOIN topics ON topics.id = entries.topic WHERE topics.name = ? AND entries."offset" = ?
"""


class Failing:
    """A connection some of whose statements fail, as on a disk that is full now and then."""

    def __init__(self, connection: sqlite3.Connection, chance: random.Random) -> None:
        self.part = 0.0
        self._connection = connection
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """Execute a statement, or fail."""
        if self._chance.random() < self.part:
            raise sqlite3.OperationalError("no room")
        return self._connection.execute(*arguments)


class Trial:
    """A log in small steps, and what must and what may be in it."""

    def __init__(self, path: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = ManualClock()
        self.settings = EngineSettings(
            max_entries=self.chance.choice((1, 2, 5, 20, 1000)), max_age_s=20.0, id_window_s=30.0
        )
        povs = {"*2": SHORT, "*1": LONG, "3": FEW} if seed % 2 else None
        self.keeping = Keeping(self.settings, povs, stub)
        self.topics = [f"pov/{number}" for number in range(self.chance.choice((1, 3, 12)))]
        self.places: dict[tuple[str, int], str] = {}
        """Where each entry of a feed came from."""
        self.appended: dict[str, dict[int, tuple[float, bytes]]] = {}
        self.keys: dict[bytes, float] = {}
        self._path = path
        self._number = 0
        self.open()

    def open(self) -> None:
        """Begin with what is in the file."""
        self.connection = open_writer(self._path)
        self.failing = Failing(self.connection, self.chance)
        connection: Any = self.failing
        epoch = read_epoch(self.connection)
        self.store = open_store(connection, self.settings, self.clock, epoch, self.keeping)

    def step(self) -> None:
        """Do something; now and then it fails in the middle."""
        self.failing.part = self.chance.choice((0, 0, 0, 0.1))
        try:
            self.chance.choice((self._append, self._append, self._tidy, self._trim, self._wait))()
        except sqlite3.OperationalError:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self.store.forget()
        self.failing.part = 0
        if self.chance.random() < 0.02:
            self.connection.close()
            self.open()

    def check(self) -> None:
        """Compare what is in the file with what must be."""
        check_bodies(self.connection)
        now = self.clock.time()
        for topic, appended in self.appended.items():
            keep, age = self.keeping.of(topic)
            found = dict(
                self.connection.execute(
                    'SELECT entries."offset", bodies.body FROM entries '
                    "LEFT JOIN bodies ON bodies.id = entries.body "
                    "JOIN topics ON topics.id = entries.topic WHERE topics.name = ?",
                    (topic,),
                ).fetchall()
            )
            top = max(appended)
            assert max(found) == top
            young = (n for n, (at, _) in appended.items() if at >= now - age)
            assert {n for n in young if n > top - keep} <= set(found)
            for offset, body in found.items():
                at, whole = appended[offset]
                source = self.places.get((topic, offset), topic)
                if body == stub(whole):
                    assert at < now - self.keeping.of(source).max_age_s
                else:
                    assert body in (None, whole)
                    assert body is not None or at < now - age
        kept = {name for (name,) in self.connection.execute("SELECT name FROM keys")}
        assert {name for name, at in self.keys.items() if at >= now - 30.0} <= kept

    def check_faded(self) -> None:
        """What has been too old for its PoV for long is in no feed any more."""
        now = self.clock.time()
        for (feed, offset), source in self.places.items():
            at, whole = self.appended[feed][offset]
            if at < now - self.keeping.of(source).max_age_s:
                rows = self.connection.execute(BODY_AT, (feed, offset)).fetchall()
                assert rows in ([], [(None,)], [(stub(whole),)])

    def _append(self) -> None:
        batch = []
        for _ in range(self.chance.randrange(1, 6)):
            self._number += 1
            body = b"body of %d" % self._number
            topic, feed = (
                self.chance.choice(self.topics),
                self.chance.choice(("", FEED, "team/other")),
            )
            batch.append(NewEntry(topic, "p", str(self._number), body, feed))
        (outcome,) = self.store.append([batch])
        connection: Any = self.failing
        commit(connection)
        for new, result, fed in zip(batch, outcome.results, outcome.feed, strict=True):
            assert isinstance(result, Appended)
            self.appended.setdefault(new.topic, {})[result.offset] = (outcome.at, new.body)
            if new.feed:
                self.appended.setdefault(new.feed, {})[fed] = (outcome.at, new.body)
                self.places[new.feed, fed] = new.topic
            self.keys[f"{new.key}\np".encode()] = outcome.at

    def _tidy(self) -> None:
        self.store.tidy()

    def _trim(self) -> None:
        self.store.trim()

    def _wait(self) -> None:
        self.clock.advance(self.chance.choice((0.1, 1, 5, 15, 40)))


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bound is reached by a few rows."""
    for name, value in (("STEP_ROWS", 6), ("STEP_KEYS", 3), ("SPANS", 2), ("SURVEYED", 2)):
        monkeypatch.setattr(retention_module, name, value)
    monkeypatch.setattr(tails_module, "CACHED_TOPICS", 3)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("seed", range(25))
def test_all_that_is_to_be_kept_stays_and_all_else_leaves(path: Path, seed: int) -> None:
    trial = Trial(path, seed)
    for _ in range(200):
        trial.step()
        trial.check()
    for _ in range(len(trial.keys) + 50):
        trial.store.tidy()
    trial.check()
    for name, count in trial.connection.execute(COUNTS_BY_NAME):
        most = trial.keeping.of(name).max_entries
        assert count < most + max(1, most // 40), "no more than it keeps, and the slack"
    trial.check_faded()
    trial.clock.advance(100)
    for _ in range(2 * len(trial.keys) + 50):
        trial.store.tidy()
    trial.check()
    left = "SELECT (SELECT count(*) FROM bodies), (SELECT count(*) FROM keys)"
    assert trial.connection.execute(left).fetchone() == (0, 0)
    counts = trial.connection.execute(COUNTS).fetchall()
    assert set(counts) == {(1,)}, "the newest, for the offset's sake"
    trial.connection.close()


def test_the_young_behind_many_old_ones_stay(path: Path) -> None:
    clock = ManualClock()
    with closing(open_writer(path)) as connection:
        settings = EngineSettings(max_age_s=10.0)
        store = open_store(connection, settings, clock, read_epoch(connection))
        store.append([entries(A, 3000)])
        clock.advance(8)
        store.append([entries(A, 500, start=3000), entries(B, 10)])
        clock.advance(4)
        while store.tidy():
            pass
        assert connection.execute(
            'SELECT topic, min("offset"), max("offset") FROM entries GROUP BY topic'
        ).fetchall() == [(1, 3001, 3500), (2, 1, 10)]


def test_after_a_start_with_less_to_keep_every_topic_is_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "SURVEYED", 10)
    clock = ManualClock()
    with closing(open_writer(path)) as connection:
        epoch = read_epoch(connection)
        store = open_store(connection, EngineSettings(), clock, epoch)
        store.append([entries(f"pov/{number}", 30) for number in range(35)])
        store = open_store(connection, EngineSettings(max_entries=5), clock, epoch)
        for _ in range(4):
            store.tidy()
        counts = connection.execute(COUNTS).fetchall()
        assert counts == [(5,)] * 35


def test_what_failed_is_tried_again(path: Path) -> None:
    """The rows to remove are counted anew after a transaction that was rolled back."""
    clock, chance = ManualClock(), random.Random(1)
    with closing(open_writer(path)) as connection:
        failing: Any = Failing(connection, chance)
        settings = EngineSettings(max_entries=10)
        store = open_store(failing, settings, clock, read_epoch(connection))
        store.append([entries(A, 2000)])
        before = store.is_behind
        failing.part = 1.0
        with pytest.raises(sqlite3.OperationalError):
            store.trim()
        store.forget()
        assert (before, store.is_behind) == (True, False), "it is counted when it is looked at"
        failing.part = 0.0
        while store.tidy():
            pass
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (10,)


async def _too_old(path: Path, clock: ManualClock) -> int:
    (found,) = rows(path, "SELECT count(*) FROM entries WHERE at > 0 AND at < ?", clock.now - 10)
    return int(found[0])


async def _with_something_to_write(engine: SqliteEngine, work: asyncio.Task[None]) -> None:
    """Move marks until the work is done, so that the writer is never idle for long."""
    number = 0
    while not work.done():
        number += 1
        await engine.sets.add("set", f"{number}")
        await asyncio.sleep(writer_module.TIDY_S / 4)


def test_a_writer_with_a_little_to_do_looks_after_old_entries_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "TIDY_S", 0.1)

    async def work() -> None:
        clock = ManualClock()
        async with opened(path, clock, max_age_s=10.0) as (engine, _):
            await engine.log.append(entries(A, 100))
            clock.advance(11)
            tidying = asyncio.create_task(tidied(engine, 2))
            await _with_something_to_write(engine, tidying)
            assert await _too_old(path, clock) == 0

    asyncio.run(work())


@pytest.mark.parametrize("publishers", [1, 3])
def test_large_groups_leave_a_turn_to_every_chore(path: Path, publishers: int) -> None:
    """The log is copied after each of them, which must not be all that is done."""
    body = b"x" * 2000

    async def publish(engine: SqliteEngine, publisher: int) -> None:
        for turn in range(30 // publishers):
            batch = [
                NewEntry(f"pov/{number % 10}", f"{publisher}", f"{turn}-{number}", body, FEED)
                for number in range(1000)
            ]
            await engine.log.append(batch)
            most.append(rows(path, "SELECT count(*) FROM entries")[0][0])

    async def work() -> None:
        async with opened(path, max_entries=100) as (engine, _):
            async with asyncio.timeout(3 * WAIT_S):
                await asyncio.gather(*(publish(engine, number) for number in range(publishers)))

    most: list[int] = []
    asyncio.run(work())
    # 60,000 were appended; three groups of at most two batches may wait for their turn.
    assert max(most) < 1100 + 4 * 2 * 2 * 1000


def test_a_clock_that_was_ahead_keeps_nothing_for_longer(path: Path) -> None:
    clock = ManualClock()
    year = 365 * 86400.0
    with closing(open_writer(path)) as connection:
        settings = EngineSettings(max_age_s=10.0)
        store = open_store(connection, settings, clock, read_epoch(connection))
        clock.step(year)
        store.append([entries(A, 1)])
        clock.step(-year)
        store.append([entries(B, 100)])
        (at,) = connection.execute("SELECT max(at) FROM entries WHERE topic = 2").fetchone()
        assert at == clock.time(), "it does not stay ahead either"
        store.tidy()
        assert connection.execute("SELECT count(*) FROM bodies").fetchone() == (101,)
        clock.advance(11)
        while store.tidy():
            pass
        assert connection.execute("SELECT count(*) FROM bodies").fetchone() == (0,)


@pytest.mark.parametrize("number", [3, 2000])
def test_a_clock_that_starts_behind_costs_nothing(path: Path, number: int) -> None:
    """As one without a battery does, until it has been told the time."""
    clock = ManualClock()
    years = 50 * 365 * 86400.0
    with closing(open_writer(path)) as connection:
        settings = EngineSettings(max_age_s=1000.0)
        epoch = read_epoch(connection)
        open_store(connection, settings, clock, epoch).append([entries(A, number)])
        before = connection.execute("SELECT * FROM entries").fetchall()
        clock.advance(-years)
        store = open_store(connection, settings, clock, epoch)
        for _ in range(5):
            store.tidy()
        clock.advance(years + 500)
        for _ in range(5):
            store.tidy()
        assert connection.execute("SELECT * FROM entries").fetchall() == before
        assert not store.is_untidy


@pytest.mark.parametrize("why", ["too old", "too many"])
def test_of_large_bodies_fewer_leave_at_once(path: Path, why: str) -> None:
    """What leaves is overwritten: 500 bodies of 16 KB are 8 MB in a commit."""
    clock = ManualClock()
    with closing(open_writer(path)) as connection:
        settings = EngineSettings(max_age_s=10.0, max_entries=100 if why == "too many" else 10**4)
        store = open_store(connection, settings, clock, read_epoch(connection))
        store.append([entries(A, 1000, bytes(16_000))])
        store.tidy()  # after as much as came
        count = "SELECT count(*) FROM bodies"
        before = connection.execute(count).fetchone()[0]
        clock.advance(11 if why == "too old" else 0)
        if why == "too many":
            store.append([entries(A, 300, bytes(10), start=1000)])
            before += 300
        store.tidy()
        left = connection.execute(count).fetchone()[0]
        assert before - 40 < left < before
        assert store.is_untidy or why == "too many", "there is more, at once"
        while store.tidy():
            pass
        assert connection.execute(count).fetchone() == (0 if why == "too old" else 100,)


def test_steady_batches_that_age_leave_as_fast_as_they_come(path: Path) -> None:
    clock = ManualClock()
    with closing(open_writer(path)) as connection:
        settings = EngineSettings(max_entries=10**6, max_age_s=1.0, id_window_s=1.0)
        store = open_store(connection, settings, clock, read_epoch(connection))
        for turn in range(60):
            batch = [NewEntry(A, "p", f"{turn}-{n}", b"{}", FEED) for n in range(1500)]
            store.append([batch])
            clock.advance(0.1)
            if store.is_untidy:
                store.tidy()
        # Those of the last second, and of one or two batches more.
        assert connection.execute("SELECT count(*) FROM bodies").fetchone()[0] <= 14 * 1500
        # Ids leave when a round comes to them, which takes as long as what is kept took to come.
        assert connection.execute("SELECT count(*) FROM keys").fetchone()[0] <= 30 * 1500


def test_what_is_too_much_leaves_the_file_in_small_steps(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "STEP_ROWS", 30)
    clock = ManualClock()
    with closing(open_writer(path)) as connection:
        store = open_store(connection, EngineSettings(), clock, read_epoch(connection))
        store.append([entries(A, 100), entries(B, 5), entries("pov/c", 55)])
        settings = EngineSettings(max_entries=10)
        store = open_store(connection, settings, clock, read_epoch(connection))
        left = []
        for _ in range(6):
            store.tidy()
            left.append([count for (count,) in connection.execute(COUNTS)])
        # One after the other, so that what is removed at once is together in the file.
        assert left[:4] == [[70, 5, 55], [40, 5, 55], [10, 5, 55], [10, 5, 25]]
        assert left[-1] == [10, 5, 10]
        assert not store.is_behind
        assert connection.execute(
            'SELECT min("offset"), max("offset") FROM entries WHERE topic = 1'
        ).fetchall() == [(91, 100)]


@pytest.mark.parametrize("publishers", [1, 4])
def test_steady_batches_leave_no_more_than_is_kept(path: Path, publishers: int) -> None:
    """A feed, to which most is appended, leaves the turn to the PoVs; bodies go with both."""
    topics = [f"pov/{number}" for number in range(20)]

    async def publish(engine: SqliteEngine, publisher: int) -> None:
        for turn in range(60 // publishers):
            batch = [
                NewEntry(topics[number % 20], f"{publisher}", f"{turn}-{number}", b"{}", FEED)
                for number in range(1000)
            ]
            await engine.log.append(batch)
            most.append(rows(path, "SELECT count(*) FROM entries")[0][0])
            bodies.append(rows(path, "SELECT count(*) FROM bodies")[0][0])

    async def work() -> None:
        async with opened(path, max_entries=100) as (engine, _):
            await asyncio.gather(*(publish(engine, number) for number in range(publishers)))
            of_povs = rows(
                path, f"{COUNTS} HAVING topic <> (SELECT id FROM topics WHERE name = ?)", FEED
            )
            # 3,000 were appended to each PoV.
            assert max(count for (count,) in of_povs) < 1500
            await tidied(engine, 2)
            assert set(rows(path, COUNTS)) == {(100,)}

    most: list[int] = []
    bodies: list[int] = []
    asyncio.run(work())
    # That of two groups, for after one of three something else is done, and the next one's.
    assert max(most) < 2100 + 2 * retention_module.STEP_ROWS + 3 * 2000 * publishers
    assert max(bodies) < max(most)
    with closing(sqlite3.connect(path)) as connection:
        check_bodies(connection)


def test_what_becomes_too_old_at_once_goes_in_steps_and_all_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "STEP_ROWS", 100)

    async def work() -> None:
        clock = ManualClock()
        async with opened(path, clock, max_age_s=10.0) as (engine, _):
            await engine.log.append([*entries(A, 3000), *entries(B, 2000)])
            await tidied(engine, 2)  # the room that they gave is used up
            clock.advance(11)
            # In steps of 100 activities; one each time that an idle writer looks would take 25 s.
            await tidied(engine, 52)
            assert rows(path, COUNTS) == [(1,), (1,)]

    asyncio.run(work())


def test_what_is_too_old_leaves_the_disk_and_the_offset_stays(path: Path) -> None:
    secret = b"who said what to whom"

    async def work() -> None:
        clock = ManualClock()
        async with opened(path, clock, max_age_s=10.0, id_window_s=10.0) as (engine, _):
            await engine.log.append([*entries(A, 300, secret), *entries(B, 1, secret)])
            assert rows(path, "SELECT count(*) FROM keys") == [(301,)]
            clock.advance(11)
            await engine.log.append(entries(B, 1, b"new", start=1))
            await tidied(engine, 2)
            places = rows(path, PLACES)
            assert places[0] == (1, 300, None), "its offset stays"
            assert [place for place in places if place[2] is not None] == [(2, 2, b"new")]
            assert rows(path, "SELECT count(*) FROM bodies") == [(1,)]
            assert rows(path, "SELECT count(*) FROM keys") == [(1,)]
            # An empty row is no entry, even for a clock that was put back.
            clock.advance(-11)
            assert await offsets(engine, A) == []
            assert (await engine.log.top(A))[1:] == (300, 301)
        assert secret not in content(path)
        async with opened(path, clock, max_age_s=10.0) as (engine, _):
            assert (await engine.log.top(A))[1:] == (300, 301)
            (again,) = await engine.log.append(entries(A, 1))
            assert again == Appended(engine.epoch, 301)
            assert await offsets(engine, A) == [301]

    asyncio.run(work())


@pytest.mark.parametrize("seed", range(8))
def test_ids_are_remembered_for_their_time_and_looked_through_only_when_one_may_be_old(
    path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "STEP_KEYS", 3)
    chance, clock, window_s = random.Random(seed), ManualClock(), 50.0
    with closing(open_writer(path)) as connection:
        settings = EngineSettings(id_window_s=window_s)
        store = open_store(connection, settings, clock, read_epoch(connection))
        looked = 0

        def trace(statement: str) -> None:
            nonlocal looked
            looked += "min(at)" in statement

        connection.set_trace_callback(trace)
        appended: dict[bytes, float] = {}
        for number in range(120):
            for _ in range(chance.randrange(4)):
                key = f"{chance.random()}"
                store.append([[NewEntry(chance.choice((A, B)), "p", key, b"")]])
                appended[f"{key}\np".encode()] = clock.time()
            clock.advance(chance.random() * (2 if number < 60 else 4))
            store.tidy()
            kept = {name for (name,) in connection.execute("SELECT name FROM keys")}
            young = {name for name, at in appended.items() if at >= clock.time() - window_s}
            assert young <= kept
        for _ in range(100):
            store.tidy()
        kept = {name for (name,) in connection.execute("SELECT name FROM keys")}
        assert kept == {name for name, at in appended.items() if at >= clock.time() - window_s}
        before = looked
        store.tidy()
        assert looked == before, "nothing can be old yet"
        clock.advance(window_s + 1)
        store.tidy()
        assert looked == before + 1


def test_a_clock_that_stays_ahead_is_believed_in_the_end(path: Path) -> None:
    """As after a machine was suspended. What happened meanwhile is not as old as it seems."""

    async def work() -> None:
        clock = ManualClock()
        day_s = 86400.0
        async with opened(path, clock) as (engine, _):
            (done,) = await engine.log.append(entries(A, 1))
            await engine.marks.advance(A, "ana", "read", Position(done.epoch, 1))
            clock.step(60 * day_s)
            assert (await engine.log.top(A)).oldest == 1
            await engine.marks.advance(A, "ben", "read", Position(done.epoch, 1))
            (late,) = await engine.log.append(entries(B, 1))
            assert isinstance(late, Appended)
            clock.advance(3601)
            await tidied(engine, 2)
            assert (await engine.log.top(A)).oldest == 2
            assert await offsets(engine, B) == [1]
            again = Appended(late.epoch, 1, duplicate=True)
            assert await engine.log.append(entries(B, 1)) == [again]
            assert await engine.marks.all(A, "read") == {"ben": (done.epoch, 1)}

    asyncio.run(work())

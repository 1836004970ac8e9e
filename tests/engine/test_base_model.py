"""A model of what engines promise: topics that come and go, ids, marks and clocks, in any order.

The model says what must be there, what must not, and where an engine may do as it likes: when it
forgets what nothing needs is its own affair.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Appended, Conflict, Engine, NewEntry, Position
from pov_rt.engine.bounds import ROUND_S
from pov_rt.engine.memory import MemoryEngine
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.engine.sqlite.forgetting import STEP_S
from pov_rt.runtime.clock import DOUBT_S, ManualClock
from pov_rt.suites import Recorder

ValueT = TypeVar("ValueT")

MARK_AGE_S = 20_000.0
RENEW_S = MARK_AGE_S / 8
MAX_ENTRIES = 6
TOPICS = ("pov/a", "pov/b", "pov/c")
Place = tuple[str, str, int]
"""A topic, an epoch and an offset."""
MarkKey = tuple[str, str, str]

topics = st.sampled_from(TOPICS)
users = st.sampled_from(("ana", "ben"))
names = st.sampled_from(("read", "acked:x"))


class EngineModel(RuleBasedStateMachine):
    """The engine beside what it must remember. `right` is the time that no step has changed."""

    kind: ClassVar[str]
    age_s: ClassVar[float] = 4000.0
    window_s: ClassVar[float] = 9000.0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="pov-rt-model-"))
        self.clock = ManualClock()
        self.ahead = 0.0
        self.bodies: dict[Place, bytes] = {}
        self.at: dict[Place, float] = {}
        self.keys: dict[tuple[str, str], tuple[Position, bytes, float]] = {}
        self.marks: dict[MarkKey, tuple[Position, float]] = {}
        self.watched: dict[str, Position] = {}
        self.tops: dict[str, Position] = {}
        self.gone: dict[str, set[str]] = {topic: set() for topic in TOPICS}
        self.told = Recorder()
        self.engine: Engine = self.open()

    def open(self) -> Engine:
        engine: Engine
        given = EngineSettings(
            max_entries=MAX_ENTRIES,
            max_age_s=self.age_s,
            id_window_s=self.window_s,
            mark_age_s=MARK_AGE_S,
            max_marks=60,
        )
        if self.kind == "memory":
            engine = MemoryEngine(given, self.clock, "node-1")
        else:
            engine = SqliteEngine(self.folder / "pov-rt.db", given, self.clock, "node-1")
        self.run(engine.start(self.told))
        return engine

    def run(self, work: Awaitable[ValueT]) -> ValueT:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.engine.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def is_needed(self, topic: str) -> bool:
        """Whether the topic must be there still."""
        return (
            topic in self.watched
            or any(key[0] == topic and self.now - at <= self.age_s for key, at in self.at.items())
            or any(
                key[0] == topic and self.now - at < self.window_s
                for key, (_, _, at) in self.keys.items()
            )
            or any(
                key[0] == topic and self.now - at < MARK_AGE_S - RENEW_S
                for key, (_, at) in self.marks.items()
            )
        )

    def look(self, topic: str) -> Position:
        """Ask for a topic's state, and compare it with what was known."""
        top = self.run(self.engine.log.top(topic))
        found = Position(top.epoch, top.offset)
        before = self.tops.get(topic)
        assert top.epoch not in self.gone[topic], "an epoch has come back"
        if before is not None and before != found:
            is_free = not self.is_needed(topic) if before.offset else topic not in self.watched
            assert is_free, f"{topic} was forgotten"
            assert found.offset == 0
            assert before.epoch != found.epoch
            self.gone[topic].add(before.epoch)
        self.tops[topic] = found
        return found

    @rule(topic=topics, key=st.integers(0, 5), body=st.sampled_from((b"1", b"2")))
    def append(self, topic: str, key: int, body: bytes) -> None:
        before = self.look(topic)
        entry = NewEntry(topic, f"publisher of {topic}", str(key), body)

        async def add() -> Sequence[Appended | Conflict]:
            return await self.engine.log.append([entry])  # its future belongs to the running loop

        (done,) = self.run(add())
        known = self.keys.get((topic, str(key)))
        if isinstance(done, Conflict) or done.duplicate:
            assert known is not None
            assert (done.epoch, done.offset) == known[0]
            assert isinstance(done, Conflict) == (known[1] != body)
            assert known[0].epoch == before.epoch
            return
        assert known is None or self.now - known[2] >= self.window_s, "a retry is another entry"
        assert done == Appended(done.epoch, before.offset + 1)
        assert done.epoch == before.epoch
        place = (topic, done.epoch, done.offset)
        assert place not in self.bodies, "another entry under an offset that was there"
        self.bodies[place], self.at[place] = body, self.now
        position = Position(done.epoch, done.offset)
        self.keys[topic, str(key)] = position, body, self.now
        self.tops[topic] = position
        if topic in self.watched:
            assert self.told.told[-1] == (topic, done.epoch, done.offset, body)
            self.watched[topic] = position

    @rule(topic=topics, data=st.data())
    def recover(self, topic: str, data: st.DataObject) -> None:
        """Come back with a position of whenever: all that follows it, or another epoch, or less."""
        held = sorted({key for key in self.bodies if key[0] == topic})
        if not held:
            return
        _, epoch, offset = data.draw(st.sampled_from(held))
        self.look(topic)
        page = self.run(self.engine.log.read(topic, offset, 100))
        if page.top.epoch != epoch:
            assert epoch != self.tops[topic].epoch
            return
        for number, entry in enumerate(page.entries, max(offset + 1, page.top.oldest)):
            assert entry.offset == number
            assert entry.body == self.bodies[topic, epoch, number]
        if offset >= page.top.oldest - 1:
            assert len(page.entries) == page.top.offset - offset, "something is missing"
        mine = [(key, at) for key, at in self.at.items() if key[:2] == (topic, epoch)]
        for (_, _, number), at in mine[-MAX_ENTRIES:]:
            assert number >= page.top.oldest or self.now - at >= self.age_s, "left before its time"

    @rule(topic=topics, user=users, name=names, offset=st.integers(1, 9))
    def advance(self, topic: str, user: str, name: str, offset: int) -> None:
        epoch = self.look(topic).epoch
        found = self.run(self.engine.marks.advance(topic, user, name, Position(epoch, offset)))
        before = self.known((topic, user, name))
        furthest = offset
        if before is not None and before.epoch == epoch:
            furthest = max(offset, before.offset)
        assert found.epoch == epoch
        assert found.offset in {offset, furthest}
        if self.is_surely_there((topic, user, name)):
            assert found.offset == furthest, "a mark went back"
        self.marks[topic, user, name] = found, self.now

    @rule(topic=topics, user=users, name=names)
    def get(self, topic: str, user: str, name: str) -> None:
        key = (topic, user, name)
        found = self.run(self.engine.marks.get(topic, user, name))
        if found is None:
            assert not self.is_surely_there(key), "a mark that was used is gone"
            self.marks.pop(key, None)
        else:
            position, at = self.marks[key]
            assert found == position
            assert self.now - at <= MARK_AGE_S, "a mark that nobody used is there still"
            self.marks[key] = position, self.now
            self.tidy()  # so that it is written down

    @rule(user=users, name=names, topic=st.sampled_from((None, *TOPICS)))
    def drop(self, user: str, name: str, topic: str | None) -> None:
        """Forget one mark, or those of a name."""
        if topic is None:
            self.run(self.engine.marks.drop_all(user, name))
        else:
            self.run(self.engine.marks.drop(topic, user, name))
        self.marks = {
            key: mark
            for key, mark in self.marks.items()
            if key[1:] != (user, name) or topic not in (None, key[0])
        }

    def known(self, key: MarkKey) -> Position | None:
        return self.marks[key][0] if key in self.marks else None

    def is_surely_there(self, key: MarkKey) -> bool:
        return key in self.marks and self.now - self.marks[key][1] < MARK_AGE_S - RENEW_S

    @rule(topic=topics)
    def begin_and_leave(self, topic: str) -> None:
        """Let all of a topic be over, and begin it again."""
        self.unwatch(topic)
        self.append(topic, 0, b"1")
        self.marks = {key: mark for key, mark in self.marks.items() if key[0] != topic}
        for user in ("ana", "ben"):
            for name in ("read", "acked:x"):
                self.run(self.engine.marks.drop(topic, user, name))
        for _ in range(4):
            self.wait(ROUND_S)
        self.append(topic, 0, b"2")

    @rule(topic=topics)
    def watch(self, topic: str) -> None:
        found = self.look(topic)
        if topic not in self.watched:
            top = self.run(self.engine.watch(topic))
            assert (top.epoch, top.offset) == found
            self.watched[topic] = found

    @rule(topic=topics)
    def unwatch(self, topic: str) -> None:
        self.run(self.engine.unwatch(topic))
        self.watched.pop(topic, None)

    @rule(seconds=st.sampled_from((1.0, 2500.0, ROUND_S, 7000.0, 16_000.0)))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.tidy()

    @rule(days=st.sampled_from((-400, -1, 1, 8, 400)))
    def step(self, days: int) -> None:
        """Put the clock wrong for less than it takes to be believed, and right again."""
        self.clock.step(days * 86400.0)
        for topic in TOPICS:
            self.look(topic)
        self.tidy()
        self.clock.advance(min(DOUBT_S, 20.0))
        self.tidy()
        for topic in TOPICS:
            self.look(topic)
        self.clock.step(-days * 86400.0)
        if days < 0:  # it was believed to be so early, and is now believed to be ahead for an hour
            self.clock.advance(DOUBT_S + 1)
            self.tidy()
            self.clock.advance(DOUBT_S + 1)
            self.tidy()

    @rule()
    def tidy(self) -> None:
        """Let an engine do what it does by itself, or with what else it is asked."""
        for _ in range(2):
            if isinstance(self.engine, SqliteEngine):
                tidy = self.engine.writer.store.tidy
                self.run(self.engine.write(lambda _, tidy=tidy: tidy()))  # type: ignore[misc]
                self.clock.advance(STEP_S)
            else:
                self.run(self.engine.log.top("pov/none"))

    @rule()
    def reopen(self) -> None:
        if self.kind == "memory":
            return
        for topic in TOPICS:
            self.look(topic)
        self.run(self.engine.close())
        self.engine = self.open()
        self.watched.clear()

    @invariant()
    def numbers_are_right(self) -> None:
        """What the gauges say can be counted."""
        used: dict[str, Any] = {bound.name: bound.used() for bound in self.engine.bounds}
        assert 0 <= used["topics"] <= len(TOPICS)
        assert 0 <= used["marks"] <= len(TOPICS) * 4
        if isinstance(self.engine, SqliteEngine):
            counted = self.run(
                self.engine.write(
                    lambda connection: [
                        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                        for table in ("topics", "marks")
                    ]
                )
            )
            assert counted == [used["topics"], used["marks"]]


class MemoryModel(EngineModel):
    kind = "memory"


class SqliteModel(EngineModel):
    kind = "sqlite"


class SqliteModelWithoutIds(SqliteModel):
    """Here ids are forgotten before entries leave."""

    age_s, window_s = 9000.0, 1000.0


GIVEN_RUNS = settings(
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # to shrink takes longer than a test may
)


@pytest.mark.parametrize(
    ("model", "runs"), [(MemoryModel, 60), (SqliteModel, 20), (SqliteModelWithoutIds, 20)]
)
def test_an_engine_keeps_what_is_needed_and_brings_no_epoch_back(
    model: type[EngineModel], runs: int
) -> None:
    run_state_machine_as_test(model, settings=settings(GIVEN_RUNS, max_examples=runs))

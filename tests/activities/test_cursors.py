"""What users have read and devices acknowledged, and which devices are remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from msgspec import UNSET

from pov_rt.activities.cursors import READ, Cursors, Marked, Read, acked
from pov_rt.config.settings import EngineSettings, LimitSettings, Settings
from pov_rt.connections.connection import Connection
from pov_rt.connections.directory import Directory
from pov_rt.engine.base import NewEntry, Position, Top
from pov_rt.engine.memory import MemoryEngine
from pov_rt.runtime.clock import ManualClock

A = "pov/a"
DAY_S = 86400.0


class Client:
    """As much of a connection as cursors look at."""

    def __init__(self, device: str, user_id: str = "ana") -> None:
        self.device = device
        self.remembered_until = 0.0
        self.identity = cast("Any", self)
        self.user_id = user_id


class Bench:
    """Cursors on a memory engine, and who is connected."""

    def __init__(self) -> None:
        self.here: list[Client] = []
        self.clock = ManualClock()
        settings = Settings(
            engine=EngineSettings(max_entries=5, max_age_s=3 * DAY_S),
            limits=LimitSettings(devices_per_user=3),
        )
        self.engine = MemoryEngine(settings.engine, self.clock, "node-1")
        directory = cast("Directory", self)
        self.cursors = Cursors(self.engine, directory, self.clock, settings)

    def of(self, user_id: str) -> list[Client]:
        return [each for each in self.here if each.user_id == user_id]

    async def publish(self, number: int, start: int = 0) -> str:
        """Publish so many; return the epoch."""
        batch = [NewEntry(A, "p", f"{start + n}", b"{}") for n in range(number)]
        return (await self.engine.log.append(batch))[0].epoch

    async def ack(self, device: str, position: Position) -> Position:
        connection = cast("Connection", Client(device))
        return await self.cursors.acknowledge(connection, A, position)

    async def cursor(self, device: str) -> Position | None:
        return await self.cursors.cursor(cast("Connection", Client(device)), A)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("mark", "top", "expected"),
    [
        (None, Top("e", 0, 1), (0, 0)),
        (None, Top("e", 7, 1), (0, 7)),
        (None, Top("e", 100, 91), (90, 10)),
        (Position("e", 95), Top("e", 100, 91), (95, 5)),
        (Position("e", 5), Top("e", 100, 91), (90, 10)),
        (Position("e", 100), Top("e", 100, 101), (100, 0)),
        (None, Top("e", 100, 101), (100, 0)),
        (Position("e", 101), Top("e", 100, 91), (101, 0)),
        (Position("old", 95), Top("e", 3, 1), (0, 3)),
    ],
)
def test_unread_is_what_is_still_there_and_never_less_than_nothing(
    bench: Bench, mark: Position | None, top: Top, expected: tuple[int, int]
) -> None:
    async def work() -> None:
        if mark is not None:
            await bench.engine.marks.advance(A, "ana", READ, mark)
        marked = (await bench.cursors.marked("ana", {A: top}))[A]
        assert (marked.read_offset, marked.unread) == expected
        assert (marked.seen_offset, marked.unseen) == expected

    asyncio.run(work())


def test_what_was_read_does_not_become_unread_when_its_mark_goes(bench: Bench) -> None:
    async def work() -> None:
        epoch = await bench.publish(4)
        await bench.cursors.read("ana", A, Position(epoch, 3))
        await bench.engine.watch(A)
        before = 0
        for _ in range(40):
            bench.clock.advance(DAY_S)
            top = await bench.engine.log.top(A)
            if await bench.engine.marks.all(A, READ):
                continue  # not asked for, so that it is not used
            unread = (await bench.cursors.marked("ana", {A: top}))[A]
            assert unread.read_offset >= max(3, before)
            before = unread.read_offset
        assert before == 4

    asyncio.run(work())


def test_where_nothing_is_no_mark_is_made_but_one_that_is_there_goes_on(bench: Bench) -> None:
    async def work() -> None:
        unknown = (await bench.engine.log.top(A)).epoch
        for offset in (0, 3):
            assert await bench.ack("phone", Position(unknown, offset)) == (unknown, 0)
            read = await bench.cursors.read("ana", A, Position(unknown, offset))
            assert read == Read(Position(unknown, 0), False)
        epoch = await bench.publish(9)
        for offset in (0, 4, 10):  # 5 to 9 are kept
            assert await bench.ack("phone", Position(epoch, offset)) == (epoch, 0)
        assert bench.engine.bounds[1].used() == 0
        assert await bench.engine.sets.members("devices/ana") == {}
        assert await bench.ack("phone", Position(epoch, 5)) == (epoch, 5)
        assert await bench.cursors.read("ana", A, Position(epoch, 9)) == Read(
            Position(epoch, 9), True
        )
        assert await bench.cursors.read("ana", A, Position(epoch, 8)) == Read(
            Position(epoch, 9), False
        )
        bench.clock.advance(4 * DAY_S)  # nothing is left
        assert await bench.ack("phone", Position(epoch, 7)) == (epoch, 7)
        assert await bench.ack("phone", Position(epoch, 0)) == (epoch, 7)
        assert await bench.ack("laptop", Position(epoch, 9)) == (epoch, 0)

    asyncio.run(work())


def test_the_longest_unused_device_makes_room_but_none_that_is_connected(bench: Bench) -> None:
    async def work() -> None:
        epoch = await bench.publish(3)
        for device in "abc":
            bench.clock.advance(1)
            await bench.ack(device, Position(epoch, 2))
        bench.here = [Client("a"), Client("x", "ben")]
        await bench.ack("d", Position(epoch, 1))
        assert set(await bench.engine.sets.members("devices/ana")) == {"a", "c", "d"}
        assert await bench.cursor("b") is None
        assert await bench.ack("b", Position(epoch, 1)) == (epoch, 1), "it is as new"
        assert await bench.cursor("c") is None
        assert await bench.cursor("a") == (epoch, 2)
        assert set(await bench.engine.marks.all(A, acked("d"))) == {"ana"}

    asyncio.run(work())


def test_a_device_is_remembered_once_a_day_while_it_is_connected(bench: Bench) -> None:
    async def work() -> None:
        epoch = await bench.publish(3)
        phone = cast("Connection", Client("phone"))
        for _ in range(40):
            bench.clock.advance(DAY_S)
            await bench.cursors.acknowledge(phone, A, Position(epoch, 2))
            assert set(await bench.engine.sets.members("devices/ana")) == {"phone"}
        await bench.engine.sets.remove("devices/ana", "phone")
        await bench.cursors.acknowledge(phone, A, Position(epoch, 3))
        assert not await bench.engine.sets.members("devices/ana"), "a second time on that day"

    asyncio.run(work())


acts = st.tuples(
    st.sampled_from(("publish", "read", "see", "unread", "unread", "grow old")), st.integers(0, 7)
)


@given(st.lists(acts, min_size=1, max_size=25))
@hypothesis_settings(max_examples=150, deadline=None, derandomize=True)
def test_whatever_is_said_and_leaves_the_counts_are_of_what_is_there_and_no_mark_goes_back(
    said: Sequence[tuple[str, int]],
) -> None:
    """The model has each mark by itself, and looks at every entry that is kept."""

    async def work() -> None:
        bench = Bench()
        await bench.engine.watch(A)
        epoch = await bench.publish(3)
        read = seen = floor = published = before_read = before_seen = 0
        published = 3
        for kind, number in said:
            top = await bench.engine.log.top(A)
            # Most often something that is kept, now and then older.
            at = Position(epoch, min(top.offset, max(0, top.oldest - 2) + number))
            if kind == "publish":
                await bench.publish(number + 1, published)
                published += number + 1
            elif kind == "grow old":
                bench.clock.advance(1.6 * DAY_S)
            elif kind == "see":
                marked, has_moved = await bench.cursors.see("ana", A, at)
                assert has_moved == (at.offset > max(seen, read, top.oldest - 1))
                seen = max(seen, at.offset)
            elif kind == "read":
                if read or top.oldest <= at.offset:  # else no mark is made where nothing is
                    read = max(read, at.offset)
                if floor and floor <= at.offset:
                    floor = at.offset + 1
                done = await bench.cursors.read("ana", A, at)
                assert done.mark == Position(epoch, read)
            else:
                floor = max(1, at.offset)
                await bench.cursors.mark_unread("ana", A, at)
            floor = floor if floor <= read else 0
            top = await bench.engine.log.top(A)
            marked = (await bench.cursors.marked("ana", {A: top}))[A]
            kept = range(top.oldest, top.offset + 1)
            assert marked.unread == sum(n > read or 0 < floor <= n for n in kept)
            assert marked.unseen == sum(n > max(seen, read) for n in kept)
            assert before_read <= marked.read_offset <= marked.seen_offset
            assert before_seen <= marked.seen_offset
            unread_from = marked.unread_from
            assert (unread_from is UNSET) == all(n > read for n in kept if floor and n >= floor)
            assert unread_from is UNSET or floor <= unread_from <= marked.read_offset
            before_read, before_seen = marked.read_offset, marked.seen_offset

    asyncio.run(work())


def test_a_floor_is_kept_and_forgotten_as_the_marks_are(bench: Bench) -> None:
    async def work() -> None:
        epoch = await bench.publish(4)
        await bench.engine.watch(A)
        await bench.cursors.read("ana", A, Position(epoch, 4))
        await bench.cursors.mark_unread("ana", A, Position(epoch, 2))
        assert bench.engine.bounds[1].used() == 2
        await bench.cursors.mark_unread("ana", A, Position(epoch, 3))
        assert bench.engine.bounds[1].used() == 2, "one floor, wherever it goes"
        assert (await bench.cursors.read("ben", A, Position(epoch, 1))).marked is None
        await bench.cursors.read("ana", A, Position(epoch, 4))
        assert bench.engine.bounds[1].used() == 2, "where there is no floor there is no mark"
        await bench.cursors.mark_unread("ana", A, Position(epoch, 1))
        bench.clock.advance(31 * DAY_S)
        assert await bench.engine.log.top(A) == (epoch, 4, 5)
        marked = (await bench.cursors.marked("ana", {A: Top(epoch, 4, 1)}))[A]
        assert (marked.read_offset, marked.unread_from) == (0, UNSET)
        assert bench.engine.bounds[1].used() == 0

    asyncio.run(work())


def test_marks_of_another_epoch_say_nothing(bench: Bench) -> None:
    async def work() -> None:
        epoch = await bench.publish(4)
        await bench.cursors.read("ana", A, Position(epoch, 4))
        await bench.cursors.see("ana", A, Position(epoch, 4))
        await bench.cursors.mark_unread("ana", A, Position(epoch, 2))
        other = (await bench.cursors.marked("ana", {A: Top("other", 3, 1)}))[A]
        assert other == Marked("other", 0, 0, 3, 3)
        before = await bench.cursors.marked("ana", {A: await bench.engine.log.top(A)})
        old = Position("other", 3)
        assert await bench.cursors.see("ana", A, old) == (before[A], False)
        assert await bench.cursors.mark_unread("ana", A, old) == (before[A], False)

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["read", "see", "mark_unread"])
def test_what_is_told_while_the_marks_are_read_is_not_taken_back_by_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async def work() -> None:
        epoch = await bench.publish(4)
        await bench.cursors.read("ana", A, Position(epoch, 2))
        top, marks, calls = await bench.engine.log.top(A), bench.engine.marks, 0
        get_many = marks.get_many

        async def slow(*asked: Any) -> Any:
            nonlocal calls
            calls += 1
            found = await get_many(*asked)
            if calls == 1:
                move = getattr(bench.cursors, kind)
                await move("ana", A, Position(epoch, 1 if kind == "mark_unread" else 3))
            return found

        monkeypatch.setattr(marks, "get_many", slow)
        (marked,) = (await bench.cursors.marked("ana", {A: top})).values()
        expected = {"read": (3, 3, UNSET), "see": (2, 3, UNSET), "mark_unread": (2, 2, 1)}
        assert (marked.read_offset, marked.seen_offset, marked.unread_from) == expected[kind]

    asyncio.run(work())


def test_a_users_marks_and_devices_are_named_and_forgotten(bench: Bench) -> None:
    async def work() -> None:
        epoch = await bench.publish(3)
        await bench.ack("phone", Position(epoch, 2))
        bench.clock.advance(5)
        await bench.ack("laptop", Position(epoch, 3))
        await bench.cursors.read("ana", A, Position(epoch, 1))
        await bench.cursors.read("ben", A, Position(epoch, 1))
        at = bench.clock.time()
        assert await bench.cursors.devices("ana") == {"laptop": at, "phone": at - 5}
        assert await bench.cursors.clear("ana") == (3, 2)
        assert await bench.cursors.clear("ana") == (0, 0)
        assert await bench.cursor("phone") is None
        assert (await bench.cursors.read("ben", A, Position(epoch, 1))).has_moved is False

    asyncio.run(work())

"""The tests of `Marks`, `Leases` and `Sets`, and of clocks that are put right."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.engine.base import (
    Appended,
    NewMember,
    Position,
)
from pov_rt.protocol.errors import Unavailable
from pov_rt.suites.support import (
    DAY_S,
    LOOK_S,
    WAIT_S,
    A,
    B,
    Suite,
    new,
    on_engine,
)


class StateSuite(Suite):
    """What every engine must remember beside its logs, and forget."""

    # Marks, leases, sets:

    @on_engine()
    async def test_marks_only_move_forward_in_an_epoch(self) -> None:
        marks = self.engine.marks
        assert await marks.get(A, "ana", "read") is None
        assert await marks.advance(A, "ana", "read", Position("e", 5)) == ("e", 5)
        assert await marks.advance(A, "ana", "read", Position("e", 3)) == ("e", 5)
        assert await marks.advance(A, "ana", "read", Position("f", 1)) == ("f", 1)
        await marks.advance(A, "ben", "read", Position("f", 2))
        await marks.advance(A, "ana", "acked", Position("f", 9))
        await marks.advance(B, "ana", "read", Position("f", 8))
        assert await marks.all(A, "read") == {"ana": ("f", 1), "ben": ("f", 2)}
        await marks.drop(A, "ana", "read")
        await marks.drop(A, "nobody", "read")
        assert await marks.all(A, "read") == {"ben": ("f", 2)}
        await marks.drop(A, "ben", "read")
        assert await marks.all(A, "read") == {}
        assert await marks.get(A, "ana", "acked") == ("f", 9)

    @on_engine(mark_age_s=10 * DAY_S, max_age_s=10.0)
    async def test_many_marks_of_a_user_are_had_at_once_and_used_by_that(self) -> None:
        marks = self.engine.marks
        for topic, name, offset in ((A, "read", 1), (A, "seen", 2), (B, "seen", 3)):
            await marks.advance(topic, "ana", name, Position("e", offset))
        await marks.advance(A, "ben", "read", Position("e", 9))
        asked = ("ana", (B, "pov/none", A), ("seen", "none", "read"))
        expected = [
            [("e", 3), None, None],
            [None, None, None],
            [("e", 2), None, ("e", 1)],
        ]
        assert [[*each] for each in await marks.get_many(*asked)] == expected
        assert [*await marks.get_many("ana", (), ("read",))] == []
        for _ in range(3):
            self.clock.advance(6 * DAY_S)
            assert [[*each] for each in await marks.get_many(*asked)] == expected
            self.clock.advance(5 * DAY_S)
            async with asyncio.timeout(WAIT_S):
                while not await marks.all(B, "seen"):  # noqa: ASYNC110  (it tells nobody)
                    await asyncio.sleep(LOOK_S)
            assert [[*each] for each in await marks.get_many(*asked)] == expected
        assert await marks.all(A, "read") == {"ana": ("e", 1)}, "ben did not use his"
        self.clock.advance(11 * DAY_S)
        assert [[*each] for each in await marks.get_many(*asked)] == [[None] * 3] * 3

    @on_engine(max_marks=2)
    async def test_marks_are_bounded(self) -> None:
        for user in ("ana", "ben"):
            await self.engine.marks.advance(A, user, "read", Position("e", 1))
        with pytest.raises(Unavailable, match="max_marks"):
            await self.engine.marks.advance(A, "eve", "read", Position("e", 1))
        assert await self.engine.marks.advance(A, "ben", "read", Position("e", 2)) == ("e", 2)
        await self.engine.marks.drop(A, "ana", "read")
        await self.engine.marks.advance(A, "eve", "read", Position("e", 1))
        assert set(await self.engine.marks.all(A, "read")) == {"ben", "eve"}

    @on_engine(max_marks=100, marks_per_user=3)
    async def test_a_user_has_so_many_marks_and_loses_the_longest_unused(self) -> None:
        marks = self.engine.marks
        await marks.advance(A, "ben", "read", Position("e", 9))
        for number in range(3):
            await marks.advance(f"pov/{number}", "ana", "read", Position("e", 1))
            self.clock.advance(2 * DAY_S)
        await marks.advance("pov/0", "ana", "read", Position("e", 1))
        self.clock.advance(2 * DAY_S)
        for number in (3, 4):
            await marks.advance(f"pov/{number}", "ana", "read", Position("e", 1))
        left = {n for n in range(5) if await marks.get(f"pov/{n}", "ana", "read") is not None}
        assert left == {0, 3, 4}
        assert await marks.get(A, "ben", "read") == ("e", 9)
        (bound,) = (each for each in self.engine.bounds if each.name == "marks")
        assert (bound.used(), bound.limit) == (4, 100)

    @on_engine(max_marks=50)
    async def test_one_user_has_a_tenth_of_a_small_bound_at_most(self) -> None:
        for number in range(50):
            await self.engine.marks.advance(f"pov/{number}", "eve", "read", Position("e", 1))
        for number in range(45):
            await self.engine.marks.advance(A, f"user-{number}", "read", Position("e", 1))
        with pytest.raises(Unavailable, match="max_marks"):
            await self.engine.marks.advance(A, "late", "read", Position("e", 1))
        assert len(await self.engine.marks.all(A, "read")) == 45

    @on_engine(mark_age_s=10 * 86400.0, max_age_s=10.0)
    async def test_a_mark_that_is_used_is_kept_and_another_is_not(self) -> None:
        marks = self.engine.marks
        for name in ("read", "acked:phone", "unused"):
            await marks.advance(A, "ana", name, Position("e", 5))
        for _ in range(3):
            self.clock.advance(6 * DAY_S)
            assert await marks.get(A, "ana", "read") == ("e", 5)
            assert await marks.advance(A, "ana", "acked:phone", Position("e", 2)) == ("e", 5)
            self.clock.advance(5 * DAY_S)
            async with asyncio.timeout(WAIT_S):
                # An engine may write down uses later, and many together.
                while "ana" not in await marks.all(A, "read"):  # noqa: ASYNC110  (it tells nobody)
                    await asyncio.sleep(LOOK_S)
            assert await marks.get(A, "ana", "read") == ("e", 5)
            assert await marks.advance(A, "ana", "acked:phone", Position("e", 2)) == ("e", 5)
        assert await marks.get(A, "ana", "unused") is None
        assert await marks.all(A, "unused") == {}
        self.clock.advance(11 * DAY_S)
        assert await marks.all(A, "read") == {}
        assert await marks.get(A, "ana", "acked:phone") is None
        assert await marks.advance(A, "ana", "read", Position("e", 1)) == ("e", 1)

    @on_engine(mark_age_s=1.0, max_age_s=1000.0)
    async def test_no_mark_goes_before_the_entries_it_speaks_of(self) -> None:
        marks = self.engine.marks
        (done,) = await self.engine.log.append([new(A, "1")])
        await marks.advance(A, "ana", "read", Position(done.epoch, 1))
        self.clock.advance(999)
        assert (await self.engine.log.top(A)).oldest == 1
        assert await marks.get(A, "ana", "read") == (done.epoch, 1)

    @on_engine()
    async def test_a_users_marks_of_a_name_are_forgotten_at_once(self) -> None:
        marks = self.engine.marks
        for topic in (A, B):
            for user, name in (("ana", "acked:x"), ("ana", "read"), ("ben", "acked:x")):
                await marks.advance(topic, user, name, Position("e", 1))
        await marks.drop_all("ana", "acked:x")
        await marks.drop_all("nobody", "acked:x")
        for topic in (A, B):
            assert set(await marks.all(topic, "acked:x")) == {"ben"}
            assert set(await marks.all(topic, "read")) == {"ana"}
        (bound,) = (each for each in self.engine.bounds if each.name == "marks")
        assert bound.used() == 4

    @on_engine(max_age_s=7 * 86400.0, mark_age_s=30 * 86400.0, id_window_s=86400.0)
    async def test_a_clock_that_is_ahead_for_a_while_removes_nothing(self) -> None:
        log, marks, sets = self.engine.log, self.engine.marks, self.engine.sets
        (first,) = await log.append([new(A, "1")])
        await marks.advance(A, "ana", "read", Position(first.epoch, 1))
        await sets.add("s", "a", expires_at=self.clock.time() + 30 * DAY_S)
        for days in (8, 31, 400):
            self.clock.step(days * DAY_S)
            for _ in range(3):
                self.clock.advance(1)
                assert await self.engine.leases.renew()
                assert (await log.top(A)).oldest == 1
                assert [each.body for each in (await log.read(A, 0, 9)).entries] == [b"{}"]
                assert await marks.get(A, "ana", "read") == (first.epoch, 1)
                assert set(await sets.members("s")) == {"a"}
                (again,) = await log.append([new(A, "1")])
                assert again == Appended(first.epoch, 1, duplicate=True)
                await asyncio.sleep(LOOK_S)
            self.clock.step(-days * DAY_S)
            self.clock.advance(1)
            assert (await log.top(A)).oldest == 1

    @on_engine()
    async def test_members_that_are_held_are_counted_by_the_kind_of_their_topic(self) -> None:
        leases = self.engine.leases
        for topic, member in (("here/a", "ana"), ("here/b", "ana"), ("writes/a", "ben")):
            await leases.put(topic, member, b"")
        assert dict(leases.held) == {"here": 2, "writes": 1}
        await leases.remove("here/a", "ana")
        assert leases.held["here"] == 1

    @on_engine()
    async def test_leases_do_not_obey_the_wall_clock(self) -> None:
        leases = self.engine.leases
        for seconds in (-3600, 3600):
            await leases.put(A, "ana", b"")
            await leases.leave(A, "ana", 10.0)
            self.clock.step(seconds)
            self.clock.advance(9)
            await leases.renew()
            assert [each.member for each in await leases.members(A)] == ["ana"]
            assert await leases.expire() == []
            self.clock.advance(1)
            assert await leases.members(A) == []
            assert [each.member for _, each in await leases.expire()] == ["ana"]

    @on_engine()
    async def test_leases_come_leave_and_return(self) -> None:
        leases = self.engine.leases
        assert await leases.put(A, "ana", b"1")
        assert not await leases.put(A, "ana", b"2")
        await leases.put(A, "ben", b"3")
        assert await leases.leave(A, "ana", 5.0)
        assert not await leases.leave(A, "nobody", 5.0)
        members = {each.member: each for each in await leases.members(A)}
        assert (members["ana"].body, members["ben"].leaving_at) == (b"2", None)
        assert members["ana"].leaving_at == self.clock.monotonic() + 5
        await leases.put(A, "ana", b"4")  # it came back
        self.clock.advance(6)
        await leases.renew()
        assert await leases.expire() == []
        await leases.leave(A, "ana", 1.0)
        self.clock.advance(1)
        assert [each.member for each in await leases.members(A)] == ["ben"]
        assert [(topic, each.member) for topic, each in await leases.expire()] == [(A, "ana")]
        assert await leases.expire() == []
        assert await leases.remove(A, "ben")
        assert not await leases.remove(A, "ben")
        assert list(await leases.members(A)) == []

    @on_engine()
    async def test_members_of_a_node_that_does_not_renew_expire_once(self) -> None:
        await self.engine.leases.put(A, "ana", b"")
        self.clock.advance(3600)
        assert list(await self.engine.leases.members(A)) == []
        assert [each.member for _, each in await self.engine.leases.expire()] == ["ana"]
        assert await self.engine.leases.expire() == []

    @on_engine()
    async def test_a_node_is_told_that_its_lease_had_run_out_and_enters_its_members_again(
        self,
    ) -> None:
        leases = self.engine.leases
        assert await leases.renew()
        await leases.put(A, "ana", b"1")
        await leases.put(A, "ben", b"1")
        self.clock.advance(3600)
        assert list(await leases.members(A)) == [], "somebody has been told"
        assert not await leases.renew()
        assert await leases.renew()
        await leases.put(A, "ana", b"2")
        ended = [each.member for _, each in await leases.expire()]
        assert "ana" not in ended
        assert [each.member for each in await leases.members(A) if each.member == "ana"] == ["ana"]

    @on_engine()
    async def test_who_watches_is_told_whose_lease_has_ended(self) -> None:
        leases = self.engine.leases
        await self.engine.watch("here/a")
        for topic, member in (("here/a", "ana"), ("here/a", "ben"), ("here/b", "ana")):
            await leases.put(topic, member, b"")
        for topic in ("here/a", "here/b"):
            await leases.leave(topic, "ana", 1.0)
        self.clock.advance(1)
        assert self.told.ended == []
        gone = await leases.expire()
        assert sorted(topic for topic, _ in gone) == ["here/a", "here/b"]
        assert self.told.ended == [("here/a", "ana")]
        await leases.remove("here/a", "ben")
        assert await leases.expire() == []
        assert self.told.ended == [("here/a", "ana")], "who is removed has not ended by itself"
        await self.engine.unwatch("here/a")
        await leases.put("here/a", "ana", b"")
        await leases.leave("here/a", "ana", 1.0)
        self.clock.advance(1)
        assert [each.member for _, each in await leases.expire()] == ["ana"]
        assert self.told.ended == [("here/a", "ana")]

    @on_engine()
    async def test_members_of_sets_expire(self) -> None:
        sets = self.engine.sets
        await sets.add("s", "a", b"1")
        await sets.add("s", "b", b"2", expires_at=self.clock.time() + 5)
        await sets.add("s", "b", b"3", expires_at=self.clock.time() + 5)
        await sets.add("t", "a", b"4")
        assert await sets.members("s") == {"a": b"1", "b": b"3"}
        assert await sets.get("s", "b") == b"3"
        self.clock.advance(5)
        assert await sets.members("s") == {"a": b"1"}
        assert await sets.get("s", "b") is None
        assert not await sets.remove("s", "b")
        assert await sets.remove("s", "a")
        assert not await sets.remove("s", "a")
        assert await sets.members("s") == {}
        assert await sets.get("t", "a") == b"4"

    @on_engine()
    async def test_sets_change_together(self) -> None:
        sets = self.engine.sets
        await sets.update([NewMember("s", "a", b"1"), NewMember("t", "b", b"2")])
        await sets.update([NewMember("s", "a", b"3"), NewMember("u", "c")], [("t", "b")])
        await sets.update(remove=[("none", "x"), ("u", "c")])
        assert [await sets.members(name) for name in "stu"] == [{"a": b"3"}, {}, {}]

    @on_engine()
    async def test_a_set_is_removed_with_all_of_its_members(self) -> None:
        sets = self.engine.sets
        await sets.update([NewMember("s", "a", b"1"), NewMember("s", "b"), NewMember("t", "a")])
        await sets.add("s", "c", expires_at=self.clock.time() - 1)
        assert await sets.drop("s") in (2, 3), "what has expired may be gone already"
        assert await sets.drop("s") == await sets.drop("none") == 0
        assert await sets.members("s") == {}
        assert await sets.members("t") == {"a": b""}

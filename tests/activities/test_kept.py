"""What users keep by PoV is each user's own, and so much of it at most."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from pov_rt.activities.kept import KeptByPov
from pov_rt.engine.base import NewMember
from pov_rt.engine.state import MemorySets
from pov_rt.protocol.errors import LimitExceeded
from pov_rt.protocol.tenants import TenantId
from pov_rt.runtime.clock import ManualClock


class SlowSets(MemorySets):
    """Sets that let others run before they answer, as those of a disk or a network do."""

    async def members(self, name: str) -> Mapping[str, bytes]:
        found = dict(await super().members(name))
        await asyncio.sleep(0)
        return found


def test_what_is_kept_is_there_until_it_is_removed_or_its_time_is_over() -> None:
    async def work() -> None:
        clock = ManualClock()
        sets = SlowSets(clock)
        kept = KeptByPov(sets, "things", "things")
        other = KeptByPov(sets, "others", "others")
        assert await kept.put("ana", "b", b"1", most=9) is None
        assert await kept.put("ana", "a", b"2", most=9, expires_at=clock.time() + 5) is None
        assert await kept.put("ana", "b", b"3", most=9) == b"1"
        assert list((await kept.of("ana")).items()) == [("a", b"2"), ("b", b"3")]
        assert await kept.of("ben") == await other.of("ana") == {}
        clock.advance(5)
        assert await kept.of("ana") == {"b": b"3"}
        await kept.remove("ana", "b")
        await kept.remove("ana", "b")
        assert await kept.of("ana") == {}

    asyncio.run(work())


def test_several_at_a_time_do_not_get_past_the_limit_and_what_is_there_can_change() -> None:
    async def work() -> None:
        kept = KeptByPov(SlowSets(ManualClock()), "things", "small things")
        putting = [kept.put("ana", f"pov{n}", b"", most=3) for n in range(5)]
        done = await asyncio.gather(*putting, return_exceptions=True)
        refused = [each for each in done if isinstance(each, LimitExceeded)]
        assert [str(each) for each in refused] == ["A user has at most 3 small things"] * 2
        assert len(await kept.of("ana")) == 3
        assert await kept.put("ana", "pov0", b"new", most=3) == b""
        assert await kept.put("ben", "pov4", b"", most=3) is None

    asyncio.run(work())


def test_what_has_changed_meanwhile_is_not_replaced_nor_brought_back() -> None:
    async def work() -> None:
        kept = KeptByPov(SlowSets(ManualClock()), "things", "things")
        await kept.put("ana", "a", b"1", most=1)
        assert await kept.put("ana", "a", b"2", most=1, instead_of=b"1") == b"1"
        assert await kept.put("ana", "a", b"3", most=1, instead_of=b"1") == b"2"
        assert await kept.of("ana") == {"a": b"2"}
        await kept.remove("ana", "a")
        assert await kept.put("ana", "a", b"3", most=1, instead_of=b"2") is None
        assert await kept.of("ana") == {}

    asyncio.run(work())


def test_what_stands_beside_it_comes_and_goes_with_it() -> None:
    async def work() -> None:
        sets = MemorySets(ManualClock())
        kept = KeptByPov(sets, "things", "things")
        await kept.put("ana", "a", b"", most=1, beside=[NewMember("who/a", "ana")])
        with pytest.raises(LimitExceeded):
            await kept.put("ana", "b", b"", most=1, beside=[NewMember("who/b", "ana")])
        assert [*await sets.members("who/a")] == ["ana"]
        assert not await sets.members("who/b")
        await kept.remove("ana", "a", [("who/a", "ana")])
        assert not await sets.members("who/a")

    asyncio.run(work())


def test_ids_of_a_team_come_back_as_such() -> None:
    async def work() -> None:
        kept = KeptByPov(MemorySets(ManualClock()), "things", "things")
        pov = TenantId.of("red", "a")
        await kept.put(TenantId.of("red", "ana"), pov, b"", most=1)
        (found,) = await kept.of(TenantId.of("red", "ana"))
        assert (found, type(found)) == (pov, TenantId)
        assert await kept.of(TenantId.of("blue", "ana")) == {}

    asyncio.run(work())


def test_all_of_a_user_is_forgotten_and_of_no_other() -> None:
    async def work() -> None:
        clock = ManualClock()
        kept = KeptByPov(SlowSets(clock), "things", "things")
        for user in ("ana", "ben"):
            await kept.put(user, "a", b"", most=9)
        await kept.put("ana", "b", b"", most=9, expires_at=clock.time() + 1)
        clock.advance(2)
        assert await kept.clear("ana") == 2, "what has expired is still there"
        assert await kept.clear("ana") == 0
        assert (await kept.of("ana"), await kept.of("ben")) == ({}, {"a": b""})

    asyncio.run(work())

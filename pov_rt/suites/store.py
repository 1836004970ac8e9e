"""The tests of `Store`."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.engine.bounds import size_of
from pov_rt.protocol.errors import Unavailable
from pov_rt.suites.support import BODIES, ODD, Suite, on_engine

BOUND = 20_000


class StoreSuite(Suite):
    """What every engine must keep for plugins."""

    @on_engine()
    async def test_a_value_is_what_was_put_last_and_of_its_space(self) -> None:
        store = self.engine.store
        assert await store.get("poll", "a") is None
        await store.put("poll", "a", b"1")
        await store.put("poll", "a", b"2", "ana")
        await store.put("other", "a", b"3")
        assert (await store.get("poll", "a"), await store.get("other", "a")) == (b"2", b"3")
        assert await store.remove("poll", "a")
        assert not await store.remove("poll", "a")
        assert (await store.get("poll", "a"), await store.get("other", "a")) == (None, b"3")
        for key in ODD:
            for body in BODIES:
                await store.put("odd", key, body)
                assert await store.get("odd", key) == body
        assert [key for key, _ in await store.read("odd")] == sorted(ODD)

    @on_engine()
    async def test_a_swap_happens_only_if_nobody_was_faster(self) -> None:
        store = self.engine.store
        assert not await store.swap("poll", "a", b"0", b"1")
        assert await store.swap("poll", "a", None, b"1")
        assert not await store.swap("poll", "a", None, b"2")
        assert await store.swap("poll", "a", b"1", b"2")
        assert not await store.swap("poll", "a", b"1", None)
        assert await store.get("poll", "a") == b"2"
        assert await store.swap("poll", "a", b"2", None)
        assert await store.swap("poll", "a", None, None)
        assert await store.get("poll", "a") is None

        async def add() -> None:
            while True:
                old = await store.get("poll", "n")
                if await store.swap("poll", "n", old, b"%d" % (int(old or b"0") + 1)):
                    return

        await asyncio.gather(*(add() for _ in range(50)))
        assert await store.get("poll", "n") == b"50"

    @on_engine()
    async def test_values_are_read_by_prefix_in_the_order_of_their_keys(self) -> None:
        store = self.engine.store
        keys = ["b", "a/2", "a/10", "a", "a/", "a0", "A/1", "a/\U0001f600", "a/\uffff", "%", "a_"]
        for key in keys:
            await store.put("poll", key, key.encode())
        await store.put("other", "a/3", b"")
        below = sorted(key for key in keys if key.startswith("a/"))
        assert await store.read("poll", "a/") == [(key, key.encode()) for key in below]
        assert [key for key, _ in await store.read("poll")] == sorted(keys)
        assert [key for key, _ in await store.read("poll", "a/", "a/10")] == below[2:]
        assert [key for key, _ in await store.read("poll", "a/", limit=2)] == below[:2]
        assert await store.read("poll", "a/", "b") == []
        assert await store.read("poll", "%") == [("%", b"%")]
        assert await store.read("none") == []

    @on_engine()
    async def test_what_is_kept_of_somebody_is_found_and_erased(self) -> None:
        store = self.engine.store
        await store.put("poll", "a", b"1", "ana")
        await store.put("poll", "b", b"2", "ben")
        await store.put("poll", "c", b"3")
        await store.put("hands", "d", b"4", "ana")
        await store.put("poll", "e", b"5", "ana")
        await store.put("poll", "e", b"6", "ben")
        assert await store.swap("poll", "f", None, b"7", "ana")
        mine = [("hands", "d", b"4"), ("poll", "a", b"1"), ("poll", "f", b"7")]
        assert await store.owned("ana") == mine
        assert await store.owned("ana", limit=2) == mine[:2]
        assert await store.owned("ana", ("poll", "a")) == mine[2:]
        assert await store.owned("") == []
        assert await store.erase("") == 0
        assert await store.erase("ana") == 3
        assert await store.erase("ana") == 0
        assert await store.owned("ana") == []
        assert [key for key, _ in await store.read("poll")] == ["b", "c", "e"]
        assert await store.read("hands") == []

    @on_engine(store_bytes=BOUND)
    async def test_a_space_has_half_of_the_room_and_all_have_no_more_than_there_is(self) -> None:
        store, room = self.engine.store, BOUND // 2 - size_of("a", "ana", b"")
        with pytest.raises(Unavailable, match="its share"):
            await store.put("poll", "a", b"x" * (room + 1), "ana")
        assert await store.get("poll", "a") is None
        await store.put("poll", "a", b"x" * room, "ana")
        with pytest.raises(Unavailable):
            await store.put("poll", "b", b"")
        await store.put("poll", "a", b"y" * room, "ana")  # it takes its own place
        with pytest.raises(Unavailable):
            await store.swap("poll", "a", b"y" * room, b"z" * room, "annabel")
        assert await store.get("poll", "a") == b"y" * room
        await store.put("hands", "a", b"x" * (room - 100), "ana")
        with pytest.raises(Unavailable, match="store has"):
            await store.put("third", "a", b"x" * 200)
        assert await store.erase("ana") == 2
        await store.put("third", "a", b"x" * room)
        await store.put("poll", "a", b"x" * room)
        assert await store.remove("poll", "a")
        await store.put("poll", "b", b"x" * room)

"""A plugin's values are its own, bounded, and nobody's change to one is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.state import MemoryStore
from pov_rt.plugin import Storage, TooLarge, Unavailable
from pov_rt.plugin.storage import MAX_KEY_CHARS, MAX_VALUE_BYTES
from tests.engine.sqlite_parts import opened


class Hand(msgspec.Struct):
    user_id: str
    at: float = 0.0


@asynccontextmanager
async def storages(path: Path) -> AsyncIterator[list[Storage]]:
    async with opened(path) as (engine, _):
        yield [Storage(engine.store, "poll"), Storage(MemoryStore(EngineSettings()), "poll")]


def test_values_are_what_they_were_as_the_kind_that_is_asked_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with storages(tmp_path / "log.db") as every:
            for store in every:
                assert await store.get("hand", Hand) is None
                await store.put("hand", Hand("ana", 1.5))
                await store.put("counts", {"a": 1})
                await store.put("é\n\U0001f600", None)
                assert await store.get("hand", Hand) == Hand("ana", 1.5)
                assert await store.get("counts", dict[str, int]) == {"a": 1}
                with pytest.raises(TypeError, match="'counts' in the store is another one"):
                    await store.get("counts", Hand)
                await store.put("h/1", 1)
                await store.put("h/2", 2)
                assert await store.items(int, prefix="h/") == {"h/1": 1, "h/2": 2}
                assert await store.items(int, prefix="h/", after="h/1") == {"h/2": 2}
                assert await store.items(int, prefix="h/", limit=1) == {"h/1": 1}
                assert await store.remove("hand")
                assert not await store.remove("hand")

    asyncio.run(work())


def test_nobodys_change_is_lost(tmp_path: Path) -> None:
    async def work() -> None:
        async with storages(tmp_path / "log.db") as every:
            for store in every:
                add = [store.update("n", int, lambda old: (old or 0) + 1) for _ in range(30)]
                assert sorted(each or 0 for each in await asyncio.gather(*add)) == [*range(1, 31)]
                assert await store.update("n", int, lambda old: old) == 30
                assert await store.update("n", int, lambda _: None) is None
                assert await store.get("n", int) is None

    asyncio.run(work())


def test_a_value_that_never_stands_still_is_given_up() -> None:
    async def work() -> None:
        engine_store = MemoryStore(EngineSettings())
        store, numbers = Storage(engine_store, "poll"), iter(range(10_000))

        def meanwhile(_: int | None) -> int:
            engine_store.rules.bound.look()  # as if another node wrote in between
            engine_store._put("poll", "n", b"%d" % next(numbers), "")  # noqa: SLF001
            return -1

        with pytest.raises(Unavailable, match="too many change 'n'"):
            await store.update("n", int, meanwhile)

    asyncio.run(work())


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_CHARS + 1), "a\0b", 7])
def test_a_key_that_is_none_is_refused_at_every_method(key: str) -> None:
    async def work() -> None:
        store = Storage(MemoryStore(EngineSettings()), "poll")
        for work in (
            store.get(key, int),
            store.put(key, 1),
            store.update(key, int, lambda old: old),
            store.remove(key),
        ):
            with pytest.raises(ValueError, match="a key must have 1 to 512 characters"):
                await work

    asyncio.run(work())


def test_a_value_has_a_size_and_can_be_json() -> None:
    async def work() -> None:
        store = Storage(MemoryStore(EngineSettings()), "poll")
        await store.put("a", "x" * (MAX_VALUE_BYTES - 2))
        with pytest.raises(TooLarge, match="the value of 'a' has 262145 bytes, of 262144"):
            await store.put("a", "x" * (MAX_VALUE_BYTES - 1))
        with pytest.raises(TypeError):
            await store.put("a", object())

    asyncio.run(work())

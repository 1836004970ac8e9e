"""What plugins keep is on disk: over restarts and failures, and gone when it is erased."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Store
from pov_rt.engine.state import MemoryStore
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import ManualClock
from tests.engine.sqlite_parts import opened

KEYS = ["a", "b/1", "b/2", "é"]
OWNERS = ["", "ana", "ben"]


async def step(store: Store, chance: random.Random) -> object:
    """Do something at random; return what came of it."""
    space, key, owner = chance.choice("xy"), chance.choice(KEYS), chance.choice(OWNERS)
    body = chance.randbytes(chance.choice([0, 1, 300, 3000]))
    try:
        match chance.randrange(6):
            case 0 | 1:
                await store.put(space, key, body, owner)
                return None
            case 2:
                old = await store.get(space, key) if chance.random() < 0.7 else b"other"
                return await store.swap(space, key, old, chance.choice([body, None]), owner)
            case 3:
                return await store.remove(space, key)
            case 4 if chance.random() < 0.3:
                return await store.erase(owner)
        return await store.owned(owner), await store.read(space, chance.choice(["", "b/"]))
    except Unavailable as error:
        return str(error)


@pytest.mark.parametrize("seed", range(4))
def test_it_does_what_memory_does_over_restarts(path: Path, seed: int) -> None:
    """The sizes too: both refuse the same, with the same numbers in the text."""

    async def work() -> None:
        memory = MemoryStore(EngineSettings(store_bytes=9_000))
        chances = random.Random(seed), random.Random(seed)
        refusals = 0
        for _ in range(4):
            async with opened(path, store_bytes=9_000) as (engine, _):
                for _ in range(60):
                    expected = await step(memory, chances[0])
                    assert await step(engine.store, chances[1]) == expected
                    refusals += isinstance(expected, str)
        assert refusals

    asyncio.run(work())


def test_a_commit_that_fails_leaves_the_room_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with opened(path, ManualClock()) as (engine, _):
            await engine.store.put("poll", "a", b"x" * 100)
            (before,) = [each.used() for each in engine.bounds if each.name == "store"]

            def fail(connection: sqlite3.Connection) -> None:
                engine._state.values.count("poll", 5000)  # noqa: SLF001
                raise sqlite3.OperationalError("disk I/O error")

            with pytest.raises(Unavailable):
                await engine.write(fail)
            await engine.store.put("poll", "a", b"y" * 100)
            (after,) = [each.used() for each in engine.bounds if each.name == "store"]
            assert after == before

    asyncio.run(work())


def test_what_is_erased_is_in_no_byte_of_the_file(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as (engine, _):
            for number in range(50):
                await engine.store.put("poll", f"k{number}-MARKER", b"MARKER" * 400, "ana")
            assert await engine.store.erase("ana") == 50

    asyncio.run(work())
    assert b"MARKER" not in path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM store").fetchone() == (0,)

"""Which tokens are void, for how long, and what a full disk or an unheard word changes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pov_rt.auth.grants import Grants, Kind
from pov_rt.auth.revocations import Revocation, Revocations
from pov_rt.auth.tokens import Identity
from pov_rt.config.settings import EngineSettings
from pov_rt.engine.memory import MemoryEngine
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import ManualClock

KEEP_S = 100.0


class Bench:
    """The revocations of one node, and of those that share its engine."""

    def __init__(self) -> None:
        self.clock = ManualClock(1000.0)
        self.engine = MemoryEngine(EngineSettings(), self.clock, "one")
        self.one = self.another()

    def another(self) -> Revocations:
        return Revocations(self.engine.sets, self.clock, KEEP_S)


def identity(issued_at: float | None, user_id: str = "ana", token_id: str = "t") -> Identity:
    grants = Grants(None, frozenset())
    return Identity(user_id, None, None, Kind.SOCKET, grants, 9999.0, issued_at, token_id)


@pytest.mark.parametrize("user_id", ["ana", None])
def test_a_later_word_undoes_nothing_of_an_earlier_one(user_id: str | None) -> None:
    async def run() -> None:
        bench = Bench()
        wide, narrow = (Revocation(user_id=user_id, before=at) for at in (500.0, 100.0))
        for revocation in (wide, narrow):
            bench.one.add(revocation)
            await bench.one.store(revocation)
        restarted = bench.another()
        await restarted.load()
        for each in (bench.one, restarted):
            assert each.covers(identity(499.0))
            assert not each.covers(identity(500.0))
        # Nor if the node that says it never heard the earlier one.
        deaf = bench.another()
        await deaf.store(narrow)
        assert deaf.covers(identity(499.0))
        restarted = bench.another()
        await restarted.load()
        assert restarted.covers(identity(499.0))

    asyncio.run(run())


def test_an_instant_is_no_more_than_all() -> None:
    one = Bench().one
    for before in (None, 100.0):
        one.add(Revocation(user_id="ana", before=before))
    assert one.covers(identity(2000.0))
    assert not one.covers(identity(2000.0, "ben"))


def test_they_are_forgotten_when_they_were_kept_for_long_enough() -> None:
    bench = Bench()
    for number in range(3):
        bench.one.add(Revocation(token_id=f"t{number}"))
        bench.clock.advance(10)
    bench.one.add(Revocation(token_id="t0"))
    bench.clock.advance(KEEP_S - 20)
    bench.one.sweep(bench.clock.monotonic())
    assert [bench.one.covers(identity(None, token_id=f"t{n}")) for n in range(3)] == [
        True,
        False,
        True,
    ]
    assert len(bench.one) == 2


def test_what_cannot_be_stored_raises() -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise Unavailable

    async def run() -> None:
        bench = Bench()
        bench.engine.sets.add = refuse  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await bench.one.store(Revocation(token_id="t"))

    asyncio.run(run())

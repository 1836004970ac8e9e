"""The suite fails for engines that break a guarantee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import (
    Amended,
    Amendment,
    Appended,
    Conflict,
    Engine,
    NewEntry,
    Page,
    Position,
    Top,
)
from pov_rt.engine.memory import MemoryEngine, MemoryLog
from pov_rt.engine.state import MemoryMarks, MemorySets, MemoryStore
from pov_rt.runtime.clock import ManualClock
from pov_rt.suites import EngineSuite, Povs


class TellsTwice(MemoryLog):
    async def append(self, batch: Sequence[NewEntry]) -> list[Appended | Conflict]:
        return await super().append([each._replace(key=str(id(each))) for each in batch])


class ChangesEpoch(MemoryLog):
    async def top(self, topic: str) -> Top:
        self.epoch += "x"
        return await super().top(topic)


class IgnoresReverse(MemoryLog):
    async def read(
        self,
        topic: str,
        after: int,
        limit: int,
        *,
        reverse: bool = False,
        max_bytes: int | None = None,
    ) -> Page:
        return await super().read(topic, after, limit)


class AmendsWhateverIsThere(MemoryLog):
    async def amend(self, amendment: Amendment) -> Amended | Conflict | None:
        rewrite = amendment.rewrite
        for entry in (await self.read(rewrite.topic, rewrite.offset - 1, 1)).entries:
            amendment = amendment._replace(rewrite=rewrite._replace(old=entry.body))
        return await super().amend(amendment)


class GoesBack(MemoryMarks):
    async def advance(self, topic: str, user: str, name: str, position: Position) -> Position:
        await self.drop(topic, user, name)
        return await super().advance(topic, user, name, position)


class NeverExpires(MemorySets):
    async def add(
        self, name: str, member: str, body: bytes = b"", expires_at: float | None = None
    ) -> None:
        await super().add(name, member, body)


class ForgetsWhose(MemoryStore):
    async def put(self, space: str, key: str, body: bytes, owner: str = "") -> None:
        await super().put(space, key, body)


BROKEN: Mapping[str, tuple[str, Any]] = {
    "test_a_retry_answers_the_first_offset_and_reaches_nobody": ("log", TellsTwice),
    "test_an_unknown_topic_has_an_epoch_that_stays": ("log", ChangesEpoch),
    "test_reading_both_ways_is_bounded_and_exclusive": ("log", IgnoresReverse),
    "test_an_amendment_is_done_once_and_only_to_the_body_it_is_about": (
        "log",
        AmendsWhateverIsThere,
    ),
    "test_marks_only_move_forward_in_an_epoch": ("marks", GoesBack),
    "test_members_of_sets_expire": ("sets", NeverExpires),
    "test_what_is_kept_of_somebody_is_found_and_erased": ("store", ForgetsWhose),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_engine_fails_the_test_of_its_guarantee(name: str) -> None:
    part, broken = BROKEN[name]

    class Suite(EngineSuite):
        def make(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
            given = EngineSettings(**settings)
            engine = MemoryEngine(given, clock, "node")
            every: Mapping[str, tuple[Any, ...]] = {
                "log": (given, clock),
                "marks": (given, clock),
                "sets": (clock,),
                "store": (given,),
            }
            arguments = every[part]
            setattr(engine, part, broken(*arguments))
            return engine

    with pytest.raises(AssertionError):
        getattr(Suite(), name)()

"""What was missed, in numbers: all of it up to a bound, and nothing that was not missed."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.activities import digest as digest_module
from pov_rt.activities.digest import MOST, Author, Digest, Sort, make_digest
from pov_rt.config.settings import EngineSettings
from pov_rt.delivery.stored import Reader
from pov_rt.engine.base import NewEntry
from pov_rt.engine.memory import MemoryEngine
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.messages import Activity
from pov_rt.runtime.clock import ManualClock

A = "pov/a"


def digest_of(activities: list[tuple[str, str]], after: int) -> Digest:
    """Return the digest of a log with these actions and users."""

    async def work() -> Digest:
        engine = MemoryEngine(EngineSettings(), ManualClock(), "n")
        batch = []
        for n, (action, user) in enumerate(activities):
            made = Activity(id=str(n), type="t", action=action, pov_id="a", user_id=user)
            batch.append(NewEntry(A, "p", str(n), encode(made)))
        await engine.log.append(batch)
        return await make_digest(engine.log, Reader(ManualClock()), A, after)

    return asyncio.run(work())


@pytest.mark.parametrize("page", [1, 3, 4, 100])
def test_only_what_came_after_is_counted_whatever_a_page_holds(
    page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_module, "PAGE", page)
    activities = [("old", "zoe"), *[("done", "ana")] * 3, ("done", "ben"), ("opened", "ana")]
    found = digest_of(activities, 1)
    assert (found.counted, found.people) == (5, 2)
    assert found.activities == [
        Sort(type="t", action="done", count=4),
        Sort(type="t", action="opened", count=1),
    ]
    assert found.users == [Author(user_id="ana", count=4), Author(user_id="ben", count=1)]
    assert digest_of(activities, 6) == Digest(counted=0, people=0, activities=[], users=[])


def test_the_newest_are_counted_up_to_the_bound_and_the_most_frequent_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(digest_module, "PAGE", 10)
    monkeypatch.setattr(digest_module, "MAX_COUNTED", 50)
    often = [(f"a{n % 25}", f"u{n % 25}") for n in range(45)]
    found = digest_of([("old", "old")] * 30 + often + [("last", "last")] * 5, 0)
    assert (found.counted, found.people) == (50, 26), "the old ones are beyond the bound"
    assert len(found.activities) == len(found.users) == MOST
    assert found.users[0] == Author(user_id="last", count=5)

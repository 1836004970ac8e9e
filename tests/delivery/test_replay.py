"""A subscriber is served from where it was, or from the top with words; never from between."""

from __future__ import annotations

import pytest

from pov_rt.delivery.filters import Since
from pov_rt.delivery.replay import MAX_REPLAY, AfterMarks, Start, recover
from pov_rt.engine.base import Position, Top

TOP = Top("e", 2000, 501)
"""1,500 entries are kept, more than are replayed at once."""


@pytest.mark.parametrize(
    ("since", "start", "recovered", "missed"),
    [
        (None, 2000, None, None),
        (Position("e", 2000), 2000, True, 0),
        (Position("e", 2000 - MAX_REPLAY), 2000 - MAX_REPLAY, True, 0),
        (Position("e", 1999 - MAX_REPLAY), 2000, False, MAX_REPLAY + 1),
        (Position("e", 0), 2000, False, 2000),
        # Of another log, or ahead of this one: nobody knows how many those are.
        (Position("other", 1999), 2000, False, None),
        (Position("e", 2001), 2000, False, None),
        (1, 1999, True, 0),
        (MAX_REPLAY, 2000 - MAX_REPLAY, True, 0),
        (MAX_REPLAY + 500, 2000 - MAX_REPLAY, True, 0),
    ],
)
def test_a_place_is_gone_on_from_or_said_to_be_lost(
    since: Since | None, start: int, recovered: bool | None, missed: int | None
) -> None:
    assert recover(TOP, since) == Start(TOP, start, recovered, missed)


def test_what_retention_took_is_missed_even_if_it_is_little() -> None:
    top = Top("e", 10, 8)
    assert recover(top, Position("e", 7)) == Start(top, 7, recovered=True, missed=0)
    assert recover(top, Position("e", 6)) == Start(top, 10, recovered=False, missed=4)
    assert recover(top, 5) == Start(top, 7, recovered=True, missed=0)


@pytest.mark.parametrize(
    ("places", "start", "missed"),
    [
        ([], 500, 500),
        ([Position("e", 400)], 500, 100),
        ([Position("e", 500)], 500, 0),
        ([Position("e", 700), Position("e", 1200)], 1200, 0),
        ([Position("other", 1999), Position("e", 600)], 600, 0),
        # Further than this node has come yet: what it does not know comes once more.
        ([Position("e", 2005)], 2000, 0),
    ],
)
def test_all_that_is_unread_comes_however_much(
    places: list[Position], start: int, missed: int
) -> None:
    assert recover(TOP, AfterMarks(places)) == Start(
        TOP, start, recovered=not missed, missed=missed
    )

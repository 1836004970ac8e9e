"""Each publisher's part of the topics, each user's of the marks."""

from __future__ import annotations

import pytest

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.bounds import MarkRules, TopicCount, epoch_of, is_later, make_epoch
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import ManualClock

HOUR_S, DAY_S = 3600.0, 86400.0


def begin(count: TopicCount, publisher: str) -> int:
    """Have a publisher begin topics until it is refused; return how many."""
    number = 0
    while True:
        try:
            count.check_room(1, publisher)
        except Unavailable:
            return number
        number += 1
        count.number += 1


@pytest.mark.parametrize(
    ("max_topics", "topics_per_hour", "first"), [(1000, 20, 20), (1000, 900, 500), (3, 9, 1)]
)
def test_one_publisher_leaves_something_to_the_others(
    max_topics: int, topics_per_hour: int, first: int
) -> None:
    clock = ManualClock()
    settings = EngineSettings(max_topics=max_topics, topics_per_hour=topics_per_hour)
    count = TopicCount(settings, clock)
    assert begin(count, "p") == first
    assert begin(count, "q") == first
    assert count.bound.refused == 2
    clock.advance(HOUR_S)
    assert begin(count, "p") == min(first, max_topics - 2 * first)


def test_it_says_when_it_is_nearly_full() -> None:
    count = TopicCount(EngineSettings(max_topics=10), ManualClock())
    count.number = 7
    assert not count.is_nearly_full
    count.number = 8
    assert count.is_nearly_full


@pytest.mark.parametrize(
    ("settings", "each", "age_s", "renew_s"),
    [
        ({}, 5000, 30 * DAY_S, DAY_S),
        ({"max_marks": 300}, 30, 30 * DAY_S, DAY_S),
        ({"max_marks": 2}, 1, 30 * DAY_S, DAY_S),
        ({"marks_per_user": 7}, 7, 30 * DAY_S, DAY_S),
        ({"max_age_s": 90 * DAY_S}, 5000, 90 * DAY_S, DAY_S),
        ({"mark_age_s": 8.0, "max_age_s": 1.0}, 5000, 8.0, 1.0),
    ],
)
def test_rules_of_marks(
    settings: dict[str, float], each: int, age_s: float, renew_s: float
) -> None:
    rules = MarkRules(EngineSettings(**settings))  # type: ignore[arg-type]
    assert (rules.each, rules.age_s, rules.renew_s) == (each, age_s, renew_s)
    rules.number = int(rules.bound.limit) - 1
    rules.check_room("ana")
    rules.number += 1
    with pytest.raises(Unavailable, match="max_marks"):
        rules.check_room("ana")
    assert rules.bound.refused == 1


def test_an_epoch_that_was_made_later_is_known_and_no_clock_makes_an_earlier_one() -> None:
    first = make_epoch(1000.0)
    later = make_epoch(1000.001)
    assert is_later(later, first)
    assert not is_later(first, later)
    assert not is_later(first, first)
    assert is_later(epoch_of(later, 3), epoch_of(first, 7))
    set_back = make_epoch(5.0, later)
    assert is_later(set_back, later), "whatever the clock does"
    # Those of older versions, and what clients make up.
    for epoch in ("", "0123456789ab", "x" * 20, "-", "f" * 40):
        assert not is_later(epoch, first)
        assert not is_later(first, epoch)

"""Ids that sort by their time, times as text, and waits that grow up to a bound."""

from __future__ import annotations

import re
import time

import pytest

from pov_rt.runtime.clock import ManualClock, full_jitter, new_id, rfc3339


def test_ids_are_nobody_elses_and_sort_by_the_millisecond_they_were_made_in() -> None:
    before = time.time_ns() // 1_000_000
    made = [new_id() for _ in range(5000)]
    after = time.time_ns() // 1_000_000
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)
    times = [int(each[:12], 16) for each in made]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (0.25, "1970-01-01T00:00:00.250Z"),
        (1_800_000_000.9999, "2027-01-15T08:00:00.999Z"),
        (253_402_300_799, "9999-12-31T23:59:59.000Z"),
    ],
)
def test_a_time_has_milliseconds_and_a_zone(seconds: float, text: str) -> None:
    assert rfc3339(seconds) == text


def test_waits_double_up_to_the_longest_and_are_spread_over_all_of_it() -> None:
    longest = [full_jitter(failures, 0.5, 20.0, 1.0) for failures in range(1, 9)]
    assert longest == [0.5, 1, 2, 4, 8, 16, 20, 20]
    assert full_jitter(5, 0.5, 20.0, 0.0) == 0
    assert full_jitter(5, 0.5, 20.0, 0.5) == 4
    assert full_jitter(10**9, 0.5, 20.0, 1.0) == 20, "no overflow after days without an answer"


def test_a_manual_clock_moves_when_it_is_told_to() -> None:
    clock = ManualClock(5.0)
    assert (clock.time(), clock.monotonic()) == (5.0, 5.0)
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (7.5, 7.5)
    assert clock.new_id() < clock.new_id()

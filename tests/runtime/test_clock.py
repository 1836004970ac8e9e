"""Ids that sort by their time, times as text, and waits that grow up to a bound."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pov_rt
from pov_rt.runtime.clock import (
    DOUBT_S,
    STEP_S,
    YEAR_1,
    YEAR_9999_END,
    ManualClock,
    SteadyTime,
    full_jitter,
    new_id,
    rfc3339,
)
from tests.test_architecture import FILES, PLUGINS

WALL = re.compile(
    r"(?<!loop\(\))(?<!loop)\.time\(\)|\btime_ns\(\)|datetime\.(?:now|utcnow|today)\("
)
WALL_CLOCK: Mapping[str, str] = {
    "activities/cursors": "when a device is to be forgotten, over restarts",
    "activities/inbox": "what expires at an instant that the sender names",
    "auth/keys": "when a key stops to count, for tokens that have instants",
    "auth/remembered": "the instants in tokens",
    "auth/revocations": "until when a revocation is kept, over restarts",
    "auth/tokens": "the instants in tokens",
    "cli/client": "when a token ends, for people",
    "cli/db": "for which instant everything is copied",
    "cli/doctor/redis": "what the clock of Redis is compared with",
    "cli/top/command": "when the screen was drawn, for people",
    "client/publishing/outbox": "until when a claim counts, over restarts and for all relays",
    "connections/last_seen": "when a user left, for people",
    "connections/deadlines": "the instants in tokens, when the clock was stepped",
    "delivery/replay": "what expires at an instant that the sender names",
    "dispatch/handlers/context": "when something was shown, for people",
    "engine/memory/copying": "ages, as instants that outlive the process",
    "engine/memory/log": "when an entry was appended, for people",
    "engine/producers": "ages, as instants that outlive the process, where they are copied",
    "engine/state": "ages, as instants that outlive the process, where they are copied",
    "engine/sqlite/schema": "when a log began, which its epoch says",
    "engine/sqlite/members": "what has expired, while no server runs",
    "engine/sqlite/log": "when an entry was appended, for people and over restarts",
    "engine/sqlite/writer": "since when nothing is written, for people",
    "engine/redis/engine": "since when something ails Redis, for people",
    "engine/redis/log": "what is too old to be read, by the instants that Redis gave it",
    "engine/redis/tidying": "what is too old to be kept, by the instants that Redis gave it",
    "engine/redis/health/canary": "since when the node runs, for people",
    "engine/redis/health/conditions": "how far off this machine's clock is, or Redis's",
    "plugin/calls": "the instant in a signature",
    "plugins/mute": "what ends at an instant that the user names, and is forgotten over restarts",
    "plugins/presence": "since when a user is there, for people",
    "plugins/webhooks": "when an event was, for the receiver",
    "runtime/clock": "the clocks themselves",
    "suites/copying": "for which instant everything is copied",
    "server/listings": "when a user was here last, for people",
    "server/now": "when a number was taken, or something published, for people",
    "server/server": "since when the node runs, for people",
    "server/requests": "the instants in tokens",
    "server/streams": "cursors that grow, as the clients of streams want them",
    "server/trace/audit": "when something was sent, for people",
    "server/trace/explain": "what expires at an instant that the sender names",
    "server/trace/spill": "what is too old to be kept, over restarts",
    "server/trace/trace": "when something happened, for people and over restarts",
    "suites/logs": "what an entry says",
    "suites/past": "what an entry says",
    "suites/state": "members of sets",
    "testing": "what a test's clock says",
    "tracker/token": "the instants in tokens",
    "web/demo/board": "since when the board is there, for its count from the log",
}
"""Who may ask for the time of day, and why. Durations within the process are `monotonic`'s."""


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
        (253_402_300_799.9999, "9999-12-31T23:59:59.000Z"),
        (253_402_343_999, "9999-12-31T23:59:59.000Z"),
        (-62_135_596_800, "0001-01-01T00:00:00.000Z"),
        (-62_135_640_000, "0001-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_has_milliseconds_and_a_zone(seconds: float, text: str) -> None:
    assert rfc3339(seconds) == text


@given(st.floats(YEAR_1, YEAR_9999_END))
def test_a_time_is_what_datetime_makes_of_it(seconds: float) -> None:
    said = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    assert rfc3339(seconds) == said.replace("+00:00", "Z")


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


def test_a_manual_clock_can_be_put_forward_and_back_as_others_are() -> None:
    clock = ManualClock(5.0)
    clock.step(-3.0)
    assert (clock.time(), clock.monotonic()) == (2.0, 5.0)


def test_the_time_of_day_is_asked_for_where_that_has_a_reason_and_nowhere_else() -> None:
    """A clock that is put right must not end, or prolong, what lasts for some seconds."""
    root = Path(pov_rt.__file__).parent
    asking = set()
    for path in (*FILES, *PLUGINS):
        if WALL.search(path.read_text()):
            within = path.relative_to(root if root in path.parents else root.parent)
            asking.add(str(within.with_suffix("")))
    assert asking == WALL_CLOCK.keys()


@pytest.mark.parametrize("days", [1, 8, 31, 400])
def test_a_jump_ahead_is_not_believed_until_it_has_lasted(days: int) -> None:
    clock = ManualClock()
    steady = SteadyTime(clock)
    right = clock.time()
    clock.step(days * 86400.0)
    assert steady.now() == right
    clock.advance(DOUBT_S - 1)
    assert steady.now() == right + DOUBT_S - 1
    clock.advance(1)
    assert steady.now() == clock.time()
    clock.advance(5)
    assert steady.now() == clock.time()


def test_what_happens_while_the_clock_is_doubted_counts_as_later_rather_than_earlier() -> None:
    clock = ManualClock()
    steady = SteadyTime(clock)
    clock.step(86400.0)
    assert steady.stamp() == clock.time() == steady.now() + 86400.0
    clock.advance(DOUBT_S)
    assert steady.stamp() == steady.now()


def test_a_jump_that_is_put_right_leaves_nothing() -> None:
    clock = ManualClock()
    steady = SteadyTime(clock)
    for _ in range(3):  # each begins anew, however long all of them last together
        clock.step(8 * 86400.0)
        right = clock.time() - 8 * 86400.0
        assert steady.now() == right
        clock.advance(DOUBT_S - 1)
        assert steady.now() == right + DOUBT_S - 1
        clock.step(-8 * 86400.0)
        assert steady.now() == clock.time()


def test_a_clock_that_jumps_on_is_doubted_from_then_on() -> None:
    clock = ManualClock()
    steady = SteadyTime(clock)
    right = clock.time()
    clock.step(86400.0)
    steady.now()
    clock.advance(DOUBT_S - 1)
    clock.step(86400.0)
    assert steady.now() == right + DOUBT_S - 1
    clock.advance(DOUBT_S - 1)
    assert steady.now() == right + 2 * (DOUBT_S - 1)
    clock.advance(1)
    assert steady.now() == clock.time()


def test_a_step_back_and_small_steps_are_believed_at_once() -> None:
    clock = ManualClock()
    steady = SteadyTime(clock)
    for seconds in (-86400.0, STEP_S, -1.0, STEP_S, STEP_S):
        clock.step(seconds)
        assert steady.now() == clock.time()

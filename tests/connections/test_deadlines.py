"""Deadlines of connections: pings, silence, tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pov_rt.config.settings import AuthSettings, PingSettings
from pov_rt.connections.deadlines import Deadlines, Wheel
from pov_rt.protocol.errors import CloseCode
from pov_rt.runtime.clock import ManualClock
from tests.transports import connection, recorder


def test_a_wheel_gives_each_once_in_its_second_and_forgets_the_removed() -> None:
    clock, wheel = ManualClock(100), Wheel()
    early, late, gone = (connection(name, "u", clock) for name in ("e", "l", "g"))
    wheel.put(late, 120)
    wheel.put(early, 120)
    wheel.put(early, 105)
    wheel.put(gone, 105)
    wheel.remove(gone)
    wheel.remove(gone)
    assert len(wheel) == 2
    assert wheel.take_due(105) == []
    assert wheel.take_due(106) == [early]
    assert wheel.take_due(1000) == [late]
    assert (wheel.take_due(2000), len(wheel)) == ([], 0)


def test_deadlines_pings_warns_and_closes_on_time() -> None:
    clock = ManualClock(1000)
    deadlines = Deadlines(PingSettings(), AuthSettings(warning_s=60, grace_s=25), clock)
    plain, v1 = connection("p", "u", clock, v1=False), connection("v", "u", clock)
    for each in (plain, v1):
        recorder(each).is_heard = True
        deadlines.add(each)
    pinged_at = warned_at = None
    while not recorder(v1).closed_with and clock.now < 1200:
        clock.advance(1)
        deadlines.sweep(clock.monotonic())
        if recorder(v1).pings and pinged_at is None:
            pinged_at = clock.now - 1000
        if recorder(v1).messages and warned_at is None:
            warned_at = clock.now - 1000
            assert recorder(v1).messages[0]["type"] == "token_expiring"
    assert 25 <= (pinged_at or 0) <= 27
    assert 40 <= (warned_at or 0) <= 42
    assert 125 <= clock.now - 1000 <= 127
    assert {recorder(each).closed_with for each in (plain, v1)} == {CloseCode.TOKEN}
    assert recorder(plain).messages == [], "a plain client is told nothing it does not know"


def test_one_that_cannot_be_looked_at_leaves_the_others_their_deadlines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock(1000)
    deadlines = Deadlines(PingSettings(), AuthSettings(warning_s=60, grace_s=25), clock)
    broken, other = connection("b", "u", clock), connection("o", "u", clock)
    for each in (broken, other):
        deadlines.add(each)
    recorder(broken).ping = None  # type: ignore[method-assign, assignment]
    while not recorder(other).closed_with:
        clock.advance(1)
        deadlines.sweep(clock.monotonic())
    assert "a deadline of b could not be met" in caplog.text


def test_a_silent_client_is_closed_ten_seconds_after_its_ping() -> None:
    clock = ManualClock(1000)
    deadlines = Deadlines(PingSettings(), AuthSettings(), clock)
    silent = connection("s", "u", clock)
    deadlines.add(silent)
    while not recorder(silent).closed_with:
        clock.advance(1)
        deadlines.sweep(clock.monotonic())
    assert recorder(silent).closed_with is CloseCode.PING_TIMEOUT
    assert 35 <= clock.now - 1000 <= 38
    deadlines.remove(silent)


def test_who_ended_while_others_were_looked_at_is_not_watched_again() -> None:
    clock = ManualClock(1000)
    deadlines = Deadlines(PingSettings(), AuthSettings(warning_s=0), clock)
    gone = connection("g", "u", clock)
    recorder(gone).is_heard = True
    deadlines.add(gone)
    gone.lost("connection lost")
    for _ in range(90):
        clock.advance(1)
        deadlines.sweep(clock.monotonic())
    assert recorder(gone).pings == 1, "once, when it was due"


moves = st.tuples(st.sampled_from(["time", "sleep", "step"]), st.floats(-500, 500))


@given(st.lists(moves, max_size=12))
def test_after_each_sweep_a_token_ends_when_the_wall_clock_says_so(
    course: list[tuple[str, float]],
) -> None:
    clock = ManualClock(10_000)
    deadlines = Deadlines(PingSettings(), AuthSettings(warning_s=60, grace_s=25), clock)
    client = connection("c", "u", clock)  # its token has 100 s
    recorder(client).is_heard = True
    deadlines.add(client)
    for kind, seconds in course:
        if kind == "time":
            clock.advance(abs(seconds))
        else:  # while a machine sleeps, only the wall clock goes on
            clock.step(abs(seconds) if kind == "sleep" else seconds)
        for _ in range(3):  # a ping that is due has its answer
            deadlines.sweep(clock.monotonic())
        if recorder(client).closed_with:
            # In buckets of a second, and up to a second is no step.
            assert clock.time() >= client.identity.expires_at + 25 - 1
            return
        left = client.identity.expires_at - clock.time()
        assert client.expires_at - clock.monotonic() == pytest.approx(left, abs=1.01)
        assert left > -25 - 2.01


def test_500_s_past_its_end_after_a_step_a_token_publishes_no_more_and_is_closed() -> None:
    clock = ManualClock(10_000)
    deadlines = Deadlines(PingSettings(), AuthSettings(grace_s=1), clock)
    client = connection("c", "u", clock)
    deadlines.add(client)
    clock.step(600)
    deadlines.sweep(clock.monotonic())
    assert client.expires_at <= clock.monotonic() - 500 + 1
    deadlines.sweep(clock.monotonic())
    assert recorder(client).closed_with is CloseCode.TOKEN


def test_a_token_that_seemed_to_end_is_good_again_once_the_clock_is_right() -> None:
    clock = ManualClock(10_000)
    deadlines = Deadlines(PingSettings(), AuthSettings(warning_s=60, grace_s=25), clock)
    client = connection("c", "u", clock)
    deadlines.add(client)
    told = []
    for move, seconds in ((clock.step, 110), (clock.step, -110), (clock.advance, 42)):
        move(seconds)
        deadlines.sweep(clock.monotonic())
        told.append(len(recorder(client).messages))
    assert told == [1, 1, 2], "warned anew, for it is long until then"
    assert not recorder(client).closed_with
    assert client.expires_at == clock.monotonic() + 58

"""Deadlines of connections: pings, silence, tokens."""

from __future__ import annotations

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

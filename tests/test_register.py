"""Connections by user, and their bounds."""

from __future__ import annotations

import pytest

from pov_rt.auth.grants import Grants, Kind
from pov_rt.auth.tokens import Identity
from pov_rt.clock import ManualClock
from pov_rt.connection import Connection
from pov_rt.engine.memory import MemorySignals
from pov_rt.errors import CloseCode, LimitExceeded
from pov_rt.health import Health, Wheel
from pov_rt.limits import Bucket, KeyedBuckets, Rate, SeenIds, parse_rate
from pov_rt.register import Register
from pov_rt.settings import AuthSettings, LimitSettings, PingSettings
from tests.transports import Recorder


class Nobody:
    def receive(self, connection: Connection, payload: bytes, is_text: bool) -> None: ...

    def closed(self, connection: Connection, reason: str) -> None: ...


def connection(name: str, user: str, clock: ManualClock, *, v1: bool = True) -> Connection:
    identity = Identity(
        user, None, None, Kind.SOCKET, Grants(None, frozenset()), clock.time() + 100, None, None
    )
    made = Connection(
        Nobody(),
        name,
        identity,
        device=name,
        remote_ip="",
        user_agent="",
        v1=v1,
        opened_at=clock.monotonic(),
        expires_at=clock.monotonic() + 100,
        bucket=Bucket(Rate(1, 1), 0),
    )
    made.transport = Recorder()
    return made


def recorder(made: Connection) -> Recorder:
    assert isinstance(made.transport, Recorder)
    return made.transport


def test_connections_are_found_by_id_and_user_and_bounded() -> None:
    clock, closed = ManualClock(), []
    register = Register(
        MemorySignals(),
        LimitSettings(connections_per_user=3, devices_per_user=2),
        settle=lambda _: None,
        close=lambda each, code: closed.append((each.id, code)),
    )
    one, two = connection("1", "ana", clock), connection("2", "ana", clock)
    register.add(one)
    register.check_room(one.identity, "2")
    register.add(two)
    register.check_room(one.identity, "1")
    with pytest.raises(LimitExceeded, match="2 devices"):
        register.check_room(one.identity, "3")
    register.add(connection("3", "ana", clock))
    with pytest.raises(LimitExceeded, match="3 connections"):
        register.check_room(one.identity, "1")
    assert (register.get("1"), register.get("9"), len(register)) == (one, None, 3)
    register.send_user("ana", b'{"type":"x"}')
    assert recorder(two).messages == [{"type": "x"}]
    register.remove(one)
    register.remove(one)
    register.disconnect(user_id="ana", connection_id="1", code=CloseCode.TOKEN)
    assert closed == []
    register.disconnect(user_id="ben", connection_id="2", code=CloseCode.TOKEN)
    assert closed == []
    register.disconnect(user_id="ana", connection_id=None, code=CloseCode.TOKEN)
    assert closed == [("2", CloseCode.TOKEN), ("3", CloseCode.TOKEN)]


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


def test_health_pings_warns_and_closes_on_time() -> None:
    clock, closed = ManualClock(1000), []
    health = Health(
        PingSettings(),
        AuthSettings(warning_s=60, grace_s=25),
        clock,
        lambda each, code: closed.append(code),
    )
    plain, v1 = connection("p", "u", clock, v1=False), connection("v", "u", clock)
    for each in (plain, v1):
        recorder(each).is_heard = True
        health.add(each)
    pinged_at = warned_at = None
    while not closed and clock.now < 1200:
        clock.advance(1)
        health.sweep(clock.monotonic())
        if recorder(v1).pings and pinged_at is None:
            pinged_at = clock.now - 1000
        if recorder(v1).messages and warned_at is None:
            warned_at = clock.now - 1000
            assert recorder(v1).messages[0]["type"] == "token_expiring"
    assert 25 <= (pinged_at or 0) <= 27
    assert 40 <= (warned_at or 0) <= 42
    assert 125 <= clock.now - 1000 <= 127
    assert closed == [CloseCode.TOKEN, CloseCode.TOKEN]
    assert recorder(plain).messages == [], "a plain client is told nothing it does not know"


def test_a_silent_client_is_closed_ten_seconds_after_its_ping() -> None:
    clock, closed = ManualClock(1000), []
    health = Health(PingSettings(), AuthSettings(), clock, lambda _, code: closed.append(code))
    silent = connection("s", "u", clock)
    health.add(silent)
    while not closed:
        clock.advance(1)
        health.sweep(clock.monotonic())
    assert closed == [CloseCode.PING_TIMEOUT]
    assert 35 <= clock.now - 1000 <= 38
    health.remove(silent)


@pytest.mark.parametrize("text", ["5", "5/d", "x/s", "0/s", "-1/s", "/s", "inf/s", "nan/s"])
def test_what_is_no_rate_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        parse_rate(text)


def test_a_bucket_lets_a_burst_through_and_then_the_rate() -> None:
    rate = parse_rate("2/s")
    bucket = Bucket(rate, 0.0)
    assert [bucket.take(rate, 0.0) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert bucket.take(rate, 0.5) == 0
    assert bucket.take(rate, 0.5) == pytest.approx(0.5)


def test_keyed_buckets_and_seen_ids_do_not_grow_without_end() -> None:
    buckets = KeyedBuckets(Rate(1, 1), capacity=4)
    assert [buckets.take(str(n), 0.0) for n in range(50)] == [0.0] * 50
    assert buckets.take("49", 0.0) == 1.0
    seen = SeenIds(capacity=2)
    for n in range(10):
        seen.check(str(n), "povId")
    seen.check("9", "povId")

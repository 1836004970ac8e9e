"""Connections that follow a log: they are sent no message, and end by themselves."""

from __future__ import annotations

import msgspec

from pov_rt.config.settings import AuthSettings, PingSettings
from pov_rt.connections.deadlines import Deadlines
from pov_rt.connections.http import ENDED, StreamConnection
from pov_rt.protocol.errors import CloseCode
from pov_rt.runtime.clock import ManualClock
from pov_rt.runtime.limits import Bucket, Budget, Rate, Terms
from tests.transports import Nobody, connection, recorder


def stream(clock: ManualClock, lasts_s: float, token_s: float = 1000.0) -> StreamConnection:
    other = connection("c", "ana", clock)
    return StreamConnection(
        Nobody(),
        recorder(other),
        "c",
        msgspec.structs.replace(other.identity, expires_at=clock.time() + token_s),
        device="default",
        remote_ip="",
        user_agent="",
        opened_at=clock.monotonic(),
        bucket=Bucket(Rate(1, 1), 0),
        budget=Budget("ana", Terms.of(Rate(1000, 3000), 10), 0),
        ends_at=clock.monotonic() + lasts_s,
        is_present=False,
    )


def test_it_is_sent_its_place_and_no_message() -> None:
    made = stream(ManualClock(), 60)
    made.send(b'{"type":"receipts"}')
    made.reply(b'{"type":"pong"}')
    assert recorder(made).messages == []
    made.tell_position(b'{"type":"position"}')
    assert recorder(made).messages == [{"type": "position"}]


def test_it_ends_with_its_subscription() -> None:
    made = stream(ManualClock(), 60)
    made.subscription_ended(b'{"type":"unsubscribed"}')
    assert (recorder(made).closed_with, made.close_reason) == (CloseCode.NORMAL, ENDED)
    assert recorder(made).messages == []


def test_it_ends_at_its_time_or_with_its_token_without_grace() -> None:
    for lasts_s, token_s, end in ((60, 1000, CloseCode.NORMAL), (60, 30, CloseCode.TOKEN)):
        clock = ManualClock()
        deadlines = Deadlines(PingSettings(interval_s=1e6), AuthSettings(), clock)
        made = stream(clock, lasts_s, token_s)
        deadlines.add(made)
        clock.advance(min(lasts_s, token_s) - 1)
        deadlines.sweep(clock.monotonic())
        assert recorder(made).closed_with is None
        clock.advance(2.5)
        deadlines.sweep(clock.monotonic())
        assert recorder(made).closed_with is end

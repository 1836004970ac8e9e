"""What of the log can be sent, and what is said of the rest."""

from __future__ import annotations

import logging

import pytest

from pov_rt.delivery.stored import Reader
from pov_rt.engine.base import Entry
from pov_rt.runtime.clock import ManualClock

GOOD = b'{"id":"1","type":"t","action":"a","povId":"p","userId":"u","details":{"a":[1]}}'


def test_a_good_entry_has_a_head_however_deep_its_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader = Reader(ManualClock())
    deep = GOOD.replace(b"[1]", b"[" * 500 + b"]" * 500)
    heads = reader.heads("pov/p", [Entry(1, GOOD, 0.0), Entry(2, deep, 0.0)])
    assert [(head.type, head.action, head.user_id) for head in heads] == [("t", "a", "u")] * 2
    assert reader.is_good("team/x", Entry(1, GOOD, 0.0))
    assert reader.is_good("user/ana", Entry(1, '{"id":"1","type":"é"}'.encode(), 0.0))
    assert (reader.bad, caplog.records) == (0, [])


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("pov/p", b"{"),
        ("pov/p", GOOD.replace(b"[1]", b"[" * 5000 + b"]" * 5000)),
        ("pov/p", GOOD.replace(b"[1]", b'"\xff"')),
        ("team/x", GOOD.replace(b'"userId":"u",', b"")),
        ("user/ana", GOOD.replace(b'"type":"t",', b"")),
        ("user/ana", b'{"id":"1","type":"t","expiresAt":"tomorrow"}'),
        ("user/ana", b'{"id":"1","type":"t","x":"\xff"}'),
    ],
)
def test_a_bad_entry_is_left_out_with_one_incident_a_second(
    topic: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    reader = Reader(clock)
    for _ in range(3):
        assert not reader.is_good(topic, Entry(7, body, 0.0))
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert (line.__dict__["topic"], line.__dict__["offset"]) == (topic, 7)
    assert len(line.__dict__["incident"]) == 12
    clock.advance(1.0)
    assert reader.heads("pov/p", [Entry(8, b"x", 0.0), Entry(9, GOOD, 0.0)]) != []
    assert caplog.records[1].__dict__["suppressed"] == 2
    assert reader.bad == 4


@pytest.mark.parametrize("topic", ["pov/p", "team/x", "user/ana"])
def test_of_an_entry_of_which_nothing_is_left_nothing_is_said(
    topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader(ManualClock())
    assert not reader.is_good(topic, Entry(7, b"", 0.0))
    assert reader.heads(topic, [Entry(7, b"", 0.0)]) == []
    assert (reader.bad, caplog.records) == (0, [])

"""What is decoded only to say what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from pov_rt.protocol.encoding import DECODE_ERRORS, decode_anyway
from pov_rt.protocol.faults import HALF_A_CHARACTER, Fault, find_fault
from pov_rt.protocol.messages import Activity


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":[1,2.5,"x"]}', {"a": [1, 2.5, "x"]}),
        (b'{"a":"\\ud800"}', {"a": "\ud800"}),
        (b'{"a":1,"a":"\\ud800"}', {"a": "\ud800"}),
        (b'{"a":"\\ud800","a":1}', {"a": "\ud800"}),
        (b'{"a":["\\ud800"],"a":1,"a":2}', {"a": "\ud800"}),
        (b'{"a":{"a":"\\ud800","a":0},"b":"\\ud801"}', {"a": {"a": "\ud800"}, "b": "\ud801"}),
        (b'{"a":1,"a":2,"b":"\\ud800"}', {"a": 2, "b": "\ud800"}),
        (b'["\\udc00\\ud800",1.5e3,{"b":null}]', ["\udc00\ud800", 1500.0, {"b": None}]),
    ],
)
def test_half_a_character_is_taken(body: bytes, value: Any) -> None:
    assert decode_anyway(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b'["\\ud800",NaN]',
        b'["\\ud800",1e999]',
        b'["\\ud800",-Infinity]',
        b'{"\\ud800":1}',
        b'["\xff"]',
        b'"\xed\xa0\x80"',
        b"[" * 100_000 + b'"\\ud800"',
    ],
)
def test_all_else_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(DECODE_ERRORS):
        decode_anyway(body)


def test_half_a_character_is_a_fault_wherever_it_is() -> None:
    good = {"id": "1", "type": "t", "action": "a", "povId": "p", "userId": "u"}
    assert find_fault(Activity, good) is None
    for more, path in (
        ({"type": "\ud800"}, "type"),
        ({"details": {"x": {"y": "\ud800"}}}, "details.x"),
    ):
        assert find_fault(Activity, good | more) == Fault(path, HALF_A_CHARACTER)

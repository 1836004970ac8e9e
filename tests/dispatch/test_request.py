"""Bodies and queries: what is wrong with one is named."""

from __future__ import annotations

import pytest

from pov_rt.dispatch.request import decode_body, read_number
from pov_rt.protocol.errors import InvalidId, InvalidRequest
from pov_rt.protocol.messages import NewNotification, UserId
from pov_rt.protocol.messages import Part as Struct


class Who(Struct, forbid_unknown_fields=True):
    user_ids: list[UserId]
    text: str = ""


def test_a_number_is_read_within_its_bounds() -> None:
    assert read_number({}, "limit", 7, 1, 10) == 7
    assert read_number({"limit": "10"}, "limit", 7, 1, 10) == 10
    assert read_number({"limit": "0" * 15 + "5"}, "limit", 7, 1, 10) == 5


@pytest.mark.parametrize("text", ["", "0", "11", "-1", "1.0", " 1", "٣", "x", "0" * 20 + "9" * 20])
def test_a_number_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InvalidRequest, match="limit must be a number from 1 to 10") as raised:
        read_number({"limit": text}, "limit", 7, 1, 10)
    assert raised.value.field == "limit"


def test_the_ids_of_a_body_are_checked() -> None:
    assert decode_body(b'{"userIds":["ana"]}', Who, 32).user_ids == ["ana"]
    for bad in (b'""', b'"*"', b'"a\\nb"', b'"\\ud800"', b'"%b"' % (b"x" * 129)):
        with pytest.raises(InvalidId) as raised:
            decode_body(b'{"userIds":["ana",%b]}' % bad, Who, 32)
        assert raised.value.field == "userIds[1]"
    with pytest.raises(InvalidId):
        decode_body(b'{"type":"t","povId":""}', NewNotification, 32)


@pytest.mark.parametrize(
    ("body", "message", "field"),
    [
        (b"{", "This is not JSON", None),
        (b"[]", "This is not a JSON object", None),
        (b"{}", "The field 'userIds' is missing", "userIds"),
        (b'{"userIds":[],"x":1}', "There is no field 'x'", "x"),
        (b'{"userIds":[7]}', "The field 'userIds[0]' must be a string, not 7", "userIds[0]"),
        (b'{"userIds":[],"text":"\\ud800"}', "The field 'text' has half a character in it", "text"),
    ],
)
def test_what_else_is_wrong_with_a_body_is_said(
    body: bytes, message: str, field: str | None
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode_body(body, Who, 32)
    assert raised.value.message.startswith(message)
    assert raised.value.field == field

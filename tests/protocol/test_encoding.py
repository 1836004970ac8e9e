"""The exact bytes of answers, errors and activities."""

from __future__ import annotations

import json

from pov_rt.protocol.encoding import encode_error, encode_reply, http_error, with_id
from pov_rt.protocol.errors import InvalidMessage, RateLimited
from pov_rt.protocol.messages import Closing


def test_the_contracts_fields_come_first_and_the_id_last() -> None:
    error = InvalidMessage(field="povId", detail="too long")
    assert encode_error(error, "r-1") == (
        b'{"type":"error","message":"Invalid message format","code":"invalid_message",'
        b'"field":"povId","detail":"too long","id":"r-1"}'
    )


def test_a_reply_carries_the_requests_id_unless_it_has_its_own() -> None:
    plain, own = Closing(code=1, reason=""), Closing(code=1, reason="", id=7)
    assert json.loads(encode_reply(plain, 0))["id"] == 0
    assert json.loads(encode_reply(own, 1))["id"] == 7
    assert with_id(b'{"a":1}', 'quote"') == b'{"a":1,"id":"quote\\""}'


def test_an_http_error_says_when_to_come_back() -> None:
    body = json.loads(http_error(RateLimited(retry_after_s=1.23456)))
    assert body == {
        "error": {
            "code": "rate_limited",
            "message": "Too many messages; slow down",
            "retryAfter": 1.235,
        }
    }

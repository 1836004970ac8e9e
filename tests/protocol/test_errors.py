"""What errors and close codes tell a client to do."""

from __future__ import annotations

import json

from pov_rt.protocol.encoding import encode_error, http_error
from pov_rt.protocol.errors import (
    ERRORS,
    ClientError,
    CloseCode,
    Forbidden,
    InvalidId,
    RateLimited,
    Rejected,
)


def test_a_wait_is_rounded_up_so_that_nobody_comes_back_too_early() -> None:
    for wait_s, said in ((1.23401, 1.235), (0.00001, 0.001), (2.0, 2.0)):
        assert (
            json.loads(http_error(RateLimited(retry_after_s=wait_s)))["error"]["retryAfter"] == said
        )


def test_every_reason_fits_a_close_frame() -> None:
    for each in CloseCode:
        assert len(each.reason.encode()) <= 123, "RFC 6455, section 5.5: 125 with the code"
        assert each.reason.isascii()


def test_a_client_comes_back_after_what_may_be_better_next_time() -> None:
    final = {each.name for each in CloseCode if not each.reconnect}
    assert final == {
        *("NORMAL", "PROTOCOL_ERROR", "INVALID_UTF8", "TOO_BIG", "DISCONNECTED", "FLOODING"),
    }


def test_an_errors_own_fields_come_after_the_contracts() -> None:
    error = Rejected("poll_closed", "The poll is closed", field="povId", closedAt=7)
    assert list(error.as_fields().items()) == [
        ("code", "poll_closed"),
        ("field", "povId"),
        ("closedAt", 7),
    ]
    assert str(error) == "The poll is closed"


def test_every_error_is_an_http_error_of_the_right_kind() -> None:
    for error in ERRORS:
        assert 400 <= error.status < 600
        assert error.message[0].isupper()
    mine = {error.code for error in ERRORS if error.status < 500}
    assert {"unavailable", "timeout", "internal"}.isdisjoint(mine), "those are not the client's"


def test_an_error_within_something_larger_has_a_longer_path_and_is_another_object() -> None:
    closed = Rejected("poll_closed", "The poll is closed", field="details.poll", poll=7)
    moved = closed.within("data")
    assert moved.as_fields() == {"code": "poll_closed", "field": "data.details.poll", "poll": 7}
    assert (type(moved), moved.message, str(moved)) == (Rejected, closed.message, str(closed))
    assert closed.field == "details.poll"
    assert Forbidden().within("data").field is None
    assert isinstance(moved, ClientError)


def test_a_bad_id_has_the_words_of_the_contract_over_a_socket_alone() -> None:
    bad = InvalidId("povId may not contain U+0007", field="povId")
    assert encode_error(bad) == (
        b'{"type":"error","message":"Invalid message format","code":"invalid_id","field":"povId",'
        b'"detail":"povId may not contain U+0007"}'
    )
    assert http_error(bad) == (
        b'{"error":{"code":"invalid_id","message":"povId may not contain U+0007","field":"povId"}}'
    )

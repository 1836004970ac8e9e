"""What a server says is read, and nothing else is taken for it."""

from __future__ import annotations

import pytest

from pov_rt.remote.answers import (
    HttpAnswer,
    Refusal,
    read_refusal,
    read_results,
    read_retry_after,
    summarise,
)

REFUSED = b'{"error":{"code":"token_expired","message":"The token has expired"}}'


def test_results_are_read_of_an_answer_to_as_many_activities() -> None:
    body = b'{"results":[{"id":"a"},{"error":{"code":"forbidden"}},{"id":"c","duplicate":true}]}'
    results = read_results(HttpAnswer(200, None, body), 3)
    assert results is not None
    assert [str(each.error) if each.error else "" for each in results] == ["", "forbidden", ""]
    assert [each.duplicate for each in results] == [False, False, True]
    assert read_results(HttpAnswer(200, None, body), 2) is None
    assert read_results(HttpAnswer(201, None, body), 3) is None


def test_what_is_refused_as_a_whole_is_refused_each() -> None:
    results = read_results(HttpAnswer(400, None, REFUSED), 2)
    assert results is not None
    assert [str(each.error) for each in results] == ["token_expired: The token has expired"] * 2


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"results":[]}', b'{"error":"x"}', b"\xff", b"[" * 100_000]
)
def test_what_no_server_says_is_no_refusal(body: bytes) -> None:
    assert read_refusal(HttpAnswer(401, None, body)) is None
    assert read_results(HttpAnswer(200, None, body), 1) is None


def test_what_a_stranger_says_is_cut_and_escaped() -> None:
    body = b'{"error":{"code":"a\\nb","message":"%b"}}' % (b"x" * 5000)
    assert read_refusal(HttpAnswer(403, None, body)) == Refusal("a\\nb", "x" * 200)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HttpAnswer(401, None, REFUSED), "401 token_expired: The token has expired"),
        (HttpAnswer(401, None, b""), "401 Unauthorized"),
        (HttpAnswer(502, None, b"<html>"), "502 Bad Gateway"),
        (HttpAnswer(599, None, b""), "599"),
        (HttpAnswer(200, None, b"hello"), "200, but is no pov-rt server"),
    ],
)
def test_an_answer_is_explained_in_few_words(answer: HttpAnswer, said: str) -> None:
    assert summarise(answer).startswith(said)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("99999999", 3600.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-1", None),
        ("", None),
        ("\u00b2", None),
    ],
)
def test_how_long_to_wait_is_read_in_seconds_and_bounded(
    value: str | None, seconds: float | None
) -> None:
    assert read_retry_after(value) == seconds

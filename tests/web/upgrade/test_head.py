"""Which heads are read in one go, and that they are read as Tornado reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPInputError, parse_request_start_line

from pov_rt.web.upgrade.head import Head, read_head

FIELDS = (
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


def head(line: str = "GET /ws/?token=x HTTP/1.1", *more: str, drop: str = "") -> bytes:
    kept = (each for each in FIELDS if not (drop and each.startswith(drop)))
    return "\r\n".join([line, *kept, *more, "", ""]).encode("latin-1")


def read(data: bytes) -> tuple[Head, bytes] | None:
    return read_head(data, "127.0.0.1", is_unix=False)


def test_a_well_formed_upgrade_is_read_with_what_comes_behind() -> None:
    found = read(
        head("GET /ws/a-b/c_1?token=x&device=y HTTP/1.1", "X-Empty:", "A:  b c \t") + b"\x81"
    )
    assert found is not None
    asked, behind = found
    assert (asked.path, asked.query, asked.remote_ip) == (
        "/ws/a-b/c_1",
        "token=x&device=y",
        "127.0.0.1",
    )
    assert behind == b"\x81"
    headers = asked.headers
    assert (headers["host"], headers["a"], headers["x-empty"]) == ("localhost", "b c", "")


def test_headers_are_asked_for_in_any_case() -> None:
    found = read(head())
    assert found is not None
    headers = found[0].headers
    for name in ("Sec-WebSocket-Version", "sec-websocket-version", "SEC-WEBSOCKET-VERSION"):
        assert name in headers
        assert (headers.get(name), headers.get_list(name)) == ("13", ["13"])
    assert "Origin" not in headers
    assert (headers.get("Origin"), headers.get("Origin", "x"), headers.get_list("Origin")) == (
        None,
        "x",
        [],
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        head()[:-1],
        head()[:-4],
        head("POST /ws/ HTTP/1.1"),
        head("GET /ws/ HTTP/1.0"),
        head("GET /ws/ HTTP/1.2"),
        head("GET  /ws/ HTTP/1.1"),
        head("GET /ws/  HTTP/1.1"),
        head(" GET /ws/ HTTP/1.1"),
        head("GET http://localhost/ws/ HTTP/1.1"),
        head("GET /ws HTTP/1.1"),
        head("GET /WS/ HTTP/1.1"),
        head("GET /ws/../x HTTP/1.1"),
        head("GET /ws/%2e HTTP/1.1"),
        head("GET /ws/_echo HTTP/1.1"),
        head("GET /ws/_echo?token=x HTTP/1.1"),
        head("GET /ws/#x HTTP/1.1"),
        head("GET /ws/?a=#x HTTP/1.1"),
        head("GET /ws/?a=\xe9 HTTP/1.1"),
        head(drop="Upgrade"),
        head(drop="Connection"),
        head("GET /ws/ HTTP/1.1", "Upgrade: h2c"),
        head("GET /ws/ HTTP/1.1", "Connection: close", drop="Connection"),
        head("GET /ws/ HTTP/1.1", "Upgrade: h2c, websocket", drop="Upgrade"),
        head("GET /ws/ HTTP/1.1", "Content-Length: 0"),
        head("GET /ws/ HTTP/1.1", "Transfer-Encoding: chunked"),
        head("GET /ws/ HTTP/1.1", "Expect: 100-continue"),
        head("GET /ws/ HTTP/1.1", "HOST: localhost"),
        head("GET /ws/ HTTP/1.1", "no colon"),
        head("GET /ws/ HTTP/1.1", " folded: x"),
        head("GET /ws/ HTTP/1.1", "a b: c"),
        head("GET /ws/ HTTP/1.1", "a : c"),
        head("GET /ws/ HTTP/1.1", ": c"),
        head("GET /ws/ HTTP/1.1", "a: \x00"),
        head("GET /ws/ HTTP/1.1", "a: \x7f"),
        head("GET /ws/ HTTP/1.1", "a: \xe9"),
        head("GET /ws/ HTTP/1.1", "a: b\nc: d"),
        head("GET /ws/ HTTP/1.1", "a: b\rc: d"),
        head("GET /ws/ HTTP/1.1", "a: b\r\r"),
        head().replace(b"\r\n", b"\n"),
        head().replace(b"\r\n", b"\n", 1),
        b"\r\n" + head(),
    ],
)
def test_of_anything_else_nothing_is_said(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize("value", [" ", "x ", "x" + 999 * " ", "\t "])
def test_what_comes_in_vain_takes_no_longer_than_its_length(value: str) -> None:
    """A time that grew with the square of it would be minutes."""
    many = 2_000_000 // len(value)
    assert read(head("GET /ws/ HTTP/1.1", f"a:{many * value}\x01")) is None


PIECES = ("a", "B", ":", " ", "\t", "\r", "\n", "\r\n", "x: y", "\x00", "\x7f", ",", "é", "Host: z")


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_what_is_read_is_what_tornado_reads(noise: str) -> None:
    data = head("GET /ws/?token=x HTTP/1.1", noise)
    found = read(data)
    if found is None:
        return
    asked, behind = found
    text = data[: len(data) - len(behind)].decode("latin-1")
    line, _, fields = text.partition("\r\n")
    assert parse_request_start_line(line).path == "/ws/?token=x"
    try:
        stock = HTTPHeaders.parse(fields)
    except HTTPInputError as error:  # what it refuses nothing is to be read of
        raise AssertionError(text) from error
    assert {name.lower(): value for name, value in stock.get_all()} == dict(asked.headers)
    assert len(list(stock.get_all())) == len(asked.headers)

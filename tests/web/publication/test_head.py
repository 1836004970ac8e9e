"""Which heads are read in one go, and that they are read as Tornado reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPInputError, parse_request_start_line

from pov_rt.web.publication.head import LINE, MOST_BYTES, Framed, Shape, frame, may_become

FIELDS = ("Host: localhost", "Authorization: Bearer x", "Content-Length: 12")
FIRST = LINE.decode().strip()


def head(line: str = FIRST, *more: str, drop: str = "") -> bytes:
    kept = (each for each in FIELDS if not (drop and each.startswith(drop)))
    return "\r\n".join([line, *kept, *more, "", ""]).encode("latin-1")


def read(data: bytes, known: Shape | None = None) -> Framed | None:
    return frame(data, known, "127.0.0.1", is_unix=False)


def test_a_well_formed_head_is_read_and_says_where_its_body_is() -> None:
    sent = head(FIRST, "X-Empty:", "A:  b c \t", "Connection: Keep-Alive")
    for behind in (b"", b"half", b"the body and more of the next"):
        framed = read(sent + behind)
        assert framed is not None
        assert (framed.start, framed.end) == (len(sent), len(sent) + 12)
        asked = framed.shape.head
        assert (asked.path, asked.query, asked.remote_ip) == ("/api/activities", "", "127.0.0.1")
        assert (asked.headers["a"], asked.headers["x-empty"]) == ("b c", "")
        assert asked.headers.get_list("Host") == ["localhost"]


def test_a_head_that_is_known_is_not_read_again_but_for_its_length() -> None:
    first = read(head())
    assert first is not None
    again = read(head().replace(b": 12", b": 3"), first.shape)
    assert again is not None
    assert again.shape is first.shape
    assert again.end - again.start == 3
    for other in (
        head(FIRST, "A: b"),
        head().replace(b"Bearer x", b"Bearer y"),
        head().replace(b"localhost", b"LOCALHOST"),
        head(FIRST, "Content-Length: 12", "A: b", drop="Content-Length"),
    ):
        found = read(other, first.shape)
        assert found is not None
        assert found.shape is not first.shape


@pytest.mark.parametrize(
    "length", ["Content-Length:12", "content-length: 12", "CONTENT-LENGTH: 12"]
)
def test_a_length_is_read_however_it_is_written(length: str) -> None:
    framed = read(head(FIRST, length, drop="Content-Length"))
    assert framed is not None
    assert framed.end - framed.start == 12


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        head()[:-1],
        head()[:-4],
        b"\r\n" + head(),
        head(FIRST.replace("POST", "GET")),
        head(FIRST.replace("1.1", "1.0")),
        head(FIRST.replace(" HTTP", "  HTTP")),
        head(FIRST.replace("activities", "activities?a=b")),
        head(FIRST.replace("activities", "activities/")),
        head(FIRST.replace("/api", "http://localhost/api")),
        head(drop="Content-Length"),
        head(FIRST, "Content-Length: 12"),
        head(FIRST, "content-length: 5"),
        head(FIRST, "HOST: localhost"),
        *(
            head(FIRST, length, drop="Content-Length")
            for length in (
                "Content-Length: 0",
                "Content-Length: 012",
                "Content-Length: +12",
                "Content-Length: x",
                "Content-Length: 12, 12",
                "Content-Length: 12 ",
                "Content-Length:  12",
                f"Content-Length: {MOST_BYTES}",
                "Content-Length: 99999",
                "Content-Length: 999999",
                "X-Content-Length: 12",
            )
        ),
        head(FIRST, "Transfer-Encoding: chunked"),
        head(FIRST, "Expect: 100-continue"),
        head(FIRST, "Content-Encoding: gzip"),
        head(FIRST, "Upgrade: h2c"),
        head(FIRST, "Connection: close"),
        head(FIRST, "Connection: keep-alive, x"),
        head(FIRST, "Connection:"),
        head(FIRST, "no colon"),
        head(FIRST, " folded: x"),
        head(FIRST, "a : c"),
        head(FIRST, "a: \x00"),
        head(FIRST, "a: \xe9"),
        head(FIRST, "a: b\nc: d"),
        head(FIRST, "a: b\nContent-Length: 12", drop="Content-Length"),
        head(FIRST, "a: b\rc: d"),
        head().replace(b"\r\n", b"\n"),
        head().replace(b"\r\n", b"\n", 1),
    ],
)
def test_of_anything_else_nothing_is_said(data: bytes) -> None:
    assert read(data) is None


def test_what_may_become_a_head_is_waited_for() -> None:
    sent = head()
    for size in range(1, len(sent)):
        assert may_become(sent[:size])
    assert not may_become(sent)
    assert not may_become(b"GET")
    assert not may_become(LINE[:-2] + b"\n")
    assert not may_become(LINE + b"A: ".ljust(MOST_BYTES, b"x"))


@pytest.mark.parametrize("value", [" ", "x ", "\t ", "\r\ncontent-length: 1"])
def test_what_comes_in_vain_takes_no_longer_than_its_length(value: str) -> None:
    """A time that grew with the square of it would be minutes."""
    many = 2_000_000 // len(value)
    assert read(head(FIRST, f"a:{many * value}\x01")) is None


PIECES = (
    "a", "B", ":", " ", "\t", "\r", "\n", "\r\n", "x: y", "\x00", "\x7f", ",", "é", "Host: z",
    "Content-Length: 12", "content-length:3", "\r\n\r\n",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.booleans())
def test_what_is_read_is_what_tornado_reads(noise: str, has_length: bool) -> None:
    data = head(FIRST, noise, drop="" if has_length else "Content-Length")
    framed = read(data)
    if framed is None:
        return
    line, _, fields = data[: framed.start].decode("latin-1").partition("\r\n")
    assert parse_request_start_line(line).path == "/api/activities"
    try:
        stock = HTTPHeaders.parse(fields)
    except HTTPInputError as error:  # what it refuses nothing is to be read of
        raise AssertionError(fields) from error
    read_here = framed.shape.head.headers
    assert {name.lower(): value for name, value in stock.get_all()} == dict(read_here)
    assert len(list(stock.get_all())) == len(read_here)
    assert framed.end - framed.start == int(stock["Content-Length"])

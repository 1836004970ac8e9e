"""HTTP as RFC 9110 and 9112 say, byte by byte over raw sockets, as Autobahn does for WebSockets.

Each row has the section that says so, what is sent, and the right answer. In what is sent SERVICE,
SOCKET and ACCESS stand for tokens, PORT for the server's port.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, ServerSettings
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web.stream import MAX_EXTRA_BYTES, MAX_HEADER_BYTES, MAX_LINE_BYTES

ONE = b'{"type":"t","action":"a","povId":"p","userId":"u"}'
LENGTH = b"Content-Length: %d" % len(ONE)
CHUNKED = b"Transfer-Encoding: chunked"
BEARER = b"Authorization: Bearer SERVICE"
NEXT = b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"
H2C = (
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAEAAEAAAAIAAAAB",
)
WEBSOCKET = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


def head(
    first: bytes, *fields: bytes, host: bytes = b"Host: localhost", version: str = "1.1"
) -> bytes:
    lines = [b"%b HTTP/%b" % (first, version.encode()), *([host] if host else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(*fields: bytes, body: bytes = ONE, **more: Any) -> bytes:
    """Return a publication; its framing is among the fields."""
    return head(b"POST /api/activities", BEARER, *fields, **more) + body


def chunks(*pieces: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    parts = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
    return b"".join(parts) + b"0%b\r\n%b\r\n" % (extension, trailers)


class Answer(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


class Row(NamedTuple):
    """What is sent, and the statuses that come; whether another request can follow."""

    section: str
    name: str
    sent: bytes
    statuses: Sequence[int]
    is_open: bool = True


ROWS = (
    # Requests, and how they begin and end.
    Row("9112 2.2", "a line before the request", b"\r\n" + head(b"GET /x"), [404]),
    Row("9112 2.2", "lines that end with LF alone", b"GET /x HTTP/1.1\nHost: a\n\n", [400], False),
    Row("9112 2.2", "a bare CR in a line", head(b"GET /x", b"A: b\rc"), [400], False),
    Row(
        "9112 2.2", "space before the first field", head(b"GET /x", host=b" Host: a"), [400], False
    ),
    Row("9112 2.3", "a later minor version", head(b"GET /x", version="1.9"), [404], False),
    Row("9110 15.6.6", "another major version", head(b"GET /x", version="2.0"), [505], False),
    Row("9113 3.4", "HTTP/2 at once", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505], False),
    Row("9112 2.3", "a version that is none", head(b"GET /x", version="1.x"), [400], False),
    Row("9112 3", "no version", b"GET /x\r\nHost: a\r\n\r\n", [400], False),
    Row("9112 3", "two spaces", b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n", [400], False),
    Row("9112 3", "a space in the target", head(b"GET /x y"), [400], False),
    Row("9110 9.1", "a method that nobody knows", head(b"BREW /x"), [501], False),
    Row("9110 9.1", "methods are in capitals", head(b"get /x"), [501], False),
    Row("9110 15.5.6", "a method that is not here", head(b"DELETE /api/activities"), [405]),
    Row("9112 9.3.1", "HTTP/1.0", head(b"GET /x", version="1.0"), [404], False),
    Row(
        "9112 9.3",
        "HTTP/1.0 that goes on",
        head(b"GET /x", b"Connection: Keep-Alive", version="1.0"),
        [404],
    ),
    # Host and target.
    Row("9112 3.2", "no Host", head(b"GET /x", host=b""), [400], False),
    Row("9112 3.2", "two Hosts", head(b"GET /x", b"Host: localhost"), [400], False),
    Row("9112 3.2", "a Host that is none", head(b"GET /x", host=b"Host: a b"), [400], False),
    Row(
        "3986 3.2.3", "a Host with an empty port", head(b"GET /x", host=b"Host: localhost:"), [404]
    ),
    Row("9110 7.2", "an empty Host", head(b"GET /x", host=b"Host:"), [400]),
    Row("3986 2.1", "a path that is no UTF-8", head(b"GET /client/%ff"), [400], False),
    Row("1034 3.1", "a Host with its dot", head(b"GET /x", host=b"Host: localhost."), [404]),
    Row(
        "9112 3.2.2",
        "the absolute form",
        post(LENGTH).replace(b" /api", b" http://localhost:PORT/api"),
        [201],
    ),
    Row("9112 3.2.2", "its Host counts", head(b"GET http://evil.example/x"), [421]),
    Row(
        "9112 3.2.2",
        "and the field does not",
        head(b"GET http://localhost/x", host=b"Host: evil.example"),
        [404],
    ),
    Row("9112 3.2.2", "without a path", head(b"GET http://localhost"), [200]),
    Row("9112 3.2.2", "without a path, with a query", head(b"GET HTTP://localhost?a=b"), [200]),
    Row("9110 4.2.4", "with a name in it", head(b"GET http://ana@localhost/x"), [400]),
    Row("9112 3.2.2", "of another scheme", head(b"GET ftp://localhost/x"), [400]),
    Row(
        "9112 3.2.2",
        "a handshake",
        head(b"GET http://localhost/ws/?token=SOCKET", *WEBSOCKET),
        [101],
        False,
    ),
    Row("9112 3.2.3", "the authority form", head(b"CONNECT localhost:80"), [501], False),
    Row("9112 3.2.4", "the asterisk form", head(b"OPTIONS *"), [204]),
    Row("9112 3.2.4", "for another method", head(b"GET *"), [400]),
    # Fields.
    Row("9112 5.1", "a space before the colon", head(b"GET /x", b"A : b"), [400], False),
    Row("9112 5.2", "a line that is folded", head(b"GET /x", b"A: b\r\n c"), [400], False),
    Row("9110 5.1", "a name with a character of none", head(b"GET /x", b"A(: b"), [400], False),
    Row("9110 5.5", "a NUL", head(b"GET /x", b"A: b\0"), [400], False),
    Row("9110 5.5", "space around a value", head(b"GET /x", b"A: \t b \t "), [404]),
    Row("9110 5.5", "bytes above ASCII", head(b"GET /x", b"A: \xff\xc3\xa9"), [404]),
    Row("9110 5.6.2", "an empty value", head(b"GET /x", b"A:"), [404]),
    Row(
        "9110 11.4",
        "two spaces before a token",
        post(LENGTH).replace(b"Bearer ", b"Bearer  "),
        [201],
    ),
    Row("9110 11.1", "the scheme in any case", post(LENGTH).replace(b"Bearer ", b"bEARER "), [201]),
    Row("9110 11.6.2", "two tokens", post(LENGTH, BEARER), [400], False),
    # Where a body ends.
    Row("9112 6.2", "a length", post(LENGTH), [201]),
    Row("9112 6.3", "a length of nothing", head(b"GET /x", b"Content-Length: 0"), [404]),
    Row("9110 8.6", "a length that is none", post(b"Content-Length: x"), [400], False),
    Row("9110 8.6", "a signed length", post(b"Content-Length: +50"), [400], False),
    Row("9112 6.3", "two lengths", post(LENGTH, b"Content-Length: 5"), [400], False),
    Row("9112 6.3", "length and chunks", post(LENGTH, CHUNKED, body=chunks(ONE)), [400], False),
    Row(
        "9112 6.1",
        "chunks by HTTP/1.0",
        post(CHUNKED, body=chunks(ONE), version="1.0"),
        [400],
        False,
    ),
    Row(
        "9112 6.1",
        "a coding that is not known",
        post(b"Transfer-Encoding: gzip, chunked"),
        [501],
        False,
    ),
    Row("9112 6.3", "a coding without an end", post(b"Transfer-Encoding: gzip"), [400], False),
    Row("9112 6.1", "chunks in chunks", post(b"Transfer-Encoding: chunked, chunked"), [400], False),
    Row("9112 6.1", "chunks in chunks, on two lines", post(CHUNKED, CHUNKED), [400], False),
    Row("9110 15.5.16", "a coded body", post(LENGTH, b"Content-Encoding: gzip"), [415], False),
    Row("9110 8.4.1", "a body as it is", post(LENGTH, b"Content-Encoding: identity"), [201]),
    Row(
        "9110 9.3.1",
        "a GET with a body",
        head(b"GET /x", b"Content-Length: 1") + b"x",
        [404],
        False,
    ),
    # Chunks.
    Row("9112 7.1", "chunks", post(CHUNKED, body=chunks(ONE[:7], ONE[7:])), [201]),
    Row(
        "9112 7.1",
        "the coding in any case",
        post(b"Transfer-Encoding: Chunked", body=chunks(ONE)),
        [201],
    ),
    Row(
        "9112 7.1",
        "a size in capitals, with zeros",
        post(CHUNKED, body=b"0%X\r\n%b\r\n000\r\n\r\n" % (len(ONE), ONE)),
        [201],
    ),
    Row("9112 7.1.1", "an extension", post(CHUNKED, body=chunks(ONE, extension=b";a=b")), [201]),
    Row(
        "9112 7.1.1",
        "one in quotes",
        post(CHUNKED, body=chunks(ONE, extension=b' ;\ta="\\"; c" ;d')),
        [201],
    ),
    Row(
        "9112 7.1.1",
        "one that never ends",
        post(CHUNKED, body=chunks(ONE, extension=b";" + b"a" * 2000)),
        [400],
        False,
    ),
    Row(
        "9112 7.1.1",
        "too many of them",
        post(CHUNKED, body=b"".join(b"1;%b\r\n \r\n" % (b"a" * 900) for _ in range(30))),
        [400],
        False,
    ),
    Row(
        "9112 7.1.1",
        "a line's end in one",
        post(CHUNKED, body=chunks(ONE, extension=b";a\nb")),
        [400],
        False,
    ),
    Row(
        "9112 7.1.2",
        "a field behind",
        post(CHUNKED, body=chunks(ONE, trailers=b"X-Checksum: abc\r\n")),
        [201],
    ),
    Row(
        "9112 7.1.2",
        "two fields",
        post(CHUNKED, body=chunks(ONE, trailers=b"A: b\r\nC:\r\n")),
        [201],
    ),
    Row(
        "9110 6.5.1",
        "one that would be another framing",
        post(CHUNKED, body=chunks(ONE, trailers=b"Content-Length: 3\r\n")),
        [201],
    ),
    Row(
        "9112 7.1.2",
        "one that is none",
        post(CHUNKED, body=chunks(ONE, trailers=b"A b\r\n")),
        [400],
        False,
    ),
    Row(
        "9112 7.1.2",
        "one that is folded",
        post(CHUNKED, body=chunks(ONE, trailers=b"A: b\r\n c\r\n")),
        [400],
        False,
    ),
    Row(
        "9112 7.1.2",
        "one with a NUL",
        post(CHUNKED, body=chunks(ONE, trailers=b"A: \0\r\n")),
        [400],
        False,
    ),
    Row(
        "9112 7.1.2",
        "too many",
        post(CHUNKED, body=chunks(ONE, trailers=b"A: b\r\n" * (MAX_EXTRA_BYTES // 5))),
        [400],
        False,
    ),
    Row("9112 7.1", "a size that is none", post(CHUNKED, body=b"x\r\n"), [400], False),
    Row("9112 7.1", "a size below nothing", post(CHUNKED, body=b"-1\r\n"), [400], False),
    Row("9112 7.1", "a size as a program has it", post(CHUNKED, body=b"0x32\r\n"), [400], False),
    Row("9112 7.1", "a space behind the size", post(CHUNKED, body=b"32 \r\n"), [400], False),
    Row("9112 7.1", "a size beyond all", post(CHUNKED, body=b"f" * 17 + b"\r\n"), [400], False),
    Row(
        "9112 7.1",
        "a chunk that is longer",
        post(CHUNKED, body=b"1\r\nxx\r\n0\r\n\r\n"),
        [400],
        False,
    ),
    # HEAD.
    Row(
        "9110 9.3.2",
        "HEAD",
        head(b"HEAD /api/povs/p/activities", b"Authorization: Bearer SOCKET"),
        [200],
    ),
    Row("9110 9.3.2", "HEAD of nothing", head(b"HEAD /x"), [404]),
    Row("9110 9.3.2", "HEAD where GET is not", head(b"HEAD /api/activities"), [405]),
    Row(
        "9110 9.3.2",
        "HEAD of a token",
        head(b"HEAD /api/auth/ws-token", b"Authorization: Bearer ACCESS"),
        [200],
    ),
    Row(
        "9110 9.3.2",
        "HEAD of a plugin's",
        head(b"HEAD /api/povs/p/presence", b"Authorization: Bearer SOCKET"),
        [200],
    ),
    Row("9110 9.3.2", "HEAD of a page", head(b"HEAD /"), [200]),
    # Expect.
    Row("9110 10.1.1", "without a body", head(b"GET /x", b"Expect: 100-continue"), [404]),
    Row(
        "9110 10.1.1",
        "by HTTP/1.0",
        post(LENGTH, b"Expect: 100-continue", version="1.0"),
        [201],
        False,
    ),
    Row("9110 10.1.1", "something else", post(LENGTH, b"Expect: more"), [201]),
    # Upgrades.
    Row("9110 7.8", "an upgrade that is offered", post(LENGTH, *H2C), [201]),
    Row("9110 7.8", "another", post(LENGTH, b"Upgrade: TLS/1.2", b"Connection: Upgrade"), [201]),
    Row("9110 7.8", "many", head(b"GET /", b"Upgrade: HTTP/2.0, SHTTP/1.3, IRC/6.9"), [200]),
    Row("9110 7.8", "none", post(LENGTH, b"Upgrade:", b"Connection: Upgrade"), [201]),
    Row("9110 7.8", "one in quotes", post(LENGTH, b'Upgrade: "websocket"', H2C[0]), [201]),
    Row("9110 7.8", "in capitals", post(LENGTH, b"UPGRADE: H2C", b"CONNECTION: UPGRADE"), [201]),
    Row("9110 7.8", "one for a POST", post(LENGTH, *WEBSOCKET), [201], False),
    Row("9110 7.8", "one by HTTP/1.0", head(b"GET /x", *WEBSOCKET, version="1.0"), [404], False),
    Row("9110 7.8", "one without Connection", head(b"GET /x", *WEBSOCKET[1:]), [404], False),
    Row(
        "6455 4.2.1",
        "a list with it",
        head(b"GET /ws/?token=SOCKET", *WEBSOCKET, b"Upgrade: h2c"),
        [101],
        False,
    ),
    Row(
        "6455 4.2.1",
        "a length of nothing",
        head(b"GET /ws/?token=SOCKET", *WEBSOCKET, b"Content-Length: 0"),
        [101],
        False,
    ),
    Row(
        "6455 4.2.1",
        "a body",
        head(b"GET /ws/?token=SOCKET", *WEBSOCKET, b"Content-Length: 1") + b"x",
        [400],
        False,
    ),
    Row("6455 4.1", "elsewhere", head(b"GET /x", *WEBSOCKET), [400], False),
    Row(
        "9110 15.5.22",
        "h2c where a socket is",
        head(b"GET /ws/", b"Authorization: Bearer SOCKET", *H2C),
        [426],
        False,
    ),
    Row(
        "9110 15.5.22",
        "no upgrade, a token in the URL",
        head(b"GET /ws/?token=SOCKET"),
        [426],
        False,
    ),
    Row(
        "9110 15.5.22",
        "one as a subprotocol",
        head(b"GET /ws/", b"Sec-WebSocket-Protocol: pov-rt.v1, bearer.SOCKET"),
        [426],
        False,
    ),
    # One after the other.
    Row(
        "9112 9.3.2",
        "three at once",
        head(b"GET /x") + post(LENGTH) + head(b"HEAD /"),
        [404, 201, 200],
    ),
    Row(
        "9112 9.3.2",
        "chunks and more",
        post(CHUNKED, body=chunks(ONE, trailers=b"A: b\r\n")) + post(LENGTH),
        [201, 201],
    ),
    Row("9112 9.6", "the last one", head(b"GET /x", b"Connection: close") + NEXT, [404], False),
    Row(
        "9112 9.6",
        "the last one, in a list",
        head(b"GET /x", b"Connection: TE, Close") + NEXT,
        [404],
        False,
    ),
    Row(
        "9112 9.6",
        "on two lines",
        head(b"GET /x", b"Connection: TE", b"Connection: close") + NEXT,
        [404],
        False,
    ),
    # Sizes.
    Row("9112 3", "a line of 8,000", head(b"GET /?" + b"x" * 8000), [200]),
    Row(
        "9110 15.5.15",
        "one that is too long",
        head(b"GET /?" + b"x" * MAX_LINE_BYTES),
        [414],
        False,
    ),
    Row("9110 5.4", "a field as long as a token", head(b"GET /x", b"A: " + b"x" * 16_400), [404]),
    Row("6585 5", "one of 20,000", head(b"GET /x", b"Cookie: a=" + b"x" * 20_000), [431], False),
    Row("6585 5", "many, in all less", head(b"GET /x", *([b"A: " + b"x" * 997] * 30)), [404]),
    Row(
        "6585 5", "many, in all more", head(b"GET /x", *([b"A: " + b"x" * 997] * 40)), [431], False
    ),
    Row(
        "6585 5",
        "one without an end",
        b"GET /x HTTP/1.1\r\nA: " + b"x" * MAX_HEADER_BYTES,
        [431],
        False,
    ),
    Row(
        "9110 15.5.15", "a target without an end", b"GET /" + b"x" * MAX_HEADER_BYTES, [414], False
    ),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = str(tmp_path_factory.mktemp("data"))
    chosen = make_settings(
        server=ServerSettings(port=0, admin_port=0, data=data),
        limits=LimitSettings(failed_rate="10000/s", token_rate="10000/s"),
    )
    with RunningServer(replace(chosen, dev=True), None) as running:
        yield running


def filled(server: RunningServer, sent: bytes) -> bytes:
    for name, kind in (
        (b"SERVICE", Kind.SERVICE),
        (b"SOCKET", Kind.SOCKET),
        (b"ACCESS", Kind.ACCESS),
    ):
        if name in sent:
            sent = sent.replace(name, server.token(kind=kind).encode())
    return sent.replace(b"PORT", str(server.web.port).encode())


def read_answer(sock: socket.socket, buffer: bytearray, *, has_body: bool) -> Answer | None:
    """Return the next answer; None if the connection has ended."""

    def more() -> bool:
        data = sock.recv(65536)
        buffer.extend(data)
        return bool(data)

    while b"\r\n\r\n" not in buffer:
        if not more():
            assert not buffer, "half an answer"
            return None
    text, _, rest = bytes(buffer).partition(b"\r\n\r\n")
    first, *lines = text.decode("latin-1").split("\r\n")
    assert first.startswith("HTTP/1.1 ")
    status = int(first.split(" ")[1])
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    has_body = has_body and status >= 200 and status not in (204, 304)
    size = int(fields["content-length"]) if has_body else 0
    buffer[:] = rest
    while len(buffer) < size:
        assert more(), "half a body"
    body = bytes(buffer[:size])
    del buffer[:size]
    return Answer(status, fields, body)


def talk(server: RunningServer, sent: bytes, count: int) -> tuple[list[Answer], bool]:
    """Return that many answers, and whether another request is answered after them."""
    answers: list[Answer] = []
    methods = re.findall(rb"\b([A-Z]{3,7}) +\S+ HTTP/", sent)
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as sock:
        sock.sendall(filled(server, sent))
        buffer = bytearray()
        for number in range(count):
            is_head = methods[number : number + 1] == [b"HEAD"]
            answer = read_answer(sock, buffer, has_body=not is_head)
            assert answer is not None, answers
            answers.append(answer)
        if answers[-1].status == 101:
            return answers, False
        try:
            sock.sendall(NEXT)
            following = read_answer(sock, buffer, has_body=True)
        except ConnectionError:
            following = None
    return answers, following is not None and following.status == 404


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section}: {row.name}")
def test_a_request_is_answered_as_its_section_says(server: RunningServer, row: Row) -> None:
    answers, is_open = talk(server, row.sent, len(row.statuses))
    assert [answer.status for answer in answers] == list(row.statuses), answers
    assert is_open == row.is_open
    for answer in answers:
        if answer.status != 101:
            assert answer.fields["date"].endswith(" GMT"), "RFC 9110, section 6.6.1"
            assert "server" not in answer.fields
        if answer.status >= 400 and answer.body:
            assert answer.fields["content-type"] == "application/json"
            assert answer.error["code"]
            assert answer.error["message"]
    last = answers[-1]
    if not row.is_open and last.status >= 400 and b"HTTP/1.0" not in row.sent:
        assert "close" in last.fields["connection"].lower(), "RFC 9112, section 9.6"
    if last.status == 405:
        assert last.fields["allow"], "RFC 9110, section 15.5.6"
    if last.status == 415:
        assert last.fields["accept-encoding"] == "identity", "RFC 9110, section 15.5.16"


@given(
    cuts=st.lists(st.integers(1, len(ONE) - 1), max_size=4),
    extensions=st.lists(
        st.sampled_from([b"", b";a", b" ; a=b", b';x="y\\" z"']), min_size=6, max_size=6
    ),
    trailers=st.lists(st.sampled_from([b"A: b\r\n", b"X-Sum:\r\n", b"Host: x\r\n"]), max_size=3),
    pieces=st.lists(st.integers(1, 400), max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_a_body_is_the_same_however_it_is_cut(
    server: RunningServer,
    cuts: list[int],
    extensions: list[bytes],
    trailers: list[bytes],
    pieces: list[int],
) -> None:
    marks = sorted({0, *cuts, len(ONE)})
    body = b"".join(
        b"%x%b\r\n%b\r\n" % (end - start, extension, ONE[start:end])
        for start, end, extension in zip(marks, marks[1:], extensions, strict=False)
    )
    body += b"0%b\r\n%b\r\n" % (extensions[-1], b"".join(trailers))
    sent = filled(server, post(CHUNKED, body=body) + NEXT)
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = sent.index(b"\r\n\r\n") - 3
        sock.sendall(sent[:at])
        for piece in pieces:
            sock.sendall(sent[at : at + piece])
            at += piece
            server.call(lambda: None)  # a turn of the server's loop
        sock.sendall(sent[at:])
        buffer = bytearray()
        answers = [read_answer(sock, buffer, has_body=True) for _ in range(2)]
    assert [answer and answer.status for answer in answers] == [201, 404]


def test_a_head_has_the_fields_of_a_get_and_no_body(server: RunningServer) -> None:
    for path, port in (
        ("/readyz", server.web.admin_port),
        ("/healthz", server.web.admin_port),
        ("/api/povs/p/activities", server.web.port),
        ("/client/pov-rt.js", server.web.port),
    ):
        found = []
        for method in ("GET", "HEAD"):
            with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as sock:
                fields = b"Authorization: Bearer SOCKET", b"Connection: close"
                sock.sendall(filled(server, head(f"{method} {path}".encode(), *fields)))
                received = b""
                while data := sock.recv(65536):
                    received += data
            text, _, body = received.partition(b"\r\n\r\n")
            found.append((re.sub(rb"\r\nDate: [^\r]*", b"", text), len(body)))
        (get, size), (asked, nothing) = found
        assert get == asked, path
        assert b"Content-Length: %d" % size in get
        assert (size > 0, nothing) == (True, 0)


@pytest.mark.parametrize("word", [b"100-continue", b"100-Continue"])
def test_who_waits_to_be_told_to_go_on_is_told_so(server: RunningServer, word: bytes) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as sock:
        sock.sendall(filled(server, post(LENGTH, b"Expect: " + word, body=b"")))
        buffer = bytearray()
        told = read_answer(sock, buffer, has_body=False)
        assert told is not None
        assert told.status == 100
        sock.sendall(ONE)
        done = read_answer(sock, buffer, has_body=True)
        assert done is not None
        assert done.status == 201


def test_who_may_not_send_a_body_is_not_told_to_go_on(server: RunningServer) -> None:
    for sent, status in (
        (post(b"Content-Length: 99999999", b"Expect: 100-continue", body=b""), 413),
        (post(LENGTH, b"Expect: 100-continue", b"Content-Encoding: br", body=b""), 415),
        (post(LENGTH, b"Expect: 100-continue", body=b"").replace(b"SERVICE", b"x"), 401),
    ):
        (answer,), is_open = talk(server, sent, 1)
        assert (answer.status, is_open) == (status, False)


def test_a_head_that_is_too_large_is_counted(server: RunningServer) -> None:
    def count() -> int:
        with urlopen(f"http://127.0.0.1:{server.web.admin_port}/metrics") as answer:
            found = re.search(rb'http_refused_total\{code="too_large"\} (\d+)', answer.read())
        return int(found[1]) if found else 0

    before = count()
    for line in (b"A: " + b"x" * 20_000, b"A: " + b"x" * 200_000):
        (answer,), _ = talk(server, head(b"GET /x", line), 1)
        assert (answer.status, answer.error["code"]) == (431, "too_large")
    assert count() == before + 2


def test_what_is_asked_of_a_node_that_drains_is_the_last(server: RunningServer) -> None:
    server.call(server.web.server.leaving.set)
    try:
        for sent in (
            head(b"GET /x"),
            post(LENGTH),
            head(b"GET /x") + NEXT,
            post(CHUNKED, body=chunks(ONE)),
        ):
            (answer,), is_open = talk(server, sent, 1)
            assert (answer.fields["connection"], is_open) == ("close", False)
        (answer,), is_open = talk(
            server, head(b"GET /x", b"Connection: keep-alive", version="1.0"), 1
        )
        assert (answer.fields.get("connection"), is_open) == ("close", False)
    finally:
        server.call(server.web.server.leaving.clear)


def test_what_may_not_be_stored_is_not_hashed(server: RunningServer) -> None:
    for sent in (
        head(b"GET /api/povs/p/activities", b"Authorization: Bearer SOCKET"),
        head(b"GET /api/auth/ws-token", b"Authorization: Bearer ACCESS"),
    ):
        (answer,), _ = talk(server, sent, 1)
        assert (answer.status, answer.fields["cache-control"]) == (200, "no-store")
        assert "etag" not in answer.fields


JAVA = """
import java.net.URI;
import java.net.http.*;

public class Publish {
    public static void main(String[] given) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int i = 0; i < 2; i++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(given[0] + "/api/activities"))
                .header("Authorization", "Bearer " + given[1])
                .POST(HttpRequest.BodyPublishers.ofString(given[2])).build();
            var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode());
        }
    }
}
"""


def test_the_stock_client_of_java_publishes(server: RunningServer, tmp_path: Path) -> None:
    java = shutil.which("java")
    if java is None or shutil.which("javac") is None:
        pytest.skip(
            "there is no Java: apt-get install -y --no-install-recommends openjdk-17-jdk-headless"
        )
    source = tmp_path / "Publish.java"
    source.write_text(JAVA)
    address, token = f"http://{server.address}", server.token(kind=Kind.SERVICE)
    done = subprocess.run(
        [java, source, address, token, ONE.decode()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["201", "201"], "")


@pytest.mark.parametrize(
    "more",
    [
        ["--http2"],
        ["--http1.0"],
        ["-H", "Transfer-Encoding: chunked"],
        ["-H", "Expect: 100-continue"],
        ["--request-target", "http://localhost/api/activities"],
    ],
)
def test_curl_publishes(server: RunningServer, more: list[str]) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl: apt-get install -y curl")
    token = server.token(kind=Kind.SERVICE)
    done = subprocess.run(
        [
            *(curl, "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", *more),
            *("-H", f"Authorization: Bearer {token}", "-d", ONE.decode()),
            f"http://{server.address}/api/activities",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("201", "")

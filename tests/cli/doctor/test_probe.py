"""Answers are taken as they come: in pieces, without an end, or as none."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pov_rt.cli.doctor.probe import Gone, Line, Public
from pov_rt.testing import RunningServer

ERROR = b'{"error":{"message":"m","code":"forbidden"}}'


@pytest.fixture
def pair() -> Iterator[tuple[Line, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        yield Line(ours), theirs


def test_an_answer_is_read_to_its_length_or_to_the_end(pair: tuple[Line, socket.socket]) -> None:
    line, other = pair
    other.sendall(b"HTTP/1.1 403 No\r\nServer: nginx/1\r\nContent-Length: %d\r\n\r\n" % len(ERROR))
    other.sendall(ERROR + b"HTTP/1.1 200 OK\r\n\r\nto the end")
    other.close()
    answer = line.answer()
    assert (answer.status, answer.headers["server"], answer.code) == (403, "nginx/1", "forbidden")
    assert line.answer().body == b"to the end"


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"]
)
def test_what_is_no_answer_is_said_so(pair: tuple[Line, socket.socket], answer: bytes) -> None:
    line, other = pair
    other.sendall(answer)
    other.close()
    with pytest.raises(Gone):
        line.answer()


def test_frames_of_every_length_are_read(pair: tuple[Line, socket.socket]) -> None:
    line, other = pair
    small, large = b"\x81\x02hi", b"\x82\x7e\x01\x00" + bytes(256)
    other.sendall(small + large + b"\x89\x00")
    frames = line.frames()
    assert [next(frames) for _ in range(3)] == [(1, b"hi"), (2, bytes(256)), (9, b"")]
    line.wait(0.01)
    with pytest.raises(Gone, match="in time"):
        next(frames)


def test_the_path_of_the_url_stands_before_all_others(server: RunningServer) -> None:
    assert Public(f"http://{server.address}").ask("GET", "/ws/").code == "token_invalid"
    assert Public(f"http://{server.address}/below").ask("GET", "/ws/").code == "not_found"

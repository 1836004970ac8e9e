"""A slice of what `scripts/fuzz` does at length."""

from __future__ import annotations

import logging

import pytest

from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.testing import Connect, RunningServer, make_settings
from tests.fuzz.answers import Answers, Failure
from tests.fuzz.fuzzer import Tally, run
from tests.transport.test_wire import wait_until

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@pytest.fixture
def settings() -> Settings:
    return make_settings(limits=LimitSettings(handshake_s=1.0))


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_a_client_sends_hurts_the_server_or_another_client(
    server: RunningServer, connect: Connect, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.INFO)
    bystander = connect("ana")
    bystander.request({"type": "subscribe", "povId": "quiet"})

    def between(_: Tally) -> None:
        assert bystander.request({"type": "ping"})["type"] == "pong"

    tally = run(server.web.port, server.token("fuzz"), seed, connections=200, between=between)
    # Half of the clients close or reset, and may not hear an answer: the others are 85 at least.
    assert tally.statuses["101"] > 60, "most handshakes are good, else the frames are not tried"
    assert tally.statuses["400"] > 0
    assert tally.frames > 5000
    assert tally.answers > 2000
    wait_until(server, lambda: server.web.sockets == 1)
    assert server.call(lambda: len(server.web.server.directory)) == 1
    assert server.call(lambda: server.web.server.hub.subscriptions) == 1
    assert [r.getMessage() for r in caplog.records if r.exc_info or r.levelno >= 40] == []


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 500 Oh\r\n\r\n",
        b"junk",
        UPGRADED + b"\xc1\x00",
        UPGRADED + b"\x01\x02{}",
        UPGRADED + b"\x81\x82\x00\x00\x00\x00{}",
        UPGRADED + b"\x81\x7e\x00\x02{}",
        UPGRADED + b"\x81\x01{",
        UPGRADED + b"\x82\x00",
        UPGRADED + b"\x88\x02\x03\xed",
        UPGRADED + b"\x88\x02\x03\xf3",
        UPGRADED + b"\x88\x03\x03\xe8\xff",
        UPGRADED + b"\x88\x00\x89\x00",
        UPGRADED + b"\x89\x7e\x00\x7e" + bytes(126),
    ],
)
def test_the_fuzzer_sees_what_a_server_must_not_say(data: bytes) -> None:
    with pytest.raises(Failure):
        read_in_pieces(data)


def read_in_pieces(data: bytes) -> None:
    answers = Answers()
    for byte in data:
        answers.feed(bytes((byte,)))

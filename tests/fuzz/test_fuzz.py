"""A slice of what `scripts/fuzz` does at length."""

from __future__ import annotations

import logging

import pytest

from pov_rt.settings import LimitSettings, Settings
from pov_rt.testing import Connect, RunningServer, make_settings
from tests.fuzz.fuzzer import run
from tests.web.test_wire import wait_until


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

    def between(_: int) -> None:
        assert bystander.request({"type": "ping"})["type"] == "pong"

    answers = run(server.web.port, server.token("fuzz"), seed, 500, between=between)
    assert answers["101"] > 250, "most handshakes are good, else the frames are not tried"
    assert answers["400"] > 5
    wait_until(server, lambda: len(server.web._wires) == 1)
    assert server.call(lambda: len(server.web.server.register)) == 1
    assert server.call(lambda: server.web.server.subscriptions) == 1
    assert [r.getMessage() for r in caplog.records if r.exc_info or r.levelno >= 40] == []

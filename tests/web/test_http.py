"""One line for each refused request: with the reason, without a token, and not without end."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import RunningServer
from pov_rt.web.http import REFUSALS_AT_ONCE, AccessLog
from tests.web.routes.test_activities import call
from tests.web.test_handshake import exchange, request

ACCESS = "pov_rt.web.http"


def lines(server: RunningServer, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    """Return message, code and reason of each line that concerns a request."""
    server.call(lambda: None)  # the last line is written in the turn of its answer
    return [
        (record.getMessage(), vars(record)["code"], vars(record)["reason"])
        for record in caplog.records
        if record.name == ACCESS
    ]


def test_each_refused_handshake_is_one_line_with_its_reason(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    good = server.token()
    cases = (
        ("/ws/", "no token"),
        ("/ws/?token=", "an empty token"),
        (f"/ws/?token={good}&token={good}", "more than one token"),
        ("/ws/?token=%ff", "The query is not UTF-8"),
        ("/ws/?token=%C3%A9", "not ASCII"),
        ("/ws/?token=x", "not three parts in base64url"),
        (f"/ws/?token={good.rpartition('.')[0]}.{'A' * 43}", "no key has signed this"),
        (f"/ws/?token={server.token(kind=Kind.SERVICE)}", "the audience is another"),
    )
    for target, _ in cases:
        assert request(server, target)[0] == 401
    expected = [("GET /ws/: 401", "token_invalid", reason) for _, reason in cases]
    assert lines(server, caplog) == expected
    assert len(caplog.records) == len(cases), "nothing else has a word to say"
    assert {vars(record)["ip"] for record in caplog.records} == {"127.0.0.1"}


def test_other_refusals_name_what_was_sent(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    request(server, "/ws/", Origin="https://evil.example")
    request(server, "/ws/", Host="evil.example")
    call(server, "/api/auth/ws-token")
    call(server, "/api/activities", method="POST", body=b"{}")
    call(server, "/nowhere?token=x")
    assert lines(server, caplog) == [
        ("GET /ws/: 403", "forbidden", "https://evil.example is not in server.allowed_origins"),
        (
            "GET /ws/: 421",
            "host_unknown",
            "evil.example is no local name; see server.allowed_hosts",
        ),
        ("GET /api/auth/ws-token: 401", "token_invalid", "no token"),
        ("POST /api/activities: 401", "token_invalid", "no token"),
        ("GET /nowhere: 404", "not_found", "Not found"),
    ]


def test_what_goes_well_is_no_line(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert call(server, "/api/povs/acme/activities", token=server.token()).code == 200
    raw = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert exchange(server, raw, server.web.admin_port).startswith(b"HTTP/1.1 200")
    server.web.server.draining = True
    # A balancer that asks every second is told so, and not the log.
    assert exchange(server, raw, server.web.admin_port).startswith(b"HTTP/1.1 503")
    server.web.server.draining = False
    assert caplog.records == []


class Answered:
    """A handler whose answer is on its way."""

    class request:
        method, path, remote_ip = "GET", "/ws/", "::1"

        @staticmethod
        def request_time() -> float:
            return 0.001

    error_code, reason = "token_invalid", "no token"

    def get_status(self) -> int:
        return 401


def test_a_flood_of_refusals_is_counted_and_not_written_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    access_log = AccessLog(clock)
    refused: Any = Answered()
    for _ in range(1000):
        access_log(refused)
    assert len(caplog.records) == REFUSALS_AT_ONCE
    clock.advance(1)
    for _ in range(1000):
        access_log(refused)
    assert len(caplog.records) == REFUSALS_AT_ONCE + 5
    assert vars(caplog.records[-5])["suppressed"] == 1000 - REFUSALS_AT_ONCE
    assert access_log.refused == {"token_invalid": 2000}

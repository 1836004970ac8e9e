"""Decided at the headers, at every door; and one line for each refusal, but not without end."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace
from tornado.web import Application

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, ServerSettings
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web import listener
from pov_rt.web.addresses import SPARE
from pov_rt.web.demo.mount import Demo
from pov_rt.web.http import REFUSALS_AT_ONCE, AccessLog
from tests import probe
from tests.web.routes.test_activities import call
from tests.web.test_handshake import exchange, request

ACCESS = "pov_rt.web.http"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")
NOTHING = ("/nowhere", "/client/acme", "/admin/acme", "/dev/acme", "/demo/.*")
"""What is not there, whatever is asked of it."""
OPEN = (
    "/demo",
    "/demo/",
    "/demo/board",
    "/",
    "/dev/console.json",
    "/dev/problem.json",
    "/healthz",
    "/readyz",
    "/readyz/publish",
    "/metrics",
)
"""What is asked of nobody who he is."""


class Door(NamedTuple):
    """A path on one of the two ports, and what is behind it by its routing table."""

    is_admin: bool
    path: str
    methods: tuple[str, ...]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with every route that there is, and a plugin's that takes a body."""
    settings = make_settings(
        server=ServerSettings(
            port=0, admin_port=0, conformance_echo=True, data=str(tmp_path_factory.mktemp("data"))
        ),
        limits=LimitSettings(failed_rate="10000/s", token_rate="10000/s"),
    )
    settings = replace(settings, dev=True)
    with RunningServer(settings, [Path(probe.__file__)]) as server:
        yield server


def doors(server: RunningServer) -> Iterator[Door]:
    web = server.web
    sites: tuple[tuple[bool, Application], ...] = (
        (False, server.call(web.make_app)),
        (True, server.call(web.make_admin_app)),
    )
    for is_admin, site in sites:
        yield Door(is_admin, "/nowhere", ())
        for rule in site.wildcard_router.rules:
            if isinstance(rule.target, Demo):
                continue  # an app of its own: tests/web/demo
            matcher: Any = rule.matcher
            path = re.sub(r"\((\?P<\w+>)?\[\^/\]\+\)", "acme", matcher.regex.pattern)
            path = path.removesuffix("$").replace("(?!_echo$).*", "")
            routes = rule.target_kwargs.get("routes")
            own = rule.target.own_methods if routes is None else routes
            kind = rule.target
            more = ["HEAD"] if "GET" in own else []
            more += ["OPTIONS"] * bool(kind.CORS_METHODS or kind.ANSWERS_OPTIONS)
            yield Door(is_admin, path, (*own, *more))


def answered_early(server: RunningServer, door: Door, *lines: str) -> int:
    """Return the status of what is answered to a request of whose body one byte has come."""
    port = server.web.admin_port if door.is_admin else server.web.port
    text = "\r\n".join([*lines, "Content-Length: 4194304"]) + "\r\n\r\nx"
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as sock:
        sock.sendall(text.encode())
        answer = b""
        while data := sock.recv(65536):
            answer += data
    head = answer.partition(b"\r\n\r\n")[0]
    assert b"\r\nConnection: close" in head, "the body is not waited for"
    return int(head.split()[1])


@pytest.mark.parametrize("method", METHODS)
def test_every_door_answers_before_the_body_who_will_get_nothing_for_it(
    everything: RunningServer, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LINGER_S", 0.05)
    for door in doors(everything):
        first = f"{method} {door.path} HTTP/1.1"
        if method == "BREW":
            nothing, wrong_host = 501, 501
        else:
            wrong_host = 421
            if door.path in NOTHING:
                nothing = 404
            elif method not in door.methods:
                nothing = 405
            elif method == "OPTIONS":
                nothing = 204
            else:
                nothing = 200 if door.path in OPEN else 401
        for token in ("", "Authorization: Bearer x", f"Authorization: Bearer {FORGED}"):
            lines = [line for line in (first, "Host: localhost", token) if line]
            assert answered_early(everything, door, *lines) == nothing, (door, token)
        if door.path.startswith("/ws/") and method == "OPTIONS":
            wrong_host = 204  # the request that follows is refused, and a page may read that
        assert answered_early(everything, door, first, "Host: evil.example") == wrong_host, door
        foreign = [first, "Host: localhost", "Origin: https://evil.example"]
        refused = 404 if door.path == "/client/acme" else 403  # which is for pages of any origin
        refused = wrong_host if wrong_host == 204 else refused
        assert answered_early(everything, door, *foreign) == (501 if method == "BREW" else refused)


def test_who_may_not_do_it_is_told_before_the_body(
    everything: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LINGER_S", 0.05)
    for method, path, token, status in (
        ("POST", "/api/activities", everything.token(), 401),
        ("POST", "/api/activities", everything.token(kind=Kind.SERVICE, can=[]), 403),
        ("PUT", "/api/povs/acme/probe/ana", everything.token(can=[]), 403),
        ("PUT", "/api/povs/acme/probe/ana", everything.token(povs=["other"]), 403),
        ("PUT", "/api/povs/acme/probe/%07", everything.token(), 400),
        ("POST", "/api/tokens/revoke", everything.token(), 401),
        ("POST", "/api/users/ana/notifications", everything.token(kind=Kind.SERVICE, can=[]), 403),
    ):
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}"]
        assert answered_early(everything, Door(False, path, ()), *lines) == status, path


def test_a_method_without_a_body_is_answered_without_it(
    everything: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LINGER_S", 0.05)
    operator = everything.token(kind=Kind.SERVICE, can=["operate", "subscribe", "collaborate"])
    token = f"Authorization: Bearer {operator}"
    for path in ("/api/povs/acme/activities", "/api/povs/acme/presence", "/api/connections"):
        first = f"GET {path} HTTP/1.1"
        assert answered_early(everything, Door(False, path, ()), first, "Host: x", token) == 200


def test_a_refused_request_without_a_body_leaves_the_connection_open(server: RunningServer) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as sock:
        for first in ("GET /nowhere", "GET /api/connections", "DELETE /ws/", "GET /ws/") * 2:
            sock.sendall(f"{first} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"}}"):
                answer += sock.recv(65536)
            assert b"Connection: close" not in answer


FORGED = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    "eyJ1c2VySWQiOiJhbmEiLCJleHAiOjQ4NTcwMDAwMDB9."
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


class TestFailures:
    """A token that is not good costs its sender's address something, at each door alike."""

    @pytest.fixture
    def server(self) -> Iterator[RunningServer]:
        settings = make_settings(
            server=ServerSettings(port=0, admin_port=0, trusted_proxies=["127.0.0.1"]),
            limits=LimitSettings(failed_rate="1/s", token_rate="1000/s"),
        )
        self.clock = ManualClock()
        with RunningServer(settings, None, self.clock) as server:
            yield server

    def ask(self, server: RunningServer, path: str, token: str, ip: str, **more: str) -> int:
        headers = {"X-Forwarded-For": ip, "Authorization": f"Bearer {token}", **more}
        code: int = call(server, path, **headers).code
        return code

    def test_past_its_budget_no_token_of_an_address_is_looked_at(
        self, server: RunningServer
    ) -> None:
        good, known = server.token("ana", Kind.ACCESS), server.token("ben", Kind.ACCESS)
        assert self.ask(server, "/api/auth/ws-token", known, "192.0.2.1") == 200
        for number in range(10):
            path = ("/api/povs/acme/activities", "/ws/", "/api/auth/ws-token")[number % 3]
            assert self.ask(server, path, f"{FORGED[:-2]}{number:02}", "192.0.2.1") == 401
        # A few are looked at nevertheless, of all such addresses together.
        assert self.ask(server, "/api/auth/ws-token", good, "192.0.2.1") == 200
        fresh = [server.token(f"cy-{number}", Kind.ACCESS) for number in range(int(SPARE.burst))]
        found = [self.ask(server, "/api/auth/ws-token", each, "192.0.2.1") for each in fresh]
        assert found == [200] * (len(fresh) - 1) + [429]
        good = fresh[-1]
        for path in ("/api/povs/acme/activities", "/ws/", "/api/auth/ws-token"):
            assert self.ask(server, path, good, "192.0.2.1") == 429
        from_there = ("X-Forwarded-For: 192.0.2.1",)
        status, text = request(server, f"/ws/?token={FORGED}", lines=from_there)
        assert (status, '"rate_limited"' in text, "Retry-After: 1" in text) == (429, True, True)
        assert self.ask(server, "/api/auth/ws-token", known, "192.0.2.1") == 200, "it is known"
        assert self.ask(server, "/api/auth/ws-token", good, "192.0.2.2") == 200, "another address"
        self.clock.advance(1.0)
        assert self.ask(server, "/api/auth/ws-token", good, "192.0.2.1") == 200, "soon again"

    def test_a_good_token_at_the_wrong_door_shuts_nobody_out(self, server: RunningServer) -> None:
        wrong = server.token("ana", Kind.SOCKET)
        for _ in range(20):
            assert self.ask(server, "/api/auth/ws-token", wrong, "192.0.2.1") == 401
        for number in range(int(SPARE.burst) + 10):
            good = server.token(f"ben-{number}", Kind.ACCESS)
            assert self.ask(server, "/api/auth/ws-token", good, "192.0.2.1") == 200


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
        (
            f"/ws/?token={good.rpartition('.')[0]}.{'A' * 43}",
            "no key has signed this (the signature is another key's, or the token was changed)",
        ),
        (
            f"/ws/?token={server.token(kind=Kind.SERVICE)}",
            "the audience is another: 'pov-rt.service' instead of pov-rt.socket or none "
            "(there is no auth.audiences)",
        ),
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


def test_a_head_that_is_refused_unread_is_one_line_with_its_address(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pov_rt")
    heads = {
        b"GET / HTTP/1.1\r\nCookie: a=%b\r\n\r\n" % (b"x" * 20_000): (431, "too_large"),
        b"GET / HTTP/1.1\r\nA: %b" % (b"x" * 40_000): (431, "too_large"),
        b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * 20_000): (414, "too_large"),
        b"GET /%b" % (b"x" * 40_000): (414, "too_large"),
        b"GET / HTTP/2.0\r\n\r\n": (505, "invalid_request"),
        b"GET /\r\n\r\n": (400, "invalid_request"),
        b"GET / HTTP/1.1\n\n": (400, "invalid_request"),
        b"GET / HTTP/1.1\r\nA b\r\n\r\n": (400, "invalid_request"),
    }
    for sent, (status, code) in heads.items():
        for port in (server.web.port, server.web.admin_port):
            caplog.clear()
            assert exchange(server, sent, port).startswith(b"HTTP/1.1 %d " % status)
            server.call(lambda: None)
            (record,) = (each for each in caplog.records if each.name == "pov_rt.web.http")
            said = vars(record)
            assert record.getMessage() == f"a request that could not be read: {status}"
            assert (said["code"], said["ip"]) == (code, "127.0.0.1")
            assert "xxx" not in record.getMessage() + said["reason"]


def test_what_goes_well_is_no_line(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert call(server, "/api/povs/acme/activities", token=server.token()).code == 200
    raw = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert exchange(server, raw, server.web.admin_port).startswith(b"HTTP/1.1 200")
    server.call(server.web.server.leaving.set)
    # A balancer that asks every second is told so, and not the log.
    assert exchange(server, raw, server.web.admin_port).startswith(b"HTTP/1.1 503")
    server.call(server.web.server.leaving.clear)
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
    assert {code: count for code, count in access_log.refused.items() if count} == {
        "token_invalid": 2000
    }

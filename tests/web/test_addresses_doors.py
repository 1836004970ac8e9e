"""At every door a client counts as the address that its proxy wrote, however that is written."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, ServerSettings, Settings
from pov_rt.registry.build import build_registry
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web.addresses import SPARE
from pov_rt.web.app import WebServer
from tests.web.routes.test_activities import call
from tests.web.test_handshake import request


def proxied(
    header: str = "X-Forwarded-For", *, token_rate: str = "2/s", failed_rate: str = "20/s"
) -> Settings:
    server = ServerSettings(
        port=0,
        admin_port=0,
        drain_s=0.2,
        trusted_proxies=["127.0.0.0/8", "172.16.0.0/12"],
        client_ip_header=header,
    )
    return make_settings(
        server=server, limits=LimitSettings(token_rate=token_rate, failed_rate=failed_rate)
    )


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with RunningServer(proxied(), None, ManualClock()) as running:
        yield running


def exchanges(server: RunningServer, *written: dict[str, str]) -> list[int]:
    """Return what requests for a token, each of another user, are answered, the good ones first.

    They are asked at once, for whoever is refused waits half a second for that.
    """

    def exchange(number: int, headers: dict[str, str]) -> int:
        token = server.token(f"user-{number}", Kind.ACCESS)
        return call(server, "/api/auth/ws-token", token=token, **headers).code

    with ThreadPoolExecutor(len(written)) as pool:
        return sorted(pool.map(exchange, range(len(written)), written))


LIMITED = [200] * 4 + [429] * 8
"""Twelve requests of one address, at 2/s with a burst of twice that."""


@pytest.mark.parametrize(
    "pattern",
    [
        "203.0.113.77",
        "6.6.6.{}, 203.0.113.77",
        "203.0.113.77:500{}",
        "::ffff:203.0.113.77",
        "[::ffff:203.0.113.77]:{}",
        "203.0.113.77, 172.16.0.{}, 127.0.0.1:{}",
        "2001:db8:1:2::{}",
        "[2001:db8:1:2:{}::]:443",
        "fe80::{}%eth{}",
        # What is none, and the client's own words before it.
        "unknown-{}",
        '203.0.113.{}, "x"',
        "203.0.113.{}, <script>",
    ],
)
def test_an_address_has_one_budget_however_it_is_written(
    server: RunningServer, pattern: str
) -> None:
    # The client's own word on its address in any other header is not heard.
    written = [
        {"X-Forwarded-For": pattern.replace("{}", str(n)), "X-Real-IP": f"6.6.6.{n}"}
        for n in range(12)
    ]
    assert exchanges(server, *written) == LIMITED


@pytest.mark.parametrize(
    "pattern", ["203.0.113.{}", "1.1.1.1, 203.0.113.{}:80", "2001:db8:1:{}::1"]
)
def test_another_address_has_its_own(server: RunningServer, pattern: str) -> None:
    written = [{"X-Forwarded-For": pattern.replace("{}", str(n))} for n in range(12)]
    assert exchanges(server, *written) == [200] * 12


def test_only_the_header_that_is_named_is_read() -> None:
    with RunningServer(proxied("X-Real-IP"), None, ManualClock()) as server:
        written = [{"X-Real-IP": "192.0.2.1", "X-Forwarded-For": f"6.6.6.{n}"} for n in range(12)]
        assert exchanges(server, *written) == LIMITED


def test_tokens_that_are_not_good_count_for_their_network() -> None:
    settings = proxied(failed_rate="1/s", token_rate="1000/s")
    with RunningServer(settings, None, ManualClock()) as server:
        bad = server.token()[:-3] + "AAA"
        found = [
            request(server, f"/ws/?token={bad}", lines=(f"X-Forwarded-For: [2001:db8::{n}]:1",))[0]
            for n in range(10 + int(SPARE.burst) + 2)
        ]
        # Ten seconds' worth, and a few of all addresses that have to wait.
        assert found == [401] * (len(found) - 2) + [429] * 2


def remote_ip(server: RunningServer, *lines: str) -> str:
    """Return the address that a socket is listed with."""
    target, address = f"/ws/?token={server.token()}", ("127.0.0.1", server.web.port)
    head = [
        f"GET {target} HTTP/1.1",
        *("Host: localhost", "Upgrade: websocket", "Connection: Upgrade"),
        *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
        *lines,
    ]
    with closing(socket.create_connection(address, timeout=10)) as sock:
        sock.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 101")
        operator = server.token("ops", Kind.SERVICE, can=["operate"])
        answer = call(server, "/api/connections?userId=ana", token=operator)
        (found,) = json.loads(answer.body)["connections"]
    return str(found["remoteIp"])


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.88:50001", "203.0.113.88"),
        ("203.0.113.9, 127.0.0.1:8080", "203.0.113.9"),
        ("[2001:DB8::1]:443", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("unknown", "127.0.0.1"),
        ('"203.0.113.9"', "127.0.0.1"),
        ("203.0.113.9, <script>alert(1)</script>", "127.0.0.1"),
    ],
)
def test_a_socket_is_listed_with_it(server: RunningServer, written: str, address: str) -> None:
    assert remote_ip(server, f"X-Forwarded-For: {written}") == address


def test_two_lines_are_one_list(server: RunningServer) -> None:
    lines = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.9")
    assert remote_ip(server, *lines) == "203.0.113.9"


class Inherited(RunningServer):
    """A server on a socket for both kinds of addresses, as systemd makes them."""

    async def _start(self) -> None:
        self._own = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self._own.setblocking(False)
        self.web = WebServer(self._settings, build_registry({}), clock=ManualClock())
        await self.web.start([self._own])

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._own.close()


def test_a_peer_on_a_socket_for_both_kinds_is_the_proxy_that_it_is() -> None:
    with Inherited(proxied(), None) as server:
        assert remote_ip(server, "X-Forwarded-For: 203.0.113.9") == "203.0.113.9"
        assert remote_ip(server) == "127.0.0.1"
        written = [{"X-Forwarded-For": f"203.0.113.{n}"} for n in range(12)]
        assert exchanges(server, *written) == [200] * 12

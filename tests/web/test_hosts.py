"""Names that a page's owner can make lead here, proxies whose word counts, and the other port."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.registry.build import build_registry
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web.app import WebServer
from tests.web.test_handshake import exchange, request

LOCAL = (
    "localhost",
    "LOCALHOST:1",
    "localhost.",
    "127.0.0.1",
    "127.9.9.9:80",
    "[::1]:8765",
    "app.localhost",
)
OWN = ("10.0.0.7", "[2001:db8::1]:80", "[::ffff:10.0.0.7]", "laptop", "laptop:8765")
"""Nobody can register an address, or a name without a dot."""
OWNED = (
    "evil.example",
    "evil.example:8765",
    "127.0.0.1.evil.example",
    "evil.example.",
    "1.2.3",
    "a.b",
)
BAD = ("", ".", "a b", "a/b", "[::1", "a:b", "é", "a:1:2", "http://localhost")


def status(server: RunningServer, host: str | None, *lines: str, port: int | None = None) -> int:
    """Return what a request to this host is answered; 404 is what gets through."""
    parts = ["GET /nowhere HTTP/1.1", *([] if host is None else [f"Host: {host}"]), *lines]
    answer = exchange(server, ("\r\n".join(parts) + "\r\n\r\n").encode(), port)
    return int(answer.split()[1])


def test_without_a_list_a_local_server_has_only_names_that_nobody_owns(
    server: RunningServer,
) -> None:
    for port in (server.web.port, server.web.admin_port):
        assert {status(server, host, port=port) for host in LOCAL + OWN} == {404}
        assert {status(server, host, port=port) for host in OWNED} == {421}
        assert {status(server, host, port=port) for host in BAD} == {400}
        assert status(server, None, port=port) == 400


def test_a_page_of_a_rebound_name_gets_nothing(server: RunningServer) -> None:
    assert status(server, "evil.example", "Origin: http://evil.example") == 421
    assert status(server, "localhost", "Origin: http://evil.example") == 403
    assert status(server, "localhost", "Origin: http://localhost") == 404


def test_what_other_sites_pages_do_behind_a_visitors_back_is_refused(server: RunningServer) -> None:
    for site, mode, expected in (
        ("cross-site", "no-cors", 403),
        ("cross-site", "websocket", 403),
        ("Cross-Site", "no-cors", 403),
        ("cross-site", "Navigate", 404),
        ("same-origin\r\nSec-Fetch-Site: cross-site", "cors", 400),
        ("cross-site\r\nSec-Fetch-Site: same-origin", "cors", 400),
        ("cross-site", "navigate", 404),
        ("same-site", "cors", 404),
        ("same-origin", "cors", 404),
        ("none", "navigate", 404),
    ):
        got = status(server, "localhost", f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}")
        assert got == expected, (site, mode)


def test_a_page_that_its_browser_calls_another_origin_is_none_of_the_servers(
    server: RunningServer,
) -> None:
    own = "Origin: http://localhost"
    assert status(server, "localhost", own, "Sec-Fetch-Site: same-origin") == 404
    for site in ("same-site", "Same-Site", "CROSS-SITE"):
        assert status(server, "localhost", own, f"Sec-Fetch-Site: {site}") == 403


def test_a_proxy_that_is_not_trusted_is_told_of_once(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        assert status(server, "localhost", f"X-Forwarded-For: {address}") == 404
    assert sum("server.trusted_proxies" in line for line in caplog.messages) == 1


def test_a_load_balancers_check_needs_no_host(server: RunningServer) -> None:
    check = b"GET /readyz HTTP/1.0\r\n\r\n"
    assert exchange(server, check, server.web.admin_port).startswith(b"HTTP/1.1 200")
    assert exchange(server, check).startswith(b"HTTP/1.1 400")


class TestOnAllAddresses:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            server=ServerSettings(host="0.0.0.0", admin_host="0.0.0.0", port=0, admin_port=0)
        )

    def test_any_name_goes_for_only_its_operator_knows_them(self, server: RunningServer) -> None:
        for port in (server.web.port, server.web.admin_port):
            assert {status(server, host, port=port) for host in LOCAL + OWN + OWNED} == {404}


class TestOnAllAddressesUnderDev:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        server = ServerSettings(host="0.0.0.0", port=0, admin_port=0, data=str(tmp_path))
        return replace(make_settings(server=server), dev=True)

    def test_it_has_only_names_that_nobody_owns(self, server: RunningServer) -> None:
        assert {status(server, host) for host in LOCAL + OWN} == {404}
        assert {status(server, host) for host in OWNED} == {421}


class TestWithAList:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            server=ServerSettings(port=0, admin_port=0, allowed_hosts=["rt.example"])
        )

    def test_it_is_for_clients_and_operators_stay_local(self, server: RunningServer) -> None:
        assert status(server, "rt.example") == status(server, "RT.example:443") == 404
        assert status(server, "rt.example.") == status(server, "rt.example.:8765") == 404
        assert {status(server, host) for host in LOCAL} == {404}, "for programs of this machine"
        assert {status(server, host) for host in OWN + OWNED} == {421}
        admin = server.web.admin_port
        assert {status(server, host, port=admin) for host in (*LOCAL, "rt.example")} == {404}
        assert {status(server, host, port=admin) for host in OWNED} == {421}


class TestBehindAProxy:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            server=ServerSettings(port=0, admin_port=0, trusted_proxies=["127.0.0.1"])
        )

    def test_names_are_the_proxys_business(
        self, server: RunningServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert {status(server, host) for host in LOCAL + OWN + OWNED} == {404}
        assert status(server, "rt.example", "X-Forwarded-For: 192.0.2.1") == 404
        assert not any("server.trusted_proxies" in line for line in caplog.messages)
        assert status(server, "rt.example", "Origin: https://rt.example") == 404
        assert status(server, "rt.example:8443", "Origin: https://rt.example:8443") == 404

    @pytest.mark.parametrize(
        ("lines", "origin", "expected"),
        [
            (["X-Forwarded-Proto: https"], "https://rt.example", 404),
            (["X-Forwarded-Proto: https"], "http://rt.example", 403),
            (["X-Forwarded-Proto: http"], "http://rt.example", 404),
            (["X-Forwarded-Proto: http"], "https://rt.example", 403),
            # Of a handshake some proxies say so.
            (["X-Forwarded-Proto: wss"], "https://rt.example", 404),
            (["X-Forwarded-Proto: ws"], "https://rt.example", 403),
            # The proxy that says nothing is taken for one with TLS.
            ([], "http://rt.example", 403),
            # The last one is the nearest proxy's.
            (["X-Forwarded-Proto: http, https"], "http://rt.example", 403),
            (["X-Forwarded-Proto: http", "X-Forwarded-Proto: https"], "http://rt.example", 403),
        ],
    )
    def test_a_page_of_the_same_host_but_another_scheme_is_another_origin(
        self, server: RunningServer, lines: list[str], origin: str, expected: int
    ) -> None:
        assert status(server, "rt.example", f"Origin: {origin}", *lines) == expected


ODD = ["file://", "null", "app://-", "capacitor://localhost", "https://app.example"]


class TestWithOddOrigins:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(server=ServerSettings(port=0, admin_port=0, allowed_origins=ODD))

    @pytest.mark.parametrize(
        "origin",
        [
            *ODD,
            # What clients send that are no browsers.
            *("https://app.example:443", "wss://app.example", "wss://app.example:443"),
        ],
    )
    def test_what_is_listed_may_use_the_server(self, server: RunningServer, origin: str) -> None:
        for site in ("cross-site", "same-site", "none"):
            lines = (f"Origin: {origin}", f"Sec-Fetch-Site: {site}")
            assert status(server, "localhost", *lines) == 404
        token = server.token()
        assert request(server, f"/ws/?token={token}", Origin=origin)[0] == 101
        got, text = request(server, "/ws/", drop="Upgrade", Origin=origin)
        assert (got, f"Access-Control-Allow-Origin: {origin}\r\n" in text) == (401, True)

    @pytest.mark.parametrize(
        "origin",
        [
            *("file:///", "Null", "app://", "app://x", "https://app.example:80", ""),
            *("http://app.example", "ws://app.example", "https://app.example.evil.example"),
            *("https://app.example:443:443", "wss://app.example/", "https://x@app.example"),
        ],
    )
    def test_what_only_looks_like_it_may_not(self, server: RunningServer, origin: str) -> None:
        assert status(server, "localhost", f"Origin: {origin}") == 403


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("rt:80", "http://rt", 404),
        ("rt", "http://rt:80", 404),
        ("rt:443", "https://rt", 404),
        ("rt:", "http://rt", 404),
        ("rt.:", "http://rt:80", 404),
        ("rt", "https://rt:443", 404),
        ("rt:8765", "ws://rt:8765", 404),
        ("rt:8765", "wss://rt:8765", 404),
        ("rt", "ws://rt", 404),
        ("rt.", "http://rt", 404),
        ("rt", "http://rt.", 404),
        ("rt:80", "https://rt", 403),
        ("rt:443", "http://rt", 403),
        ("rt:81", "http://rt", 403),
        ("rt:", "http://rt:81", 403),
        ("rt::", "http://rt", 400),
        ("rt:-1", "http://rt", 400),
        (":80", "http://rt", 400),
        ("rt", "ws://rt:443", 403),
        ("rt", "wss://other", 403),
        ("rt", "ftp://rt", 403),
        ("rt", "http://RT", 403),
    ],
)
def test_a_page_of_the_same_host_is_known_with_its_port_and_without(
    server: RunningServer, host: str, origin: str, expected: int
) -> None:
    assert status(server, host, f"Origin: {origin}") == expected


class TestPublicUrl:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            server=ServerSettings(
                port=0,
                admin_port=0,
                public_url="https://rt.example",
                allowed_origins=["https://app.example"],
            )
        )

    def test_it_names_the_host_and_the_scheme(self, server: RunningServer) -> None:
        assert status(server, "rt.example") == 404
        assert status(server, "rt.example:443") == status(server, "rt.example.") == 404
        assert status(server, "rt.example:80") == 421
        assert status(server, "rt.example", "Origin: https://rt.example") == 404
        assert status(server, "rt.example", "Origin: http://rt.example") == 403
        # Nobody but a trusted proxy says otherwise.
        plain = ("Origin: http://rt.example", "X-Forwarded-Proto: http")
        assert status(server, "rt.example", *plain) == 403
        assert status(server, "localhost", "Origin: http://localhost") == 403
        assert status(server, "localhost", "Origin: https://rt.example") == 404

    def test_a_page_of_another_site_needs_to_be_on_the_list(self, server: RunningServer) -> None:
        foreign = "Sec-Fetch-Site: cross-site"
        assert status(server, "rt.example", "Origin: https://app.example", foreign) == 404
        for origin in ("http://rt.example", "https://rt.example"):
            assert status(server, "rt.example", f"Origin: {origin}", foreign) == 403
        site = "Sec-Fetch-Site: same-site"
        assert status(server, "rt.example", "Origin: https://app.example", site) == 404
        assert status(server, "localhost", "Origin: https://rt.example", site) == 404
        assert status(server, "rt.example", "Origin: http://rt.example", site) == 403


def test_who_may_write_to_a_unix_socket_is_a_proxy_however_it_came_here(tmp_path: Path) -> None:
    path = str(tmp_path / "given")
    seen: list[str] = []

    async def run() -> None:
        given = socket.socket(socket.AF_UNIX)
        with given:
            given.bind(path)
            given.listen()
            given.setblocking(False)
            web = WebServer(make_settings(), build_registry({}))
            await web.start([given])
            site: Any = web.http.request_callback
            site.settings["log_function"] = lambda handler: seen.append(handler.ip)
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(
                b"GET /nowhere HTTP/1.1\r\nHost: rt.example\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n"
            )
            assert (await reader.readline()).startswith(b"HTTP/1.1 404")
            writer.close()
            await web.stop()

    asyncio.run(run())
    assert seen == ["10.0.0.9"]

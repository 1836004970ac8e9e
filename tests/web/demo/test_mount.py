"""The demo is there under --dev, for browsers on this machine, and nowhere else."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from msgspec.structs import replace

from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.testing import Connect, RunningServer, make_settings
from pov_rt.web.demo.mount import MAX_BODY_BYTES
from tests.processes import serve
from tests.web.routes.test_activities import call

PAGES = ("/demo", "/demo/", "/demo/board")
ALL = (*PAGES, "/demo/api/board", "/demo/api/token")


def test_without_dev_there_is_no_demo(server: RunningServer) -> None:
    assert {call(server, path, Demo_User="ana").code for path in ALL} == {404}


class TestUnderDev:
    @pytest.fixture
    def settings(self) -> Settings:
        return replace(make_settings(), dev=True)

    def test_its_pages_are_under_the_strict_policy(self, server: RunningServer) -> None:
        for path in PAGES:
            page = call(server, path)
            assert (page.code, page.headers["Content-Type"][:9]) == (200, "text/html")
            policy = page.headers["Content-Security-Policy"]
            assert "default-src 'self'; require-trusted-types-for 'script'" in policy
            assert "frame-ancestors 'self'" in policy

    @pytest.mark.parametrize("path", ALL)
    def test_a_name_that_points_here_gets_nothing(self, server: RunningServer, path: str) -> None:
        for host, status in (
            ("evil.example", 421),
            ("localhost.evil.example:8765", 421),
            ("10.0.0.1", 403),
        ):
            answer = call(server, path, Host=host, Demo_User="ana")
            assert answer.code == status
            assert b'"token"' not in answer.body
        assert call(server, path, Demo_User="ana", X_Real_IP="203.0.113.9").code == 403

    def test_pages_of_other_origins_do_nothing(self, server: RunningServer) -> None:
        path = "/demo/api/povs/mossgate-bank/phase/Decide"
        origin = "https://evil.example"
        refused = call(server, path, method="PUT", body=b"", Demo_User="ana", Origin=origin)
        assert refused.code == 403
        # For a page of this machine the browser asks first: no form sends that header.
        asked = call(server, path, method="OPTIONS", Origin="http://localhost:3000")
        assert "Access-Control-Allow-Origin" not in asked.headers
        board = json.loads(call(server, "/demo/api/board", Demo_User="ana").body)
        assert board["povs"][0]["phase"] == 2

    def test_a_large_body_is_not_read(self, server: RunningServer) -> None:
        path = "/demo/api/povs/mossgate-bank/tasks/new"
        with socket.create_connection(("127.0.0.1", server.web.port)) as client:
            client.sendall(
                f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nDemo-User: ana\r\n"
                f"Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode()
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 400 ")

    def test_what_is_not_there_is_said(self, server: RunningServer) -> None:
        assert call(server, "/demo/nothing").code == 404
        assert call(server, "/demo/api/nothing", Demo_User="ana").code == 404


def address_here() -> str | None:
    """Return an address of this machine by which others reach it, where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the way
        except OSError:
            return None
        found: str = asked.getsockname()[0]
    return None if found.startswith("127.") else found


class TestForOtherMachines:
    @pytest.fixture
    def settings(self) -> Settings:
        every = ServerSettings(host="0.0.0.0", port=0, admin_port=0, drain_s=0.2)
        return replace(make_settings(server=every), dev=True)

    def test_by_another_way_than_loopback_nothing_is_given(self, server: RunningServer) -> None:
        address = address_here()
        if address is None:
            pytest.skip("this machine has no address but its own")
        port = server.web.port
        for path in ALL:
            with socket.create_connection((address, port)) as client:
                head = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nDemo-User: ana\r\n\r\n"
                client.sendall(head.encode())
                assert client.recv(100).startswith(b"HTTP/1.1 403 ")

    def test_its_own_activities_come_by_loopback(
        self, server: RunningServer, connect: Connect
    ) -> None:
        client = connect()
        client.request({"type": "subscribe", "povId": "quillon-air"})
        path = "/demo/api/povs/quillon-air/phase/Decide"
        assert ask(f"http://127.0.0.1:{server.web.port}{path}", "PUT") == {}
        assert client.receive()["data"]["action"] == "changed"


def test_a_server_that_starts_anew_has_sent_all_and_keeps_the_board(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with serve(tmp_path, "--port", port) as served:
        assert f"{served.url}/demo" in served.text
        api = f"{served.url}/demo/api"
        ask(f"{api}/povs/mossgate-bank/phase/Decide", "PUT")
        ask(f"{api}/burst", "POST")
        ask(f"{api}/restart", "POST")
        assert served.process.stderr is not None
        log = iter(served.process.stderr.readline, "")
        assert next(line for line in log if "started anew: the demo's button" in line)
        token = ask(f"{api}/token")["token"]
        logs = f"{served.url}/api/povs"
        offsets = {
            pov: ask(f"{logs}/{pov}/activities?limit=1", Authorization=f"Bearer {token}")["offset"]
            for pov in ("mossgate-bank", "brindle-freight", "quillon-air")
        }
        assert offsets == {"mossgate-bank": 335, "brindle-freight": 333, "quillon-air": 333}
        assert ask(f"{api}/board")["povs"][0]["phase"] == 3
        served.stop()


def ask(url: str, method: str = "GET", **headers: str) -> Any:
    """Make a request as Ana's page does, and return its answer."""
    data = None if method == "GET" else b""
    with urlopen(Request(url, data, {"Demo-User": "ana", **headers}, method=method)) as answer:
        return json.loads(answer.read())

"""The console is there under --dev, for browsers on this machine, and nowhere else."""

from __future__ import annotations

import json
import re

import pytest
from msgspec.structs import replace
from tornado.httpclient import HTTPClient, HTTPResponse

from pov_rt.settings import Settings
from pov_rt.testing import SECRET, RunningServer, make_settings


def get(server: RunningServer, path: str, **headers: str) -> HTTPResponse:
    client = HTTPClient()
    try:
        return client.fetch(f"http://{server.address}{path}", headers=headers, raise_error=False)
    finally:
        client.close()


def test_without_dev_there_is_no_console(server: RunningServer) -> None:
    assert get(server, "/").code == get(server, "/dev/console.json").code == 404


class TestUnderDev:
    @pytest.fixture
    def settings(self) -> Settings:
        return replace(make_settings(), dev=True)

    def test_the_page_and_its_data_are_served(self, server: RunningServer) -> None:
        page = get(server, "/")
        assert (page.code, b"pov-rt console" in page.body) == (200, True)
        assert not re.search(rb"https?://", page.body), "nothing comes from elsewhere"
        data = json.loads(get(server, "/dev/console.json").body)
        assert SECRET not in json.dumps(data)
        verify = server.web.server.plugins.hosts["ping"].verify
        assert server.call(lambda: verify(data["token"])).user_id == "dev"
        assert "receive.subscribe" in data["schema"]["operations"]

    def test_a_name_that_points_here_gets_no_token(self, server: RunningServer) -> None:
        for host in ("evil.example", "localhost.evil.example:8765", "10.0.0.1"):
            answer = get(server, "/dev/console.json", Host=host)
            assert answer.code == 403
            assert b"token" not in answer.body

    def test_pages_of_any_localhost_may_connect(self, server: RunningServer) -> None:
        answer = get(server, "/api/auth/ws-token", Origin="http://localhost:3000")
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"

"""The console is there under --dev, for browsers on this machine, and nowhere else."""

from __future__ import annotations

import itertools
import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tornado.httpclient import HTTPClient, HTTPResponse

from pov_rt.config.settings import Settings
from pov_rt.registry.build import build_registry
from pov_rt.registry.scaffold import PLUGIN
from pov_rt.testing import SECRET, RunningServer, make_settings
from tests.processes import run, running, serve

ASKED = build_registry({}).tags - {"pong"} | {"anton.say", "berta.say"}


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
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        assert not re.search(rb"https?://", page.body), "nothing comes from elsewhere"
        data = json.loads(get(server, "/dev/console.json").body)
        assert SECRET not in json.dumps(data)
        verify = server.web.server.hooks.hosts["ping"].verify
        assert server.call(lambda: verify(data["token"])).user_id == "dev"
        assert "receive.subscribe" in data["schema"]["operations"]

    def test_a_name_that_points_here_gets_no_token(self, server: RunningServer) -> None:
        for host, status in (
            ("evil.example", 421),
            ("localhost.evil.example:8765", 421),
            ("10.0.0.1", 403),
        ):
            answer = get(server, "/dev/console.json", Host=host)
            assert answer.code == status
            assert b"token" not in answer.body

    def test_pages_of_any_localhost_may_connect(self, server: RunningServer) -> None:
        answer = get(server, "/api/auth/ws-token", Origin="http://localhost:3000")
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"


def test_the_page_comes_back_after_a_restart_and_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name in ("anton", "berta"):  # equal class names in both
        (folder / f"{name}.py").write_text(PLUGIN.format(name=name))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with (
        serve(tmp_path, "--port", port, "--plugins-dir", str(folder)) as served,
        running(
            ["node", "tests/node/console.mjs", served.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as page,
    ):
        assert page.stdin is not None
        assert page.stdout is not None
        lines = (json.loads(line) for line in page.stdout)

        def until(title: str) -> Any:
            text = next(text for found, text in lines if found == title)
            return json.loads(text) if text.startswith("{") else text

        def submit(type: str, **fields: str) -> None:
            assert page.stdin is not None
            page.stdin.write(json.dumps({"type": type, "fields": fields}) + "\n")
            page.stdin.flush()

        def publish(number: int) -> None:
            given = json.dumps({"type": "t", "action": "a", "povId": "demo", "id": str(number)})
            done = run(tmp_path, "publish", "--url", served.url, given=given)
            assert done.stderr == "1 published\n"

        forms = {text for _, text in itertools.islice(lines, len(ASKED))}
        assert forms == ASKED
        until("welcome")
        submit("anton.say", povId="demo", text="hello")
        assert until("anton.said")["text"] == "hello"
        submit("subscribe")
        assert until("subscribed")["offset"] == 0
        publish(1)
        assert until("activity")["offset"] == 1
        (folder / "berta.py").unlink()
        assert until("closed") == "4000 restarting"
        until("welcome")
        assert until("subscribed")["povId"] == "demo"
        publish(2)
        assert until("activity")["offset"] == 2
        served.stop()

"""Official clients of Durable Streams, unmodified, follow a PoV: each activity once, in order."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from http.client import HTTPConnection
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from pov_rt.config.settings import Settings
from pov_rt.testing import Http, RunningServer, TestClock, make_settings
from tests.js import SDK, node
from tests.processes import Served, run, running, serve

ROOT = Path(__file__).parents[3]
POV = "/api/povs/acme/stream"
Client = Callable[..., AbstractContextManager[Popen[str]]]


@pytest.fixture
def settings() -> Settings:
    return make_settings(
        streams={"poll_s": 5.0, "read_rate": "1000/s"}, limits={"cost_rate": "1000000/s"}
    )


@pytest.fixture(params=["javascript", "python"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    """Return what runs a client: of a URL, in a mode, from an offset on, for so many items."""
    if request.param == "python":
        program = [sys.executable, str(ROOT / "tests/durable_client.py")]
    else:
        if not (ROOT / "tests/node/node_modules/@durable-streams").exists():
            pytest.skip("tests/node has no node_modules: run scripts/test, which installs them")
        program = [node(SDK), str(ROOT / "tests/node/durable.mjs")]

    def start(
        url: str, mode: str, count: int, offset: str = "-1"
    ) -> AbstractContextManager[Popen[str]]:
        command = [*program, url, str(tmp_path / "token"), mode, offset, str(count)]
        return running(command, stdout=PIPE, stderr=PIPE)

    return start


def keep(tmp_path: Path, token: str) -> None:
    """Put the token where clients look for it; at no time there is half of one."""
    (tmp_path / "new").write_text(token)
    (tmp_path / "new").replace(tmp_path / "token")


def publish(http: Http, count: int, user: str = "eve") -> None:
    for start in range(0, count, 1000):
        batch = [
            {"type": "t", "action": "a", "povId": "acme", "userId": user}
            for _ in range(start, min(start + 1000, count))
        ]
        assert http.post("/api/activities", batch, service=True).status == 200


def read(process: Popen[str], count: int) -> list[int]:
    """Return the offsets that a client prints next."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(count)]
    assert all(lines), process.communicate()[1]
    return [json.loads(line) for line in lines]


def ended(process: Popen[str]) -> str:
    """Return what is left of what it prints, once it has ended."""
    return process.communicate(timeout=20)[0]


@pytest.mark.parametrize("mode", ["catch-up", "long-poll", "sse"])
def test_five_thousand_and_what_comes_then(
    server: RunningServer, http: Http, tmp_path: Path, client: Client, mode: str
) -> None:
    keep(tmp_path, server.token())
    publish(http, 5000)
    more = 0 if mode == "catch-up" else 3
    with client(f"http://{server.address}{POV}", mode, 5000 + more) as process:
        assert read(process, 5000) == list(range(1, 5001))
        for number in range(more):
            publish(http, 1)
            assert read(process, 1) == [5001 + number]
        assert ended(process) == ""


@pytest.mark.parametrize("mode", ["long-poll", "sse"])
def test_a_token_that_ends_is_followed_by_another(
    server: RunningServer,
    http: Http,
    clock: TestClock,
    tmp_path: Path,
    client: Client,
    mode: str,
) -> None:
    keep(tmp_path, server.token(ttl_s=100))
    url = f"http://{server.address}{POV}"
    with client(url, mode, 2) as process:
        publish(http, 1)
        assert read(process, 1) == [1]
        wait_until(server, lambda: len(server.web.server.directory) == 1)
        keep(tmp_path, server.token())
        (first,) = server.call(server.web.server.directory.all)
        clock.advance(102)
        server.call(server.web.server.sweep)
        wait_until(server, lambda: first.closed)
        publish(http, 1)
        assert read(process, 1) == [2]
    keep(tmp_path, server.token(ttl_s=100))
    clock.advance(102)
    with client(url, mode, 1) as process:
        assert json.loads(ended(process))["status"] == 401


def wait_until(server: RunningServer, condition: Callable[[], bool]) -> None:
    """Let the server's loop turn until something has come true; the test's own time ends it."""
    while not server.call(condition):
        pass


class TestLost:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(engine={"url": "memory://", "max_entries": 5})

    @pytest.mark.parametrize("mode", ["catch-up", "long-poll", "sse"])
    def test_a_lost_position_is_told_with_the_number_missed(
        self, server: RunningServer, http: Http, tmp_path: Path, client: Client, mode: str
    ) -> None:
        keep(tmp_path, server.token())
        publish(http, 1)
        known = http.get(POV).headers["Stream-Next-Offset"]
        publish(http, 20)
        missed = http.get(POV).body[0]["offset"] - 2
        with client(f"http://{server.address}{POV}", mode, 1, known) as process:
            told = {"status": 410, "code": "position_lost", "missed": missed}
            assert json.loads(ended(process)) == told


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("mode", ["long-poll", "sse"])
def test_a_restart_costs_nothing(tmp_path: Path, client: Client, mode: str) -> None:
    port, home = free_port(), tmp_path / "home"
    home.mkdir()

    def post(served: Served, count: int) -> None:
        made = run(home, "token", "--kind", "service", "--user", "app", "--can", "publish")
        service = made.stdout.strip()
        assert service, made.stderr
        asked = HTTPConnection(served.url.removeprefix("http://"), timeout=10)
        with closing(asked):
            batch: Any = [{"type": "t", "action": "a", "povId": "acme", "userId": "e"}] * count
            headers = {"Authorization": f"Bearer {service}"}
            asked.request("POST", "/api/activities", json.dumps(batch), headers)
            assert asked.getresponse().status == 200

    with serve(home, "--port", str(port)) as served:
        keep(tmp_path, served.token)
        with client(f"{served.url}{POV}", mode, 9) as process:
            post(served, 3)
            assert read(process, 3) == [1, 2, 3]
            served.stop()
            with serve(home, "--port", str(port)) as again:
                post(again, 3)
                assert read(process, 3) == [4, 5, 6]
                post(again, 3)
                assert read(process, 3) == [7, 8, 9]
                assert ended(process) == ""
                again.stop()

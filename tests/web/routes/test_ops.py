"""What operators see: metrics with the names that the docs give, and the loop's lag."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClient, HTTPResponse

from pov_rt.config.settings import EngineSettings, Settings
from pov_rt.protocol.errors import ERRORS
from pov_rt.testing import Connect, RunningServer, make_settings
from pov_rt.web.routes.ops import LAG_MEMORY_S, LAG_TICK_S, LoopLag
from tests.engine.sqlite.test_writer import limit
from tests.test_docs import DOCS, table
from tests.transport.test_wire import publish, raw_client, text
from tests.web.routes.test_activities import ONE, call, post
from tests.web.test_handshake import exchange, request

FAILING = '''"""A plugin whose route fails."""
from pov_rt.plugin import Message, Plugin, Request

plugin = Plugin("failing")

class Never(Message, tag="never"):
    """Never sent."""

@plugin.http("GET", "/failing", grant="subscribe")
def fail(request: Request) -> Never:
    """Fail."""
    raise RuntimeError("it fails")
'''


def admin(server: RunningServer, path: str, method: str = "GET") -> HTTPResponse:
    client = HTTPClient()
    try:
        url = f"http://127.0.0.1:{server.web.admin_port}{path}"
        return client.fetch(url, method=method, raise_error=False)
    finally:
        client.close()


def metrics(server: RunningServer) -> dict[str, float]:
    """Return the samples by name and labels."""
    text = admin(server, "/metrics").body.decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_metrics_have_the_names_and_labels_of_the_docs(
    server: RunningServer, connect: Connect
) -> None:
    client = connect()
    client.request({"type": "ping"})
    client.request({"type": "subscribe", "povId": ""})
    request(server, "/ws/")
    client.socket.close()
    documented = {
        name.strip("`"): set(re.findall(r"`(\w+)`", labels))
        for name, labels, text in table(DOCS["operations"], "Metrics")
        if not text.startswith("on Redis, ")  # test_deploy_prometheus looks for those
    }
    text = admin(server, "/metrics").body.decode()
    assert set(re.findall(r"^# HELP (\S+)", text, re.M)) == set(documented)
    labels: dict[str, set[str]] = {name: set() for name in documented}
    for name, label in re.findall(r"(\w+?)(?:_created|_bucket)?\{(.*?)\} ", text):
        labels[name] |= set(re.findall(r'(\w+)="', label))
    for name, found in labels.items():
        assert found in (documented[name], set()), name


def test_refused_requests_are_counted_by_code(server: RunningServer) -> None:
    request(server, "/ws/")
    request(server, "/ws/?token=x")
    request(server, "/elsewhere")
    call(server, "/nowhere")
    exchange(server, b"nonsense\r\n\r\n")
    seen = metrics(server)
    for code, count in (("token_invalid", 2), ("invalid_request", 2), ("not_found", 1)):
        assert seen[f'pov_rt_http_refused_total{{code="{code}"}}'] == count


def test_what_has_not_happened_yet_is_a_nought(server: RunningServer) -> None:
    seen = metrics(server)
    for error in ERRORS:
        for name in ("errors", "http_refused"):
            assert seen[f'pov_rt_{name}_total{{code="{error.code}"}}'] == 0


def test_a_publication_is_timed_and_what_is_refused_is_not(server: RunningServer) -> None:
    post(server, ONE)
    post(server, {**ONE, "action": "not one"})
    seen = metrics(server)
    assert seen["pov_rt_publish_seconds_count"] == 1
    assert seen['pov_rt_publish_seconds_bucket{le="+Inf"}'] == 1
    assert 0 < seen["pov_rt_publish_seconds_sum"] < 60


def test_the_process_is_told_of(server: RunningServer) -> None:
    seen = metrics(server)
    assert seen["process_resident_memory_bytes"] > 1e6
    assert 0 < seen["process_open_fds"] < seen["process_max_fds"]
    assert seen["process_start_time_seconds"] < time.time()


def test_what_waits_for_clients_that_do_not_read_shows(server: RunningServer) -> None:
    assert metrics(server)["pov_rt_unsent_bytes"] == 0
    with raw_client(server, receive_buffer=4096) as slow:
        slow.send(text('{"type":"subscribe","povId":"acme"}'))
        slow.receive()
        assert metrics(server)["pov_rt_unsent_oldest_seconds"] == 0
        publish(server, 15_000, 16)
        assert metrics(server)["pov_rt_unsent_bytes"] > 100_000
        assert metrics(server)["pov_rt_unsent_oldest_seconds"] > 0
        for _ in range(16):
            slow.receive()
        assert metrics(server)["pov_rt_unsent_bytes"] == 0


def test_a_loop_that_was_blocked_shows_it(server: RunningServer) -> None:
    assert metrics(server)["pov_rt_loop_lag_seconds"] >= 0
    block_s = LAG_TICK_S + 0.1
    server.call(lambda: time.sleep(block_s))
    # At least one look was due while it was blocked, and before its last tenth of a second.
    assert metrics(server)["pov_rt_loop_lag_seconds"] >= 0.09


class ManualLoop:
    """A loop whose time is set, and which calls when told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[Any] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any) -> asyncio.TimerHandle:
        loop: Any = self
        self.calls.append(callback)
        return asyncio.TimerHandle(when, callback, (), loop)

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.calls.clear()

    def run(self, late_s: float = 0.0) -> None:
        self.now += LAG_TICK_S + late_s
        self.calls.pop()()


def test_the_longest_lag_is_kept_until_somebody_will_have_asked() -> None:
    loop = ManualLoop()
    lag = LoopLag(loop)  # type: ignore[arg-type]
    lag.start()
    loop.run()
    assert lag.worst_s == 0
    loop.run(late_s=3.0)
    loop.run(late_s=0.5)
    assert lag.worst_s == 3.0
    end = loop.now + LAG_MEMORY_S
    while loop.now < end:
        loop.run()
        assert lag.worst_s == 3.0
    for _ in range(int(LAG_MEMORY_S / LAG_TICK_S) + 1):
        loop.run()
    assert lag.worst_s == 0
    lag.stop()
    assert loop.calls == []


class TestFailing:
    @pytest.fixture
    def plugins_dir(self, tmp_path: Path) -> Path:
        (tmp_path / "failing.py").write_text(FAILING)
        return tmp_path

    def test_neither_a_failure_nor_the_metrics_show_a_token(
        self,
        server: RunningServer,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        caplog.set_level(logging.DEBUG)
        token = server.token()
        answer = call(server, f"/api/failing?token={token}", token=token)
        assert answer.code == 500
        assert b"it fails" not in answer.body
        (incident,) = server.incidents
        assert incident.exc_info is not None
        assert vars(incident)["incident"] in answer.body.decode()
        server.incidents.clear()
        request(server, f"/ws/?token={token}x")
        shown = admin(server, "/metrics").body.decode()
        assert 'pov_rt_http_refused_total{code="internal"} 1.0' in shown
        records = [record.getMessage() + str(record.__dict__) for record in caplog.records]
        seen = "\n".join([shown, answer.body.decode(), caplog.text, *capfd.readouterr(), *records])
        assert "it fails" in seen
        for part in token.split("."):
            assert part not in seen


def test_admin_answers_health_and_metrics(server: RunningServer, connect: Connect) -> None:
    connect().request({"type": "subscribe", "povId": "acme"})
    post(server, ONE)

    assert admin(server, "/healthz").code == 200
    assert admin(server, "/readyz").code == 200
    text = admin(server, "/metrics").body.decode()
    for line in (
        "pov_rt_ready 1.0",
        "pov_rt_draining 0.0",
        "pov_rt_users 1.0",
        'pov_rt_present{plugin="typing"} 0.0',
        'pov_rt_connections{transport="ws"} 1.0',
        "pov_rt_subscriptions 1.0",
        "pov_rt_activities_published_total 1.0",
        'pov_rt_messages_delivered_total{transport="ws"} 1.0',
        'pov_rt_messages_total{type="subscribe"} 1.0',
    ):
        assert line in text, text
    server.run(server.web.server.drain)
    answer = admin(server, "/readyz")
    assert (answer.code, b"draining" in answer.body) == (503, True)
    assert json.loads(answer.body) == {
        "status": "not ready",
        "welcome": False,
        "publish": True,
        "reason": "draining: this node is about to stop",
    }
    assert post(server, {**ONE, "id": "a-2"})[0] == 201
    assert metrics(server)["pov_rt_draining"] == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/readyz/publish"])
def test_probes_may_be_made_by_any_method_that_checkers_use(
    server: RunningServer, path: str
) -> None:
    got = admin(server, path)
    asked = admin(server, path, method="HEAD")
    assert (asked.code, asked.body) == (200, b"")
    assert asked.headers["Content-Length"] == got.headers["Content-Length"] == str(len(got.body))
    asked = admin(server, path, method="OPTIONS")
    assert (asked.code, asked.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    refused = admin(server, path, method="DELETE")
    assert (refused.code, refused.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


class TestFullDisk:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return make_settings(engine=EngineSettings(url=f"sqlite://{tmp_path}/pov-rt.db"))

    def test_reading_goes_on_and_readiness_says_what_does_not(
        self, server: RunningServer, connect: Connect
    ) -> None:
        assert post(server, ONE)[0] == 201
        full: Any = server.web.server.engine
        server.call(lambda: limit(full, 1))
        large = {"text": "x" * 3000}
        status, number = 201, 1
        while status == 201:
            number += 1
            status = post(server, {**ONE, "id": f"a-{number}", "details": large})[0]
        assert status == 503
        for path, code in (("/readyz", 200), ("/readyz/publish", 503)):
            answer = admin(server, path)
            state = json.loads(answer.body)
            assert (answer.code, state["welcome"], state["publish"]) == (code, True, False)
            assert state["reason"].startswith("there is no room left for ")
            assert state["engine"] == "degraded"
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT.+Z", state["since"])
        assert metrics(server)["pov_rt_ready"] == 1
        assert metrics(server)["pov_rt_ready_to_publish"] == 0
        text = admin(server, "/metrics").body.decode()
        assert 'pov_rt_engine_state{state="degraded"} 1.0' in text
        assert 'pov_rt_engine_state{state="ok"} 0.0' in text
        read = connect().request({"type": "subscribe", "povId": "acme", "since": {"last": 1}})
        assert (read["recovered"], read["offset"]) == (True, number - 1)

"""What plugins do wrong is counted, said a few times, and in the end their own affair alone."""

from __future__ import annotations

import json
import logging
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, LogSettings
from pov_rt.dispatch.conduct import FULL_AT_ONCE, FULL_S
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import RunningServer, make_settings
from tests.processes import read_until, serve

PLUGIN = """
import time
from pov_rt.plugin import Allowed, Context, Message, Plugin, PovId
plugin = Plugin("bad")

class Do(Message, tag="bad.do"):
    how: str = "fail"
    pov_id: PovId | None = None

class Done(Message, tag="bad.done"): ...

def fail(how):
    if how == "fail":
        raise RuntimeError("broken")
    if how == "block":
        time.sleep(0.05)

@plugin.on(Do)
def do(message: Do, context: Context) -> Done:
    fail(message.how)
    return Done()

@plugin.connected
def come(context): fail("fail" if context.device == "odd" else "")

@plugin.http("GET", "/bad", grant="subscribe")
def route(request): fail(request.query.get("how"))
"""
TIMER = """
@plugin.every(0.001)
async def tick(host): fail("fail")
"""
AUTHORISER = """
@plugin.authorise
def ask(access, host):
    if access.pov_id == "bad": fail("fail")
"""
DO: dict[str, Any] = {"type": "bad.do", "how": "fail"}
WELL: dict[str, Any] = {"type": "bad.do", "how": ""}


@contextmanager
def running(folder: Path, more: str = "", *, most: int = 5, **log: Any) -> Iterator[RunningServer]:
    (folder / "bad.py").write_text(PLUGIN + more)
    limits = LimitSettings(plugin_failures=most, cost_rate="1000000/s")
    settings = make_settings(limits=limits, log=LogSettings(**log))
    with RunningServer(settings, folder, ManualClock()) as server:
        yield server


def ask(server: RunningServer, path: str, *, admin: bool = False) -> tuple[int, Any]:
    address = f"127.0.0.1:{server.web.admin_port}" if admin else server.address
    token = server.token("svc", Kind.SERVICE)
    request = Request(f"http://{address}{path}", headers={"Authorization": f"Bearer {token}"})
    try:
        with urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith("{") else text
    except HTTPError as error:
        return error.code, json.load(error)


def off(server: RunningServer) -> dict[str, str]:
    status, answer = ask(server, "/readyz", admin=True)
    assert status == 200
    found: dict[str, str] = answer.get("plugins", {})
    return found


def incidents(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.incident for record in caplog.records if hasattr(record, "incident")]


def test_failures_are_counted_and_logged_a_few_times_and_each_incident_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, most=0) as server:
        ana = server.connect("ana")
        told = [ana.request(DO)["incident"] for _ in range(40)]
        assert len(incidents(caplog)) == FULL_AT_ONCE
        assert set(told) == set(incidents(caplog))
        assert told[-1] == incidents(caplog)[-1]
        clock = server.web.server.clock
        assert isinstance(clock, ManualClock)
        server.call(lambda: clock.advance(FULL_S))
        last = ana.request(DO)["incident"]
        (record,) = [each for each in caplog.records if getattr(each, "incident", "") == last]
        assert getattr(record, "suppressed") == 35  # noqa: B009
        assert ask(server, "/api/bad?how=fail")[0] == 500
        _, metrics = ask(server, "/metrics", admin=True)
        assert 'pov_rt_plugin_failures_total{kind="handler",plugin="bad"} 41.0' in metrics
        assert 'pov_rt_plugin_failures_total{kind="route",plugin="bad"} 1.0' in metrics
        assert 'pov_rt_plugin_off{plugin="bad"} 0.0' in metrics
        assert off(server) == {}
        server.incidents.clear()


def test_a_plugin_that_fails_for_everybody_is_off_and_back_after_a_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path) as server:
        ana, ben = server.connect("ana"), server.connect("ben")
        for client in (ana, ana, ana, ben, ben):
            assert off(server) == {}
            assert client.request(DO)["code"] == "internal"
        answer = ben.request(WELL)
        assert (answer["code"], "bad is off" in answer["message"]) == ("unavailable", True)
        assert ask(server, "/api/bad")[0] == 503
        assert ana.request({"type": "ping"})["type"] == "pong"
        assert list(off(server)) == ["bad"]
        assert "bad.py:18 fails, 5 times in a row" in off(server)["bad"]
        _, metrics = ask(server, "/metrics", admin=True)
        assert 'pov_rt_plugin_off{plugin="bad"} 1.0' in metrics
        (said,) = [each for each in caplog.messages if "is off" in each]
        assert "the plugin bad is off: its handler at" in said
        assert server.call(server.web.server.hooks.release) == ["bad"]
        assert ben.request(WELL)["type"] == "bad.done"
        assert ask(server, "/api/bad")[0] == 204
        assert off(server) == {}
        server.incidents.clear()


def test_one_user_cannot_take_a_plugin_from_the_others(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        ana, ben = server.connect("ana"), server.connect("ben")
        for _ in range(30):
            ana.request(DO)
            server.connect("ana", device="odd")
        assert off(server) == {}
        # What goes well in between says that it is not the plugin that is broken.
        for _ in range(4):
            for client in (ana, ben):
                assert client.request(DO)["code"] == "internal"
            assert client.request(WELL)["type"] == "bad.done"
        assert off(server) == {}
        server.incidents.clear()


def test_a_timer_that_always_fails_is_off_and_costs_few_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, TIMER) as server:
        while not off(server):
            pass
        assert "its timer at" in off(server)["bad"]
        assert len(incidents(caplog)) == FULL_AT_ONCE
        counts = server.web.server.hooks.conduct.counts
        assert +Counter(counts) == {("bad", "timer"): 5}
        server.call(server.web.server.hooks.release)
        while not off(server):
            pass
        assert +Counter(counts) == {("bad", "timer"): 10}
        server.incidents.clear()


def test_a_plugin_that_blocks_again_and_again_is_off(tmp_path: Path) -> None:
    with running(tmp_path, most=3, blocked_loop_s=0.01) as server:
        ana = server.connect("ana")
        for _ in range(50):
            if ana.request({**DO, "how": "block"})["type"] != "bad.done":
                break
        assert "blocks the event loop at" in off(server)["bad"]
        assert "bad.py:16" in off(server)["bad"]


def test_while_an_authoriser_is_off_nothing_is_allowed(tmp_path: Path) -> None:
    with running(tmp_path, AUTHORISER) as server:
        ana, ben = server.connect("ana"), server.connect("ben")
        good = {"type": "subscribe", "povId": "good"}
        assert ana.request(good)["type"] == "subscribed"
        for client in (ana, ana, ana, ben, ben):
            client.request({"type": "subscribe", "povId": "bad"})
        while "bad" not in off(server):
            ben.request({"type": "subscribe", "povId": "bad"})
        assert ben.request(good)["code"] == "unavailable"
        server.call(server.web.server.hooks.release)
        assert ben.request(good)["type"] == "subscribed"
        server.incidents.clear()


def test_a_built_in_plugin_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as server:
        conduct = server.web.server.hooks.conduct

        def fail(message: object, context: object) -> None:
            raise RuntimeError

        def often() -> None:
            for _ in range(30):
                conduct.failed("publish", fail, "timer", RuntimeError())

        server.call(often)
        assert conduct.counts["publish", "timer"] == 30
        assert off(server) == {}
        server.incidents.clear()


def test_that_nobody_can_do_it_now_is_no_fault_of_the_plugin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "from pov_rt.plugin import Unavailable\n@plugin.every(0.001)\n"
        "def tick(host):\n    host.count('ticks')\n    raise Unavailable('the disk is full')\n"
    )
    with running(tmp_path, text) as server:
        hosts = server.web.server.hooks.hosts
        while hosts["bad"].counts.get("ticks", 0) < 50:
            pass
        assert off(server) == {}
        assert not any(server.web.server.hooks.conduct.counts.values())
    lines = [record for record in caplog.records if "the disk is full" in record.getMessage()]
    assert len(lines) == FULL_AT_ONCE
    assert {record.levelno for record in lines} == {logging.WARNING}
    assert not any(record.exc_info for record in lines)


def test_sighup_brings_a_plugin_back(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "bad.py").write_text(PLUGIN + TIMER)
    variables = {"POV_RT_LIMITS__PLUGIN_FAILURES": "2"}
    with serve(tmp_path, "--plugins-dir", str(folder), **variables) as served:
        read_until(served.process.stderr, "the plugin bad is off")
        served.process.send_signal(signal.SIGHUP)
        assert "the plugin bad" in read_until(served.process.stderr, "reloaded: ").splitlines()[-1]
        read_until(served.process.stderr, "the plugin bad is off")
        served.stop()

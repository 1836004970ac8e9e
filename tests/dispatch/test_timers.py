"""A test lets time pass, and everything due in it has happened when that returns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import Settings
from pov_rt.dispatch import timers
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import Connect, Http, RunningServer, TestClock, make_settings

PLUGIN = """
import asyncio
import msgspec
from pov_rt.plugin import Context, Message, Plugin, Request
class Options(msgspec.Struct):
    word: str = "tick"
plugin = Plugin("late", options=Options)
done = []

class Seen(msgspec.Struct):
    done: list[str]
    word: str

@plugin.every(60)
async def slow(host):
    at = host.clock.monotonic()
    await asyncio.sleep(0.01)
    done.append(("slow", at))

@plugin.every(25)
def quick(host):
    done.append(("quick", host.clock.monotonic()))

@plugin.every(1000)
async def stuck(host):
    await asyncio.sleep(3600)

@plugin.http("GET", "/late", grant="subscribe")
def seen(request: Request) -> Seen:
    first = done[0][1] if done else 0
    word = request.host.options(Options).word
    return Seen([f"{name} {at - first:.0f}" for name, at in done], word)

@plugin.http("PUT", "/late", grant="publish", service=True, body=Seen)
def put(request: Request) -> Seen:
    return request.body(Seen)
"""


@pytest.fixture
def pov_rt_plugins(tmp_path: Path) -> Path:
    (tmp_path / "late.py").write_text(PLUGIN)
    return tmp_path


@pytest.fixture
def pov_rt_options() -> Mapping[str, Mapping[str, Any]]:
    return {"late": {"word": "tock"}}


@pytest.fixture
def pov_rt_settings(pov_rt_options: Mapping[str, Mapping[str, Any]]) -> Settings:
    return make_settings(plugins=pov_rt_options)


def test_timers_run_in_their_order_as_often_as_they_are_due(clock: TestClock, http: Http) -> None:
    assert http.get("/api/late").body == {"done": [], "word": "tock"}
    clock.advance(24)
    assert http.get("/api/late").body["done"] == []
    clock.advance(2)
    assert http.get("/api/late").body["done"] == ["quick 0"]
    clock.advance(100)
    expected = ["quick 0", "quick 25", "slow 35", "quick 50", "quick 75", "slow 95", "quick 100"]
    assert http.get("/api/late").body["done"] == expected


def test_a_timer_that_does_not_end_is_named(
    clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.advance(990)
    monkeypatch.setattr(timers, "RUN_S", 1.0)
    with pytest.raises(TimeoutError, match=r"late.py:\d+ takes more than 1 s"):
        clock.advance(11)


def test_time_that_passes_ends_tokens_and_no_connection(
    connect: Connect, clock: TestClock, http: Http
) -> None:
    ana = connect("ana")
    clock.advance(600)
    assert ana.request({"type": "ping"})["type"] == "pong"
    assert http.get("/api/late", ttl_s=5).status == 200


def test_requests_are_made_as_whom_one_says(http: Http, pov_rt_server: RunningServer) -> None:
    body = {"done": ["a"], "word": "b"}
    answer = http.put("/api/late", body, service=True)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert http.put("/api/late", body).status == 401  # a user's token is not a service's
    assert http.put("/api/late", body, service=True, can=["subscribe"]).status == 403
    assert http.get("/api/late", user=None).status == 401
    assert http.post("/api/late").status == 405
    assert http.patch("/api/late", {}).status == 405


def test_another_clock_and_other_settings_are_refused_with_words(tmp_path: Path) -> None:
    with RunningServer(make_settings(), None, ManualClock()) as server:
        with pytest.raises(TypeError, match="not a MovableClock"):
            server.advance(1)
    with pytest.raises(TypeError, match="must return Settings, not dict: make_settings"):
        RunningServer({"limits": {}}, None).__enter__()  # type: ignore[arg-type]


def test_settings_are_made_of_what_is_different(tmp_path: Path) -> None:
    made = make_settings(limits={"message_rate": "9/s"}, server={"data": str(tmp_path)})
    assert (made.limits.message_rate, made.limits.token_rate) == ("9/s", "20/s")
    assert (made.server.port, made.server.data) == (0, str(tmp_path))

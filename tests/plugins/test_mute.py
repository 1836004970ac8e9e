"""How loud a PoV is, is known on all of a user's devices, and ends when it should."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import EngineSettings, LimitSettings, Settings
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.plugins.mute import DAY_S, IDLE_S, MAX_MUTES
from pov_rt.runtime.clock import ManualClock, rfc3339
from pov_rt.testing import Client, RunningServer, make_settings

LIMITS = LimitSettings(message_rate="10000/s", cost_rate="1000000/s")


@pytest.fixture(params=["memory", "sqlite"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = "memory://" if request.param == "memory" else f"sqlite://{tmp_path}/log.db"
    return make_settings(engine=EngineSettings(url=url), limits=LIMITS)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(settings: Settings, clock: ManualClock) -> Iterator[RunningServer]:
    with RunningServer(settings, None, clock) as running:
        yield running


def mute(client: Client, pov: str = "acme", **fields: Any) -> dict[str, Any]:
    answer = client.request({"type": "mute", "povId": pov, **fields})
    del answer["id"]
    return answer


def mutes(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.request({"type": "mutes"})["mutes"]
    return found


def told(client: Client) -> list[dict[str, Any]]:
    """Return what a client was sent by now."""
    client.request({"type": "ping"})
    found, client.early = client.early, []
    return found


def test_all_the_users_devices_are_told_and_nobody_else(
    server: RunningServer, clock: ManualClock
) -> None:
    phone, laptop = server.connect("ana", device="phone"), server.connect("ana", device="laptop")
    ben, plain = server.connect("ben"), server.connect("ana", v1=False)
    until = rfc3339(clock.time() + 60)
    first = mute(phone, level="feed", until=until)
    assert first == {"type": "muted", "povId": "acme", "level": "feed", "until": until}
    second = mute(laptop, "*", level="off")
    assert second == {"type": "muted", "povId": "*", "level": "off"}
    assert told(phone) == told(laptop) == [first, second]
    listed = [{"povId": "*", "level": "off"}, {"povId": "acme", "level": "feed", "until": until}]
    assert mutes(laptop) == listed
    assert mutes(ben) == []
    assert told(ben) == told(plain) == []
    assert mute(phone, level="sound") == {"type": "muted", "povId": "acme", "level": "sound"}
    assert mute(phone) == {"type": "muted", "povId": "acme"} == mute(phone)
    assert mutes(phone) == listed[:1]
    assert [each.get("level") for each in told(laptop)] == ["sound", None, None]


def test_an_instant_at_the_end_of_time_is_said_like_any_other(server: RunningServer) -> None:
    ana = server.connect("ana")
    muted = mute(ana, level="off", until="9999-12-31T23:59:59-12:00")
    assert muted["until"] == mutes(ana)[0]["until"] == "9999-12-31T23:59:59.000Z"


def test_it_is_over_when_it_says_so_whatever_the_zone(
    server: RunningServer, clock: ManualClock
) -> None:
    ana = server.connect("ana")
    until = rfc3339(clock.time() + 3600)
    there = datetime.fromtimestamp(clock.time() + 3600, timezone(timedelta(hours=2)))
    assert mute(ana, level="toast", until=there.isoformat())["until"] == until
    clock.advance(3599)
    assert [each["povId"] for each in mutes(ana)] == ["acme"]
    clock.advance(1)
    assert mutes(ana) == []


def test_after_an_hour_it_is_as_it_was_for_good(server: RunningServer, clock: ManualClock) -> None:
    ana = server.connect("ana")
    mute(ana, level="feed")
    first, second = rfc3339(clock.time() + 3600), rfc3339(clock.time() + 7200)
    assert mute(ana, level="off", until=first)["then"] == "feed"
    # One more hour does not end in the first one.
    answer = mute(ana, level="off", until=second)
    assert (answer["until"], answer["then"]) == (second, "feed")
    listed = {"povId": "acme", "level": "off", "until": second, "then": "feed"}
    assert mutes(ana) == [listed]
    clock.advance(7200)
    assert mutes(ana) == [{"povId": "acme", "level": "feed"}]
    # Used a day later, it is kept as what it is now.
    clock.advance(DAY_S)
    assert mutes(ana) == [{"povId": "acme", "level": "feed"}]
    third = rfc3339(clock.time() + 60)
    assert mute(ana, level="toast", until=third)["then"] == "feed"
    assert mute(ana, level="sound") == {"type": "muted", "povId": "acme", "level": "sound"}


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"level": "loud"}, "invalid_message", "level"),
        ({"level": None}, "invalid_message", "level"),
        ({"level": "off", "until": "2001-01-01T00:00:00Z"}, "invalid_message", "until"),
        ({"level": "off", "until": "2999-01-01T00:00:00"}, "invalid_message", "until"),
        ({"level": "off", "until": "soon"}, "invalid_message", "until"),
        ({"until": "2999-01-01T00:00:00Z"}, "invalid_message", "until"),
        ({"level": "off", "povId": "secret"}, "forbidden", "povId"),
        ({"level": "off", "povId": "*"}, "forbidden", "povId"),
        ({"povId": "a\n"}, "invalid_id", "povId"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_kept(
    server: RunningServer, fields: dict[str, Any], code: str, field: str
) -> None:
    ana = server.connect("ana", povs=["acme"])
    answer = ana.request({"type": "mute", "povId": "acme", **fields})
    assert (answer["code"], answer["field"]) == (code, field)
    assert mutes(ana) == []


def test_whoever_lost_a_pov_keeps_it_quiet_and_may_forget_it(server: RunningServer) -> None:
    ana = server.connect("ana", povs=["acme", "beta"])
    for pov in ("acme", "beta"):
        mute(ana, pov, level="off")
    token = server.token("ana", povs=["beta"])
    assert ana.request({"type": "refresh", "token": token})["type"] == "refreshed"
    assert [each["povId"] for each in mutes(ana)] == ["acme", "beta"]
    assert mute(ana, level="sound")["code"] == "forbidden"
    assert mute(ana)["type"] == "muted"
    assert [each["povId"] for each in mutes(ana)] == ["beta"]


def test_a_user_has_so_many(server: RunningServer) -> None:
    ana = server.connect("ana")
    for number in range(MAX_MUTES):
        assert mute(ana, f"p{number}", level="off")["type"] == "muted"
    assert mute(ana, "more", level="off")["code"] == "limit_exceeded"
    assert mute(ana, "p7", level="toast")["level"] == "toast"
    mute(ana, "p7")
    assert mute(ana, "more", level="off")["type"] == "muted"
    assert mute(server.connect("ben"), "more", level="off")["type"] == "muted"


def test_one_is_kept_as_long_as_its_user_asks_for_it_now_and_then(
    server: RunningServer, clock: ManualClock
) -> None:
    ana, ben = (server.connect(user, ttl_s=10_000 * DAY_S) for user in ("ana", "ben"))
    end = rfc3339(clock.time() + 2.5 * IDLE_S)
    for client in (ana, ben):
        mute(client, level="off")
        mute(client, "beta", level="feed", until=end)
    for _ in range(2):
        clock.advance(IDLE_S - DAY_S)
        assert [each["povId"] for each in mutes(ana)] == ["acme", "beta"]
    assert mutes(ben) == []
    clock.advance(IDLE_S - DAY_S)
    assert [each["povId"] for each in mutes(ana)] == ["acme"], "the end came first"


def test_what_another_device_says_while_one_asks_is_not_undone(
    server: RunningServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana, other = (server.connect("ana", ttl_s=100 * DAY_S) for _ in range(2))
    for pov in ("acme", "beta"):
        mute(ana, pov, level="off")
    clock.advance(2 * DAY_S)
    kept = server.web.server.hooks.hosts["mute"].state
    read, is_read, is_changed = kept.of, threading.Event(), asyncio.Event()

    async def slow(user_id: str) -> Mapping[str, bytes]:
        found: Mapping[str, bytes] = await read(user_id)
        is_read.set()
        await is_changed.wait()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(kept, "of", slow)
        ana.send({"type": "mutes"})
        assert is_read.wait(30)
        mute(other, "acme", level="toast")
        mute(other, "beta")
        server.call(is_changed.set)
        ana.request({"type": "ping"})
    assert mutes(ana) == [{"povId": "acme", "level": "toast"}]


def test_a_disk_that_is_full_can_still_be_asked(tmp_path: Path, clock: ManualClock) -> None:
    engine = EngineSettings(url=f"sqlite://{tmp_path}/log.db")
    with RunningServer(make_settings(engine=engine, limits=LIMITS), None, clock) as server:
        ana = server.connect("ana", ttl_s=100 * DAY_S)
        mute(ana, level="off")
        clock.advance(2 * DAY_S)
        found = server.web.server.engine
        assert isinstance(found, SqliteEngine)
        found.writer.connection.execute("PRAGMA query_only = 1")
        assert [each["povId"] for each in mutes(ana)] == ["acme"]
        assert mute(ana, level="feed")["code"] == "unavailable"
        found.writer.connection.execute("PRAGMA query_only = 0")
        assert mute(ana, level="feed")["type"] == "muted"


def test_it_outlasts_a_restart(tmp_path: Path) -> None:
    settings = make_settings(engine=EngineSettings(url=f"sqlite://{tmp_path}/log.db"))
    with RunningServer(settings, None) as server:
        mute(server.connect("ana"), level="feed", until="2999-01-01T00:00:00Z")
    with RunningServer(settings, None) as server:
        expected = {"povId": "acme", "level": "feed", "until": "2999-01-01T00:00:00Z"}
        (found,) = mutes(server.connect("ana"))
        assert found["until"].startswith("2999-01-01T00:00:00")
        assert found | {"until": expected["until"]} == expected

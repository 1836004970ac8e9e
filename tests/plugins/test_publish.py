"""Publishing over the socket, with and without an echo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pov_rt.settings import EngineSettings, LimitSettings, Settings
from pov_rt.testing import Client, Connect, RunningServer, make_settings
from tests.plugins.test_history_plugin import publish
from tests.plugins.test_presence import join


@pytest.fixture(params=["memory", "sqlite"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = "memory://" if request.param == "memory" else f"sqlite://{tmp_path}/log.db"
    return make_settings(
        engine=EngineSettings(url=url), limits=LimitSettings(message_rate="10000/s")
    )


def message(number: int, **more: Any) -> dict[str, Any]:
    data = {"id": f"a{number}", "type": "t", "action": "a", "povId": "acme"}
    return {"type": "publish", "id": number, "data": data, **more}


def seen(client: Client, count: int) -> list[tuple[str, int]]:
    received = [client.receive() for _ in range(count)]
    return [(each["type"], each["offset"]) for each in received]


def test_without_an_echo_the_answer_stands_in_its_place_in_the_stream(
    server: RunningServer, connect: Connect
) -> None:
    ana, ben = join(connect("ana")), join(connect("ben"))
    for number in range(1, 31):
        ana.send(message(number, echo=False))
        if number % 3 == 0:
            ben.send(message(1000 + number))
    stream = seen(ana, 40)
    assert [offset for _, offset in stream] == list(range(1, 41)), "no hole, no duplicate"
    assert [kind for kind, _ in stream].count("published") == 30
    received = [ben.receive() for _ in range(50)]
    activities = [each["offset"] for each in received if each["type"] == "activity"]
    assert activities == list(range(1, 41)), "everybody else gets all of them"
    assert [each["data"]["userId"] for each in received if each["type"] == "activity"].count(
        "ana"
    ) == 30


def test_the_answer_is_whole_and_a_retry_is_answered_as_ever(
    server: RunningServer, connect: Connect
) -> None:
    ana = join(connect("ana"))
    first = ana.request({**message(1), "echo": False})
    assert {**first, "epoch": ""} == {
        "type": "published",
        "activityId": "a1",
        "povId": "acme",
        "epoch": "",
        "offset": 1,
        "duplicate": False,
        "id": "test-2",
    }
    again = ana.request({**message(1), "echo": False})
    assert (again["offset"], again["epoch"], again["duplicate"]) == (1, first["epoch"], True)
    data = {"type": "t", "action": "a", "povId": "acme"}
    assert len(ana.request({"type": "publish", "data": data, "echo": False})["activityId"]) == 32
    assert ana.request({"type": "ping"})["type"] == "pong"
    assert not ana._early
    assert not server.call(lambda: server.web.server.hub._stand_ins)


def test_one_that_is_not_subscribed_or_errs_is_answered_as_ever(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect("ana")
    assert ana.request({**message(1), "echo": False})["type"] == "published"
    bad = message(2, echo=False)
    bad["data"]["type"] = "no type"
    assert ana.request(bad)["code"] == "invalid_activity"
    assert not server.call(lambda: server.web.server.hub._stand_ins)


def test_with_an_echo_the_sender_gets_its_own_like_all_others(
    server: RunningServer, connect: Connect
) -> None:
    ana = join(connect("ana"))
    assert ana.request(message(1))["type"] == "published"
    publish(server, 1)
    assert seen(ana, 2) == [("activity", 1), ("activity", 2)]

"""Publishing over the socket, with and without an echo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import EngineSettings, LimitSettings, Settings
from pov_rt.testing import Client, Connect, RunningServer, make_settings
from tests.plugins.test_history import publish
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
    assert not ana.early
    assert server.call(lambda: server.web.server.hub.expected) == 0


def test_one_that_is_not_subscribed_or_errs_is_answered_as_ever(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect("ana")
    assert ana.request({**message(1), "echo": False})["type"] == "published"
    bad = message(2, echo=False)
    bad["data"]["type"] = "no type"
    assert ana.request(bad)["code"] == "invalid_activity"
    assert server.call(lambda: server.web.server.hub.expected) == 0


def test_with_an_echo_the_sender_gets_its_own_like_all_others(
    server: RunningServer, connect: Connect
) -> None:
    ana = join(connect("ana"))
    assert ana.request(message(1))["type"] == "published"
    publish(server, 1)
    assert seen(ana, 2) == [("activity", 1), ("activity", 2)]


PLUGIN = '''
"""Answers in the stream, or fails to."""
from pov_rt.plugin import Context, Message, NewActivity, Plugin, Published

plugin = Plugin("failing")

class Say(Message, tag="say"):
    how: str
    number: int

class Said(Message, tag="said"):
    offset: int

@plugin.on(Say, grant="publish", pipelined=True)
async def say(message: Say, context: Context) -> Said:
    def answer(done: Published) -> Said:
        match message.how:
            case "error":
                raise RuntimeError("broken")
            case "exit":
                raise SystemExit
            case "nothing":
                return None
        return Said(offset=done.offset)

    activity = NewActivity(id=f"s{message.number}", type="t", action="a", pov_id="acme")
    done = await context.publish(activity, instead=answer)
    if message.how == "twice":
        again = NewActivity(id=f"t{message.number}", type="t", action="a", pov_id="acme")
        await context.publish(again, instead=answer)
    return answer(done)
'''


class TestAnAnswerThatFails:
    @pytest.fixture
    def plugins_dir(self, tmp_path: Path) -> Path:
        folder = tmp_path / "plugins"
        folder.mkdir()
        (folder / "failing.py").write_text(PLUGIN)
        return folder

    @pytest.mark.parametrize("how", ["error", "exit", "nothing"])
    def test_costs_its_publisher_one_answer_and_nobody_else_anything(
        self, server: RunningServer, connect: Connect, how: str
    ) -> None:
        ana, ben, cy = (join(connect(user)) for user in ("ana", "ben", "cy"))
        for number in range(1, 31):
            ben.send(message(number))
            if number % 10 == 0:
                ana.send({"type": "say", "id": number, "how": how, "number": number})
        for client, own, kind in ((ana, 3, "error"), (ben, 30, "published"), (cy, 0, "")):
            received = [client.receive() for _ in range(33 + own)]
            activities = [each["offset"] for each in received if each["type"] == "activity"]
            assert activities == list(range(1, 34)), "everybody gets all of them"
            answers = [each for each in received if each["type"] != "activity"]
            assert {each["type"] for each in answers} <= {kind}
            assert len({each["id"] for each in answers}) == len(answers) == own
            if client is ana:
                incidents = [each["incident"] for each in answers]
                assert [each["code"] for each in answers] == ["internal"] * 3
                logged = [getattr(each, "incident", "") for each in server.incidents]
                assert sorted(logged) == sorted(incidents), "each is logged once"
            assert client.request({"type": "ping"})["type"] == "pong"
            assert not client.early
        server.incidents.clear()
        assert server.call(lambda: server.web.server.hub.expected) == 0

    def test_a_message_that_publishes_twice_has_one_answer(
        self, server: RunningServer, connect: Connect
    ) -> None:
        ana = join(connect("ana"))
        ana.send({"type": "say", "id": 1, "how": "twice", "number": 1})
        assert seen(ana, 2) == [("said", 1), ("activity", 2)]
        assert ana.request({"type": "ping"})["type"] == "pong"
        assert not ana.early


def test_on_the_team_feed_alone_the_answer_has_the_offset_of_the_pov(
    server: RunningServer, connect: Connect
) -> None:
    ana = join(connect("ana"), "*")
    publish(server, 2, pov_id="other")
    assert seen(ana, 2) == [("activity", 1), ("activity", 2)]
    answer = ana.request(message(1, echo=False))
    assert answer["offset"] == 1
    assert answer["epoch"]
    assert seen(ana, 1) == [("position", 3)], "its place in the feed is not the answer's"

"""A subscriber gets what it wants and nothing else, and knows how far it is all the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import EngineSettings, LimitSettings, Settings
from pov_rt.delivery import hub
from pov_rt.testing import Client, Connect, RunningServer, make_settings
from tests.plugins.test_history import publish


@pytest.fixture(params=["memory", "sqlite"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = "memory://" if request.param == "memory" else f"sqlite://{tmp_path}/log.db"
    return make_settings(
        engine=EngineSettings(url=url), limits=LimitSettings(message_rate="10000/s")
    )


def subscribe(client: Client, pov: str = "acme", **more: Any) -> dict[str, Any]:
    return client.request({"type": "subscribe", "povId": pov, **more})


def offsets(client: Client, count: int) -> list[int]:
    """Return the offsets of so many activities; how far it is it may be told in between."""
    found: list[int] = []
    while len(found) < count:
        message = client.receive()
        if message["type"] == "activity":
            found.append(message["offset"])
    return found


def test_each_filter_lets_through_what_it_names(server: RunningServer, connect: Connect) -> None:
    wanted: dict[str, tuple[dict[str, Any] | None, list[int]]] = {
        "all": (None, [1, 2, 3, 4]),
        "empty": ({}, [1, 2, 3, 4]),
        "types": ({"types": ["task", "phase"]}, [1, 2, 4]),
        "actions": ({"types": ["task"], "actions": ["done"]}, [1, 4]),
        "users": ({"users": ["bo"]}, [1, 3]),
        "not": ({"notUsers": ["bo"]}, [2, 4]),
    }
    clients = {}
    for plain in (False, True):
        for name, (only, _) in wanted.items():
            client = connect(name, v1=not plain)
            more: dict[str, Any] = {} if only is None else {"only": only}
            answer = subscribe(client, "acme", **more)
            assert answer.get("filtered", False) == bool(only)
            clients[name, plain] = client
    publish(server, 1)
    publish(server, 1, type="phase", user_id="cy")
    publish(server, 1, type="note")
    publish(server, 1, user_id="cy")
    for (name, _), client in clients.items():
        assert offsets(client, len(wanted[name][1])) == wanted[name][1]
        assert client.request({"type": "ping"})["type"] == "pong"
        assert not client.early


def test_what_was_missed_is_filtered_too_and_the_position_is_honest(
    server: RunningServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subscribe(connect())
    place = {"epoch": start["epoch"], "offset": 0}
    for user in ("bo", "cy") * 4:
        publish(server, 1, user_id=user)
    ana = connect()
    answer = subscribe(ana, since=place, only={"users": ["cy"]})
    assert (answer["recovered"], answer["filtered"]) == (True, True)
    assert offsets(ana, 4) == [2, 4, 6, 8]
    publish(server, 3)
    monkeypatch.setattr(hub, "POSITION_S", 0.0)
    told = ana.receive()
    assert (told["type"], told["povId"], told["offset"]) == ("position", "acme", 11)
    assert ana.request({"type": "ack", "povId": "acme", "offset": 11})["offset"] == 11
    publish(server, 1, user_id="cy")
    assert offsets(ana, 1) == [12]


def test_a_second_subscription_replaces_the_filter(server: RunningServer, connect: Connect) -> None:
    ana = connect()
    subscribe(ana, only={"users": ["cy"]})
    publish(server, 1)
    subscribe(ana, only={"users": ["bo"]})
    publish(server, 1)
    subscribe(ana)
    publish(server, 1, user_id="dan")
    assert offsets(ana, 2) == [2, 3]


def test_a_durable_subscription_keeps_its_filter(server: RunningServer, connect: Connect) -> None:
    ana = connect("ana", device="phone")
    subscribe(ana, only={"users": ["cy"]}, durable=True, since="cursor")
    publish(server, 1, user_id="cy")
    assert offsets(ana, 1) == [1]
    ana.request({"type": "ack", "povId": "acme", "offset": 1})
    ana.socket.close()
    publish(server, 1)
    publish(server, 1, user_id="cy")
    again = connect("ana", device="phone")
    (result,) = again.request({"type": "resume"})["results"]
    assert (result["recovered"], result["filtered"]) == (True, True)
    assert offsets(again, 1) == [3]


def test_signals_pass_every_filter(server: RunningServer, connect: Connect) -> None:
    ana, ben = connect("ana"), connect("ben")
    subscribe(ana, only={"types": ["nothing"]})
    subscribe(ben)
    ben.send({"type": "typing", "povId": "acme", "active": True})
    assert ana.receive()["type"] == "typing"


@pytest.mark.parametrize(
    "only",
    [{"types": []}, {"users": []}, {"types": "task"}, [], {"notUsers": [1]}, {"type": ["task"]}],
)
def test_a_filter_that_is_none_is_refused(connect: Connect, only: Any) -> None:
    answer = subscribe(connect(), only=only)
    assert (answer["code"], answer["field"].partition(".")[0]) == ("invalid_message", "only")


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_asked_and_published_each_gets_exactly_its_own(
    server: RunningServer, connect: Connect, seed: int
) -> None:
    chance = random.Random(seed)
    kinds, people = ["t1", "t2", "t3"], ["a", "b", "c"]
    clients = []
    for number in range(12):
        only = {
            "types": chance.sample(kinds, chance.randrange(1, 4)),
            "notUsers": chance.sample(people, chance.randrange(1, 3)),
        }
        client = connect(f"u{number}", v1=bool(number % 2))
        subscribe(client, only=only)
        clients.append((client, only))
    published = []
    for _ in range(60):
        kind, user = chance.choice(kinds), chance.choice(people)
        publish(server, 1, type=kind, user_id=user)
        published.append((kind, user))
    for client, only in clients:
        expected = [
            offset
            for offset, (kind, user) in enumerate(published, 1)
            if kind in only["types"] and user not in only["notUsers"]
        ]
        assert offsets(client, len(expected)) == expected
        assert client.request({"type": "ping"})["type"] == "pong"
        assert not [each for each in client.early if each["type"] == "activity"]


def test_the_work_of_a_filter_is_done_once_for_all_who_share_it(
    server: RunningServer, connect: Connect
) -> None:
    for number in range(6):
        subscribe(connect(f"u{number}"), only={"users": ["bo" if number % 2 else "cy"]})
    publish(server, 1)

    def groups() -> int:
        connection, *_ = server.web.server.directory.all()
        topic: Any = connection.topics["pov/acme"]
        return sum(bool(group) for group in topic.groups.values())

    assert server.call(groups) == 2

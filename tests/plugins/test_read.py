"""Read receipts never go back, and reach those they concern."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import EngineSettings, LimitSettings, Settings
from pov_rt.testing import Client, Connect, RunningServer, make_settings
from tests.plugins.test_connections import call
from tests.plugins.test_history import publish
from tests.plugins.test_presence import join


@pytest.fixture(params=["memory", "sqlite"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = "memory://" if request.param == "memory" else f"sqlite://{tmp_path}/log.db"
    return make_settings(
        engine=EngineSettings(url=url), limits=LimitSettings(message_rate="10000/s")
    )


def read(client: Client, offset: Any, **fields: Any) -> dict[str, Any]:
    return client.request({"type": "read", "povId": "acme", "offset": offset, **fields})


def receipts(client: Client) -> dict[str, int]:
    while (told := client.receive())["type"] != "receipts":
        assert told["type"] == "activity"
    found: dict[str, int] = told["read"]
    return found


def test_subscribers_learn_who_has_read_what(server: RunningServer, connect: Connect) -> None:
    ana, ben = join(connect("ana")), join(connect("ben"))
    plain = join(connect("cy", v1=False))
    publish(server, 3)
    for client in (ana, ben, plain):
        assert [client.receive()["offset"] for _ in range(3)] == [1, 2, 3]
    answer = read(ana, 2)
    assert (answer["type"], answer["read"]) == ("receipts", {"ana": 2})
    assert receipts(ben) == {"ana": 2}
    read(ben, 3)
    assert receipts(ben) == {"ben": 3}
    assert plain.request({"type": "ping"})["type"] == "pong"
    assert not plain.early


def test_the_users_other_devices_learn_it_wherever_they_are(
    server: RunningServer, connect: Connect
) -> None:
    phone, laptop = join(connect("ana", device="phone")), connect("ana", device="laptop")
    publish(server, 2)
    phone.receive()
    read(phone, 1)
    assert receipts(laptop) == {"ana": 1}
    answer = laptop.request({"type": "subscribe", "povId": "acme"})
    assert (answer["readOffset"], answer["unread"]) == (1, 1)
    first = connect("new").request({"type": "subscribe", "povId": "acme"})
    assert (first["readOffset"], first["unread"]) == (0, 2)
    several = connect("ana").request({"type": "subscribe", "povIds": ["acme"]})
    assert several["results"][0]["unread"] == 1
    plain = connect("ana", v1=False).request({"type": "subscribe", "povId": "acme"})
    assert "unread" not in plain


def test_what_was_read_already_is_nothing_to_tell(server: RunningServer, connect: Connect) -> None:
    ana, ben = join(connect("ana")), join(connect("ben"))
    laptop = connect("ana")
    publish(server, 2)
    for client in (ana, ben):
        assert [client.receive()["offset"] for _ in range(2)] == [1, 2]
    read(ana, 1)
    assert receipts(ben) == {"ana": 1} == receipts(laptop)
    assert read(ana, 1)["read"] == {"ana": 1}
    read(ben, 2)
    assert receipts(ben) == {"ben": 2}  # what ana repeated would have come with it
    assert laptop.request({"type": "ping"})["type"] == "pong"
    assert not laptop.early


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_order_a_receipt_never_goes_back(
    server: RunningServer, connect: Connect, seed: int
) -> None:
    chance = random.Random(seed)
    devices = [join(connect("ana", device=name)) for name in "abc"]
    watcher = join(connect("ben"))
    publish(server, 20)
    for client in (*devices, watcher):
        assert client.receive()
        while client.receive()["offset"] != 20:
            pass
    most, told = 0, 0
    for _ in range(30):
        offset = chance.randrange(21)
        most = max(most, offset)
        answer = read(chance.choice(devices), offset)
        assert answer["read"] == {"ana": most}
    read(devices[0], 20)
    while told < 20:
        now = receipts(watcher)["ana"]
        assert now >= told
        told = now


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"offset": 3}, "invalid_message", "offset"),
        ({"offset": -1}, "invalid_message", "offset"),
        ({"offset": 1, "epoch": "other"}, "epoch_changed", "epoch"),
        ({"offset": 1, "povId": "other"}, "forbidden", "povId"),
        ({"offset": 1, "inbox": True}, "invalid_message", "povId"),
    ],
)
def test_what_was_not_sent_cannot_be_read(
    server: RunningServer, connect: Connect, fields: dict[str, Any], code: str, field: str
) -> None:
    ana = join(connect("ana"))
    publish(server, 2)
    assert [ana.receive()["offset"] for _ in range(2)] == [1, 2]
    answer = read(ana, **fields)
    assert (answer["code"], answer["field"]) == (code, field)


def test_an_app_can_ask_who_has_read_something_and_of_how_many(
    server: RunningServer, connect: Connect
) -> None:
    ana, ben = connect("ana"), connect("ben")
    ana.request({"type": "subscribe", "povId": "acme", "durable": True})
    ben.request({"type": "subscribe", "povId": "acme", "durable": True})
    publish(server, 3)
    for client in (ana, ben):
        assert [client.receive()["offset"] for _ in range(3)] == [1, 2, 3]
    read(ana, 3)
    read(ben, 1)
    there = join(connect("cy"))
    there.request({"type": "presence", "povId": "acme"})
    token = server.token("app", Kind.SERVICE, can=["subscribe"])
    code, answer = call(server, "/povs/acme/receipts?offset=2", token)
    assert (code, answer["readers"], answer["followers"]) == (200, 1, 3)
    assert answer["users"] == ["ana"]
    assert call(server, "/povs/acme/receipts?offset=1", token)[1]["users"] == ["ana", "ben"]
    assert call(server, "/povs/acme/receipts", token)[1]["offset"] == 3
    assert call(server, "/povs/acme/receipts?offset=x", token)[0] == 400


def who_read(server: RunningServer, offset: int = 1) -> tuple[list[str], int]:
    token = server.token("app", Kind.SERVICE, can=["subscribe"])
    answer = call(server, f"/povs/acme/receipts?offset={offset}", token)[1]
    return answer["users"], answer["followers"]


def test_who_may_not_collaborate_moves_a_mark_of_which_others_are_not_told(
    server: RunningServer, connect: Connect
) -> None:
    ana, ben = join(connect("ana", can=["subscribe"])), join(connect("ben"))
    laptop, cy = connect("ana"), join(connect("cy"))
    publish(server, 3)
    for client in (ana, ben, cy):
        assert [client.receive()["offset"] for _ in range(3)] == [1, 2, 3]
    assert read(ana, 2)["read"] == {"ana": 2} == receipts(laptop)
    assert laptop.request({"type": "subscribe", "povId": "acme"})["readOffset"] == 2
    read(ben, 3)
    assert receipts(cy) == {"ben": 3}, "what ana read would have come with it"
    assert who_read(server)[0] == ["ben"]
    refreshed = ana.request({"type": "refresh", "token": server.token("ana")})
    assert refreshed["type"] == "refreshed"
    assert who_read(server)[0] == ["ben"], "what was read before stays so"
    read(ana, 3)
    assert receipts(cy) == {"ana": 3}
    assert who_read(server)[0] == ["ana", "ben"]


def test_who_has_lost_the_pov_follows_it_no_more_until_they_go_on_reading(
    server: RunningServer, connect: Connect
) -> None:
    ana, ben = join(connect("ana")), join(connect("ben"))
    ana.request({"type": "subscribe", "povId": "acme", "durable": True})
    publish(server, 3)
    for client in (ana, ben):
        assert [client.receive()["offset"] for _ in range(3)] == [1, 2, 3]
    read(ana, 2)
    read(ben, 1)
    assert who_read(server) == (["ana", "ben"], 2)
    lost = ana.request({"type": "refresh", "token": server.token("ana", povs=["other"])})["lost"]
    assert lost == ["acme"]
    while who_read(server) != (["ben"], 1):
        pass
    back = join(connect("ana"))
    answer = back.request({"type": "subscribe", "povId": "acme", "since": {"last": 3}})
    assert answer["readOffset"] == 2, "the mark is kept"
    assert who_read(server)[0] == ["ben"]
    assert [back.receive()["offset"] for _ in range(3)] == [1, 2, 3]
    read(back, 3)
    assert who_read(server) == (["ana", "ben"], 2)


def test_with_another_token_the_user_still_follows(server: RunningServer, connect: Connect) -> None:
    ana, other = join(connect("ana")), join(connect("ana"))
    publish(server, 1)
    for client in (ana, other):
        client.receive()
    read(ana, 1)
    ana.request({"type": "refresh", "token": server.token("ana", povs=[])})
    ben, cy = join(connect("ben")), join(connect("cy"))
    publish(server, 1)
    ben.receive()
    read(ben, 2)
    while receipts(cy).get("ben") != 2:  # then a tick has passed
        pass
    assert who_read(server) == (["ana", "ben"], 3)


def test_who_comes_back_without_the_right_follows_no_more(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect("ana")
    ana.request({"type": "subscribe", "povId": "acme", "durable": True})
    ana.socket.close()
    while who_read(server) != ([], 1):
        pass
    answer = connect("ana", povs=["other"]).request({"type": "resume"})
    assert answer["results"][0]["code"] == "forbidden"
    assert who_read(server) == ([], 0)
    answer = connect("ana").request({"type": "resume"})
    assert "code" not in answer["results"][0], "the subscription is kept"

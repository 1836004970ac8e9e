"""Hands go up in order, down by themselves, and are seen over HTTP."""

import pytest

from pov_rt.testing import Client, Connect, Http, TestClock


@pytest.fixture
def pov_rt_options() -> dict[str, dict[str, float]]:
    return {"hands": {"down_after_s": 60}}


def come(connect: Connect, user: str) -> Client:
    client = connect(user)
    client.request({"type": "subscribe", "povId": "acme"})
    return client


def test_hands_are_a_queue(connect: Connect, http: Http) -> None:
    ana, ben = come(connect, "ana"), come(connect, "ben")
    up = {"type": "hands.raise", "povId": "acme"}
    assert ana.request(up)["users"] == ["ana"]
    assert ben.request(up)["users"] == ["ana", "ben"]
    assert ana.receive()["users"] == ["ana", "ben"]
    assert http.get("/api/povs/acme/hands").body == {"users": ["ana", "ben"]}
    assert ana.request({**up, "up": False})["users"] == ["ben"]
    assert http.get("/api/povs/acme/hands", povs=["other"]).status == 403


def test_a_hand_goes_down_by_itself(connect: Connect, clock: TestClock, http: Http) -> None:
    ana = come(connect, "ana")
    ana.request({"type": "hands.raise", "povId": "acme"})
    clock.advance(50)
    assert http.get("/api/povs/acme/hands").body == {"users": ["ana"]}
    clock.advance(20)
    assert ana.receive()["users"] == []
    assert http.get("/api/povs/acme/hands").body == {"users": []}

"""What a token allows, and when it ends, is the same on all nodes, for every device."""

from __future__ import annotations

from typing import Any

from pov_rt.engine.base import Room
from pov_rt.protocol.errors import CloseCode
from pov_rt.testing import Client, Http, RunningServer
from tests.nodes.conftest import Nodes
from tests.nodes.test_admin_over_nodes import OPERATOR, close_code
from tests.nodes.test_people_over_nodes import ask, join, publish, until
from tests.web.routes.test_session import post, session


def connect_both(nodes: Nodes, **claims: Any) -> tuple[Client, Client]:
    one, two = nodes
    return (
        one.connect("ana", token=one.token("ana", **claims), device="phone"),
        two.connect("ana", token=two.token("ana", **claims), device="laptop"),
    )


def refresh(client: Client, node: RunningServer, **claims: Any) -> dict[str, Any]:
    return client.request({"type": "refresh", "token": node.token("ana", **claims)})


def test_a_refresh_takes_povs_from_its_own_connection_alone(nodes: Nodes) -> None:
    one, two = nodes
    phone, laptop = connect_both(nodes, povs=["acme"])
    for client in (phone, laptop):
        join(client)
    assert refresh(phone, two, povs=["beta"])["type"] == "refreshed", "signed by any node"
    ben = one.connect("ben")
    publish(ben, 1)
    assert until(laptop, "activity")["data"]["id"] == "a1"
    assert phone.request({"type": "subscribe", "povId": "acme"})["code"] == "forbidden"
    assert phone.request({"type": "subscribe", "povId": "beta"})["type"] == "subscribed"
    assert not any(each["type"] == "activity" for each in phone.early)
    # Gone from one of its nodes, the user is there by the other one.
    join(ben)
    while ask(ben) != {"ana": ["laptop"], "ben": ["default"]}:
        pass
    assert not any("ana" in each.get("left", ()) for each in ben.early)


def test_a_revoked_token_cannot_be_refreshed_to_on_another_node(nodes: Nodes) -> None:
    one, two = nodes
    phone, laptop = connect_both(nodes)
    old = two.token("ana")
    assert Http(one).post("/api/tokens/revoke", {"userId": "ana"}, **OPERATOR).status == 200
    assert [close_code(client) for client in (phone, laptop)] == [4001, 4001]
    ben = two.connect("ben", token=two.token("ben"))
    answer = ben.request({"type": "refresh", "token": old})
    assert answer["code"] == "token_revoked"


def test_a_revocation_ends_a_session_whose_messages_come_to_another_node(nodes: Nodes) -> None:
    one, two = nodes
    with session(one, Http(two)) as ana:
        assert ana.request({"type": "ping"})["type"] == "pong"
        assert Http(two).post("/api/tokens/revoke", {"userId": "ana"}, **OPERATOR).status == 200
        closing = next(each for each in iter(ana.receive, None) if each["type"] == "closing")
        assert closing["code"] == 4001
        # What was issued before is void at once; a later token is good, but its session is gone.
        while (answer := post(Http(two), {"type": "ping"}, ana.id)).status == 401:
            pass
        assert answer.status == 404


def test_a_session_is_refreshed_through_another_node(nodes: Nodes) -> None:
    one, two = nodes
    with session(one, Http(two)) as ana:
        assert ana.request({"type": "subscribe", "povId": "acme"})["type"] == "subscribed"
        told = ana.request({"type": "refresh", "token": two.token("ana", povs=["beta"])})
        assert told["type"] == "refreshed"
        refused = ana.request({"type": "subscribe", "povId": "acme"})
        assert refused["code"] == "forbidden"


def test_a_connection_is_disconnected_by_its_id_from_any_node(nodes: Nodes) -> None:
    one, _ = nodes
    phone, laptop = connect_both(nodes)
    directory = one.web.server.directory
    one.call(
        lambda: directory.disconnect(
            user_id=None, connection_id=laptop.connection_id, code=CloseCode.DISCONNECTED
        )
    )
    assert close_code(laptop) == 4500
    assert phone.request({"type": "ping"})["type"] == "pong"


def test_orders_reach_other_nodes_though_too_much_else_is_on_its_way(nodes: Nodes) -> None:
    one, two = nodes
    ana, server = two.connect("ana"), one.web.server

    def crowd_and_disconnect() -> None:
        for room in (Room.USERS, Room.LETTERS):
            while server.engine.signals.send("pov/none", bytes(room.value), room=room):
                pass
        server.directory.disconnect(user_id="ana", connection_id=None, code=CloseCode.DISCONNECTED)

    one.call(crowd_and_disconnect)
    assert until(ana, "closing")["code"] == CloseCode.DISCONNECTED.code

"""What operators and services say to one node holds on all of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from pov_rt.testing import Client, Http
from tests.clients import notify
from tests.nodes.conftest import Nodes
from tests.nodes.test_people_over_nodes import join, publish, until

OPERATOR: dict[str, Any] = {"user": "app", "service": True, "can": ["operate"]}


def close_code(client: Client) -> int:
    """Return with which code a client's connection ends."""
    with pytest.raises(ConnectionClosed) as closed:
        until(client, "what never comes")
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def test_a_user_is_disconnected_on_all_nodes(nodes: Nodes) -> None:
    mine = [node.connect("ana") for node in nodes]
    other = nodes[1].connect("ben")
    done = Http(nodes[0]).post("/api/users/ana/disconnect", **OPERATOR)
    assert (done.status, done.body) == (200, {"closed": 2, "missing": []})
    assert [close_code(client) for client in mine] == [4500, 4500]
    assert other.request({"type": "ping"})["type"] == "pong"


def test_a_block_holds_on_all_nodes_until_it_is_lifted(nodes: Nodes) -> None:
    one, two = nodes
    ana = two.connect("ana")
    blocked = Http(one).post("/api/users/ana/block", {"seconds": 60}, **OPERATOR)
    assert (blocked.status, blocked.body["closed"], blocked.body["missing"]) == (200, 1, [])
    assert close_code(ana) == 4500
    assert Http(two).get("/api/povs/acme/activities", user="ana").status == 401
    assert Http(one).delete("/api/users/ana/block", **OPERATOR).status == 200
    while Http(two).get("/api/povs/acme/activities", user="ana").status != 200:
        pass


def test_a_token_that_is_revoked_is_void_on_all_nodes(nodes: Nodes) -> None:
    one, two = nodes
    token = two.token("ana")
    ana = two.connect("ana", token=token)
    done = Http(one).post("/api/tokens/revoke", {"userId": "ana"}, **OPERATOR)
    assert (done.status, done.body["closed"], done.body["missing"]) == (200, 1, [])
    assert close_code(ana) == 4001


def test_a_notification_reaches_a_user_on_another_node(nodes: Nodes) -> None:
    one, two = nodes
    ana = two.connect("ana")
    ana.request({"type": "subscribe", "inbox": True})
    status, _ = notify(one)
    assert status == 200
    assert until(ana, "notification")["data"]["type"] == "mention"


def test_a_user_is_erased_whichever_node_was_asked_and_wherever_they_are(nodes: Nodes) -> None:
    one, two = nodes
    ana, ben = two.connect("ana"), two.connect("ben")
    join(ben)
    publish(ana, 1)
    publish(ben, 2)
    exported = Http(one).get("/api/users/ana/export", **OPERATOR)
    assert '"a1"' in str(exported.body)
    assert '"a2"' not in str(exported.body)
    erased = Http(one).delete("/api/users/ana", **OPERATOR)
    assert (erased.status, erased.body["connections"], erased.body["missing"]) == (200, 1, [])
    found = Http(two).get("/api/povs/acme/activities", user="ben").body["activities"]
    assert "ana" not in json.dumps(found)
    assert close_code(ana) == 4500

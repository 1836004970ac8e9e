"""Why somebody did not get something is told by whichever node is asked, and names the node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pov_rt.testing import SECRET, Http, RunningServer
from tests.nodes.conftest import Nodes
from tests.nodes.test_people_over_nodes import join, publish, until
from tests.processes import run

OPERATOR: dict[str, Any] = {"user": "app", "service": True, "can": ["operate"]}


def explain(node: RunningServer, activity: str, user: str) -> dict[str, Any]:
    path = f"/api/activities/{activity}/explain?userId={user}"
    answer = Http(node).get(path, **OPERATOR)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.body
    return found


def test_every_node_knows_what_became_of_an_activity_on_the_other(nodes: Nodes) -> None:
    one, two = nodes
    ana, ben = two.connect("ana", device="phone"), one.connect("ben")
    join(ana)
    offset = publish(ben, 1)
    assert until(ana, "activity")["offset"] == offset
    ana.request({"type": "ack", "povId": "acme", "offset": offset})
    here, there = one.web.server.node, two.web.server.node
    for node in nodes:
        found = explain(node, "a1", "ana")
        assert (found["cause"], found["node"]) == ("delivered", node.web.server.node)
        (lane,) = found["lanes"]
        assert (lane["device"], lane["node"], lane["connected"]) == ("phone", there, True)
        assert lane["connectionId"] == ana.connection_id
        stations = {each["name"]: each for each in lane["stations"]}
        assert stations["node"]["text"] == there
        assert stations["published"]["at"] <= stations["socket"]["at"]
        assert found["missing"] == []
        events = [each for each in found["events"] if each.get("connectionId") == ana.connection_id]
        assert [each["event"] for each in events] == ["opened", "joined", "joined", "acked"]
        assert {each.get("node", node.web.server.node) for each in events} == {there}
    assert here != there


def test_a_device_on_each_node_has_a_lane_with_its_node(nodes: Nodes) -> None:
    one, two = nodes
    phone, laptop = one.connect("ana", device="phone"), two.connect("ana", device="laptop")
    join(phone)
    ben = one.connect("ben")
    publish(ben, 1)
    until(phone, "activity")
    laptop.request({"type": "subscribe", "povId": "other"})
    for node in nodes:
        found = explain(node, "a1", "ana")
        lanes = {each["device"]: (each["node"], each["cause"]) for each in found["lanes"]}
        assert lanes == {
            "phone": (one.web.server.node, "written"),
            "laptop": (two.web.server.node, "other_pov"),
        }


def test_what_another_node_refused_is_the_answer(nodes: Nodes) -> None:
    one, two = nodes
    ben = two.connect("ben", can=["publish"], povs=["beta"])
    data = {"type": "task", "action": "done", "povId": "acme", "id": "a9"}
    assert ben.request({"type": "publish", "data": data})["code"] == "forbidden"
    found = explain(one, "a9", "ana")
    assert found["cause"] == "rejected"
    assert "forbidden" in found["answer"]


def test_the_command_names_the_node_of_a_lane(nodes: Nodes, tmp_path: Path) -> None:
    one, two = nodes
    join(two.connect("ana", device="phone"))
    publish(one.connect("ben"), 1)
    host, _, port = one.address.partition(":")
    where = {
        "POV_RT_AUTH__SECRETS": json.dumps([SECRET]),
        "POV_RT_SERVER__HOST": host,
        "POV_RT_SERVER__PORT": port,
    }
    done = run(tmp_path, "explain", "a1", "--user", "ana", **where)
    (lane,) = [line for line in done.stdout.splitlines() if line.startswith("phone")]
    assert lane.endswith(f"written on the node {two.web.server.node}"), done.stderr

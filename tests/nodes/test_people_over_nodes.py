"""What users see of each other is the same, whichever node each of them is on."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from pov_rt.config.settings import Settings
from pov_rt.testing import SECRET, Client, Http, RunningServer
from tests.nodes.conftest import Nodes
from tests.processes import end, serve
from tests.redis_servers import RedisServer

TASK = {"type": "task", "action": "done", "povId": "acme"}


def join(client: Client, pov: str = "acme") -> dict[str, Any]:
    answer = client.request({"type": "subscribe", "povId": pov})
    assert answer["type"] == "subscribed"
    return answer


def ask(client: Client) -> dict[str, list[str]]:
    """Return who is there, with their devices, and be told of changes from then on."""
    answer = client.request({"type": "presence", "povId": "acme"})
    return {each["userId"]: each["devices"] for each in answer["users"]}


def until(client: Client, kind: str) -> dict[str, Any]:
    """Return the next message of a type."""
    while (message := client.receive())["type"] != kind:
        pass
    return message


def publish(client: Client, number: int) -> int:
    answer = client.request({"type": "publish", "data": {**TASK, "id": f"a{number}"}})
    assert answer["type"] == "published"
    offset: int = answer["offset"]
    return offset


def test_a_user_on_two_nodes_is_one_until_both_have_left(nodes: Nodes) -> None:
    one, two = nodes
    watcher = one.connect("ben")
    join(watcher)
    assert set(ask(watcher)) == {"ben"}
    first, second = one.connect("ana", device="phone"), two.connect("ana", device="laptop")
    join(first)
    joined = until(watcher, "presence_diff")
    assert [each["userId"] for each in joined["joined"]] == ["ana"]
    join(second)
    other = two.connect("cy")
    join(other)
    assert set(ask(other)) == {"ana", "ben", "cy"}
    first.socket.close()
    second.socket.close()
    for client in (watcher, other):
        while not (told := until(client, "presence_diff"))["left"]:
            pass
        assert told["left"] == ["ana"]


def devices_of(client: Client, user: str, devices: list[str]) -> None:
    """Wait until a user is there with these devices."""
    while ask(client).get(user) != devices:
        pass


def test_a_user_whose_devices_are_on_two_nodes_stays_until_the_last_is_gone(nodes: Nodes) -> None:
    one, two = nodes
    ben = two.connect("ben")
    join(ben)
    phone = one.connect("ana", device="phone")
    join(phone)
    devices_of(ben, "ana", ["phone"])
    # Each comes after the other one: so it is the other node's, and then the first one's again.
    for _ in range(2):
        laptop = two.connect("ana", device="laptop")
        join(laptop)
        devices_of(ben, "ana", ["laptop"])
        laptop.socket.close()
        devices_of(ben, "ana", ["phone"])
    tab = two.connect("ana", device="phone")
    join(tab)
    phone.socket.close()
    while one.call(lambda: one.web.server.directory.of("ana")):
        pass
    cy = one.connect("cy")
    join(cy)
    assert ask(cy)["ana"] == ["phone"], "its node has looked who is gone"
    told = [each for each in ben.early if each["type"] == "presence_diff"]
    joined = [user["userId"] for each in told for user in each["joined"]]
    assert joined.count("ana") <= 1, "not told to whoever asked when she was there"
    assert not any(each["left"] for each in told)
    tab.socket.close()
    while not (last := until(ben, "presence_diff"))["left"]:
        pass
    assert last["left"] == ["ana"]


def test_who_writes_is_told_on_the_other_node(nodes: Nodes) -> None:
    ana, ben = nodes[0].connect("ana"), nodes[1].connect("ben")
    for client in (ana, ben):
        join(client)
    ana.send({"type": "typing", "povId": "acme", "active": True, "where": "notes"})
    assert until(ben, "typing")["users"] == [{"userId": "ana", "where": "notes"}]
    ana.send({"type": "typing", "povId": "acme", "active": False})
    while until(ben, "typing")["users"]:
        pass


def test_what_was_read_is_told_and_counted_on_the_other_node(nodes: Nodes) -> None:
    ana, ben = nodes[0].connect("ana"), nodes[1].connect("ben")
    laptop = nodes[1].connect("ana", device="laptop")
    for client in (ana, ben):
        join(client)
    for number in (1, 2, 3):
        publish(ben, number)
    while until(ana, "activity")["offset"] < 3:
        pass
    assert ana.request({"type": "read", "povId": "acme", "offset": 2})["read"] == {"ana": 2}
    assert until(ben, "receipts")["read"] == {"ana": 2}
    assert until(laptop, "receipts")["read"] == {"ana": 2}
    answer = join(laptop)
    assert (answer["readOffset"], answer["unread"]) == (2, 1)


def test_a_feed_has_what_all_nodes_were_sent_in_one_order(nodes: Nodes) -> None:
    feeds = [node.connect(user) for node, user in zip(nodes, ("dan", "eve"), strict=True)]
    for client in feeds:
        assert client.request({"type": "subscribe", "povId": "*"})["type"] == "subscribed"
    ana, ben = nodes[0].connect("ana"), nodes[1].connect("ben")
    for number in range(0, 10, 2):
        publish(ana, number)
        publish(ben, number + 1)
    seen = [[until(client, "activity")["data"]["id"] for _ in range(10)] for client in feeds]
    assert seen == [[f"a{number}" for number in range(10)]] * 2


def test_what_is_retracted_on_one_node_is_gone_on_the_other(nodes: Nodes) -> None:
    one, two = nodes
    ana, ben = one.connect("ana"), two.connect("ben")
    join(ben)
    publish(ana, 1)
    assert until(ben, "activity")["data"]["id"] == "a1"
    path, body = "/api/activities/a1/retract", {"povId": "acme"}
    assert Http(one).post(path, body, user="ana").status == 200
    assert until(ben, "activity")["data"]["original"]["id"] == "a1"
    found = Http(two).get("/api/povs/acme/activities", user="ben").body["activities"]
    assert [each["data"]["retracted"] for each in found] == [True, True]


def test_a_mute_holds_for_the_users_devices_on_all_nodes(nodes: Nodes) -> None:
    phone, laptop = (node.connect("ana") for node in nodes)
    assert phone.request({"type": "mute", "povId": "acme", "level": "off"})["level"] == "off"
    assert until(laptop, "muted")["povId"] == "acme"
    (kept,) = laptop.request({"type": "mutes"})["mutes"]
    assert (kept["povId"], kept["level"]) == ("acme", "off")


# A node that dies, and nodes that are restarted:


def test_who_was_on_a_node_that_died_has_left_once_its_lease_is_over(
    settings: Settings, nodes_redis: RedisServer, tmp_path: Path
) -> None:
    prefix, left = settings.engine.redis.prefix, list[list[str]]()
    with ExitStack() as stack:
        one, two = (stack.enter_context(RunningServer(settings, None)) for _ in range(2))
        watchers = [node.connect(user) for node, user in ((one, "ben"), (two, "cy"))]
        for watcher in watchers:
            join(watcher)
            ask(watcher)
        leases = f"{prefix}:nodes"
        known = members(nodes_redis, leases)
        more = {
            "POV_RT_AUTH__SECRETS": SECRET,
            "POV_RT_ENGINE__URL": nodes_redis.url,
            "POV_RT_ENGINE__REDIS__PREFIX": prefix,
        }
        with serve(tmp_path, **more) as dying:
            with connect(f"{dying.socket_url}?token={one.token('ana')}") as ana:
                ana.send(json.dumps({"type": "subscribe", "povId": "acme"}))
                for watcher in watchers:
                    while "ana" not in ask(watcher):
                        pass
                (lease,) = members(nodes_redis, leases) - known
                end(dying.process)
        # Time passes: it would take half a minute.
        nodes_redis.command("ZADD", leases, "1", lease)
        for watcher in watchers:
            while not (told := until(watcher, "presence_diff"))["left"]:
                pass
            left.append(told["left"])
            assert "ana" not in ask(watcher)
            assert [each for each in watcher.early if each.get("left")] == []
    assert left == [["ana"], ["ana"]]


def members(redis: RedisServer, key: str) -> set[bytes]:
    """Return what is in a sorted set."""
    return set(redis.command("ZRANGE", key, "0", "-1").split(b"\r\n")[2::2])


def test_a_restart_of_all_nodes_one_by_one_tells_nobody_that_anybody_left(
    settings: Settings,
) -> None:
    settings.plugins["presence"] = {"grace_s": 3600.0}
    with ExitStack() as stack:
        first, second = RunningServer(settings, None), RunningServer(settings, None)
        with second:
            with first:
                join(first.connect("ana"))
                ben = second.connect("ben")
                join(ben)
                while "ana" not in ask(ben):
                    pass
            third = stack.enter_context(RunningServer(settings, None))
            ana = third.connect("ana")
            join(ana)
            assert set(ask(ana)) == {"ana", "ben"} == set(ask(ben))
            assert not any(each.get("left") for each in ben.early)
        fourth = stack.enter_context(RunningServer(settings, None))
        ben = fourth.connect("ben")
        join(ben)
        assert set(ask(ben)) == {"ana", "ben"} == set(ask(ana))
        assert not any(each.get("left") or each.get("joined") for each in ana.early)

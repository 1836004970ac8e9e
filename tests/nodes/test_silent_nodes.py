"""A node stands still, or is killed, while it is asked: others answer, and say what is missing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import Settings
from pov_rt.server.nodes.sessions import SILENT
from pov_rt.testing import SECRET, Http
from pov_rt.version import VERSION
from tests.events import follow
from tests.nodes.conftest import Nodes, wait_for_peers
from tests.nodes.test_people_over_nodes import join, publish
from tests.processes import Served, end, run, serve
from tests.redis_servers import RedisServer
from tests.server.nodes.test_live import following, wait_for
from tests.web.routes.admin.test_page import Got
from tests.web.routes.test_session import error_of, post

OPERATOR: dict[str, Any] = {"user": "app", "service": True, "can": ["operate"]}


@contextmanager
def frozen(node: Served) -> Iterator[None]:
    """Have a node stand still."""
    os.kill(node.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(node.process.pid, signal.SIGCONT)


class Third:
    """A node in a process of its own, as `follow` wants to know it."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.address = served.url.removeprefix("http://")


@pytest.fixture
def third(
    settings: Settings, nodes_redis: RedisServer, tmp_path: Path, nodes: Nodes
) -> Iterator[Third]:
    """Run a third node."""
    more = {
        "POV_RT_AUTH__SECRETS": SECRET,
        "POV_RT_ENGINE__URL": nodes_redis.url,
        "POV_RT_ENGINE__REDIS__PREFIX": settings.engine.redis.prefix,
    }
    with serve(tmp_path, **more) as served:
        for node in nodes:
            wait_for_peers(node, 2)
        yield Third(served)


def session_on(third: Third, token: str) -> Any:
    return follow(third, "/api/session", token)  # type: ignore[arg-type]


def test_a_node_that_stands_still_is_named_and_what_others_have_is_there(
    nodes: Nodes, third: Third
) -> None:
    one, two = nodes
    with session_on(third, one.token("ana")) as events:
        welcome = events.next()
        assert welcome is not None
        ana, ben = welcome.data["connectionId"], two.connect("ben")
        assert post(Http(one), {"type": "subscribe", "povId": "acme"}, ana).status == 204
        assert events.next().data["type"] == "subscribed"
        join(ben)
        publish(ben, 1)
        assert events.next().data["data"]["id"] == "a1"
        users = Http(one).get("/api/connections?sort=age", **OPERATOR).body
        assert [each["userId"] for each in users["connections"]] == ["ana", "ben"]
        (name,) = {each["node"] for each in users["connections"]} - {two.web.server.node}
        with frozen(third.served):
            listed = Http(one).get("/api/connections", **OPERATOR).body
            assert [each["userId"] for each in listed["connections"]] == ["ben"]
            (missing,) = listed["missing"]
            assert missing == {
                "node": name,
                "host": os.uname().nodename,
                "version": VERSION,
                "why": "did not answer within 1 s",
            }
            late = post(Http(one), {"type": "ping"}, ana)
            assert error_of(late) == (503, "unavailable")
            assert late.body["error"]["message"] == SILENT, "it has no names of nodes"
            path = "/api/activities/a1/explain?userId=ben"
            told = Http(one).get(path, **OPERATOR).body
            assert [each["node"] for each in told["missing"]] == [name]
            assert [each["node"] for each in told["lanes"]] == [two.web.server.node]
        while Http(one).get("/api/connections", **OPERATOR).body["missing"]:
            pass
        assert post(Http(one), {"type": "ping", "id": 7}, ana).status == 204


def test_a_node_that_was_killed_is_named_until_it_is_forgotten(nodes: Nodes, third: Third) -> None:
    one, _ = nodes
    with session_on(third, one.token("ana")) as events:
        welcome = events.next()
        assert welcome is not None
        ana = welcome.data["connectionId"]
        end(third.served.process)
        listed = Http(one).get("/api/users", **OPERATOR).body
        assert listed["users"] == []
        assert [each["why"] for each in listed["missing"]] == ["did not answer within 1 s"]
        while (gone := post(Http(one), {"type": "ping"}, ana)).status != 404:
            assert gone.status == 503, "it is waited for until three beats are missing"
            assert gone.body["error"]["message"] == SILENT
        listed = Http(one).get("/api/users", **OPERATOR).body
        assert "was not heard of for" in listed["missing"][0]["why"]


def test_a_block_names_the_node_that_does_not_confirm_it_and_holds_there_once_it_wakes(
    nodes: Nodes, third: Third
) -> None:
    one, _ = nodes
    path = "/api/users/ana/block"
    with session_on(third, one.token("ana")) as events:
        assert events.next().data["type"] == "welcome"
        with frozen(third.served):
            blocked = Http(one).post(path, {"seconds": 60}, **OPERATOR)
            assert (blocked.status, blocked.body["closed"]) == (200, 0)
            assert [each["why"] for each in blocked.body["missing"]] == [
                "did not answer within 1 s"
            ]
        closing = events.next()
        assert closing is not None
        assert (closing.data["type"], closing.data["code"]) == ("closing", 4500)
    again = Http(one).post(path, {"seconds": 60}, **OPERATOR)
    assert again.body["missing"] == [], "all keep her out"


def test_what_a_silent_node_closes_is_not_counted_and_the_node_named(
    nodes: Nodes, third: Third
) -> None:
    one, two = nodes
    two.connect("ana")
    with session_on(third, one.token("ana")) as events:
        assert events.next().data["type"] == "welcome"
        with frozen(third.served):
            done = Http(one).post("/api/users/ana/disconnect", **OPERATOR)
            assert (done.status, done.body["closed"]) == (200, 1)
            (missing,) = done.body["missing"]
            assert missing["why"] == "did not answer within 1 s"
        closing = events.next()
        assert closing is not None
        assert (closing.data["type"], closing.data["code"]) == ("closing", 4500)


def test_who_follows_hears_that_a_node_is_silent_and_then_what_it_had_to_say(
    nodes: Nodes, third: Third
) -> None:
    one, _ = nodes
    with session_on(third, one.token("ana")) as events, following(one, "userId=ana") as lines:
        assert events.next().data["type"] == "welcome"
        name = wait_for(lines, "opened")["node"]
        with frozen(third.served):
            Http(one).post("/api/users/ana/disconnect", **OPERATOR)
            assert wait_for(lines, "missing")["node"] == name
        assert wait_for(lines, "closed")["node"] == name


def test_all_nodes_are_told_in_numbers_at_the_admin_port(nodes: Nodes, third: Third) -> None:
    one, two = nodes
    for node in (one, two, two):
        node.connect("ana")
    with frozen(third.served):
        told = Got(one, "/api/nodes", can=["operate"]).json
        assert [each["connections"] for each in told["nodes"]] == [1, 2]
        assert told["nodes"][0]["node"] == one.web.server.node
        assert [each["why"] for each in told["missing"]] == ["did not answer within 1 s"]


def test_top_shows_all_nodes_and_says_which_is_missing(
    nodes: Nodes, third: Third, tmp_path: Path
) -> None:
    one, two = nodes
    for node, user in ((one, "ana"), (two, "ben")):
        node.connect(user)
    names = [node.web.server.node for node in nodes]
    where = {
        "POV_RT_AUTH__SECRETS": json.dumps([SECRET]),
        "POV_RT_SERVER__ADMIN_PORT": str(one.web.admin_port),
    }
    with frozen(third.served):
        done = run(tmp_path, "top", "--once", "--sort", "age", **where)
        assert done.returncode == 0, done.stderr
        first, _, titles, *rows, engine = done.stdout.splitlines()
        assert engine.startswith("engine ok, ")
        assert "connections 2" in first
        assert titles.split()[:2] == ["USER", "NODE"]
        assert [row.split()[:2] for row in rows] == [["ana", names[0]], ["ben", names[1]]]
        (gap,) = done.stderr.splitlines()
        assert gap.startswith("without the node ")
        assert gap.endswith("which did not answer within 1 s")
    alone = run(tmp_path, "top", "--once", "--node", names[1], **where)
    assert [row.split()[0] for row in alone.stdout.splitlines()[3:-1]] == ["ben"]
    assert "connections 1" in alone.stdout.splitlines()[0]
    unknown = run(tmp_path, "top", "--once", "--node", "none", **where)
    assert unknown.returncode == 1
    assert f"There is no node none; there are: {names[0]}" in unknown.stderr

"""What happens on all nodes is followed at any of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import Settings
from pov_rt.protocol.errors import Unavailable
from pov_rt.server.nodes import live as module
from pov_rt.server.nodes.live import FOLLOW, Follow, Following, Whose
from pov_rt.server.trace.events import Event
from pov_rt.server.trace.trace import Trace
from pov_rt.testing import Http, RunningServer
from tests.nodes.conftest import Nodes

OPERATOR: dict[str, Any] = {"user": "app", "service": True, "can": ["operate"]}
ANA = Whose("ana", "")


@contextmanager
def following(node: RunningServer, query: str) -> Iterator[Iterator[dict[str, Any]]]:
    """Follow what happens, at a node; yields the lines."""
    connection = HTTPConnection(node.address, timeout=40)
    head = {"Authorization": f"Bearer {node.token('app', Kind.SERVICE, can=['operate'])}"}
    connection.request("GET", f"/api/trace?{query}&follow=true", headers=head)
    answer = connection.getresponse()
    try:
        yield (json.loads(line) for line in answer if line.strip())
    finally:
        connection.close()


def wait_for(lines: Iterator[dict[str, Any]], event: str) -> dict[str, Any]:
    """Return the next line of an event."""
    return next(line for line in lines if line["event"] == event)


async def ask(
    asker: RunningServer, after: int, wait_s: float = 0.01, *, begins: bool = False
) -> Sequence[Event]:
    """Ask the other node, on the loop of `asker`, what happened to Ana behind an event."""
    asking = asker.web.server.asking
    (peer,) = asking.peers
    return await asking.ask(peer, FOLLOW, Follow("a name", ANA, after, wait_s, begins))


def trace_of(node: RunningServer) -> Trace:
    trace = node.web.server.explain.trace
    assert trace is not None
    return trace


def test_what_is_in_memory_is_told_of_all_nodes_in_order(nodes: Nodes) -> None:
    one, two = nodes
    for node in (one, two, one):
        node.connect("ana")
    told = Http(one).get("/api/trace?userId=ana", **OPERATOR).body
    opened = [each for each in map(json.loads, told.splitlines()) if each["event"] == "opened"]
    assert [each.get("node") for each in opened] == [None, two.web.server.node, None]


def test_what_happens_is_told_of_all_nodes_also_of_one_that_comes(
    nodes: Nodes, settings: Settings
) -> None:
    one, two = nodes
    two.connect("ana")
    with following(one, "userId=ana") as lines:
        assert wait_for(lines, "opened")["node"] == two.web.server.node
        for node, name in ((one, None), (two, two.web.server.node)):
            node.connect("ana")
            assert wait_for(lines, "opened").get("node") == name
        with RunningServer(settings, None) as third:
            third.connect("ana")
            assert wait_for(lines, "opened")["node"] == third.web.server.node


def test_a_pov_is_followed_on_the_node_that_its_subscribers_are_on(nodes: Nodes) -> None:
    one, two = nodes
    with following(one, "povId=acme") as lines:
        ana = two.connect("ana")
        ana.request({"type": "subscribe", "povId": "acme"})
        line = next(lines)
        assert (line["event"], line["userId"], line["node"]) == (
            "joined", "ana", two.web.server.node,
        )  # fmt: skip


def test_a_node_that_keeps_no_trace_says_so(nodes: Nodes) -> None:
    one, two = nodes
    two.call(lambda: setattr(two.web.server.explain, "trace", None))
    told = Http(one).get("/api/trace?userId=ana", **OPERATOR).body
    (line,) = map(json.loads, told.splitlines())
    assert (line["event"], line["node"]) == ("missing", two.web.server.node)
    assert line["why"] == "answered: There is no trace: set trace.enabled"


def test_who_follows_no_more_is_forgotten_by_all_nodes(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORGET_S", 0.2)
    monkeypatch.setattr(module, "WHILE_S", 0.1)
    one, two = nodes
    with following(one, "userId=ana"):
        for node in nodes:
            while not trace_of(node).listeners:
                pass
    one.connect("ana")  # so that the node learns that its client has gone
    for node in (one, two):
        while trace_of(node).listeners:
            pass


def test_what_was_not_confirmed_is_said_again_and_too_much_ends_it(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 2)
    one, _ = nodes
    trace = trace_of(one)

    async def work() -> None:
        trace.note("opened", "ana")
        followed = Following(trace, ANA)
        first = await followed.next(0, 40.0)
        assert await followed.next(0, 40.0) == first, "the answer may have been lost"
        trace.note("closed", "ana")
        (second,) = await followed.next(first[-1].number, 40.0)
        assert second.kind == "closed"
        assert await followed.next(second.number, 0.01) == []
        for _ in range(4):
            trace.note("opened", "ana")
        with pytest.raises(Unavailable, match="Too much happens"):
            await followed.next(second.number, 40.0)
        followed.end()
        again = Following(trace, ANA, second.number)
        assert len(await again.next(second.number, 40.0)) == 4, "of what is in memory"
        again.end()

    one.run(work)


def test_who_was_forgotten_is_told_of_a_gap(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHILE_S", 0.1)
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    monkeypatch.setattr(module, "FORGET_S", 0.05)
    one, two = nodes
    with following(one, "userId=ana") as lines:
        told = wait_for(lines, "missing")
        assert told["node"] == two.web.server.node
        assert told["why"].startswith("answered: It was not asked for too long")
        monkeypatch.setattr(module, "FORGET_S", 40.0)
        two.connect("ana")
        assert wait_for(lines, "opened")["node"] == two.web.server.node


def test_who_was_forgotten_goes_on_only_from_a_new_beginning(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORGET_S", 0.05)
    one, two = nodes
    trace = trace_of(two)
    assert one.run(lambda: ask(one, 0, begins=True)) == []
    while trace.listeners:
        pass
    two.call(lambda: trace.note("opened", "ana"))
    for _ in range(2):  # the answer may have been lost
        with pytest.raises(Unavailable, match="not asked for too long"):
            one.run(lambda: ask(one, 0))
    assert [each.kind for each in one.run(lambda: ask(one, 0, begins=True))] == ["opened"]


def test_a_following_that_has_ended_ends_no_other_one(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 0)
    monkeypatch.setattr(module, "FORGET_S", 0.5)
    one, two = nodes
    trace = trace_of(two)
    assert one.run(lambda: ask(one, 0, begins=True)) == []
    two.call(lambda: trace.note("opened", "ana"))
    with pytest.raises(Unavailable, match="Too much happens"):
        one.run(lambda: ask(one, 0))
    monkeypatch.setattr(module, "FORGET_S", 40.0)
    (event,) = one.run(lambda: ask(one, 0, begins=True))
    # It waits for longer than the first one would have been remembered.
    assert one.run(lambda: ask(one, event.number, 0.7)) == []
    assert one.run(lambda: ask(one, event.number)) == []

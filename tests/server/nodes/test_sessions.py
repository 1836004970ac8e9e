"""Requests of a session may come to any node: they are answered as if it were there."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from pov_rt.config.settings import Settings
from pov_rt.connections.budgets import BURST_S, BYTE
from pov_rt.server.nodes.sessions import GONE, PRICE
from pov_rt.testing import Http, RunningServer
from tests.events import follow
from tests.nodes.conftest import Nodes
from tests.web.routes.test_session import POLL, Fetched, error_of, more, post, session

__all__ = ["more"]

TASK = {"type": "task", "action": "done", "povId": "acme"}


def test_messages_reach_a_session_of_another_node(nodes: Nodes, more: str) -> None:
    one, two = nodes
    with session(one, Http(two), more=more) as ana:
        assert ana.id.endswith(f".{one.web.server.run}")
        assert ana.request({"type": "subscribe", "povId": "acme"})["type"] == "subscribed"
        batch = [{"type": "ping", "id": 1}, {"type": "publish", "data": {**TASK, "id": "a1"}}]
        assert ana.post(batch).status == 204
        told = [ana.receive() for _ in range(3)]
        assert {each["type"] for each in told} == {"pong", "published", "activity"}


def test_a_session_is_fetched_from_any_node(nodes: Nodes) -> None:
    one, two = nodes
    with session(one, Http(one), more=POLL) as ana:
        assert isinstance(ana.events, Fetched)
        ana.events.server = two
        ben = one.connect("ben")
        assert ana.request({"type": "subscribe", "povId": "acme"})["type"] == "subscribed"
        ben.request({"type": "publish", "data": {**TASK, "id": "a1"}})
        assert ana.receive()["data"]["id"] == "a1"
        place = ana.events.last
        assert place is not None
        ana.post({"type": "ping"})  # an answer with nothing in it would take its whole time
        assert ana.events.fetch(place).status == 200
        assert ana.events.fetch(f"{place[:-1]}9").status == 404, "no such place"


def test_what_is_wrong_is_answered_as_on_its_own_node(nodes: Nodes, more: str) -> None:
    one, two = nodes
    with session(one, Http(two), more=more) as ana:
        for node in nodes:
            http = Http(node)
            assert error_of(post(http, {"type": "ping"}, ana.id, user="ben")) == (404, "not_found")
            assert error_of(post(http, b"\xff", ana.id)) == (400, "invalid_request")
            many = [{"type": "ping"}] * 65
            assert error_of(post(http, many, ana.id)) == (413, "too_large")
            unknown = ana.id.replace(one.web.server.run, "0123456789ab")
            gone = post(http, {"type": "ping"}, unknown)
            assert (gone.status, gone.body["error"]["message"]) == (404, GONE)
        plain = one.connect("ana")
        assert post(Http(two), {"type": "ping"}, plain.connection_id).status == 404
        ana.post({"type": "none", "id": 7})
        assert (ana.receive()["code"], ana.id != plain.connection_id) == ("unknown_type", True)


def test_a_sessions_budget_is_one_whichever_node_its_messages_come_to(nodes: Nodes) -> None:
    one, two = nodes
    with session(one, Http(one)) as ana:
        server = one.web.server
        connection = one.call(lambda: server.directory.get(ana.id))
        assert connection is not None
        before = connection.budget.paid_at
        assert ana.post({"type": "publish", "data": {**TASK, "id": "a1"}}).status == 204
        while ana.receive()["type"] != "published":
            pass
        first = connection.budget.paid_at
        assert (
            post(Http(two), {"type": "publish", "data": {**TASK, "id": "a2"}}, ana.id).status == 204
        )
        while ana.receive()["type"] != "published":
            pass
        assert before < first < connection.budget.paid_at


def test_what_is_handed_on_is_paid_before_by_its_sender(nodes: Nodes) -> None:
    one, two = nodes
    with session(one, Http(one)) as ana:
        connection = one.call(lambda: one.web.server.directory.get(ana.id))
        assert connection is not None
        owner, budgets = connection.identity.owner, two.web.server.budgets
        budget = two.call(lambda: budgets.of(owner))
        two.call(lambda: budgets.charge_owner(owner, BURST_S * 2000))  # so that nothing is full
        before, body = budget.paid_at, {"type": "ping", "id": 1, "text": "x" * 60_000}
        assert post(Http(two), body, ana.id).status == 204
        price = PRICE + len(json.dumps(body)) * BYTE
        assert budget.paid_at - before == pytest.approx(price / 2000)
        two.call(lambda: budgets.charge_owner(owner, 1e9))
        assert error_of(post(Http(two), {"type": "ping"}, ana.id)) == (429, "rate_limited")
        assert ana.request({"type": "ping"})["type"] == "pong", "on its own node it has no debt"


def test_a_session_whose_node_has_ended_is_to_be_opened_anew(
    settings: Settings, nodes: Nodes
) -> None:
    one, _ = nodes
    with RunningServer(settings, None) as third:
        with follow(third, "/api/session", third.token("ana")) as events:
            event = events.next()
            assert event is not None
            session_id = event.data["connectionId"]
            assert post(Http(one), {"type": "ping"}, session_id).status in (204, 404)
    while (gone := post(Http(one), {"type": "ping"}, session_id)).status != 404:
        assert gone.status == 503, "it is not known yet that it has ended"
    assert gone.body["error"]["message"] == GONE


def test_a_node_that_drains_lets_go_of_who_waits_for_a_session_of_another(nodes: Nodes) -> None:
    one, two = nodes
    with session(one, Http(one), more=POLL) as ana, ThreadPoolExecutor(1) as thread:
        assert isinstance(ana.events, Fetched)
        ana.events.server = two
        place = ana.events.last
        fetching = thread.submit(ana.events.fetch)
        while not two.call(lambda: two.web.server.sessions.waiting):
            pass
        two.run(lambda: two.web.server.drain())
        assert (fetching.result().status, ana.events.last) == (200, place)
        ana.events.server = one
        assert ana.request({"type": "ping"})["type"] == "pong"

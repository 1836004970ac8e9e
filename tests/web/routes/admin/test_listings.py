"""Lists over HTTP, the same on both ports: pages that follow each other, and what is refused."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.testing import Connect, Http, RunningServer

OPERATOR: dict[str, Any] = {"user": "app", "service": True, "can": ["operate"]}


def at_admin_port(server: RunningServer, path: str, token: str | None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", server.web.admin_port, timeout=10)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection.request("GET", path, headers=headers)
    with connection.getresponse() as answer:
        found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_a_page_says_how_to_ask_for_the_next_one(server: RunningServer, connect: Connect) -> None:
    for user in ("ana", "ben", "cy"):
        connect(user)
    first = Http(server).get("/api/connections?sort=age&limit=2", **OPERATOR).body
    assert [each["userId"] for each in first["connections"]] == ["ana", "ben"]
    assert (first["total"], first["more"], bool(first["node"])) == (3, 1, True)
    path = f"/api/connections?sort=age&limit=2&after={first['next']}"
    last = Http(server).get(path, **OPERATOR).body
    assert [each["userId"] for each in last["connections"]] == ["cy"]
    assert (last["total"], last["more"], "next" in last) == (3, 0, False)
    turned = Http(server).get("/api/connections?sort=-age&q=AN", **OPERATOR).body
    assert [each["userId"] for each in turned["connections"]] == ["ana"]


@pytest.mark.parametrize("name", ["connections", "users", "povs", "plugins"])
def test_the_admin_port_has_the_same_lists_for_the_same_tokens(
    server: RunningServer, connect: Connect, name: str
) -> None:
    connect("ana").request({"type": "subscribe", "povId": "acme"})
    token = server.token("ops", Kind.SERVICE, can=["operate"])
    status, found = at_admin_port(server, f"/api/{name}", token)
    assert (status, bool(found[name])) == (200, True)
    assert found["total"] == Http(server).get(f"/api/{name}", **OPERATOR).body["total"]
    for bad, expected in (
        (None, 401),
        (server.token("ana", can=["operate"]), 401),
        (server.token("ops", Kind.SERVICE, can=["publish"]), 403),
    ):
        assert at_admin_port(server, f"/api/{name}", bad)[0] == expected


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("sort=worst", "sort"),
        ("plan=x", "plan"),
        ("after=x", "after"),
        ("after=W10", "after"),
        ("limit=1001", "limit"),
        ("q=" + "x" * 201, "q"),
    ],
)
def test_what_cannot_be_asked_for_is_named(server: RunningServer, query: str, field: str) -> None:
    answer = Http(server).get(f"/api/connections?{query}", **OPERATOR)
    assert (answer.status, answer.body["error"]["field"]) == (400, field)

"""Pages of several nodes are merged: each row once, in one order, whatever a page has room for."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from pov_rt.server.listings import Cursor, Page
from pov_rt.server.nodes.lists import merge
from pov_rt.testing import Http
from tests.nodes.conftest import Nodes

OPERATOR: dict[str, Any] = {"user": "app", "service": True, "can": ["operate"]}


def page_of(rows: list[Cursor], after: Cursor | None, limit: int) -> Page:
    """Return a node's page, as `Listings.page` makes it."""
    found = sorted(row for row in rows if after is None or row > after)
    shown = [(row, row.name.encode()) for row in found[:limit]]
    return Page(shown, len(rows), len(found) - len(shown))


@pytest.mark.parametrize("seed", range(20))
def test_merged_pages_have_each_row_once_in_order(seed: int) -> None:
    random = Random(seed)
    rows = {
        node: [
            Cursor(random.randrange(3), f"u{number}", node)
            for number in range(random.randrange(12))
        ]
        for node in "abc"
    }
    everything = sorted(row for each in rows.values() for row in each)
    limit = random.randint(1, 7)
    found, after = list[Cursor](), None
    while True:
        # One node has room for fewer than are asked for.
        pages = [
            page_of(each, after, max(1, limit - 2 * (node == "b"))) for node, each in rows.items()
        ]
        shown, more = merge(pages, limit)
        assert more == len(everything) - len(found) - len(shown)
        assert len(shown) <= limit
        found += [cursor for cursor, _ in shown]
        if not more:
            break
        assert shown, "it goes on"
        after = shown[-1][0]
    assert found == everything


def test_a_list_has_the_rows_of_all_nodes_in_pages(nodes: Nodes) -> None:
    one, two = nodes
    mine = [node.connect(user) for user in ("ana", "ben", "cy") for node in nodes]
    names = [node.web.server.node for node in nodes]
    asked = Http(one).get("/api/connections?sort=age", **OPERATOR).body
    assert [each["userId"] for each in asked["connections"]] == [
        *("ana", "ana", "ben", "ben", "cy", "cy"),
    ]
    assert [each["node"] for each in asked["connections"]] == names * 3
    assert (asked["total"], asked["more"], asked["missing"]) == (6, 0, [])
    assert (asked["node"], sorted(asked["nodes"])) == (names[0], sorted(names))
    for limit in (1, 4):
        found, query = [], f"sort=-age&limit={limit}"
        while True:
            page = Http(two).get(f"/api/connections?{query}", **OPERATOR).body
            found += [each["connectionId"] for each in page["connections"]]
            if "next" not in page:
                break
            query = f"sort=-age&limit={limit}&after={page['next']}"
        assert found == [client.connection_id for client in reversed(mine)]


def test_one_node_is_asked_by_its_name_and_another_name_is_refused(nodes: Nodes) -> None:
    one, two = nodes
    for node in nodes:
        node.connect("ana")
    for node in nodes:
        name = node.web.server.node
        found = Http(one).get(f"/api/users?node={name}", **OPERATOR).body
        assert [each["node"] for each in found["users"]] == [name] == found["nodes"]
    refused = Http(one).get("/api/users?node=none", **OPERATOR)
    assert (refused.status, refused.body["error"]["field"]) == (400, "node")
    assert two.web.server.node in refused.body["error"]["message"]
    sort = Http(one).get(f"/api/users?sort=none&node={two.web.server.node}", **OPERATOR)
    assert (sort.status, sort.body["error"]["field"]) == (400, "sort")


def test_filters_and_searches_hold_on_all_nodes(nodes: Nodes) -> None:
    for node in nodes:
        for user in ("ana", "ben"):
            client = node.connect(user)
            client.request({"type": "subscribe", "povId": f"pov-of-{user}"})
    for query in ("userId=ben", "povId=pov-of-ben", "q=OF-BEN"):
        found = Http(nodes[0]).get(f"/api/connections?{query}", **OPERATOR).body
        assert [each["userId"] for each in found["connections"]] == ["ben", "ben"]
        assert found["total"] == 2
    povs = Http(nodes[0]).get("/api/povs?sort=subscribers", **OPERATOR).body["povs"]
    assert {(each["povId"], each["node"]) for each in povs} == {
        (f"pov-of-{user}", node.web.server.node) for user in ("ana", "ben") for node in nodes
    }

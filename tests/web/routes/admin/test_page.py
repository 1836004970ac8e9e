"""The admin port has a page, under a strict policy; what changes something only if it may."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import Settings
from pov_rt.testing import Http, RunningServer, make_settings


class Got:
    """An answer of the admin port."""

    def __init__(
        self, server: RunningServer, path: str, method: str = "GET", *, can: Any = None, **more: Any
    ) -> None:
        connection = HTTPConnection("127.0.0.1", server.web.admin_port, timeout=10)
        headers = dict(more.get("headers", {}))
        if can is not None:
            token = server.token("ops", more.get("kind", Kind.SERVICE), can=can)
            headers["Authorization"] = f"Bearer {token}"
        body = None if "body" not in more else json.dumps(more["body"])
        connection.request(method, path, body, headers)
        with connection.getresponse() as answer:
            self.status, self.headers, self.body = answer.status, answer.headers, answer.read()
        connection.close()

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/admin/admin.mjs", "text/javascript"),
        ("/admin/admin.css", "text/css"),
        ("/admin/parts.css", "text/css"),
        ("/admin/icon.svg", "image/svg+xml"),
    ],
)
def test_the_page_and_its_files_are_there_under_a_strict_policy(
    server: RunningServer, path: str, kind: str
) -> None:
    got = Got(server, path)
    assert (got.status, got.headers.get_content_type()) == (200, kind)
    policy = got.headers["Content-Security-Policy"].split("; ")
    assert policy == [
        "default-src 'self'",
        "require-trusted-types-for 'script'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]


@pytest.mark.parametrize("path", ["/admin/none.css", "/admin/..%2Fdev%2Fconsole.css", "/dev/x.css"])
def test_nothing_else_is(server: RunningServer, path: str) -> None:
    assert Got(server, path).status == 404


def test_a_page_of_another_name_or_site_gets_nothing(server: RunningServer) -> None:
    assert Got(server, "/", headers={"Host": "evil.example"}).status == 421
    foreign = {"Origin": "https://evil.example"}
    assert Got(server, "/api/node", can=["operate"], headers=foreign).status == 403


def test_the_node_is_told_in_numbers_to_operators_alone(server: RunningServer) -> None:
    client = server.connect("ana")
    client.request({"type": "subscribe", "povId": "acme"})
    found = Got(server, "/api/node", can=["operate"]).json
    assert (found["connections"], found["users"], found["behind"]) == (1, 1, 0)
    assert (found["notReady"], found["actions"], found["off"]) == (None, False, {})
    assert found["lagS"] >= 0
    assert found["engine"] == {"state": "ok", "what": "", "since": None, "survives": "process"}
    assert (found["operator"], found["unsentS"], found["deliveryS"]) == ("ops", 0, None)
    alone = Got(server, "/api/nodes", can=["operate"]).json
    assert ([each["node"] for each in alone["nodes"]], alone["missing"]) == ([found["node"]], [])
    assert Got(server, "/api/node", can=["publish"]).status == 403
    assert Got(server, "/api/node", can=["operate"]).json["refused"]["forbidden"] == 1


@pytest.mark.parametrize(
    "path", ["/api/node", "/api/nodes", "/api/node/hour", "/api/node/activities"]
)
def test_nobody_else_is_told_of_it(server: RunningServer, path: str) -> None:
    assert Got(server, path).status == 401
    assert Got(server, path, can=["publish"]).status == 403
    assert Got(server, path, can=["operate"], kind=Kind.SOCKET).status == 401
    assert Got(server, path, can=["operate"]).status == 200


def test_its_hour_and_what_is_published_are_told(server: RunningServer) -> None:
    path = "/api/node/activities"
    assert Got(server, path, can=["operate"]).json == {
        "node": server.web.server.node,
        "activities": [],
    }
    client = server.connect("ana")
    client.request({"type": "subscribe", "povId": "acme"})
    body = {"id": "a-1", "type": "task", "action": "done", "povId": "acme", "userId": "ben"}
    published = Http(server).post("/api/activities", body, service=True)
    assert published.status == 201, published.body
    (shown,) = Got(server, path, can=["operate"]).json["activities"]
    assert shown.pop("at").endswith("Z")
    assert shown == {**body, "to": 1}
    while client.receive()["type"] != "activity":
        pass
    half_s, most_s = Got(server, "/api/node", can=["operate"]).json["deliveryS"]
    assert 0 < half_s <= most_s
    server.call(lambda: server.web._on_sweep())  # noqa: SLF001  (it is due by then)
    told = Got(server, "/api/node/hour", can=["operate"]).json
    assert told["node"] == server.web.server.node
    assert told["samples"][0].keys() == {
        "at", "connections", "behind", "lagS", "published", "delivered", "refused",
    }  # fmt: skip


ACTIONS = [
    ("POST", "/api/users/ana/block", {"seconds": 60}, 200),
    ("DELETE", "/api/users/ana/block", None, 200),
    ("POST", "/api/users/ana/disconnect", None, 200),
    ("POST", "/api/tokens/revoke", {"userId": "ana"}, 200),
]


@pytest.mark.parametrize(("method", "path", "body", "_"), ACTIONS)
def test_it_only_reads_unless_the_settings_allow_more(
    server: RunningServer, method: str, path: str, body: Any, _: int
) -> None:
    more = {} if body is None else {"body": body}
    assert Got(server, path, method, can=["operate"], **more).status == 404


class TestWithActions:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(server={"port": 0, "admin_port": 0, "admin_actions": True})

    @pytest.mark.parametrize(("method", "path", "body", "good"), ACTIONS)
    def test_what_operators_may_do_is_there_for_their_tokens(
        self, server: RunningServer, method: str, path: str, body: Any, good: int
    ) -> None:
        more = {} if body is None else {"body": body}
        assert Got(server, path, method, **more).status == 401
        assert Got(server, path, method, can=["publish"], **more).status == 403
        assert Got(server, path, method, can=["operate"], **more).status == good
        assert Got(server, "/api/node", can=["operate"]).json["actions"] is True

    def test_what_others_may_do_is_not(self, server: RunningServer) -> None:
        for path in ("/api/activities", "/api/users/ana/notifications", "/api/povs/acme/presence"):
            assert Got(server, path, can=["operate", "publish", "subscribe"]).status == 404

"""Services see who is connected, and can end it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tornado.httpclient import HTTPClient
from websockets.exceptions import ConnectionClosed

from pov_rt.auth.grants import Kind
from pov_rt.protocol.errors import CloseCode
from pov_rt.testing import Connect, RunningServer


def call(server: RunningServer, path: str, token: str, method: str = "GET") -> tuple[int, Any]:
    client = HTTPClient()
    try:
        answer = client.fetch(
            f"http://{server.address}/api{path}",
            method=method,
            headers={"Authorization": f"Bearer {token}"},
            body="" if method == "POST" else None,
            raise_error=False,
        )
    finally:
        client.close()
    return answer.code, json.loads(answer.body) if answer.body else None


def test_connections_are_listed_with_what_an_operator_asks(
    server: RunningServer, connect: Connect
) -> None:
    connect("ana", device="phone").request({"type": "subscribe", "povIds": ["a", "b"]})
    connect("ben")
    token = server.token("ops", Kind.SERVICE, can=["operate"])
    code, answer = call(server, "/connections", token)
    assert (code, len(answer["connections"]), bool(answer["node"])) == (200, 2, True)
    (ana,) = call(server, "/connections?userId=ana", token)[1]["connections"]
    assert (ana["userId"], ana["device"], sorted(ana["povs"])) == ("ana", "phone", ["a", "b"])
    assert ana["receivedBytes"] > 0
    assert ana["sentBytes"] > 0
    assert ana["ageS"] >= 0
    assert ana["tokenExpiresAt"].endswith("Z")
    assert call(server, "/connections?userId=nobody", token)[1]["connections"] == []


def test_a_node_with_many_names_some_and_counts_the_rest(
    server: RunningServer, connect: Connect
) -> None:
    for user in ("ana", "ben", "ana", "cy"):
        connect(user)
    token = server.token("ops", Kind.SERVICE, can=["operate"])

    def listed(query: str) -> tuple[list[str], int]:
        answer = call(server, f"/connections{query}", token)[1]
        return [each["userId"] for each in answer["connections"]], answer["more"]

    assert listed("") == (["ana", "ben", "ana", "cy"], 0)
    assert listed("?limit=3") == (["ana", "ben", "ana"], 1)
    assert listed("?limit=1&userId=ana") == (["ana"], 1)
    for wrong in ("0", "1001", "x", "-1", "9" * 5000, ""):
        code, answer = call(server, f"/connections?limit={wrong}", token)
        assert (code, answer["error"]["field"]) == (400, "limit")


@pytest.mark.parametrize(
    ("written", "user"),
    [
        ("two+words", "two words"),
        ("two%20words", "two words"),
        ("a%2Bb", "a+b"),
        ("a%26b%3Dc", "a&b=c"),
        ("%C3%9C+%F0%9F%91%A9", "Ü 👩"),
    ],
)
def test_a_user_is_found_however_a_form_writes_the_id(
    server: RunningServer, connect: Connect, written: str, user: str
) -> None:
    connect(user)
    connect("another")
    token = server.token("ops", Kind.SERVICE, can=["operate"])
    answer = call(server, f"/connections?userId={written}", token)[1]
    assert [each["userId"] for each in answer["connections"]] == [user]


@pytest.mark.parametrize(
    "written",
    ["%2A", "*", "a%0Ab", "a%00", "%20", "%E2%80%AE", "%EF%BB%BF", "a" * 129, "__proto__"],
)
def test_nobody_is_disconnected_under_an_id_that_no_user_can_have(
    server: RunningServer, written: str
) -> None:
    token = server.token("ops", Kind.SERVICE, can=["operate"])
    code, answer = call(server, f"/users/{written}/disconnect", token, "POST")
    assert (code, answer["error"]["code"], answer["error"]["field"]) == (
        400,
        "invalid_id",
        "userId",
    )


def test_a_user_is_disconnected_everywhere_and_told_to_stay_away(
    server: RunningServer, connect: Connect
) -> None:
    phone, laptop, ben = connect("ana"), connect("ana", v1=False), connect("ben")
    token = server.token("ops", Kind.SERVICE, can=["operate"])
    assert call(server, "/users/ana/disconnect", token, "POST") == (
        200,
        {"closed": 2, "missing": []},
    )
    assert phone.receive()["type"] == "closing"
    for client in (phone, laptop):
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == CloseCode.DISCONNECTED.code
    assert ben.request({"type": "ping"})["type"] == "pong"


def test_only_services_that_may_operate_get_in(server: RunningServer) -> None:
    for token, code in (
        (server.token("ops", Kind.SERVICE, can=["publish"]), 403),
        (server.token("ops", can=["operate"]), 401),
    ):
        assert call(server, "/connections", token)[0] == code
        assert call(server, "/users/ana/disconnect", token, "POST")[0] == code

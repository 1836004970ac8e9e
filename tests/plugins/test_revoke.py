"""Revoked tokens are refused at once, everywhere, and after a restart."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jwt
import pytest
from tornado.httpclient import HTTPClient
from websockets.exceptions import ConnectionClosed

from pov_rt.auth.grants import Kind
from pov_rt.auth.revocations import Revocation
from pov_rt.config.settings import EngineSettings
from pov_rt.connections.directory import Command
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode
from pov_rt.runtime.clock import ManualClock, rfc3339
from pov_rt.testing import SECRET, Client, Connect, RunningServer, make_settings


def request(
    server: RunningServer, path: str, token: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    client = HTTPClient()
    try:
        answer = client.fetch(
            f"http://{server.address}{path}",
            method="GET" if body is None else "POST",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            body=None if body is None else json.dumps(body),
            raise_error=False,
        )
    finally:
        client.close()
    return answer.code, json.loads(answer.body or "{}")


def revoke(server: RunningServer, **body: Any) -> tuple[int, dict[str, Any]]:
    token = server.token("ops", Kind.SERVICE, can=["operate"])
    return request(server, "/api/tokens/revoke", token, body)


def code_of(server: RunningServer, token: str) -> str:
    """Say what a client hears that asks why it cannot connect."""
    code: str = request(server, "/ws/", token)[1]["error"]["code"]
    return code


def closed_with(client: Client) -> int:
    while True:
        try:
            client.receive()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 0


def test_a_users_tokens_end_and_new_ones_work(server: RunningServer, connect: Connect) -> None:
    ana, ben = connect("ana"), connect("ben")
    old = server.token("ana")
    assert code_of(server, old) == "upgrade_required"
    code, done = revoke(server, userId="ana")
    assert (code, sorted(done), done["closed"]) == (200, ["closed", "issuedBefore", "missing"], 1)
    assert closed_with(ana) == CloseCode.TOKEN.code
    assert code_of(server, old) == "token_revoked"
    assert code_of(server, server.token("ana")) == "upgrade_required"
    assert ben.request({"type": "ping"})["type"] == "pong"
    refresh = {"type": "refresh", "token": old}
    assert connect("ana").request(refresh)["code"] == "token_revoked"


def test_one_token_ends_with_those_that_were_exchanged_for_it(
    server: RunningServer, connect: Connect
) -> None:
    access = server.token("ana", Kind.ACCESS)
    other = server.token("ana", Kind.ACCESS)
    sockets = [request(server, "/api/auth/ws-token", each)[1]["token"] for each in (access, other)]
    identity = server.call(
        lambda: server.web.server.tokens.verify(access, frozenset({Kind.ACCESS}))
    )
    assert revoke(server, tokenId=identity.token_id) == (200, {"closed": 0, "missing": []})
    assert request(server, "/api/auth/ws-token", access)[0] == 401
    assert code_of(server, sockets[0]) == "token_revoked"
    assert code_of(server, sockets[1]) == "upgrade_required"


def test_everybodys_older_tokens_end(server: RunningServer) -> None:
    old = server.token("ana")
    long_ago = "2001-01-01T00:00:00.000Z"
    done = {"issuedBefore": long_ago, "closed": 0, "missing": []}
    assert revoke(server, issuedBefore=long_ago) == (200, done)
    assert code_of(server, old) == "upgrade_required"
    now = rfc3339(server.web.server.clock.time())
    assert revoke(server, issuedBefore=now)[0] == 200
    assert code_of(server, old) == "token_revoked"
    # One that says less undoes nothing, and the answer says what is in force.
    assert revoke(server, issuedBefore=long_ago)[1]["issuedBefore"] == now
    assert code_of(server, old) == "token_revoked"


def test_a_socket_token_that_was_exchanged_later_ends_with_older_access_tokens(
    server: RunningServer, connect: Connect
) -> None:
    access = server.token("ana", Kind.ACCESS)
    issued_before = rfc3339(server.web.server.clock.time() + 0.002)
    socket = request(server, "/api/auth/ws-token", access)[1]["token"]
    for which in ({"userId": "ana"}, {}):
        revoke(server, issuedBefore=issued_before, **which)
        assert code_of(server, socket) == "token_revoked"
        assert request(server, "/api/auth/ws-token", access)[0] == 401
    ben = connect("ben")
    answer = ben.request({"type": "refresh", "token": socket})
    assert answer["code"] == "token_revoked"


def test_what_was_used_ends_though_its_clock_is_ahead_or_its_seconds_are_whole() -> None:
    clock = ManualClock(1_800_000_000.4)
    with RunningServer(make_settings(), None, clock) as server:
        for number, iat in enumerate((clock.now + 3, math.floor(clock.now))):
            claims = {"userId": "ana", "exp": clock.now + 900, "iat": iat}
            old = jwt.encode(claims, SECRET, "HS256")
            assert code_of(server, old) == "upgrade_required"
            revoke(server, userId="ana")
            assert code_of(server, old) == "token_revoked"
            again = jwt.encode(claims | {"jti": f"again-{number}"}, SECRET, "HS256")
            assert code_of(server, again) == "upgrade_required"


def test_another_nodes_word_is_enough(server: RunningServer, connect: Connect) -> None:
    ana = connect("ana")
    body = encode(Command(revoke=Revocation(user_id="ana", before=4e9)))
    server.call(lambda: server.web.server.directory.hear(body))
    assert closed_with(ana) == CloseCode.TOKEN.code


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "userId"),
        ({"tokenId": "x", "userId": "ana"}, "tokenId"),
        ({"issuedBefore": "yesterday"}, "issuedBefore"),
        ({"issuedBefore": "2999-01-01T00:00:00Z"}, "issuedBefore"),
        ({"userId": "ana", "issuedBefore": "2999-01-01T00:00:00Z"}, "issuedBefore"),
        ({"userId": "*"}, "userId"),
        ({"userId": "a\nb"}, "userId"),
        ({"userId": ""}, "userId"),
        ({"tokenId": ""}, "tokenId"),
        ({"tokenId": jwt.encode({"jti": "1"}, SECRET)}, "tokenId"),
        ({"user": "ana"}, "user"),
    ],
)
def test_what_names_no_tokens_is_refused(
    server: RunningServer, body: dict[str, Any], field: str
) -> None:
    code, answer = revoke(server, **body)
    assert (code, answer["error"]["field"]) == (400, field)


def test_it_needs_a_service_that_may_operate(server: RunningServer) -> None:
    path = "/api/tokens/revoke"
    for token, code in (
        (server.token("app", Kind.SERVICE, can=["publish"]), 403),
        (server.token("ana", can=["operate"]), 401),
    ):
        assert request(server, path, token, {"userId": "ana"})[0] == code


def test_a_restart_forgets_none(tmp_path: Path) -> None:
    settings = make_settings(engine=EngineSettings(url=f"sqlite://{tmp_path}/log.db"))
    with RunningServer(settings, None) as server:
        old = server.token("ana")
        revoke(server, userId="ana")
    with RunningServer(settings, None) as server:
        assert code_of(server, old) == "token_revoked"
        assert code_of(server, server.token("ben")) == "upgrade_required"

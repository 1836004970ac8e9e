"""Exports leave in pieces, as fast as they are read; whoever breaks off gets no end of it."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.protocol.errors import CloseCode
from pov_rt.testing import Http, RunningServer, make_settings
from tests.clients import publish

OPERATOR: dict[str, Any] = {"user": "app", "service": True, "can": ["operate"]}
MANY = 5000


def test_a_large_export_is_whole_and_comes_in_pieces(tmp_path: Path) -> None:
    settings = make_settings(engine={"url": f"sqlite://{tmp_path}/log.db"})
    with RunningServer(settings, None) as server:
        publish(server, MANY)
        token = server.token("app", Kind.SERVICE, can=["operate"])
        connection = HTTPConnection(server.address, timeout=30)
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("GET", "/api/users/bo/export", headers=headers)
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        assert answer.headers["Transfer-Encoding"] == "chunked"
        kinds: dict[str, int] = {}
        for line in answer:
            kind = json.loads(line)["kind"]
            kinds[kind] = kinds.get(kind, 0) + 1
        assert kinds == {"activity": MANY, "end": 1}
        connection.close()


def test_who_breaks_off_leaves_nothing_behind(server: RunningServer) -> None:
    publish(server, MANY)
    token = server.token("app", Kind.SERVICE, can=["operate"])
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(
            b"GET /api/users/bo/export HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Authorization: Bearer %b\r\n\r\n" % token.encode()
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert Http(server).get("/api/users/none/export", **OPERATOR).body == (
        '{"kind":"end","counts":{}}\n'
    )


def test_head_says_what_there_would_be_and_looks_for_nothing(server: RunningServer) -> None:
    answer = Http(server).request("HEAD", "/api/users/bo/export", **OPERATOR)
    assert (answer.status, answer.body) == (200, None)
    assert answer.headers["Content-Type"] == "application/x-ndjson"


def test_a_blocked_user_is_cut_off_and_stays_out_over_a_restart_until_it_is_lifted(
    tmp_path: Path,
) -> None:
    settings = make_settings(engine={"url": f"sqlite://{tmp_path}/log.db"})
    path = "/api/users/ana/block"
    with RunningServer(settings, None) as server:
        ana, ben = server.connect("ana"), server.connect("ben")
        done = Http(server).post(path, {"seconds": 600}, **OPERATOR)
        assert (done.status, done.body["userId"], done.body["closed"]) == (200, "ana", 1)
        assert ana.receive()["code"] == CloseCode.DISCONNECTED.code
        assert ben.request({"type": "ping"})["type"] == "pong"
        assert_refused(server)
    with RunningServer(settings, None) as server:
        assert_refused(server)
        (row,) = Http(server).get("/api/users?state=blocked", **OPERATOR).body["users"]
        assert (row["userId"], row["blockedUntil"]) == ("ana", done.body["until"])
        for was in (True, False):
            assert Http(server).delete(path, **OPERATOR).body == {"wasBlocked": was}
        assert server.connect("ana").request({"type": "ping"})["type"] == "pong"
        assert Http(server).get("/api/users?state=blocked", **OPERATOR).body["users"] == []


def assert_refused(server: RunningServer) -> None:
    answer = Http(server).get("/ws/", user="ana")
    error = answer.body["error"]
    assert (answer.status, error["code"]) == (401, "token_revoked")
    assert "blocked" in error["message"]
    assert 0 < error["retryAfter"] <= 600


def test_what_is_kept_about_a_user_includes_a_block(server: RunningServer) -> None:
    until = Http(server).post("/api/users/ana/block", {"seconds": 60}, **OPERATOR).body["until"]
    first, _ = Http(server).get("/api/users/ana/export", **OPERATOR).body.splitlines()
    found = json.loads(first)
    assert (found["kind"], found["until"]) == ("block", until)


@pytest.mark.parametrize("seconds", [0, -1, 1e12, "60", None])
def test_nobody_is_blocked_for_no_time_or_for_ever(server: RunningServer, seconds: object) -> None:
    answer = Http(server).post("/api/users/ana/block", {"seconds": seconds}, **OPERATOR)
    assert (answer.status, answer.body["error"]["field"]) == (400, "seconds")

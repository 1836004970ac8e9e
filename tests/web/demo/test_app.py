"""The demo's app on a real server: what its pages do becomes activities, each once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from pov_rt.config.settings import Settings
from pov_rt.runtime.clock import SystemClock
from pov_rt.testing import Client, Connect, RunningServer, make_settings
from pov_rt.tracker.tornado import ActivityTracker
from pov_rt.web.demo.app import BURST, MAX_WAITING, make_app
from pov_rt.web.demo.board import Board
from pov_rt.web.demo.content import PEOPLE, first_activities
from tests.web.routes.test_activities import call

POV = "mossgate-bank"
FIRST = len(list(first_activities("")))


@pytest.fixture
def settings() -> Settings:
    return replace(make_settings(), dev=True)


def ask(
    server: RunningServer, path: str, method: str = "GET", body: Any = None, user: str = "ana"
) -> HTTPResponse:
    data = b"" if method in ("PUT", "POST") and body is None else body
    return call(server, f"/demo/api{path}", method=method, body=data, Demo_User=user)


def follow(connect: Connect, pov: str = POV) -> Client:
    client = connect("dev")
    client.request({"type": "subscribe", "povId": pov})
    return client


def test_what_the_board_begins_with_is_told_when_it_is_first_looked_at(
    server: RunningServer, connect: Connect
) -> None:
    client = follow(connect)
    board = json.loads(ask(server, "/board").body)
    assert board["people"] == PEOPLE
    names = [pov["name"] for pov in board["povs"]]
    assert names == ["Mossgate Bank", "Brindle Freight", "Quillon Air"]
    assert board["since"] > 1e12
    told = [client.receive()["data"] for _ in range(FIRST)]
    assert {each["action"] for each in told} == {"changed", "completed", "added"}
    ask(server, "/board")
    ask(server, f"/povs/{POV}/tasks/rotterdam/done", "PUT")
    assert client.receive()["offset"] == FIRST + 1


def test_each_change_is_one_activity_with_its_words(
    server: RunningServer, connect: Connect
) -> None:
    client = follow(connect)
    tasks = f"/povs/{POV}/tasks"
    done: list[tuple[str, str, Any, str]] = [
        (f"{tasks}/new", "PUT", {"title": "New"}, "jonas"),
        (f"{tasks}/new/done", "PUT", None, "mei"),
        (f"{tasks}/new/done", "DELETE", None, "ana"),
        (f"/povs/{POV}/phase/Set%20up", "PUT", None, "ana"),
    ]
    codes = [ask(server, *each).code for each in done for _ in range(2)]
    assert codes == [201, 204, 200, 204, 200, 204, 200, 204]
    href = f"/demo/board?pov={POV}"
    new = {"title": "New", "task": "new", "href": f"{href}&task=new"}
    moved = {"title": "Mossgate Bank", "href": href, "from": "Prove", "to": "Set up"}
    told = [client.receive()["data"] for _ in done]
    assert [(each["type"], each["action"], each["userId"], each["details"]) for each in told] == [
        ("task", "created", "jonas", new),
        ("task", "completed", "mei", new),
        ("task", "reopened", "ana", new),
        ("phase", "changed", "ana", moved),
    ]
    # And no other: this would come after it.
    ask(server, f"{tasks}/rotterdam/done", "PUT")
    assert client.receive()["offset"] == len(done) + 1


def test_what_cannot_be_done_is_refused_in_words(server: RunningServer) -> None:
    def refused(path: str, method: str = "PUT", body: Any = None, user: str = "ana") -> Any:
        answer = ask(server, path, method, body, user)
        return answer.code, json.loads(answer.body)["error"]

    assert refused("/povs/nowhere/phase/Prove") == (404, "Not Found")
    assert refused(f"/povs/{POV}/tasks/nothing/done", "DELETE") == (404, "Not Found")
    for body in (b"", b"[]", b"{}", b"{", b"\xff", b"[" * 5000):
        assert refused(f"/povs/{POV}/tasks/new", body=body) == (400, "send a title")
    code, words = refused(f"/povs/{POV}/tasks/new", body={"title": ""})
    assert (code, words) == (409, "A task has a title of 1 to 80 characters")
    assert refused("/board", "GET", user="eve") == (401, "say in Demo-User who you are")
    assert refused("/restart", "POST") == (503, "Only `pov-rt serve` can start anew")


def test_a_burst_is_published_by_several_people(server: RunningServer, connect: Connect) -> None:
    clients = [follow(connect, pov) for pov in (POV, "brindle-freight", "quillon-air")]
    assert ask(server, "/burst", "POST").code == 202
    people = set()
    for client, number in zip(clients, (334, 333, 333), strict=True):
        for offset in range(1, number + 1):
            message = client.receive()
            assert message["offset"] == offset
            people.add(message["data"]["userId"])
    assert people == PEOPLE.keys()


class NoNode:
    """A server that is away."""

    def token(self, user_id: str) -> str:
        raise AssertionError

    async def end_tokens(self, user_id: str) -> None:
        raise AssertionError

    def restart(self) -> bool:
        raise AssertionError

    async def tell_beginning(self) -> None:
        raise AssertionError


async def fill() -> list[int]:
    """Ask for bursts while their receiver is away, until one is refused; return the answers."""
    nowhere, port = bind_unused_port()
    nowhere.close()
    tracker = ActivityTracker(f"http://127.0.0.1:{port}", "token")
    app = make_app(Board(None, SystemClock()), tracker, NoNode())
    listening, port = bind_unused_port()
    http = HTTPServer(app)
    http.add_socket(listening)
    codes: list[int] = []
    try:
        while 503 not in codes:
            answer = await AsyncHTTPClient().fetch(
                f"http://127.0.0.1:{port}/demo/api/burst",
                method="POST",
                body=b"",
                headers={"Demo-User": "ana"},
                raise_error=False,
            )
            codes.append(answer.code)
        assert tracker.outbox.queued == MAX_WAITING + BURST
        assert tracker.outbox.dropped == 0
    finally:
        http.stop()
        await http.close_all_connections()
        await tracker.close(0.0)
    return codes


def test_bursts_do_not_pile_up_where_nobody_takes_them(server: RunningServer) -> None:
    assert server.run(fill) == [202] * 6 + [503]


def test_a_token_that_was_ended_opens_nothing_and_the_next_one_does(server: RunningServer) -> None:
    def token() -> str:
        found: str = json.loads(ask(server, "/token").body)["token"]
        return found

    def read(token: str) -> int:
        return call(server, f"/api/povs/{POV}/activities", token=token).code

    first = token()
    verify = server.web.server.hooks.hosts["ping"].verify
    grants = server.call(lambda: verify(first)).grants
    assert set(grants.povs or ()) == {POV, "brindle-freight", "quillon-air"}
    assert ask(server, "/end-token", "POST", user="jonas").code == 200
    assert read(first) == 200
    assert ask(server, "/end-token", "POST").code == 200
    assert read(first) == 401
    assert read(token()) == 200


def test_a_reset_begins_anew_and_tells_so(server: RunningServer, connect: Connect) -> None:
    client = follow(connect)
    first = json.loads(ask(server, "/board").body)
    ask(server, f"/povs/{POV}/tasks/new", "PUT", {"title": "New"})
    assert ask(server, "/reset", "POST").code == 200
    again = json.loads(ask(server, "/board").body)
    assert again["povs"] == first["povs"]
    assert again["since"] >= first["since"]
    ids = [client.receive()["data"]["id"] for _ in range(2 * FIRST + 1)]
    assert len(set(ids)) == len(ids)

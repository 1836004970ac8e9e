"""A real Tornado application whose requests become activities of a real server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, HTTPError, RequestHandler

from pov_rt.auth.grants import Kind
from pov_rt.testing import SECRET, RunningServer
from pov_rt.tracker import Facts, NewActivity, ServiceToken, Track
from pov_rt.tracker.tornado import ActivityTracker

RULES = [
    Track("POST", "/povs/{pov_id}/tasks/{task_id}/done", type="task", action="done"),
    Track("DELETE", "/povs/{pov_id}", type="pov", action="removed"),
    Track("POST", "/povs/{pov_id}/form", type="form", action="sent", statuses=(302,)),
    Track("PUT", "/povs/{pov_id}/form", type="form", action="kept"),
]


class Task(RequestHandler):
    def get_current_user(self) -> Any:
        return {"id": 7}

    async def post(self, *_: str) -> None:
        if self.get_argument("fail", ""):
            raise HTTPError(409)
        self.write("ok")


class Form(RequestHandler):
    """Answers as forms do, with a redirect."""

    def post(self, _: str) -> None:
        self.redirect("/", status=int(self.get_argument("status")))

    put = post


class Pov(RequestHandler):
    def delete(self, pov_id: str) -> None:
        self.set_status(204)

    def post(self, pov_id: str) -> None:
        raise ValueError("a bug of the application")


Call = Callable[..., Awaitable[int]]


def drive(
    tracker: ActivityTracker, work: Callable[[Call], Awaitable[None]], **settings: Any
) -> None:
    """Run an application under the tracker, and `work` as its user."""

    async def run() -> None:
        app = Application(
            [
                (r"/povs/([^/]+)/tasks/(.*)/done", Task),
                (r"/povs/([^/]+)/form", Form),
                (r"/povs/(?P<pov_id>[^/]+)", Pov),
            ],
            **settings,
        )
        http = HTTPServer(tracker.wrap(app))
        sock, port = bind_unused_port()
        http.add_socket(sock)
        client = AsyncHTTPClient(force_instance=True)

        async def call(method: str, path: str, body: bytes | None = None, **headers: str) -> int:
            answer = await client.fetch(
                f"http://127.0.0.1:{port}{path}",
                method=method,
                body=body,
                headers=headers,
                raise_error=False,
                allow_nonstandard_methods=True,
                follow_redirects=False,
            )
            return answer.code

        try:
            await work(call)
            await tracker.close()
        finally:
            client.close()
            http.stop()
            await http.close_all_connections()

    asyncio.run(run())


def test_chosen_requests_become_activities_without_private_parts(server: RunningServer) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    url = f"http://{server.address}"
    token = server.token("app", Kind.SERVICE)
    tracker = ActivityTracker(url, token, RULES, anonymous="guest")

    async def work(call: Call) -> None:
        secret = {"Cookie": "s=COOKIE", "X-Secret": "HEADER"}
        path = "/povs/acme/tasks/t-1/done"
        assert await call("POST", f"{path}?q=QUERY", b"BODY", **secret) == 200
        assert await call("POST", f"{path}?fail=1", b"") == 409
        assert await call("GET", path) == 405
        assert await call("POST", "/povs/acme", b"") == 500
        assert await call("POST", "/healthz", b"") == 404
        assert await call("DELETE", "/povs/acme") == 204

    drive(tracker, work)
    first, second = ana.receive(), ana.receive()
    assert (first["data"]["type"], first["data"]["action"]) == ("task", "done")
    assert (first["data"]["userId"], first["data"]["details"]) == ("7", {"task_id": "t-1"})
    assert (second["data"]["type"], second["data"]["userId"]) == ("pov", "guest")
    for word in ("COOKIE", "HEADER", "QUERY", "BODY"):
        assert word not in json.dumps([first, second])
    outbox = tracker.outbox
    assert (outbox.sent, outbox.rejected, outbox.dropped, outbox.queued) == (2, 0, 0, 0)


def test_ids_are_decoded_part_by_part(server: RunningServer) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "a b/ü"})
    tracker = ActivityTracker(f"http://{server.address}", server.token("app", Kind.SERVICE), RULES)

    async def work(call: Call) -> None:
        assert await call("POST", "/povs/a%20b%2F%C3%BC/tasks/t%2f1/done", b"") == 200

    drive(tracker, work)
    data = ana.receive()["data"]
    assert (data["povId"], data["details"]) == ("a b/ü", {"task_id": "t/1"})


def test_a_rule_says_which_statuses_count(server: RunningServer) -> None:
    token = server.token("app", Kind.SERVICE)
    tracker = ActivityTracker(f"http://{server.address}", token, RULES, anonymous="guest")
    seen: list[NewActivity] = []
    tracker.outbox.put = seen.append  # type: ignore[assignment,method-assign]

    async def work(call: Call) -> None:
        for method in ("POST", "PUT"):
            for status in (302, 303):
                assert await call(method, f"/povs/acme/form?status={status}", b"") == status

    drive(tracker, work)
    # By default a redirect to a form's result counts, and one that may lead to the login does not.
    assert [(each.action, each.pov_id) for each in seen] == [("sent", "acme"), ("kept", "acme")]


def test_an_applications_own_log_function_is_still_called(server: RunningServer) -> None:
    seen: list[int] = []
    tracker = ActivityTracker(f"http://{server.address}", "x", [])

    async def work(call: Call) -> None:
        await call("DELETE", "/povs/acme")

    drive(tracker, work, log_function=lambda handler: seen.append(handler.get_status()))
    assert seen == [204]


def test_what_its_callables_raise_never_reaches_the_response(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    def describe(facts: Facts) -> NewActivity | None:
        raise RuntimeError(facts.path)

    tracker = ActivityTracker(f"http://{server.address}", "x", [], describe=describe)

    async def work(call: Call) -> None:
        for _ in range(3):
            assert await call("DELETE", "/povs/acme") == 204

    drive(tracker, work)
    # The first at once, and the last at the end; how many each is of is the thread's affair.
    lines = [r.getMessage() for r in caplog.records if "was not tracked" in r.getMessage()]
    assert 1 <= len(lines) <= 2
    assert sum(int(number) for line in lines for number in re.findall(r"(\d+) dropped", line)) == 3


def test_describe_and_before_send_have_the_last_word(server: RunningServer) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "the pov"})

    def describe(facts: Facts) -> NewActivity:
        action = f"{facts.method.lower()}.{facts.status}"
        pov_id = facts.path_arguments.get("pov_id", "none")
        return NewActivity(type="request", action=action, pov_id=pov_id, user_id="me")

    def before_send(activity: NewActivity) -> NewActivity | None:
        return activity if activity.action == "delete.204" else None

    token = server.token("app", Kind.SERVICE)
    tracker = ActivityTracker(
        f"http://{server.address}", lambda: token, describe=describe, before_send=before_send
    )

    async def work(call: Call) -> None:
        await call("POST", "/povs/acme/tasks/t/done", b"")
        await call("DELETE", "/povs/the%20pov")

    drive(tracker, work)
    data = ana.receive()["data"]
    assert (data["action"], data["povId"]) == ("delete.204", "the pov")
    assert tracker.outbox.sent == 1


def test_an_app_that_signs_its_own_tokens_publishes(server: RunningServer) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    token = ServiceToken(SECRET, "my-app")
    tracker = ActivityTracker(f"http://{server.address}", token, RULES, anonymous="my-app")

    async def work(call: Call) -> None:
        await call("DELETE", "/povs/acme")

    drive(tracker, work)
    assert ana.receive()["data"]["userId"] == "my-app"


def test_a_request_of_nobody_is_told_of_and_not_published_in_the_services_name(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = ActivityTracker(f"http://{server.address}", server.token("app", Kind.SERVICE), RULES)

    async def work(call: Call) -> None:
        assert await call("DELETE", "/povs/acme") == 204
        assert await call("POST", "/povs/acme/tasks/t-1/done", b"") == 200

    drive(tracker, work)
    ana = server.connect("ana")
    page = ana.request({"type": "history", "povId": "acme", "after": 0})
    assert [each["data"]["userId"] for each in page["activities"]] == ["7"]
    assert any("anonymous=" in line for line in caplog.messages)

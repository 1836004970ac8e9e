"""A real Tornado application whose requests become activities of a real server."""

from __future__ import annotations

import asyncio
import json
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
from pov_rt.tracker.core import ActivitySender, HttpAnswer
from pov_rt.tracker.tornado import ActivityTracker
from tests.auth.apps import app_token

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


def test_a_rule_without_a_pov_is_refused() -> None:
    with pytest.raises(ValueError, match="pov_id"):
        Track("POST", "/tasks/{task_id}", type="task", action="done")


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
    assert sum("was not tracked" in r.getMessage() for r in caplog.records) == 1


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


class Receiver:
    """Answers what a test says, and keeps what it got."""

    def __init__(self, *answers: HttpAnswer | OSError) -> None:
        self.answers = list(answers)
        self.bodies: list[list[dict[str, Any]]] = []
        self.tokens: list[str] = []

    async def post(self, url: str, token: str, body: bytes) -> HttpAnswer:
        items = [json.loads(line) for line in body.split(b"\n")]
        self.bodies.append(items)
        self.tokens.append(token)
        answer = self.answers.pop(0) if self.answers else ok(items)
        if isinstance(answer, OSError):
            raise answer
        return answer


def ok(items: list[Any], *errors: str) -> HttpAnswer:
    results: list[Any] = [{"id": "x"} for _ in items]
    for index, code in enumerate(errors):
        results[index] = {"error": {"code": code}}
    return HttpAnswer(200, None, json.dumps({"results": results}).encode())


ONE = NewActivity(type="t", action="a", pov_id="p")


def outbox_after(receiver: Receiver, count: int, **options: Any) -> ActivitySender:
    tokens = iter(f"token-{number}" for number in range(100))

    async def token() -> str:
        return next(tokens)

    async def run() -> ActivitySender:
        outbox = ActivitySender("http://x/", token, receiver, **options)
        for _ in range(count):
            outbox.put(ONE)
        while not await outbox.flush(0.05):
            pass
        await outbox.close()
        return outbox

    return asyncio.run(run())


@pytest.mark.parametrize(
    "failure",
    [
        OSError("away"),
        *(HttpAnswer(503, None, b""), HttpAnswer(401, None, b""), HttpAnswer(429, 0.01, b"")),
        # What something else than a pov-rt server may answer.
        *(HttpAnswer(200, None, body) for body in (b"<html>", b"[]", b'{"results":[]}', b"\xff")),
    ],
)
def test_a_failure_is_tried_again_with_the_same_ids_and_a_new_token(
    failure: HttpAnswer | OSError, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(failure, failure)
    outbox = outbox_after(receiver, 3)
    assert (outbox.sent, outbox.dropped) == (3, 0)
    assert receiver.bodies[0] == receiver.bodies[1] == receiver.bodies[2]
    assert len({each["id"] for each in receiver.bodies[0]}) == 3
    assert receiver.tokens == ["token-0", "token-1", "token-2"]
    assert sum("activities wait" in r.getMessage() for r in caplog.records) == 1


REFUSED = b'{"error":{"code":"token_expired","message":"The token has expired; fetch a new one"}}'


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            HttpAnswer(401, None, REFUSED),
            "(401 token_expired: The token has expired; fetch a new one)",
        ),
        (HttpAnswer(401, None, b""), "(401 Unauthorized)"),
        (HttpAnswer(502, None, b"<html>"), "(502 Bad Gateway)"),
        (HttpAnswer(599, None, b'{"error":"x"}'), "(599)"),
        (HttpAnswer(403, None, b'{"error":{"code":"a\\nb"}}'), "(403 a\\nb)"),
        (OSError("away"), "away"),
    ],
)
def test_the_log_says_what_the_server_says(
    answer: HttpAnswer | OSError, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    outbox_after(Receiver(answer, answer), 1)
    (line,) = [r.getMessage() for r in caplog.records if "activities wait" in r.getMessage()]
    assert line.startswith("activities wait: no success at http://x/api/activities (")
    assert said in line


def test_each_reason_is_logged_once_until_a_success(caplog: pytest.LogCaptureFixture) -> None:
    away, old = OSError("away"), HttpAnswer(401, None, REFUSED)
    outbox_after(Receiver(away, old, away, old, ok([1])), 1)
    waits = [r.getMessage() for r in caplog.records if "activities wait" in r.getMessage()]
    assert len(waits) == 2
    assert "token_expired" in waits[1]


def test_a_token_that_is_too_old_is_named_with_the_way_out(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    old = app_token(SECRET, exp=1e9, aud="pov-rt.service")
    tracker = ActivityTracker(f"http://{server.address}", old, RULES, anonymous="my-app")

    async def work(call: Call) -> None:
        await call("DELETE", "/povs/acme")
        assert not await tracker.outbox.flush(0.5)

    drive(tracker, work)
    (line,) = [r.getMessage() for r in caplog.records if "activities wait" in r.getMessage()]
    assert (
        "(401 token_expired: The token has expired; fetch a new one); the token is always" in line
    )
    assert "give a ServiceToken, or a function" in line


def test_an_app_that_signs_its_own_tokens_publishes(server: RunningServer) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    token = ServiceToken(SECRET, "my-app")
    tracker = ActivityTracker(f"http://{server.address}", token, RULES, anonymous="my-app")

    async def work(call: Call) -> None:
        await call("DELETE", "/povs/acme")

    drive(tracker, work)
    assert ana.receive()["data"]["userId"] == "my-app"


def test_after_a_flush_many_travel_together_again() -> None:
    receiver = Receiver()

    async def run() -> None:
        outbox = ActivitySender("http://x/", "token", receiver)
        outbox.put(ONE)
        assert await outbox.flush()
        outbox.put(ONE)
        await asyncio.sleep(0)  # its task has begun, and waits for others
        outbox.put(ONE)
        await outbox.close()

    asyncio.run(run())
    assert [len(body) for body in receiver.bodies] == [1, 2]


def test_what_the_server_refuses_is_counted_and_not_sent_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = Receiver(ok([1, 2, 3], "invalid_activity"))
    outbox = outbox_after(receiver, 3)
    assert (outbox.sent, outbox.rejected, len(receiver.bodies)) == (2, 1, 1)
    assert "the server refuses 1 activities: invalid_activity" in caplog.text
    body = b'{"error":{"code":"invalid_request","message":"The body is no JSON"}}'
    outbox = outbox_after(Receiver(HttpAnswer(400, None, body)), 3)
    assert (outbox.sent, outbox.rejected) == (0, 3)
    assert "the server refuses 3 activities: invalid_request: The body is no JSON" in caplog.text


def test_a_batch_that_is_too_large_is_halved() -> None:
    receiver = Receiver(HttpAnswer(413, None, b""))
    outbox = outbox_after(receiver, 5)
    assert [len(body) for body in receiver.bodies] == [5, 2, 3]
    assert outbox.sent == 5


def test_what_json_cannot_hold_is_dropped_and_holds_nothing_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    deep: Any = []
    for _ in range(20_000):
        deep = [deep]

    async def run() -> ActivitySender:
        outbox = ActivitySender("http://x/", "token", Receiver())
        for details in ({"a": deep}, endless, {"a": object()}, {"a": "\ud800"}, {"a": 1}):
            outbox.put(NewActivity(type="t", action="a", pov_id="p", details=details))
        await outbox.close()
        return outbox

    outbox = asyncio.run(run())
    assert (outbox.sent, outbox.dropped) == (1, 4)
    assert "JSON cannot hold them" in caplog.text


def test_a_full_queue_drops_and_counts() -> None:
    outbox = outbox_after(Receiver(), 7, capacity=5)
    assert (outbox.sent, outbox.dropped) == (5, 2)


def test_many_travel_together() -> None:
    receiver = Receiver()
    assert outbox_after(receiver, 1201).sent == 1201
    assert [len(body) for body in receiver.bodies] == [500, 500, 201]


def test_what_cannot_be_sent_before_the_end_is_counted() -> None:
    async def run() -> ActivitySender:
        outbox = ActivitySender("http://x", "t", Receiver(*[OSError("away")] * 100))
        outbox.put(ONE)
        await outbox.close(0.05)
        outbox.put(ONE)
        return outbox

    outbox = asyncio.run(run())
    assert (outbox.dropped, outbox.queued) == (2, 0)


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

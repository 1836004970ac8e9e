"""The contract of all trackers: one table of requests, under every framework and server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from bench.peers import free_port
from pov_rt.auth.grants import Kind
from pov_rt.protocol.details.traces import current_traceparent
from pov_rt.testing import SECRET, RunningServer
from pov_rt.tracker import ActivityTracker, Track, sender
from pov_rt.tracker.sender import NO_THREADS
from tests.tracker.apps.common import TABLE
from tests.tracker.servers import SERVERS, AppServer, serve
from tests.tracker.takers import Answer, taking
from tests.web.routes.test_activities import call

# Programs that begin take seconds, and on a busy machine a minute.
pytestmark = pytest.mark.timeout(300)

APPS = [name for name in SERVERS if "users" not in name]
CASES: list[dict[str, Any]] = TABLE["cases"]
HEADERS = {
    "options": "X_Options",
    "user": "X_User",
    "pov": "X_Pov",
    "behave": "X_Behave",
    "trace": "traceparent",
}


def ask(app: AppServer, case: dict[str, Any], pov: str) -> int:
    given = {HEADERS[name]: value for name, value in case.items() if name in HEADERS}
    given = {name: value.replace("POV", pov) for name, value in given.items()}
    path = case["path"].replace("POV", pov)
    return app.call(case["method"], path, X_Status=str(case.get("status", 200)), **given)


def published(server: RunningServer, pov: str) -> list[dict[str, Any]]:
    """Return what is known of a PoV, without what the server adds."""
    token = server.token("app", Kind.SERVICE)
    answer = call(server, f"/api/povs/{pov}/activities?after=0", token=token)
    found = [each["data"] for each in json.loads(answer.body)["activities"]]
    return [{name: each[name] for name in each.keys() - {"id", "povId", "at"}} for each in found]


@pytest.mark.parametrize("name", [name for name in APPS if "workers" not in name])
def test_the_same_requests_become_the_same_activities(name: str, server: RunningServer) -> None:
    povs = {f"case-{number}": case for number, case in enumerate(CASES)}
    with serve(name, f"http://{server.address}", SECRET) as app:
        answers = {pov: ask(app, case, pov) for pov, case in povs.items()}
        assert app.call("POST", "/flush") == 200  # Uvicorn tells all others but one of the end
        app.stop()
    for pov, case in povs.items():
        what = f"{name}, {case['name']}\n{app.log}"
        assert answers[pov] == case.get("answers", case.get("status", 200)), what
        wanted = [case["activity"]] if case["activity"] else []
        assert published(server, pov) == wanted, what


@pytest.mark.parametrize("name", [name for name in APPS if name != "django async"])
def test_what_waits_is_sent_when_the_server_ends(name: str, server: RunningServer) -> None:
    with serve(name, f"http://{server.address}", SECRET) as app:
        for _ in range(6):
            assert app.call("DELETE", "/povs/acme", X_User="ana") == 200
        app.stop()
    assert len(published(server, "acme")) == 6, app.log


@pytest.mark.parametrize("name", ["flask preloaded", "uwsgi"])
def test_workers_have_nothing_of_what_the_process_had_that_forked_them(
    name: str, server: RunningServer
) -> None:
    """uWSGI does not tell Python that it forks."""
    with serve(name, f"http://{server.address}", SECRET, POV_EARLY="1") as app:
        for _ in range(6):
            assert app.call("DELETE", "/povs/acme", X_User="ana") == 200
        app.stop()
    actions = [each["action"] for each in published(server, "acme")]
    assert sorted(actions) == ["removed"] * 6 + ["started"], app.log


def test_uwsgi_without_threads_is_told_so_and_sends_at_the_end(server: RunningServer) -> None:
    """It has them by default since 2.0.27."""
    with serve("uwsgi, no threads", f"http://{server.address}", SECRET) as app:
        assert app.call("DELETE", "/povs/acme", X_User="ana") == 200
        assert app.call("DELETE", "/povs/acme", X_User="ana") == 200
        app.stop()
    assert ("threads support is disabled" in app.log) == (NO_THREADS in app.log), app.log
    assert len(published(server, "acme")) == 2


FAILURES = {
    "down": None,
    "silent": Answer(0),
    "busy": Answer(429, retry_after="60"),
    "broken": Answer(500),
    "wrong token": Answer(401, b'{"error":{"code":"token_invalid"}}'),
}
TRIED = [
    *((name, "silent") for name in APPS),
    *((name, failure) for name in ("starlette", "flask") for failure in FAILURES),
]


@pytest.mark.parametrize(("name", "failure"), sorted(set(TRIED)))
def test_a_server_that_fails_neither_delays_nor_fails_a_response_nor_the_end(
    name: str, failure: str
) -> None:
    answer = FAILURES[failure]
    with taking(*[answer] * 100 if answer else ()) as taker:
        url = taker.url if answer else f"http://127.0.0.1:{free_port()}"
        with serve(name, url, SECRET) as app:
            began = time.monotonic()
            for _ in range(20):
                assert app.call("DELETE", "/povs/acme", X_User="ana") == 200
            took_s = time.monotonic() - began
            ended_s = app.stop()
        # Who waited for the server would do so for TIMEOUT_S. How long the tracker itself keeps a
        # process, test_sender.py measures; here servers have their own time to end.
        assert took_s < 0.8 * sender.TIMEOUT_S
        assert ended_s < 0.8 * sender.TIMEOUT_S
        taker.silence.set()


class Request:
    """What most frameworks have of a request."""

    def __init__(self, method: str, path: str, user: Any = "ana") -> None:
        self.method, self.path, self.user = method, path, user


class Response:
    status = 200


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RULES = [
    Track("DELETE", "/povs/{pov_id}", type="pov", action="removed"),
    Track("POST", "/povs/{pov_id}", type="pov", action="failed", statuses={500}),
]


def test_it_answers_as_what_is_next_does_with_and_without_async() -> None:
    response, error = Response(), LookupError("a mistake")

    def answer(request: Request) -> Response:
        if request.method == "POST":
            raise error
        return response

    async def answer_async(request: Request) -> Response:
        return answer(request)

    with taking() as taker:
        tracker: ActivityTracker[Request] = ActivityTracker(taker.url, "token", RULES)
        for method in ("GET", "DELETE"):
            request = Request(method, "/povs/a b")
            assert tracker.activity_tracker_sync(request, answer) is response
            assert asyncio.run(tracker.activity_tracker(request, answer_async)) is response
        request = Request("POST", "/povs/a b")
        with pytest.raises(LookupError, match="a mistake"):
            tracker.activity_tracker_sync(request, answer)
        with pytest.raises(LookupError, match="a mistake"):
            asyncio.run(tracker.activity_tracker(request, answer_async))
        assert tracker.outbox.flush()
        found = [(each["action"], each["povId"], each["userId"]) for each in taker.items]
        assert found == [("removed", "a b", "ana")] * 2 + [("failed", "a b", "ana")] * 2


def test_what_an_application_publishes_itself_belongs_to_its_requests_trace() -> None:
    seen: list[str | None] = []

    def answer(_: object) -> Response:
        seen.append(current_traceparent())
        return Response()

    async def answer_async(request: object) -> Response:
        return answer(request)

    request = SimpleNamespace(method="GET", path="/", headers={"traceparent": TRACE})
    for trace in (True, False):
        tracker: ActivityTracker[object] = ActivityTracker("http://127.0.0.1:9", "", trace=trace)
        tracker.activity_tracker_sync(request, answer)
        asyncio.run(tracker.activity_tracker(request, answer_async))
        assert tracker.outbox.dropped == 0
    assert seen == [TRACE, TRACE, None, None]
    assert current_traceparent() is None


def test_what_a_request_lacks_does_not_hurt_its_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker: ActivityTracker[object] = ActivityTracker("http://127.0.0.1:9", "token", RULES)
    request = SimpleNamespace(method="DELETE", path=None, url=SimpleNamespace(path="/povs/a"))
    assert tracker.activity_tracker_sync(request, lambda _: "no response") == "no response"
    assert tracker.outbox.dropped == 1
    tracker.outbox.close()
    assert "a request was not tracked: AttributeError" in caplog.text


def test_no_framework_is_imported_by_what_all_share() -> None:
    code = (
        "import sys, pov_rt.tracker, pov_rt.tracker.asgi, pov_rt.tracker.wsgi\n"
        "print(sorted({'tornado', 'django', 'asgiref', 'flask', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

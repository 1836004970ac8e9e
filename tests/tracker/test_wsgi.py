"""What WSGI has beside plain answers; tests/tracker/test_neutral.py has Flask under servers."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from flask import Flask, session

from pov_rt.protocol.details.traces import current_traceparent
from pov_rt.tracker import Facts, NewActivity, Track
from pov_rt.tracker.wsgi import ActivityTracker, App, Environ, StartResponse
from tests.tracker.takers import Taker, taking

RULES = [
    Track("DELETE", "/povs/{pov_id}", type="pov", action="removed"),
    Track("POST", "/povs/{pov_id}", type="pov", action="failed", statuses={500}),
]


@pytest.fixture
def taker() -> Iterator[Taker]:
    with taking() as made:
        yield made


class Server:
    """Calls an application as servers do."""

    def __init__(self, method: str = "DELETE", **environ: str) -> None:
        self.environ: Environ = {"REQUEST_METHOD": method, "PATH_INFO": "/povs/acme"}
        self.environ |= {"REMOTE_USER": "ana", "SCRIPT_NAME": "", "QUERY_STRING": "", **environ}
        setup_testing_defaults(self.environ)
        self.body: list[bytes] = []
        self.started: list[Any] = []

    def start_response(self, *arguments: Any) -> Any:
        self.started.append(arguments)
        return self.body.append

    def run(self, app: Any, most: int = 1000) -> None:
        answer: Any = app(self.environ, self.start_response)
        try:
            for piece, _ in zip(answer, range(most), strict=False):
                self.body.append(piece)
        finally:
            if hasattr(answer, "close"):
                answer.close()


class Closing:
    """An answer that says what is done with it."""

    def __init__(self, *pieces: bytes) -> None:
        self.steps: list[Any] = []
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.steps.append(piece)
            yield piece

    def close(self) -> None:
        self.steps.append("closed")


def answering(answer: Iterable[bytes], status: str = "200 OK") -> App:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [("Content-Type", "text/plain")])
        return answer

    return app


def povs(tracker: ActivityTracker, taker: Taker) -> list[str]:
    assert tracker.outbox.flush()
    return [each["povId"] for each in taker.items]


def test_it_keeps_to_the_rules_of_servers_and_applications(taker: Taker) -> None:
    app: Any = validator(answering(Closing(b"a", b"b")))
    tracker = ActivityTracker(app, taker.url, "token", RULES)
    outer: Any = tracker
    server = Server()
    server.run(validator(outer))
    assert server.body == [b"a", b"b"]
    assert povs(tracker, taker) == ["acme"]


def test_an_activity_is_sent_when_the_server_closes_the_answer_read_or_not(taker: Taker) -> None:
    for most in (1, 1000):
        answer = Closing(b"a", b"b")
        tracker = ActivityTracker(answering(answer), taker.url, "token", RULES)
        server = Server()
        made: Any = tracker(server.environ, server.start_response)
        for piece, _ in zip(made, range(most), strict=False):
            assert piece in (b"a", b"b")
        assert tracker.outbox.queued == 0
        made.close()
        assert answer.steps[-1] == "closed"
        assert tracker.outbox.queued == 1
        assert tracker.outbox.flush()


def test_a_list_tells_its_length_and_a_generator_has_none(taker: Taker) -> None:
    def tracked(answer: Iterable[bytes]) -> Any:
        server = Server()
        return ActivityTracker(answering(answer), taker.url, "token", RULES)(
            server.environ, server.start_response
        )

    assert len(tracked([b"a"])) == 1
    assert not hasattr(tracked(iter([b"a"])), "__len__")


def test_the_applications_write_is_the_servers(taker: Taker) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])(b"written")
        return [b"returned"]

    server = Server()
    tracker = ActivityTracker(app, taker.url, "token", RULES)
    server.run(tracker)
    assert server.body == [b"written", b"returned"]
    assert povs(tracker, taker) == ["acme"]


def test_a_generator_begins_its_answer_when_it_is_read(taker: Taker) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"a"

    tracker = ActivityTracker(app, taker.url, "token", RULES)
    Server().run(tracker)
    assert povs(tracker, taker) == ["acme"]


@pytest.mark.parametrize("kind", ["wrapper", "file"])
def test_a_file_goes_to_the_server_as_it_is(kind: str, taker: Taker) -> None:
    file: Any = io.BytesIO(b"content")
    answer = FileWrapper(file) if kind == "wrapper" else file
    tracker = ActivityTracker(answering(answer), taker.url, "token", RULES)
    server = Server()
    server.environ["wsgi.file_wrapper"] = FileWrapper
    assert tracker(server.environ, server.start_response) is answer
    assert povs(tracker, taker) == ["acme"]


def test_the_last_status_counts_of_an_answer_that_is_begun_anew(taker: Taker) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response("500 Oh", [], (ValueError, ValueError(), None))
        return [b""]

    server = Server()
    tracker = ActivityTracker(app, taker.url, "token", RULES)
    server.run(tracker)
    assert [len(each) for each in server.started] == [2, 3]
    assert povs(tracker, taker) == []


def test_what_the_application_raises_comes_out_and_is_500_unless_it_had_begun(
    taker: Taker,
) -> None:
    def fails(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise LookupError("early")

    def fails_later(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        if environ:
            raise LookupError("before a byte")
        yield b""

    def breaks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"a"
        raise LookupError("late")

    for app, method, wanted in (
        (fails, "POST", ["acme"]),
        (fails, "DELETE", []),
        (fails_later, "POST", ["acme"]),
        (fails_later, "DELETE", []),
        (breaks, "POST", []),
        (breaks, "DELETE", []),
    ):
        taker.batches.clear()
        tracker = ActivityTracker(app, taker.url, "token", RULES)
        with pytest.raises(LookupError):
            Server(method).run(tracker)
        assert povs(tracker, taker) == wanted, (app, method)


def test_who_did_it_is_asked_while_the_applications_request_is_there(taker: Taker) -> None:
    inside: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        inside.append("ana")
        try:
            start_response("200 OK", [])
            return [b""]
        finally:
            inside.clear()

    def actor(environ: Environ) -> str:
        return inside[0]

    tracker = ActivityTracker(app, taker.url, "token", RULES, actor=actor)
    Server(REMOTE_USER="").run(tracker)
    assert povs(tracker, taker) == ["acme"]
    assert taker.items[0]["userId"] == "ana"


def test_an_actor_cannot_be_async(taker: Taker, caplog: pytest.LogCaptureFixture) -> None:
    async def actor(environ: Environ) -> str:
        return "ana"

    tracker = ActivityTracker(answering([b""]), taker.url, "token", RULES, actor=actor)
    Server().run(tracker)
    assert tracker.outbox.dropped == 1
    tracker.outbox.close()
    assert "cannot be async" in caplog.text


@pytest.mark.parametrize(
    ("environ", "pov"),
    [
        ({"PATH_INFO": "/povs/a/b", "RAW_URI": "/povs/a%2Fb?q=1"}, "a/b"),
        ({"PATH_INFO": "/povs/a/b", "REQUEST_URI": "/povs/a%2Fb"}, "a/b"),
        ({"PATH_INFO": "/povs/\u00c3\u00bc"}, "\u00fc"),
        ({"SCRIPT_NAME": "/api", "PATH_INFO": "/povs/a", "RAW_URI": "/api/povs/a"}, "a"),
        ({"SCRIPT_NAME": "/api", "PATH_INFO": "/povs/a b"}, "a b"),
        ({"PATH_INFO": "/povs/a", "RAW_URI": "http://host/povs/a"}, "a"),
    ],
)
def test_rules_name_paths_below_where_the_application_is_mounted(
    environ: dict[str, str], pov: str, taker: Taker
) -> None:
    tracker = ActivityTracker(answering([b""]), taker.url, "token", RULES)
    Server(**environ).run(tracker)
    assert povs(tracker, taker) == [pov]


def test_named_parts_of_a_route_are_found_where_routers_put_them(taker: Taker) -> None:
    def describe(facts: Facts) -> NewActivity:
        return NewActivity(type="t", action="a", pov_id=facts.path_arguments["pov"])

    tracker = ActivityTracker(answering([b""]), taker.url, "token", describe=describe)
    server = Server()
    server.environ["wsgiorg.routing_args"] = ((), {"pov": "acme"})
    server.run(tracker)
    assert povs(tracker, taker) == ["acme"]


def test_flasks_session_says_who_did_it(taker: Taker) -> None:
    app = Flask(__name__)
    app.secret_key = "-"

    @app.post("/login")
    def login() -> str:
        session["user_id"] = "ana"
        return "hello"

    @app.delete("/povs/<pov_id>")
    def remove(pov_id: str) -> str:
        return "removed"

    tracker = ActivityTracker(
        app.wsgi_app, taker.url, "token", RULES, actor=lambda environ: session.get("user_id")
    )
    app.wsgi_app = tracker  # type: ignore[method-assign]
    browser = app.test_client()
    for path, method in (("/login", "POST"), ("/povs/acme", "DELETE")):
        browser.open(path, method=method).close()
    assert povs(tracker, taker) == ["acme"]
    assert taker.items[0]["userId"] == "ana"


def test_what_an_application_publishes_itself_belongs_to_its_requests_trace() -> None:
    seen: list[str | None] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(current_traceparent())
        start_response("200 OK", [])
        return []

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    tracker = ActivityTracker(app, "http://127.0.0.1:9", "token", RULES)
    for given in ({"HTTP_TRACEPARENT": trace}, {}):
        server = Server("GET", **given)
        tracker(server.environ, server.start_response)
    assert seen == [trace, None]

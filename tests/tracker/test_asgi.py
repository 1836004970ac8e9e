"""What ASGI has beside plain answers; tests/tracker/test_neutral.py has the frameworks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request

from pov_rt.protocol.details.traces import current_traceparent
from pov_rt.tracker import Track
from pov_rt.tracker.asgi import ActivityTracker, App, Receive, Scope, Send
from tests.tracker.takers import Taker, taking

RULES = [
    Track("DELETE", "/povs/{pov_id}", type="pov", action="removed"),
    Track("POST", "/povs/{pov_id}", type="pov", action="failed", statuses={500}),
]
START = {"type": "http.response.start", "status": 200, "headers": []}
HTTP = {"type": "http", "method": "DELETE", "path": "/povs/acme", "user": "ana"}


def piece(more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": b"x", "more_body": more}


@pytest.fixture
def taker() -> Iterator[Taker]:
    with taking() as made:
        yield made


async def receive() -> dict[str, Any]:
    return {"type": "http.request"}


async def run(tracker: App, scope: Scope) -> list[Any]:
    """Serve a connection, and return what was sent."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await tracker(scope, receive, send)
    return sent


def povs(tracker: ActivityTracker, taker: Taker) -> list[str]:
    """Return the PoVs of what was published."""
    assert tracker.outbox.flush()
    return [each["povId"] for each in taker.items]


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(piece())


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "another"])
def test_what_is_no_request_goes_through_as_it_comes(kind: str, taker: Taker) -> None:
    seen: list[Any] = []
    message = {"type": f"{kind}.anything"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([scope, await receive()])
        await send(message)

    scope = {"type": kind, "path": "/povs/acme"}
    tracker = ActivityTracker(app, taker.url, "token", RULES)
    sent = asyncio.run(run(tracker, scope))
    assert seen[0] is scope
    assert sent[0] is message
    assert povs(tracker, taker) == []


def test_what_it_does_not_watch_has_the_servers_own_send(taker: Taker) -> None:
    sends: list[Send] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sends.append(send)

    async def send(message: Any) -> None:
        raise AssertionError

    tracker = ActivityTracker(app, taker.url, "token", RULES)
    asyncio.run(tracker({**HTTP, "method": "GET"}, receive, send))
    assert sends == [send]


def test_what_waits_is_sent_before_the_server_learns_that_it_may_end(taker: Taker) -> None:
    """Uvicorn ends by the signal that it got then, and no `atexit` is run."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    async def serve() -> None:
        tracker = ActivityTracker(app, taker.url, "token", RULES)
        watch = tracker.tracker.begin(HTTP)
        assert watch is not None
        await watch.answered(200)
        told: list[int] = []

        async def send(message: Any) -> None:
            told.append(tracker.outbox.sent)

        await tracker({"type": "lifespan"}, receive, send)
        assert told == [0, 1]

    asyncio.run(serve())


def test_each_message_is_handed_on_before_anybody_is_asked_and_at_the_last_one_at_once(
    taker: Taker,
) -> None:
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(piece(more=True))
        await send(piece(more=False))
        steps.append("after the answer")

    async def actor(scope: Scope) -> str:
        await asyncio.sleep(0)
        steps.append("asked")
        return "ana"

    async def send(message: Any) -> None:
        steps.append(message["type"].removeprefix("http.response."))

    tracker = ActivityTracker(app, taker.url, "token", RULES, actor=actor)
    asyncio.run(tracker(HTTP, receive, send))
    assert steps == ["start", "body", "body", "asked", "after the answer"]
    assert povs(tracker, taker) == ["acme"]


def test_what_the_application_raises_comes_out_and_is_500_unless_it_had_begun(
    taker: Taker,
) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("early")

    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(piece(more=True))
        raise LookupError("late")

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(scope, receive, send)
        raise LookupError("in the background")

    for app, method, wanted in (
        (fails, "POST", ["acme"]),
        (fails, "DELETE", []),
        (breaks, "POST", []),
        (breaks, "DELETE", []),
        (late, "DELETE", ["acme"]),
    ):
        taker.batches.clear()
        tracker = ActivityTracker(app, taker.url, "token", RULES)
        with pytest.raises(LookupError):
            asyncio.run(run(tracker, {**HTTP, "method": method}))
        assert povs(tracker, taker) == wanted, (app, method)


def test_an_answer_whose_client_has_gone_counts_by_its_status(taker: Taker) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(piece(more=True))

    tracker = ActivityTracker(app, taker.url, "token", RULES)
    asyncio.run(run(tracker, HTTP))
    assert povs(tracker, taker) == ["acme"]


def test_a_file_that_the_server_sends_is_an_end_too(taker: Taker) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": "/x"})
        assert tracker.outbox.queued + tracker.outbox.sent == 1

    tracker = ActivityTracker(app, taker.url, "token", RULES)
    asyncio.run(run(tracker, HTTP))
    assert povs(tracker, taker) == ["acme"]


def test_context_variables_are_the_servers_and_the_applications(taker: Taker) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="none")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert variable.get() == "the server's"
        variable.set("the application's")
        await answer(scope, receive, send)

    async def serve() -> str:
        variable.set("the server's")
        await run(tracker, HTTP)
        return variable.get()

    tracker = ActivityTracker(app, taker.url, "token", RULES)
    assert asyncio.run(serve()) == "the application's"
    assert povs(tracker, taker) == ["acme"]


@pytest.mark.parametrize(
    ("path", "raw_path", "root_path", "pov"),
    [
        ("/povs/a/b", b"/povs/a%2Fb", "", "a/b"),
        ("/povs/a b", None, "", "a b"),
        ("/api/povs/a/b", b"/api/povs/a%2Fb", "/api", "a/b"),
        ("/povs/a", b"/api/povs/a", "/api", "a"),  # a mount that cuts the path, but not as it came
    ],
)
def test_rules_name_paths_below_where_the_application_is_mounted(
    path: str, raw_path: bytes | None, root_path: str, pov: str, taker: Taker
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["root_path"] += "/deeper"  # as a router does that hands on to another one
        await answer(scope, receive, send)

    scope = {**HTTP, "path": path, "raw_path": raw_path, "root_path": root_path}
    tracker = ActivityTracker(app, taker.url, "token", RULES)
    asyncio.run(run(tracker, scope))
    assert povs(tracker, taker) == [pov]


def test_the_user_is_whom_an_authentication_put_into_the_scope(taker: Taker) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = {"id": 7}
        await answer(scope, receive, send)

    tracker = ActivityTracker(app, taker.url, "token", RULES)
    asyncio.run(run(tracker, {**HTTP, "user": None}))
    assert povs(tracker, taker) == ["acme"]
    assert taker.items[0]["userId"] == "7"


def test_what_a_dependency_of_fastapi_found_out_is_there(taker: Taker) -> None:
    app = FastAPI()
    made: list[ActivityTracker] = []

    class Kept(ActivityTracker):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    def sign_in(request: Request) -> None:
        request.state.user_id = "ana"

    @app.delete("/povs/{pov_id}", dependencies=[Depends(sign_in)])
    async def remove(pov_id: str) -> None:
        """Remove it."""

    app.add_middleware(
        Kept,
        url=taker.url,
        token="token",
        rules=RULES,
        actor=lambda scope: scope.get("state", {}).get("user_id"),
    )
    scope: Scope = {**HTTP, "user": None, "query_string": b"", "headers": []}
    asyncio.run(run(app, scope))
    assert povs(made[0], taker) == ["acme"]
    assert taker.items[0]["userId"] == "ana"


def test_what_an_application_publishes_itself_belongs_to_its_requests_trace() -> None:
    seen: list[str | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(current_traceparent())

    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    tracker = ActivityTracker(app, "http://127.0.0.1:9", "token", RULES)
    for headers in ([(b"traceparent", trace)], [(b"traceparent", trace)] * 2, []):
        asyncio.run(run(tracker, {**HTTP, "method": "GET", "headers": headers}))
    asyncio.run(run(tracker, {"type": "lifespan"}))
    assert seen == [trace.decode(), None, None, None]

"""Starlette, FastAPI and Litestar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from litestar import Litestar, route
from litestar import Request as LitestarRequest
from litestar import Response as LitestarResponse
from litestar.response import Stream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pov_rt.tracker.asgi import ActivityTracker, App, Receive, Scope, Send
from tests.tracker.apps.common import PIECES, trackers

METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"]
made: list[ActivityTracker] = []


class Kept(ActivityTracker):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        made.append(self)


def header(scope: Scope, name: str) -> str | None:
    found: bytes | None = dict(scope["headers"]).get(name.lower().encode())
    return found.decode() if found else None


async def pieces() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece


async def answer(request: Request) -> Response:
    behave = request.headers.get("X-Behave")
    if behave == "raise":
        raise RuntimeError("a mistake of the application's")
    if behave == "stream":
        return StreamingResponse(pieces())
    return Response(status_code=int(request.headers.get("X-Status", "200")))


def make_starlette(options: dict[str, Any]) -> App:
    app = Starlette(
        routes=[
            Route("/named/{pov_id}", answer, methods=METHODS),
            Route("/{path:path}", answer, methods=METHODS),
        ]
    )
    app.add_middleware(Kept, **options)
    return app


def make_fastapi(options: dict[str, Any]) -> App:
    app = FastAPI()
    app.add_middleware(Kept, **options)
    app.add_api_route("/named/{pov_id}", answer, methods=METHODS)
    app.add_api_route("/{path:path}", answer, methods=METHODS)
    return app


@route(
    ["/", "/named/{pov_id:str}", "/{path:path}"],
    http_method=["GET", "OPTIONS", "HEAD", "POST", "PUT", "DELETE"],
    status_code=200,
)
async def litestar_answer(request: LitestarRequest[Any, Any, Any]) -> LitestarResponse[Any]:
    behave = request.headers.get("X-Behave")
    if behave == "raise":
        raise RuntimeError("a mistake of the application's")
    if behave == "stream":
        return Stream(pieces())
    return LitestarResponse(None, status_code=int(request.headers.get("X-Status", "200")))


def make_litestar(options: dict[str, Any]) -> App:
    app: Any = Litestar([litestar_answer])
    return Kept(app, **options)


class Apps:
    """One application for each tracker."""

    def __init__(self, make: Any) -> None:
        self.apps = {name: make(options) for name, options in trackers(header).items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.apps["plain"](scope, receive, send)
        elif scope["path"] == "/flush":
            assert all([tracker.outbox.flush() for tracker in made])
            await Response()(scope, receive, send)
        else:
            await self.apps[header(scope, "X-Options") or "plain"](scope, receive, send)


def starlette() -> Apps:
    return Apps(make_starlette)


def fastapi() -> Apps:
    return Apps(make_fastapi)


def litestar() -> Apps:
    return Apps(make_litestar)

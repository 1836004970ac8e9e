"""Django, under WSGI and ASGI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path, re_path

from pov_rt.tracker.django import ActivityTracker
from tests.tracker.apps.common import PIECES, trackers

made: list[ActivityTracker] = []


class Kept(ActivityTracker):
    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        made.append(self)


def header(request: HttpRequest, name: str) -> str | None:
    found: str | None = request.headers.get(name)
    return found


async def pieces() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece


def respond(request: HttpRequest, content: object) -> Any:
    behave = header(request, "X-Behave")
    if behave == "raise":
        raise RuntimeError("a mistake of the application's")
    if behave == "stream":
        return StreamingHttpResponse(content)
    return HttpResponse(status=int(header(request, "X-Status") or 200))


def answer(request: HttpRequest, **_: str) -> Any:
    return respond(request, PIECES)


async def answer_async(request: HttpRequest, **_: str) -> Any:
    return respond(request, pieces())


def flush(request: HttpRequest) -> Any:
    assert all([tracker.outbox.flush() for tracker in made])
    return HttpResponse()


urlpatterns: list[Any] = []


def configure(view: Callable[..., Any]) -> None:
    settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.Kept"], SECRET_KEY="-"
    )
    urlpatterns[:] = [
        path("flush", flush),
        path("named/<pov_id>", view),
        re_path("^.*$", view),
    ]
    django.setup(set_prefix=False)


def handlers(kind: type[Any]) -> dict[str, Any]:
    """Return a handler for each tracker; it reads the settings when it is made."""
    found = {}
    for name, options in trackers(header).items():
        settings.POV_RT_TRACKER = options
        found[name] = kind()
    return found


def wsgi() -> Callable[..., Iterable[bytes]]:
    configure(answer)
    apps = handlers(WSGIHandler)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer: Iterable[bytes] = apps[environ.get("HTTP_X_OPTIONS", "plain")](
            environ, start_response
        )
        return answer

    return app


def asgi() -> Any:
    configure(answer_async)
    apps = handlers(ASGIHandler)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        options = dict(scope.get("headers", ())).get(b"x-options", b"plain").decode()
        await apps[options](scope, receive, send)

    return app

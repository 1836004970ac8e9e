"""Flask."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from flask import Flask, Response, request

from pov_rt.tracker import NewActivity
from pov_rt.tracker.wsgi import ActivityTracker, Environ, StartResponse
from tests.tracker.apps.common import PIECES, trackers

METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"]


def header(environ: Environ, name: str) -> str | None:
    found: str | None = environ.get("HTTP_" + name.upper().replace("-", "_"))
    return found


def answer(**_: str) -> Response:
    behave = request.headers.get("X-Behave")
    if behave == "raise":
        raise RuntimeError("a mistake of the application's")
    if behave == "stream":
        return Response(iter(PIECES))
    return Response(status=int(request.headers.get("X-Status", "200")))


def make(options: dict[str, Any]) -> Flask:
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    app.add_url_rule("/named/<pov_id>", view_func=answer, methods=METHODS)
    app.add_url_rule(
        "/<path:path>", view_func=answer, methods=METHODS, provide_automatic_options=False
    )
    tracker = ActivityTracker(app.wsgi_app, **options)
    made.append(tracker)
    app.wsgi_app = tracker  # type: ignore[method-assign]
    return app


made: list[ActivityTracker] = []
apps = {name: make(options) for name, options in trackers(header).items()}


if "POV_EARLY" in os.environ:  # before a server forks
    made[0].outbox.put(NewActivity(type="app", action="started", pov_id="acme", user_id="app"))


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/flush":
        assert all([tracker.outbox.flush() for tracker in made])
        start_response("200 OK", [])
        return [b""]
    return apps[header(environ, "X-Options") or "plain"](environ, start_response)

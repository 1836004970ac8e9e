"""Tornado."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.routing import Router
from tornado.web import Application, RequestHandler

from pov_rt.tracker.tornado import ActivityTracker
from tests.tracker.apps.common import PIECES, trackers

made: list[ActivityTracker] = []


def header(handler: RequestHandler, name: str) -> str | None:
    found: str | None = handler.request.headers.get(name)
    return found


class Answer(RequestHandler):
    async def answer(self, **_: str) -> None:
        behave = header(self, "X-Behave")
        if behave == "raise":
            raise RuntimeError("a mistake of the application's")
        if behave == "stream":
            for piece in PIECES:
                self.write(piece)
                await self.flush()
        self.set_status(int(header(self, "X-Status") or 200))

    get = head = options = post = put = delete = answer


class Flush(RequestHandler):
    async def post(self) -> None:
        for tracker in made:
            assert await tracker.flush()


def make(options: dict[str, Any]) -> Application:
    app = Application([("/flush", Flush), ("/named/(?P<pov_id>[^/]+)", Answer), (".*", Answer)])
    tracker = ActivityTracker(**options)
    made.append(tracker)
    return tracker.wrap(app)


class Apps(Router):
    """One application for each tracker."""

    def __init__(self) -> None:
        self.apps = {name: make(options) for name, options in trackers(header).items()}

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate | None:
        app = self.apps[request.headers.get("X-Options", "plain")]
        return app.find_handler(request, **kwargs)


async def main(port: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = HTTPServer(Apps())
    server.listen(port, "127.0.0.1")
    print("listens", file=sys.stderr, flush=True)
    await ended.wait()
    for tracker in made:
        await tracker.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

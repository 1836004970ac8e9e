"""Under --dev, while a mistake keeps the server from starting: tells its author, in the console.

Nothing else works meanwhile, and says so. A server without the plugin that is wrong would refuse
what its clients rightly send and grant what its authoriser would not, and its author would look
for the mistake in the wrong place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from pov_rt.config.settings import ServerSettings, SettingsError
from pov_rt.protocol.encoding import encode, http_error
from pov_rt.protocol.errors import ClientError, Unavailable
from pov_rt.registry.problem import Problem
from pov_rt.web.routes.dev.pages import find_file, require_local, send_file
from pov_rt.web.sockets import OwnSockets

log = logging.getLogger(__name__)

HANG_UP_S = 1.0
AWAY = "The server does not run: a file of it is wrong"
PAGES = {"/": "console.html"}


class StandInHandler(RequestHandler):
    """Answers everything: the console and its files, what is wrong, and 503 to all else."""

    problem: Problem

    def initialize(self, problem: Problem) -> None:
        """Take what is wrong."""
        self.problem = problem

    def set_default_headers(self) -> None:
        """Say what holds for every answer, as the server does."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")

    def prepare(self) -> None:
        """Refuse what only the server itself could do, and strangers: the problem shows source."""
        try:
            require_local(self.request.host, self.request)
            if self.request.method not in ("GET", "HEAD"):
                raise Unavailable(AWAY)
        except ClientError as error:
            self._refuse(error)

    def get(self) -> None:
        """Send a page, one of its files, or the problem."""
        path = self.request.path
        if path == "/dev/problem.json":
            self.set_header("Content-Type", "application/json")
            self.finish(encode({"problem": self.problem}))
            return
        folder, _, name = path.rpartition("/")
        file = find_file(PAGES.get(path) or (name if folder == "/dev" else ""))
        if file is None:
            self._refuse(Unavailable(AWAY))
        else:
            send_file(self, file)

    def head(self) -> None:
        """Answer as `get` does; Tornado leaves the body out."""
        self.get()

    def _refuse(self, error: ClientError) -> None:
        self.set_status(error.status)
        self.set_header("Content-Type", "application/json")
        if error.retry_after_s is not None:
            self.set_header("Retry-After", str(round(error.retry_after_s)))
        self.finish(http_error(error))


@asynccontextmanager
async def stand_in(server: ServerSettings, problem: Problem) -> AsyncIterator[None]:
    """Listen in the block where the server would; on a Unix socket, or a taken port, nowhere."""
    if server.unix:
        yield
        return
    own = OwnSockets()
    try:
        sockets = own.listen(server.host, server.port)
    except SettingsError as error:
        log.info("the console cannot show it: %s", error)
        yield
        return
    http = HTTPServer(
        Application(
            [(r".*", StandInHandler, {"problem": problem})], log_function=lambda handler: None
        )
    )
    http.add_sockets(sockets)
    try:
        yield
    finally:
        http.stop()
        own.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(http.close_all_connections(), HANG_UP_S)

"""The demo's app in the server: where it is mounted, for whom, and how long it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.routing import Router
from tornado.web import Application

from pov_rt.auth.grants import Kind
from pov_rt.protocol.errors import ClientError
from pov_rt.registry.schema import address
from pov_rt.server.server import Server
from pov_rt.tracker.tornado import ActivityTracker
from pov_rt.web.demo.app import RULES, make_app
from pov_rt.web.demo.board import Board
from pov_rt.web.demo.content import first_activities, first_povs
from pov_rt.web.hosts import HostRules, check_host, check_origin
from pov_rt.web.routes.dev.pages import require_local

FILE = "demo.json"
"""The board's, in the data folder."""
TOKEN_S = 600.0
MAX_BODY_BYTES = 16 * 1024
EVERYTHING = ("subscribe", "publish", "collaborate")


class Demo(Router):
    """The way to the app, from `start` to `stop`. Owner: the web server.

    Only browsers on the server's machine get there, by a local name: the app gives tokens to
    whoever says who they are.
    """

    def __init__(
        self,
        server: Server,
        host_rules: HostRules,
        access_log: Callable[[Any], None],
        restart: Callable[[], bool],
    ) -> None:
        self.restart = restart
        self._server = server
        self._host_rules = host_rules
        self._access_log = access_log
        self._povs = [pov.id for pov in first_povs()]
        self._app: Application | None = None
        self._telling = asyncio.Lock()

    def start(self, host: str, port: int) -> None:
        """Begin, once the server listens there. Raises OSError if the board cannot be read."""
        where = ip_address(host)
        if where.is_unspecified:  # all addresses of this machine, of which one leads there
            host = "127.0.0.1" if where.version == 4 else "::1"
        folder = self._server.settings.server.data
        self._board = Board(Path(folder, FILE) if folder else None, self._server.clock)
        self._tracker = ActivityTracker(
            f"http://{address(host, port)}",
            self._service_token,
            RULES,
            before_send=self._board.describe,
        )
        self._app = make_app(self._board, self._tracker, self, log_function=self._access_log)

    async def stop(self) -> None:
        """Send what waits: while the server still listens."""
        if self._app is not None:
            await self._tracker.close()

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate | None:
        """Return who answers; None for what the next route refuses, or takes."""
        if self._app is None:
            return None
        try:
            settings = self._server.settings
            host = check_host(request, settings, self._host_rules)
            check_origin(request, host, settings)
            require_local(host, request)
        except ClientError:
            return None
        connection: Any = request.connection
        connection.set_max_body_size(MAX_BODY_BYTES)
        return self._app.find_handler(request)

    def token(self, user_id: str) -> str:
        """Return a socket token for the demo's proofs of value."""
        issue = self._server.tokens.issue
        return issue(Kind.SOCKET, user_id, ttl_s=TOKEN_S, povs=self._povs, can=EVERYTHING)

    async def end_tokens(self, user_id: str) -> None:
        """Make the user's tokens void, and end the connections that were opened with them."""
        await self._server.directory.revoke(token_id=None, user_id=user_id, before=None)

    async def tell_beginning(self) -> None:
        """Publish what the board begins with, once; it is in the log then."""
        async with self._telling:
            if self._board.state.is_told:
                return
            for activity in first_activities(self._board.state.begun):
                self._tracker.outbox.put(activity)
            await self._tracker.flush()
            self._board.told()

    def _service_token(self) -> str:
        issue = self._server.tokens.issue
        return issue(Kind.SERVICE, "demo", ttl_s=TOKEN_S, povs=self._povs)

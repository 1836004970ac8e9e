"""The web side of a node: routes, listeners, the periodic sweep, and their end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback

from pov_rt.config.settings import Settings, SettingsError
from pov_rt.plugin.interfaces import Response
from pov_rt.protocol.errors import InvalidRequest, Unavailable
from pov_rt.registry.build import Registry
from pov_rt.runtime.blocked import BlockWatch
from pov_rt.runtime.limits import KeyedBuckets, parse_rate
from pov_rt.runtime.logs import Throttle
from pov_rt.server.server import Server
from pov_rt.transport.bounds import bounds_of
from pov_rt.transport.wire import Wire
from pov_rt.web.handshake import EchoHandler, SocketHandler
from pov_rt.web.hosts import Door, is_loopback
from pov_rt.web.http import AccessLog
from pov_rt.web.listener import ADMIN_CONNECTIONS, Listener, capacity
from pov_rt.web.routes.activities import ActivitiesHandler, HistoryHandler
from pov_rt.web.routes.console import ConsoleDataHandler, ConsoleHandler
from pov_rt.web.routes.ops import (
    HealthHandler,
    LoopLag,
    MetricsHandler,
    ReadyHandler,
    ServerCollector,
)
from pov_rt.web.routes.plugins import PluginHandler, plugin_paths
from pov_rt.web.routes.token import TokenHandler
from pov_rt.web.routing import MAX_BODY_BYTES, Site

log = logging.getLogger(__name__)

SWEEP_MS = 1000
MAX_HEADER_BYTES = 16 * 1024
MAX_FETCHED_BYTES = 1024 * 1024
BODY_S = 30.0
BACKLOG = 4096
"""Connections that the kernel keeps for us; it takes no more than net.core.somaxconn."""
HANG_UP_S = 2.0
"""How long a drained node waits for its sockets to end."""


async def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = 5.0,
) -> Response:
    """Make an HTTP request, bounded in time and size; redirects are not followed."""
    client = AsyncHTTPClient(force_instance=True, max_body_size=MAX_FETCHED_BYTES)
    request = HTTPRequest(
        url,
        method=method,
        headers=dict(headers or {}),
        body=body,
        request_timeout=timeout_s,
        connect_timeout=timeout_s,
        follow_redirects=False,
        allow_nonstandard_methods=True,
    )
    try:
        answer = await client.fetch(request, raise_error=False)
    except (OSError, HTTPClientError, ValueError) as error:
        raise Unavailable(f"no answer from {url.partition('?')[0]}: {error}") from error
    finally:
        client.close()
    if answer.code == 599:
        raise Unavailable(f"no answer from {url.partition('?')[0]}: {answer.error}")
    return Response(answer.code, dict(answer.headers.get_all()), answer.body or b"")


class WebServer:
    """A node with its listeners. `start`, then `stop`, each once, on a running loop."""

    def __init__(self, settings: Settings, registry: Registry, **server: Any) -> None:
        self.settings = settings
        self.server = Server(settings, registry, fetch=fetch, **server)
        self._wires: set[Wire] = set()
        self._hung_up = asyncio.Event()
        self._listeners: list[Listener] = []
        self._own_sockets: list[socket.socket] = []
        self._own_file: tuple[int, int] | None = None
        """Device and inode of our Unix socket, which another server may have replaced since."""
        self._door, self._operators_door = Door(), Door(for_operators=True)
        self._access_log = AccessLog(self.server.clock)
        self._sweep = PeriodicCallback(self._on_sweep, SWEEP_MS)
        files = [found.module.__file__ or "" for found in registry.found]
        loop = asyncio.get_running_loop()
        self._blocked = BlockWatch(loop, settings.log.blocked_loop_s, files)
        self._lag = LoopLag(loop)
        self.http = self._serve(self.make_app())
        self.admin = self._serve(self.make_admin_app())

    @property
    def port(self) -> int:
        """The port that clients connect to; 0 on a Unix socket."""
        return _port(self._listeners[0])

    @property
    def admin_port(self) -> int:
        """The port of health and metrics."""
        return _port(self._listeners[1])

    @property
    def sockets(self) -> int:
        """How many WebSockets are open, with those that are being closed."""
        return len(self._wires)

    @property
    def unsent_bytes(self) -> int:
        """What waits for all clients to read."""
        return sum(wire.unsent_bytes for wire in self._wires)

    @property
    def paused(self) -> int:
        """How many sockets are not read, until handlers have done what came."""
        return sum(wire.paused for wire in self._wires)

    @property
    def http_connections(self) -> int:
        """How many connections of clients are open for HTTP, with those that may become sockets."""
        return len(self.http._connections)  # noqa: SLF001  (no public count)

    async def start(self, inherited: Sequence[socket.socket] = ()) -> None:
        """Start the node and listen, on the inherited sockets if there are any.

        Raises `SettingsError` if an address cannot be had, else as `Server.start`.
        """
        settings = self.settings.server
        sockets = list(inherited) or self._bind(settings.host, settings.port, settings.unix)
        try:
            admin = self._bind(settings.admin_host, settings.admin_port, None)
            await self.server.start()
        except BaseException:
            self._close_sockets()
            raise
        self._door.is_local = all(_is_local(sock) for sock in sockets)
        self._operators_door.is_local = all(_is_local(sock) for sock in admin)
        complaint = Throttle(log)
        self._listeners = [
            Listener(
                self.http,
                sockets,
                capacity=capacity(self.settings.limits.connections),
                busy=lambda: self.sockets + self.http_connections,
                complaint=complaint,
                malformed=self._malformed,
            ),
            # Out of the reserve, so that neither can lock the other out.
            Listener(
                self.admin,
                admin,
                capacity=ADMIN_CONNECTIONS,
                busy=lambda: len(self.admin._connections),  # noqa: SLF001  (no public count)
                complaint=complaint,
                malformed=self._malformed,
            ),
        ]
        self._sweep.start()
        self._blocked.start()
        self._lag.start()

    def apply(self, settings: Settings) -> None:
        """Take over settings that may change while running; handlers see the node's."""
        self.settings = self.server.settings = settings

    async def stop(self) -> None:
        """Drain: refuse new clients, close the others in waves, then let go of everything."""
        if self._listeners:
            self.server.draining = True
            self._listeners[0].stop()
            await self.server.drain()
            await self._hang_up()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.server.publishing.close(), HANG_UP_S)
        for http in (self.http, self.admin):
            with suppress(TimeoutError):
                await asyncio.wait_for(http.close_all_connections(), HANG_UP_S)
        for listener in self._listeners[1:]:
            listener.stop()
        self._sweep.stop()
        self._lag.stop()
        await self.server.stop()
        for wire in list(self._wires):
            wire.abort()
        self._close_sockets()
        if self._listeners:
            self._blocked.stop()

    def make_app(self) -> Site:
        """Return the routes that clients use."""
        wires = {
            "started": self._wire_started,
            "ended": self._wire_ended,
            "bounds": bounds_of(self.settings.limits),
        }
        buckets = KeyedBuckets(parse_rate(self.settings.limits.token_rate))
        # The first that fits is taken: those that are asked for most come first.
        routes: list[tuple[Any, ...]] = [
            (r"/ws/(?!_echo$).*", SocketHandler, wires),
            (r"/api/auth/ws-token", TokenHandler, {"buckets": buckets}),
            (r"/api/activities", ActivitiesHandler),
            (r"/api/povs/([^/]+)/activities", HistoryHandler),
        ]
        for path, methods in plugin_paths(self.server.registry).items():
            routes.append((path, PluginHandler, {"routes": methods}))
        if self.settings.dev:
            routes.append((r"/", ConsoleHandler))
            routes.append((r"/dev/console.json", ConsoleDataHandler))
        if self.settings.server.conformance_echo:
            routes.append((r"/ws/_echo", EchoHandler, wires))
        return self._site(routes, self._door)

    def make_admin_app(self) -> Site:
        """Return the routes that operators use."""
        metrics = CollectorRegistry()
        metrics.register(
            ServerCollector(
                self.server,
                unsent_bytes=lambda: self.unsent_bytes,
                paused=lambda: self.paused,
                blocks=lambda: self._blocked.blocks,
                lag_s=lambda: self._lag.worst_s,
                refused=self._access_log.refused,
            )
        )
        return self._site(
            [
                (r"/healthz", HealthHandler),
                (r"/readyz", ReadyHandler),
                (r"/metrics", MetricsHandler, {"metrics": metrics}),
            ],
            self._operators_door,
        )

    def _site(self, routes: Sequence[tuple[Any, ...]], door: Door) -> Site:
        return Site(
            routes,
            access_log=self._access_log,
            body_bytes=self.settings.limits.publish_bytes,
            arguments={"server": self.server, "door": door},
        )

    def _serve(self, site: Site) -> HTTPServer:
        return HTTPServer(
            site,
            max_header_size=MAX_HEADER_BYTES,
            max_body_size=MAX_BODY_BYTES,
            body_timeout=BODY_S,
        )

    def _bind(self, host: str, port: int, unix: str | None) -> list[socket.socket]:
        try:
            if unix is not None:
                sockets = [_listen_unix(unix)]
                self._own_file = _file_id(unix)
            else:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                sockets = [socket.create_server((host, port), family=family, backlog=BACKLOG)]
                sockets[0].setblocking(False)
        except (OSError, ValueError, OverflowError) as error:
            where = unix if unix is not None else f"{host}:{port}"
            raise SettingsError(f"cannot listen on {where}: {error}") from error
        self._own_sockets.extend(sockets)
        return sockets

    def _on_sweep(self) -> None:
        self.server.sweep()
        limits = self.settings.limits
        for listener in self._listeners:
            listener.sweep(limits.handshake_s, limits.keepalive_s)

    def _malformed(self) -> None:
        self._access_log.count(InvalidRequest.code)

    def _wire_started(self, wire: Wire) -> None:
        self._wires.add(wire)
        self._hung_up.clear()

    def _wire_ended(self, wire: Wire) -> None:
        self._wires.discard(wire)
        if not self._wires:
            self._hung_up.set()

    async def _hang_up(self) -> None:
        if self._wires:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hung_up.wait(), HANG_UP_S)

    def _close_sockets(self) -> None:
        for sock in self._own_sockets:
            sock.close()
        self._own_sockets.clear()
        unix = self.settings.server.unix
        if unix is not None and self._own_file is not None:
            with suppress(OSError):
                if _file_id(unix) == self._own_file:
                    os.unlink(unix)
        self._own_file = None


def _port(listener: Listener) -> int:
    name = listener.sockets[0].getsockname()
    return int(name[1]) if isinstance(name, tuple) else 0


def _is_local(sock: socket.socket) -> bool:
    name = sock.getsockname()
    return isinstance(name, tuple) and is_loopback(name[0])


def _file_id(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _listen_unix(path: str) -> socket.socket:
    """Listen on a Unix socket that the group may write to; one that was left behind is replaced.

    Not so one that somebody listens on (Tornado's `bind_unix_socket` would replace it): that server
    would never hear of a client again.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError("there is a file of that name")
        if _is_listened_on(path):
            raise OSError("another server listens there")
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        sock.bind(path)
        os.chmod(path, 0o660)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_listened_on(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # it is too busy to accept
            return True
        except ConnectionRefusedError:
            return False
    return True

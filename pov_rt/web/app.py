"""The web side of a node: routes, listeners, the periodic sweep, and their end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from prometheus_client.core import Metric
from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.routing import PathMatches, Rule
from tornado.web import Application

from pov_rt.auth.tokens import Identity
from pov_rt.config.networks import read_address
from pov_rt.config.settings import Settings
from pov_rt.protocol.bodies import EngineState, Happenings, NodeHour, NodesState, NodeState
from pov_rt.protocol.tenants import wire_of
from pov_rt.registry.build import Registry
from pov_rt.runtime.blocked import BlockWatch
from pov_rt.runtime.clock import rfc3339
from pov_rt.runtime.limits import KeyedBuckets, parse_rate
from pov_rt.runtime.process.logs import Throttle
from pov_rt.server.arrivals import PARTING_S
from pov_rt.server.nodes.asking import Question
from pov_rt.server.now import Hour
from pov_rt.server.server import Server
from pov_rt.transport.bounds import bounds_of
from pov_rt.transport.wire import Wire
from pov_rt.version import VERSION
from pov_rt.web.addresses import Failures, address_key, is_trusted
from pov_rt.web.bodies import BODY_S, Bodies
from pov_rt.web.demo.app import API
from pov_rt.web.demo.mount import Demo
from pov_rt.web.fetch import fetch
from pov_rt.web.handshake import EchoHandler, SocketHandler
from pov_rt.web.hosts import HostRules
from pov_rt.web.http import AccessLog, Fallback, Routes
from pov_rt.web.listener import ADMIN_CONNECTIONS, Listener, capacity
from pov_rt.web.publication.intake import Intake
from pov_rt.web.routes.activities import ActivitiesHandler, HistoryHandler
from pov_rt.web.routes.admin.listings import ListingHandler
from pov_rt.web.routes.admin.page import AdminPageHandler, NodeHandler, NodesHandler
from pov_rt.web.routes.client import ClientHandler, served
from pov_rt.web.routes.dev.console import (
    ConsoleDataHandler,
    ProblemHandler,
    TokenCheckHandler,
    Trouble,
)
from pov_rt.web.routes.dev.pages import LocalPageHandler, PageHandler
from pov_rt.web.routes.ops import (
    Counters,
    HealthHandler,
    LoopLag,
    MetricsHandler,
    ReadyHandler,
    ReadyToPublishHandler,
    by_label,
    counter,
    gauge,
)
from pov_rt.web.routes.people import (
    AuditHandler,
    BlockHandler,
    ExportHandler,
    PovHandler,
    UserHandler,
)
from pov_rt.web.routes.plugins import PluginHandler, plugin_paths
from pov_rt.web.routes.session import MessagesHandler, SessionHandler
from pov_rt.web.routes.stream import FeedStreamHandler, InboxStreamHandler, StreamHandler
from pov_rt.web.routes.token import TokenHandler
from pov_rt.web.routes.trace import ActivityHandler, ExplainHandler, TraceHandler
from pov_rt.web.sockets import CHOOSE_ADMIN_PORT, OwnSockets, is_local, port_of
from pov_rt.web.stream import MAX_HEADER_BYTES
from pov_rt.web.upgrade.entry import Entry

log = logging.getLogger(__name__)

SWEEP_MS = 1000
MAX_BODY_BYTES = 10**18
"""What Tornado may read: the limits are ours, for it refuses with an empty 400."""
ADMIN_REQUEST_S = 2.0
"""How long a request may take to arrive at the admin port: who asks there is near."""
FAILURES_AT_ONCE = 10.0
"""Seconds' worth of `limits.failed_rate`: many come at once from behind one address, when all that
were away return with tokens that have expired."""
HANG_UP_S = 2.0
"""How long each of a drained node's last steps may take."""
ASK_S = 0.2
"""How long a client has that connected just before the port was left, for its request to come."""
ANSWER_S = 0.5
"""How long the answers may take to what was asked since the drain began: nobody else is answered
meanwhile."""
STATE = Question("state", str, NodeState)
"""What another node is in numbers, for the operator of that name."""


class WebServer:
    """A node with its listeners. `start`, then `stop`, each once, on a running loop."""

    def __init__(self, settings: Settings, registry: Registry, **server: Any) -> None:
        self.settings = settings
        self.server = Server(settings, registry, fetch=fetch, **server)
        self.server.asking.on(STATE, self._answer_state)
        self.trouble = Trouble()
        self._wires: dict[Wire, None] = {}  # a set has room for three times as many
        self._hung_up = asyncio.Event()
        self._listeners: list[Listener] = []
        self._own_sockets = OwnSockets()
        self._host_rules, self._admin_host_rules = HostRules(), HostRules(for_operators=True)
        self._access_log = AccessLog(self.server.clock)
        limits, clock = settings.limits, self.server.clock
        self._bodies = Bodies(limits, clock)
        self._failures = Failures(parse_rate(limits.failed_rate, FAILURES_AT_ONCE), clock)
        self.server.bounds.add(self._bodies.shares.bound)
        self._sweep = PeriodicCallback(self._on_sweep, SWEEP_MS)
        files = [found.module.__file__ or "" for found in registry.found]
        self.port_stays = False
        """Whether the port stays open when the node has stopped, for the next one."""
        self.is_succeeded = False
        """Whether that one is ready by then."""
        self._loop = loop = asyncio.get_running_loop()
        self._blocked = BlockWatch(loop, settings.log.blocked_loop_s, files)
        self._blocked.on_block = self.server.hooks.conduct.blocked
        self._lag = LoopLag(loop)
        self._hour = Hour(self.server.clock)
        self.on_restart: Callable[[], None] | None = None
        """Has the process start anew; whoever runs one that can sets it."""
        self._demo: Demo | None = None
        if settings.dev:
            self._demo = Demo(self.server, self._host_rules, self._access_log, self._restart)
        self._bounds = bounds_of(limits, self.server.borders)
        self._entry = Entry(
            self.server,
            self._host_rules,
            self._failures,
            self._bounds,
            loop,
            self._wire_started,
            self._wire_ended,
        )
        self._intake = Intake(
            self.server, self._host_rules, self._failures, self._bodies, self._access_log
        )
        self.http = self._serve(self.make_app())
        self.admin = self._serve(self.make_admin_app())

    @property
    def port(self) -> int:
        """The port that clients connect to; 0 on a Unix socket."""
        return port_of(self._listeners[0].sockets[0])

    @property
    def admin_port(self) -> int:
        """The port of health and metrics."""
        return port_of(self._listeners[1].sockets[0])

    @property
    def sockets(self) -> int:
        """How many WebSockets are open, with those that are being closed."""
        return len(self._wires)

    @property
    def unsent_bytes(self) -> int:
        """What waits for all clients to read."""
        fetched = sum(each.unsent_bytes for each in self.server.sessions.polled.values())
        return fetched + sum(wire.unsent_bytes for wire in self._wires)

    @property
    def unsent_s(self) -> float:
        """For how long a client has had something to read, of all that have the longest."""
        now = self._loop.time()
        since = (wire.unsent_since for wire in self._wires)
        return max((now - each for each in since if each is not None), default=0.0)

    @property
    def paused(self) -> int:
        """How many sockets are not read, until handlers have done what came."""
        return sum(wire.paused for wire in self._wires)

    @property
    def http_connections(self) -> int:
        """How many connections of clients are open for HTTP, with those that may become sockets."""
        return self._listeners[0].open if self._listeners else 0

    async def start(self, inherited: Sequence[socket.socket] = ()) -> None:
        """Start the node and listen, on the inherited sockets if there are any.

        Raises `SettingsError` if an address cannot be had, else as `Server.start`.
        """
        settings = self.settings.server
        self.port_stays = bool(inherited)
        listen = self._own_sockets.listen
        sockets = list(inherited) or listen(settings.host, settings.port, settings.unix)
        try:
            admin = listen(settings.admin_host, settings.admin_port, remedy=CHOOSE_ADMIN_PORT)
            await self.server.start()
        except BaseException:
            self._own_sockets.close()
            raise
        self._host_rules.is_local = all(map(is_local, sockets))
        self._admin_host_rules.is_local = all(map(is_local, admin))
        listener = partial(Listener, complaint=Throttle(log), refused=self._access_log.refuse)
        limits = self.settings.limits
        self._listeners = [
            listener(
                self.http,
                sockets,
                name="connections",
                setting="limits.connections",
                capacity=capacity(limits.connections),
                entry=self._entry,
                intake=self._intake,
                others=lambda: self.sockets,
                per_peer=limits.connections_per_address,
                peer_of=self._peer_of,
                is_behind=self.server.joins.has_queue,
            ),
            # Out of the reserve, so that neither can lock the other out.
            listener(self.admin, admin, name="admin_connections", capacity=ADMIN_CONNECTIONS),
        ]
        self.server.bounds.add(*(each.bound for each in self._listeners))
        self._sweep.start()
        self._blocked.start()
        self._lag.start()
        if self._demo is not None and self.port:
            self._demo.start(self._listeners[0].sockets[0].getsockname()[0], self.port)

    def apply(self, settings: Settings) -> None:
        """Take over settings that may change while running; handlers see the node's."""
        self.settings = self.server.settings = settings

    async def stop(self) -> None:
        """Drain, then release everything.

        All goes on as ever until what is under way is answered, for up to `server.drain_s`: an
        export may last, and who waits for the next server must not wait for it. Then sockets are
        told and ended, for their clients know when to come back; meanwhile what is asked by HTTP is
        answered as ever, so that publishing stops for no longer than it takes to release the log
        and to open it again.
        """
        if self._listeners:
            if self._demo is not None:
                await self._demo.stop()
            clients, drain_s = self._listeners[0], self.settings.server.drain_s
            await clients.finish(drain_s)
            # Nobody comes back to be refused: from then on who connects waits for the next server.
            away_s = self.server.leave(port_stays=self.port_stays, is_succeeded=self.is_succeeded)
            away_until = self._loop.time() + away_s
            clients.leave_at(away_until)
            await self.server.drain()
            await self._part(away_until + PARTING_S)
            clients.stop()
            await clients.settle(min(ASK_S, drain_s), min(ANSWER_S, drain_s))
        with suppress(TimeoutError):
            await asyncio.wait_for(self.server.publishing.close(), HANG_UP_S)
        for http in (self.http, self.admin):
            with suppress(TimeoutError):
                await asyncio.wait_for(http.close_all_connections(), HANG_UP_S)
        for listener in self._listeners:
            listener.close()
        self._sweep.stop()
        self._lag.stop()
        await self.server.stop()
        for wire in list(self._wires):
            wire.abort()
        for session in list(self.server.sessions.polled.values()):
            session.abort()
        self._own_sockets.close()
        if self._listeners:
            self._blocked.stop()

    def make_app(self) -> Application:
        """Return the routes that clients use."""
        wires = {
            "started": self._wire_started,
            "ended": self._wire_ended,
            "bounds": self._bounds,
        }
        buckets = KeyedBuckets(parse_rate(self.settings.limits.token_rate))
        # The first that fits is taken: those that are asked for most come first.
        routes: list[tuple[Any, ...]] = [
            (r"/ws/(?!_echo$).*", SocketHandler, {"entry": self._entry}),
            (r"/api/auth/ws-token", TokenHandler, {"buckets": buckets}),
            (r"/api/activities", ActivitiesHandler),
            (r"/api/povs/([^/]+)/activities", HistoryHandler),
            (r"/api/povs/([^/]+)", PovHandler),
            (r"/api/povs/([^/]+)/audit", AuditHandler),
            (r"/api/users/([^/]+)", UserHandler),
            (r"/api/users/([^/]+)/export", ExportHandler),
            (r"/api/users/([^/]+)/block", BlockHandler),
            *self._listings(),
        ]
        if self.settings.streams.enabled:
            routes += [
                (r"/api/povs/([^/]+)/stream", StreamHandler, wires),
                (r"/api/activities/stream", FeedStreamHandler, wires),
                (r"/api/inbox/stream", InboxStreamHandler, wires),
                (r"/api/session", SessionHandler, wires),
                (r"/api/messages", MessagesHandler),
            ]
        routes += self._tracing()
        for path, methods in plugin_paths(self.server.registry).items():
            routes.append((path, PluginHandler, {"routes": methods}))
        routes.append((r"/client/([^/]+)", ClientHandler, {"files": served()}))
        if self.settings.dev:
            routes.append((r"/", PageHandler, {"page": "console.html"}))
            routes.append((r"/dev/console.json", ConsoleDataHandler))
            routes.append((r"/dev/problem.json", ProblemHandler, {"trouble": self.trouble}))
            routes.append((r"/dev/token", TokenCheckHandler))
            routes.append((r"/dev/([^/]+)", PageHandler))
            for path in (r"/demo", r"/demo/"):
                routes.append((path, LocalPageHandler, {"page": "demo.html"}))
            routes.append((r"/demo/board", LocalPageHandler, {"page": "board.html"}))
            routes.append((r"/demo/.*", LocalPageHandler))  # what the demo does not take
        if self.settings.server.conformance_echo:
            routes.append((r"/ws/_echo", EchoHandler, {"entry": self._entry}))
        return self._site(routes, self._host_rules)

    def make_admin_app(self) -> Application:
        """Return the routes that operators use."""
        return self._site(
            [
                (r"/healthz", HealthHandler),
                (r"/readyz", ReadyHandler),
                (r"/readyz/publish", ReadyToPublishHandler),
                (r"/metrics", MetricsHandler, {"metrics": Counters(self.server, self._counters)}),
                (r"/", AdminPageHandler, {"page": "admin.html"}),
                (r"/admin/([^/]+)", AdminPageHandler),
                (r"/api/node", NodeHandler, {"state": self._state_for}),
                (r"/api/nodes", NodesHandler, {"state": self._states_for}),
                (r"/api/node/hour", NodeHandler, {"state": self._hour_for}),
                (r"/api/node/activities", NodeHandler, {"state": self._happening_for}),
                *self._listings(),
                *self._tracing(),
                *(self._actions() if self.settings.server.admin_actions else ()),
            ],
            self._admin_host_rules,
        )

    def _actions(self) -> Iterator[tuple[Any, ...]]:
        """Yield the routes that operators change something with."""
        yield (r"/api/users/([^/]+)/block", BlockHandler)
        for path, methods in plugin_paths(self.server.registry).items():
            own = {
                method: route
                for method, route in methods.items()
                if route.spec.grant == "operate" and route.spec.service
            }
            if own:
                yield (path, PluginHandler, {"routes": own})

    def _state_for(self, identity: Identity) -> NodeState:
        return self._state(wire_of(identity.user_id))

    async def _states_for(self, identity: Identity) -> NodesState:
        own = self._state_for(identity)
        told = await self.server.asking.ask_all(STATE, own.operator)
        others = [state for _, state in told.answers]
        return NodesState(nodes=[own, *others], missing=list(told.missing))

    async def _answer_state(self, operator: str) -> NodeState:
        return self._state(operator)

    def _hour_for(self, _: Identity) -> NodeHour:
        return self._hour.told(self.server.node)

    def _happening_for(self, identity: Identity) -> Happenings:
        seen = self.server.happening.look(identity.grants)
        return Happenings(node=self.server.node, activities=list(seen))

    def _engine_state(self) -> EngineState:
        engine = self.server.engine
        health = engine.health()
        since = None if health.state == "ok" else rfc3339(health.since)
        return EngineState(
            state=health.state, what=health.line, since=since, survives=engine.guarantee
        )

    def _state(self, operator: str = "") -> NodeState:
        server, delivery = self.server, self.server.timings.delivery
        half_s, most_s = delivery.within(0.5), delivery.within(0.99)
        return NodeState(
            node=server.node,
            version=VERSION,
            operator=operator,
            since=rfc3339(server.began_at),
            not_ready=server.not_welcome() or server.not_publishing(),
            engine=self._engine_state(),
            actions=self.settings.server.admin_actions,
            connections=len(server.directory),
            users=len(server.directory.users()),
            behind=len({each for topic in server.hub.all() for each in topic.catching_up}),
            published=server.publishing.published,
            delivered=sum(server.hub.delivered.values()),
            unsent_bytes=self.unsent_bytes,
            unsent_s=self.unsent_s,
            lag_s=self._lag.worst_s,
            delivery_s=None if half_s is None or most_s is None else (half_s, most_s),
            refused=self._access_log.refused,
            off=server.hooks.conduct.off,
        )

    def _listings(self) -> list[tuple[Any, ...]]:
        names = self.server.listings.all
        return [(f"/api/{name}", ListingHandler, {"listing": name}) for name in names]

    def _tracing(self) -> list[tuple[Any, ...]]:
        return [
            (r"/api/activities/(?!stream$)([^/]+)", ActivityHandler),
            (r"/api/activities/([^/]+)/explain", ExplainHandler),
            (r"/api/trace", TraceHandler),
        ]

    def _counters(self) -> Iterable[Metric]:
        yield gauge("unsent_bytes", "What waits for clients to read", self.unsent_bytes)
        yield gauge("unsent_oldest_seconds", "Longest that something waits", self.unsent_s)
        draining = self.server.draining
        yield gauge("draining", "1 while the node drains", int(draining))
        yield gauge("drain_left", "Sockets still to end", self.sockets if draining else 0)
        yield gauge("sockets_paused", "Sockets not read until handlers have done", self.paused)
        lag_s, refused = self._lag.worst_s, self._access_log.refused
        yield gauge("loop_lag_seconds", "Longest delay of the loop in the last minute", lag_s)
        yield counter(
            "loop_blocked", "Times the event loop was found blocked", self._blocked.blocks
        )
        yield by_label("http_refused", "Requests answered with an error", "code", refused)

    def _site(self, routes: Sequence[tuple[Any, ...]], host_rules: HostRules) -> Application:
        arguments = {
            "server": self.server,
            "host_rules": host_rules,
            "bodies": self._bodies,
            "failures": self._failures,
        }
        rules: list[Any] = [
            (path, kind, {**arguments, **(more[0] if more else {})}) for path, kind, *more in routes
        ]
        if self._demo is not None and host_rules is self._host_rules:
            # Before all others, for it takes only what is its own.
            rules.insert(0, Rule(PathMatches(f"{API}/.*"), self._demo))
        return Routes(
            rules,
            default_handler_class=Fallback,
            default_handler_args=arguments,
            log_function=self._access_log,
        )

    def _serve(self, site: Application) -> HTTPServer:
        return HTTPServer(
            site,
            max_header_size=MAX_HEADER_BYTES,
            max_body_size=MAX_BODY_BYTES,
            body_timeout=BODY_S,
        )

    def _restart(self) -> bool:
        if self.on_restart is not None:
            self.on_restart()
        return self.on_restart is not None

    def _peer_of(self, address: str) -> str | None:
        """Return what an address counts as; None for a proxy's, behind which all are."""
        if is_trusted(read_address(address) or "", self.settings.server):
            return None
        return address_key(address)

    def _on_sweep(self) -> None:
        self.server.sweep()
        if self._hour.is_due:
            self._hour.take(self._state())
        limits = self.settings.limits
        if self._listeners:
            clients, operators = self._listeners
            clients.sweep(limits.handshake_s, limits.keepalive_s)
            operators.sweep(min(ADMIN_REQUEST_S, limits.handshake_s), limits.keepalive_s)

    def _wire_started(self, wire: Wire) -> None:
        self._wires[wire] = None
        self._hung_up.clear()

    def _wire_ended(self, wire: Wire) -> None:
        self._wires.pop(wire, None)
        if not self._wires:
            self._hung_up.set()

    async def _part(self, end: float) -> None:
        """Wait for the ends of sockets until `end`, but only as long as some still come."""
        while self._wires and self._loop.time() < end:
            before = len(self._wires)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(PARTING_S, end - self._loop.time())):
                    await self._hung_up.wait()
            if len(self._wires) == before:
                break

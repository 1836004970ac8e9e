"""One node: wires engine, hub, dispatch and plugins together; opens, closes, drains, stops."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections import deque
from contextlib import suppress
from typing import Any

from pov_rt.activities.durable import Durable
from pov_rt.activities.inbox import Inboxes
from pov_rt.activities.publishing import Publishing
from pov_rt.auth.keys import Keyring
from pov_rt.auth.revocations import Revocation, Revocations
from pov_rt.auth.tokens import Identity, Tokens
from pov_rt.config.settings import AuthSettings, Settings
from pov_rt.connections.connection import Connection, Transport
from pov_rt.connections.deadlines import Health
from pov_rt.connections.directory import Register
from pov_rt.delivery.hub import Hub
from pov_rt.dispatch.dispatcher import Dispatcher
from pov_rt.dispatch.hooks import PluginRuntime
from pov_rt.dispatch.host import Services
from pov_rt.engine.base import Engine
from pov_rt.engine.open import open_engine
from pov_rt.plugin.interfaces import Fetch, Guarantee
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode, Unavailable
from pov_rt.protocol.messages import Closing, Seen, Welcome
from pov_rt.protocol.topics import NODES
from pov_rt.registry.build import Registry
from pov_rt.runtime.clock import Clock, SystemClock, rfc3339
from pov_rt.server.follower import NodeFollower
from pov_rt.transport.frames import text_frame
from pov_rt.version import VERSION

log = logging.getLogger(__name__)

WAVE_SIZE = 50
MAX_WAVES = 20
COME_BACK_S = 5.0
"""Clients are asked to come back within this time, each at an instant of its own."""
TURN_PARTINGS = 32
"""How many connections that have ended are let go in one turn."""
NO_KEY_WAIT_S = 2.0
"""Between two fetches of `auth.jwks_url` while there is no key at all."""


class Server:
    """A node. Owner: whoever starts it and stops it; two in one process don't see each other."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        fetch: Fetch,
        clock: Clock | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.clock = clock or SystemClock()
        self.node = self.clock.new_id()[-12:]
        self.keyring = Keyring(settings.auth, self.clock)
        self.tokens = Tokens(settings.auth, self.keyring, self.clock)
        self.engine = engine or open_engine(settings, self.clock, self.node)
        self.hub = Hub(self.engine, self.close, self.clock)
        self.register = Register(
            self.engine.signals,
            settings.limits,
            settle=self.hub.settle,
            close=self.close,
            revoke=self._enforce,
        )
        self.revocations = Revocations(self.engine.sets, self.clock, settings.auth.revocation_s)
        self.tokens.revoked = self.revocations.covers
        self.publishing = Publishing(self.engine, settings.limits, self.clock)
        self.health = Health(settings.ping, settings.auth, self.clock, self.close)
        self.plugins = PluginRuntime(
            registry,
            Services(
                engine=self.engine,
                hub=self.hub,
                register=self.register,
                publishing=self.publishing,
                inboxes=Inboxes(self.engine, self.hub, self.publishing, self.clock),
                durable=Durable(self.engine),
                tokens=self.tokens,
                clock=self.clock,
                limits=settings.limits,
                fetch=fetch,
                options=registry.options,
                node=self.node,
                guarantee=Guarantee(
                    self.engine.guarantee,
                    settings.engine.max_entries,
                    settings.engine.max_age_s,
                ),
                mark_age_s=settings.engine.mark_age_s,
                seen=Seen(),
                subscribed=self._subscribed,
                unsubscribed=self._unsubscribed,
                renewed=self.health.renew,
                revoke=self.revoke,
            ),
        )
        self.publishing.hooks = self.plugins
        self.dispatcher = Dispatcher(
            registry,
            settings.limits,
            self.clock,
            self.hub,
            make_context=self.plugins.context,
            close=self.close,
        )
        self.receive = self.dispatcher.receive
        self.draining = False
        self.started = False
        self.subscriptions = 0
        """Subscriptions of all connections."""
        self.opened = 0
        """Connections opened since the start."""
        self.closes: dict[str, int] = {}
        """Connections closed since the start, by the sort of reason."""
        self._leaving: deque[tuple[Connection, str]] = deque()
        self._fetch = fetch
        self._jwks: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the engine and start the plugins. Raises `Unavailable` or `PluginError`."""
        await self.engine.start(NodeFollower(self.hub, self.register, self._reread_revocations))
        await self.engine.watch(NODES)
        await self.revocations.load()
        await self.plugins.start()
        await self.keyring.refresh_jwks(self._fetch_jwks)
        # Without auth.jwks_url, too: a reload may bring one.
        self._jwks = asyncio.get_running_loop().create_task(self._follow_jwks())
        self.started = True

    def not_ready(self) -> str | None:
        """Return None if clients are welcome, else one line that says why not."""
        if self.draining:
            return "draining: this node is about to stop"
        if not self.started:
            return "starting"
        if self._jwks is not None and self._jwks.done():
            return "the task that follows auth.jwks_url died"
        if not self.keyring.is_usable:
            return "no usable key: no token can be checked before auth.jwks_url answers"
        return self.engine.health()

    def admit(self, identity: Identity, device: str) -> None:
        """Raise `Unavailable` or `LimitExceeded` unless this user may connect now."""
        if self.draining:
            raise Unavailable(
                "This server is about to restart", retry_after_s=self._come_back_after()
            )
        self.register.check_room(identity, device)

    def open(
        self,
        transport: Transport,
        identity: Identity,
        *,
        device: str,
        remote_ip: str,
        user_agent: str,
        v1: bool,
        kind: type[Connection] = Connection,
    ) -> Connection:
        """Enter a new connection and greet it."""
        connection = self._make_connection(
            transport,
            identity,
            device=device,
            remote_ip=remote_ip,
            user_agent=user_agent,
            v1=v1,
            kind=kind,
        )
        self.register.add(connection)
        self.health.add(connection)
        if v1:
            connection.send(
                encode(
                    Welcome(
                        connection_id=connection.id,
                        user_id=identity.user_id,
                        device=device,
                        expires_at=rfc3339(identity.expires_at),
                        ping_interval=self.settings.ping.interval_s,
                        version=VERSION,
                    )
                )
            )
        self.plugins.connected(connection)
        return connection

    def turn_away(
        self, transport: Transport, identity: Identity, code: CloseCode, **client: Any
    ) -> None:
        """Close a socket that may no longer be opened, as one that was; `client` as for `open`."""
        connection = self._make_connection(transport, identity, **client)
        self.close(connection, code)
        self._note_end(connection, code.reason)

    def lagging(self, connection: Connection) -> None:
        """Let a slow client catch up at its pace; the `Receiver`'s part."""
        self.hub.hold(connection)

    def closed(self, connection: Connection, reason: str) -> None:
        """Learn that a connection's socket is ending; the `Receiver`'s part.

        When thousands lose their connections at once, a few are let go in each turn of the loop:
        to end a connection takes 60 us, for all of which everybody else would wait.
        """
        # At once: it must not count against its user who comes back.
        self.register.remove(connection)
        if not self._leaving:
            asyncio.get_running_loop().call_soon(self._part)
        self._leaving.append((connection, reason))

    def _part(self) -> None:
        try:
            for _ in range(min(len(self._leaving), TURN_PARTINGS)):
                self._let_go(*self._leaving.popleft())
        finally:
            if self._leaving:
                asyncio.get_running_loop().call_soon(self._part)

    def _let_go(self, connection: Connection, reason: str) -> None:
        self.health.remove(connection)
        for topic in list(connection.topics.values()):
            self.hub.leave(connection, topic.name)
            if topic.is_subscription:
                self._unsubscribed(topic.wire_id, connection)
        for task in (connection.worker, *(connection.tasks or ())):
            if task is not None:
                task.cancel()
        self.plugins.disconnected(connection)
        self._note_end(connection, reason)

    def _make_connection(
        self,
        transport: Transport,
        identity: Identity,
        *,
        kind: type[Connection],
        **client: Any,
    ) -> Connection:
        now = self.clock.monotonic()
        connection = kind(
            self,
            self.clock.new_id(),
            identity,
            opened_at=now,
            expires_at=now + identity.expires_at - self.clock.time(),
            bucket=self.dispatcher.new_bucket(),
            **client,
        )
        connection.transport = transport
        self.opened += 1
        return connection

    def _note_end(self, connection: Connection, reason: str) -> None:
        received, sent = connection.transport.traffic
        # Without what varies, for each sort becomes a series of the metrics.
        sort = re.split(r"[,:]| with \d", reason, maxsplit=1)[0]
        self.closes[sort] = self.closes.get(sort, 0) + 1
        log.info(
            "connection closed: %s",
            reason,
            extra={
                "user": connection.identity.user_id,
                "device": connection.device,
                "connection": connection.id,
                "ip": connection.remote_ip,
                "received": received,
                "sent": sent,
                "age_s": round(self.clock.monotonic() - connection.opened_at, 1),
            },
        )

    def close(
        self, connection: Connection, code: CloseCode, *, retry_after_s: float | None = None
    ) -> None:
        """Close a connection, telling its client why."""
        if connection.closed or connection.close_reason is not None:
            return
        connection.close_reason = code.reason
        self.hub.settle(connection)
        if not connection.v1:
            connection.transport.close(code)
            return
        closing = Closing(code=code.code, reason=code.reason)
        if code.reconnect:
            after = self._come_back_after() if retry_after_s is None else retry_after_s
            closing = Closing(code=code.code, reason=code.reason, retry_after=round(after, 3))
        connection.transport.close(code, text_frame(encode(closing)))

    def sweep(self) -> None:
        """Do what is due; called about once a second."""
        now = self.clock.monotonic()
        self.health.sweep(now)
        self.hub.sweep(now)
        self.revocations.sweep(now)

    async def revoke(self, revocation: Revocation) -> None:
        """Refuse tokens from now on, after restarts too, and close the connections with one.

        Raises `Unavailable` if it could not be stored: it is in force, but not after restarts.
        """
        # Not the other way round: while the disk is full, a stolen token would stay good.
        self.register.revoke(revocation)
        await self.revocations.store(revocation)

    def _enforce(self, revocation: Revocation) -> None:
        self.revocations.add(revocation)
        for connection in self.register.all():
            if revocation.covers(connection.identity):
                self.close(connection, CloseCode.TOKEN)

    async def _reread_revocations(self) -> None:
        await self.revocations.load()
        for connection in self.register.all():
            if self.revocations.covers(connection.identity):
                self.close(connection, CloseCode.TOKEN)

    def reload(self, auth: AuthSettings) -> None:
        """Take over changed keys and rules for tokens. Raises `SettingsError`; nothing changes."""
        self.tokens.reload(auth)
        self.health.reload(auth)

    async def drain(self) -> None:
        """Close every connection, in waves over `server.drain_s`; new ones are refused."""
        self.draining = True
        connections = self.register.all()
        waves = min(MAX_WAVES, math.ceil(len(connections) / WAVE_SIZE))
        if not waves:
            return
        log.info("draining %d connections in %d waves", len(connections), waves)
        size = math.ceil(len(connections) / waves)
        for start in range(0, len(connections), size):
            if start:
                await asyncio.sleep(self.settings.server.drain_s * 0.8 / waves)
            for connection in connections[start : start + size]:
                self.close(connection, CloseCode.RESTARTING)

    async def stop(self) -> None:
        """Finish what was accepted and let go of everything. `drain` comes first."""
        self.draining = True
        if self._jwks is not None:
            self._jwks.cancel()
            with suppress(asyncio.CancelledError):
                await self._jwks
        await self.publishing.close()
        for connection in self.register.all():
            connection.transport.abort()
        while self._leaving:
            self._part()
        await self.dispatcher.close()
        await self.plugins.stop()
        await self.hub.close()
        await self.engine.close()

    def _come_back_after(self) -> float:
        return 0.5 + self.clock.random() * COME_BACK_S

    def _subscribed(self, pov_id: str, connection: Connection) -> None:
        self.subscriptions += 1
        self.plugins.subscribed(pov_id, connection)

    def _unsubscribed(self, pov_id: str, connection: Connection) -> None:
        self.subscriptions -= 1
        self.plugins.unsubscribed(pov_id, connection)

    async def _follow_jwks(self) -> None:
        while True:
            wait_s = self.settings.auth.jwks_refresh_s
            if not self.keyring.is_usable:
                wait_s = min(wait_s, NO_KEY_WAIT_S)
            # Not `wait_for`, which in Python 3.11 loses a cancellation that comes with the wake-up.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.keyring.jwks_wanted.wait()
            await self.keyring.refresh_jwks(self._fetch_jwks)

    async def _fetch_jwks(self, url: str) -> bytes:
        response = await self._fetch(url)
        if response.status != 200:
            raise ValueError(f"the answer has status {response.status}")
        return response.body

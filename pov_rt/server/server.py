"""One node: wires engine, delivery, dispatch and plugins together; starts, drains, stops."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from functools import partial

from pov_rt.activities.cursors import Cursors
from pov_rt.activities.digest import Digests
from pov_rt.activities.durable import Durable
from pov_rt.activities.inbox import Inboxes
from pov_rt.activities.publishing import Publishing
from pov_rt.activities.shown import Reports
from pov_rt.auth.keys import Keyring
from pov_rt.auth.revocations import Revocations
from pov_rt.auth.tokens import Identity, Tokens
from pov_rt.config.settings import AuthSettings, Settings
from pov_rt.connections.budgets import Budgets, Pages
from pov_rt.connections.deadlines import Deadlines
from pov_rt.connections.directory import Directory
from pov_rt.delivery.hub import Hub
from pov_rt.dispatch.dispatcher import Dispatcher
from pov_rt.dispatch.hooks import Hooks
from pov_rt.dispatch.permissions import Permissions
from pov_rt.engine.base import Engine
from pov_rt.engine.open import open_engine
from pov_rt.plugin.interfaces import Fetch, Guarantee
from pov_rt.protocol.errors import CloseCode, Unavailable
from pov_rt.protocol.topics import NODES
from pov_rt.registry.build import Registry
from pov_rt.runtime.bounds import Bounds, FairSlots
from pov_rt.runtime.clock import Clock, SystemClock
from pov_rt.server.arrivals import Arrivals
from pov_rt.server.follower import NodeFollower

log = logging.getLogger(__name__)

WAVE_SIZE = 50
MAX_WAVES = 20
JOINS = 32
"""Subscriptions that are begun at a time, for users in turn."""
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
        self.clock: Clock = clock or SystemClock()
        self.fetch = fetch
        self.bounds = Bounds()
        self.budgets = Budgets(settings.limits.cost_rate, self.clock)
        self.joins = FairSlots(JOINS)
        self.pages = Pages(settings.limits.pages_bytes)
        self.bounds.add(self.budgets.bound, self.pages.bound)
        self.node = self.clock.new_id()[-12:]
        self.engine = engine or open_engine(settings, self.clock, self.node)
        self.revocations = Revocations(self.engine.sets, self.clock, settings.auth)
        self.bounds.add(self.revocations.bound)
        self.keyring = Keyring(settings.auth, self.clock)
        self.tokens = Tokens(settings.auth, self.keyring, self.clock, self.revocations)
        self.bounds.add(self.tokens.bound)
        self.hub = Hub(self.engine, self.clock)
        self.directory = Directory(self.engine.signals, self.revocations, settings.limits)
        self.deadlines = Deadlines(settings.ping, settings.auth, self.clock)
        self.publishing = Publishing(self.engine, settings.limits, self.clock)
        self.inboxes = Inboxes(self.engine, self.hub, self.publishing, self.clock)
        self.cursors = Cursors(self.engine, self.directory, self.clock, settings)
        self.reports = Reports()
        self.durable = Durable(self.engine)
        self.digests = Digests(self.engine.log, self.budgets, self.clock)
        self.guarantee = Guarantee(
            self.engine.guarantee, settings.engine.max_entries, settings.engine.max_age_s
        )
        self.permissions = Permissions(self.hub, self.clock)
        # From here on the parts are handed the server itself: all that `Services` names is there.
        self.hooks = Hooks(self)
        # Plugins publish, and are asked about what is published and who may: these come first.
        self.publishing.hooks = self.permissions.hooks = self.hooks
        self.dispatcher = Dispatcher(self, self.hooks.hosts)
        self.hooks.switched = partial(self.dispatcher.switch, self.hooks.conduct.off)
        self.arrivals = Arrivals(self, self.hooks, self.dispatcher)
        self.draining = False
        self.started = False
        self._jwks: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the engine and start the plugins. Raises `Unavailable` or `PluginError`."""
        await self.engine.start(NodeFollower(self.hub, self.directory))
        self.bounds.add(*self.engine.bounds)
        await self.engine.watch(NODES)
        await self.revocations.load()
        await self.hooks.start()
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
        """Raise `Unavailable`, `LimitExceeded` or `RateLimited` unless this user may come in."""
        if self.draining:
            raise Unavailable(
                "This server is about to restart", retry_after_s=self.arrivals.come_back_after_s()
            )
        self.directory.check_room(identity, device)
        if (wait := self.budgets.debt_s(identity.owner)) > 0:
            raise self.budgets.refusal(identity.owner, wait)

    def sweep(self) -> None:
        """Do what is due; called about once a second."""
        now = self.clock.monotonic()
        self.deadlines.sweep(now)
        self.hub.sweep(now)
        self.revocations.sweep()
        self.budgets.sweep(now)
        self.permissions.sweep(now)
        self.bounds.sweep()

    def reload(self, auth: AuthSettings) -> None:
        """Take over changed keys and rules for tokens. Raises `SettingsError`; nothing changes."""
        self.tokens.reload(auth)
        self.revocations.reload(auth)
        self.deadlines.reload(auth)

    async def drain(self) -> None:
        """Close every connection, in waves over `server.drain_s`; new ones are refused."""
        self.draining = True
        connections = self.directory.all()
        waves = min(MAX_WAVES, math.ceil(len(connections) / WAVE_SIZE))
        if not waves:
            return
        log.info("draining %d connections in %d waves", len(connections), waves)
        size = math.ceil(len(connections) / waves)
        for start in range(0, len(connections), size):
            if start:
                await asyncio.sleep(self.settings.server.drain_s * 0.8 / waves)
            for connection in connections[start : start + size]:
                connection.close(CloseCode.RESTARTING)

    async def stop(self) -> None:
        """Finish what was accepted, and release everything. `drain` comes first."""
        self.draining = True
        if self._jwks is not None:
            self._jwks.cancel()
            with suppress(asyncio.CancelledError):
                await self._jwks
        await self.publishing.close()
        self.arrivals.stop()
        await self.dispatcher.close()
        await self.permissions.close()
        await self.hooks.stop()
        await self.digests.close()
        await self.hub.close()
        await self.engine.close()

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
        response = await self.fetch(url)
        if response.status != 200:
            raise ValueError(f"the answer has status {response.status}")
        return response.body

"""One node: wires engine, delivery, dispatch and plugins together; starts, drains, stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from pov_rt.activities.changes import Changes
from pov_rt.activities.cursors import Cursors
from pov_rt.activities.details.declared import Declared
from pov_rt.activities.digest import Digests
from pov_rt.activities.durable import Durable
from pov_rt.activities.inbox import Inboxes
from pov_rt.activities.publishing import Publishing
from pov_rt.activities.shown import Reports
from pov_rt.auth.keys import Keyring
from pov_rt.auth.revocations import Revocations
from pov_rt.auth.tokens import Identity, Tokens
from pov_rt.config.settings import AuthSettings, Settings
from pov_rt.connections.borders import Borders
from pov_rt.connections.budgets import Budgets, Pages
from pov_rt.connections.deadlines import Deadlines
from pov_rt.connections.directory import Directory
from pov_rt.delivery.hub import Hub
from pov_rt.dispatch.dispatcher import Dispatcher
from pov_rt.dispatch.hooks import Hooks
from pov_rt.dispatch.permissions import Permissions
from pov_rt.engine.base import Engine
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.open import open_engine
from pov_rt.plugin.interfaces import Fetch, Guarantee
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.topics import NODES
from pov_rt.registry.build import Registry
from pov_rt.runtime.bounds import Bounds, FairSlots
from pov_rt.runtime.clock import Clock, SystemClock
from pov_rt.server.arrivals import Arrivals
from pov_rt.server.follower import NodeFollower
from pov_rt.server.identity import node_name
from pov_rt.server.listings import Listings
from pov_rt.server.nodes.asking import Asking
from pov_rt.server.nodes.lists import Lists
from pov_rt.server.nodes.live import Live
from pov_rt.server.nodes.orders import Orders
from pov_rt.server.nodes.sessions import Sessions
from pov_rt.server.now import Happening
from pov_rt.server.people import People
from pov_rt.server.requests import Requests
from pov_rt.server.streams import Streams
from pov_rt.server.timings import Timings
from pov_rt.server.trace.audit import Audit
from pov_rt.server.trace.explain import Explain

log = logging.getLogger(__name__)

JOINS = 32
"""Subscriptions that are begun at a time, for users in turn."""
NO_KEY_WAIT_S = 2.0
"""Between two fetches of `auth.jwks_url` while there is no key at all."""
RETRY_S = 0.5
"""Between two questions to an engine that is away when the node starts."""
LOST_S = 60.0
"""A node that is deaf for so long is not kept alive any more."""


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
        self.borders = Borders()
        self.timings = Timings(self.borders)
        self.bounds = Bounds()
        self.budgets = Budgets(settings.limits.cost_rate, self.clock)
        self.joins = FairSlots(JOINS)
        self.pages = Pages(settings.limits.pages_bytes)
        self.bounds.add(self.budgets.bound, self.pages.bound)
        self.run = self.clock.new_id()[-12:]
        """The name of this start of the process."""
        self.node = self.run
        """The node's name, from `start` on: the same at each start, where it has a folder."""
        self.keeping = Keeping(settings.engine, settings.pov)
        self.engine = engine or open_engine(settings, self.clock, self.run, self.keeping)
        self.revocations = Revocations(self.engine.sets, self.clock, settings.auth)
        self.bounds.add(self.revocations.bound)
        self.keyring = Keyring(settings.auth, self.clock)
        self.tokens = Tokens(settings.auth, self.keyring, self.clock, self.revocations)
        self.bounds.add(self.tokens.bound)
        self.hub = Hub(self.engine, self.clock, self.borders, feeds_fade=self.keeping.fades)
        self.directory = Directory(
            self.engine.signals, self.revocations, settings.limits, self.clock
        )
        self.deadlines = Deadlines(settings.ping, settings.auth, self.clock)
        self.publishing = Publishing(self.engine, settings.limits, self.clock, self.borders)
        self.changes = Changes(self.engine, self.publishing, self.budgets, self.clock)
        self.publishing.declared = registry.activities
        self.inboxes = Inboxes(self.engine, self.hub, self.publishing, self.clock)
        self.cursors = Cursors(self.engine, self.directory, self.clock, settings)
        self.reports = Reports()
        self.durable = Durable(self.engine)
        self.digests = Digests(self.engine.log, self.budgets, self.clock)
        self.permissions = Permissions(self.hub, self.clock, self.borders)
        # From here on the parts are handed the server itself: all that `Services` names is there.
        self.hooks = Hooks(self)
        # Plugins publish, and are asked about what is published and who may: these come first.
        self.publishing.hooks = self.permissions.hooks = self.hooks
        self.asking = Asking(self.engine, self.run)
        self.orders = Orders(self.directory, self.asking)
        self.explain = Explain(self, self.hooks, settings.trace, self.asking)
        self.audit = Audit(self, self.keeping)
        if self.keeping.has_audits:
            self.borders.add(self.audit)
        self.happening = Happening(self)
        self.people = People(self, self.hooks, self.explain, self.happening)
        self.dispatcher = Dispatcher(self, self.hooks.hosts)
        self.hooks.switched = partial(self.dispatcher.switch, self.hooks.conduct.off)
        self.arrivals = Arrivals(self, self.hooks, self.dispatcher)
        self.streams = Streams(self, self.arrivals, self.hooks)
        self.requests = Requests(self, self.arrivals, self.dispatcher)
        self.listings = Listings(self, self.revocations, self.hooks, self.dispatcher)
        self.lists = Lists(self, self.listings, self.asking)
        self.live = Live(self.explain, self.asking)
        self.sessions = Sessions(self, self.asking)
        self.leaving = asyncio.Event()
        """Set once the node drains: what has no end of its own ends then."""
        self.started = False
        self.began_at = self.clock.time()
        self._jwks: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the engine and start the plugins. Raises `Unavailable` or `PluginError`.

        An engine that will do and is away is waited for: without what is revoked nobody is let in.
        """
        self.node = node_name(self.settings, self.run)
        follower = NodeFollower(self.hub, self.directory, self.digests, self.hooks, self.asking)
        await self.engine.start(follower, self.node)
        self.bounds.add(*self.engine.bounds)
        await self._reached(partial(self.engine.watch, NODES))
        await self._reached(partial(self.engine.watch, self.asking.topic))
        await self._reached(self.revocations.load)
        self.explain.start()
        await self.hooks.start()
        await self.keyring.refresh_jwks(self._fetch_jwks)
        # Without auth.jwks_url, too: a reload may bring one.
        self._jwks = asyncio.get_running_loop().create_task(self._follow_jwks())
        self.started = True

    async def _reached(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Ask the engine, until it answers."""
        said = ""
        while True:
            try:
                await ask()
            except Unavailable as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("the start waits for the engine: %s", said)
                await asyncio.sleep(RETRY_S)
            else:
                return

    def guarantee(self, topic: str) -> Guarantee:
        """Return what is promised of what is published on a topic now; the engine may change it."""
        return Guarantee(self.engine.guarantee, *self.keeping.of(topic))

    @property
    def draining(self) -> bool:
        """Whether the node is about to stop."""
        return self.leaving.is_set()

    @property
    def is_lost(self) -> bool:
        """Whether the node was deaf for so long that only a new process is left to try."""
        return self.arrivals.moving_s >= LOST_S

    def not_welcome(self) -> str | None:
        """Return None if clients are welcome, else one line that says why not."""
        if self.draining:
            return "draining: this node is about to stop"
        health = self.engine.health()
        return self._not_working() or (health.line if health.state == "deaf" else None)

    def not_publishing(self) -> str | None:
        """Return None if activities can be published, else one line that says why not.

        Or not as it should be: slowly, or with less certainty. What is there can be read all the
        same, and sockets be opened. A node that drains still answers who publishes.
        """
        return self._not_working() or self.engine.health().line or None

    def _not_working(self) -> str | None:
        if not self.started:
            return "starting"
        if self._jwks is not None and self._jwks.done():
            return "the task that follows auth.jwks_url died"
        if not self.keyring.is_usable:
            return "no usable key: no token can be checked before auth.jwks_url answers"
        return None

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
        self.arrivals.move(is_due=self.engine.health().state == "deaf")
        self.deadlines.sweep(now)
        self.hub.sweep(now)
        self.revocations.sweep()
        self.budgets.sweep(now)
        self.timings.sweep()
        self.permissions.sweep(now)
        self.bounds.sweep()
        self.explain.sweep()
        self.happening.sweep()

    def reload(self, auth: AuthSettings, activities: Declared | None = None) -> None:
        """Take over changed keys, rules for tokens and schemas of activities.

        None of the latter: they stay. Raises `SettingsError`; nothing changes.
        """
        self.tokens.reload(auth)
        self.revocations.reload(auth)
        self.deadlines.reload(auth)
        if activities is not None:
            self.publishing.declared = activities
            self.registry = replace(self.registry, activities=activities)

    def leave(self, *, port_stays: bool = False, is_succeeded: bool = False) -> float:
        """Refuse new connections from now on; what is asked by HTTP is answered.

        Returns for how many seconds no client comes back that does as it is asked by `drain`.
        `port_stays`: somebody keeps the port open until the next server has it, so that who comes
        meanwhile waits and is not refused; `is_succeeded`: that one has loaded all by now.
        """
        self.leaving.set()
        self.sessions.release()
        return self.arrivals.plan_return(port_stays=port_stays, is_succeeded=is_succeeded)

    async def drain(self) -> None:
        """Close all connections, and `leave` before that if nobody has said so."""
        if not self.draining:
            self.leave()
        await self.arrivals.send_away()

    async def stop(self) -> None:
        """Finish what was accepted, and release everything. `drain` comes first."""
        self.leaving.set()
        if self._jwks is not None:
            self._jwks.cancel()
            with suppress(asyncio.CancelledError):
                await self._jwks
        await self.publishing.close()
        self.arrivals.stop()
        await self.dispatcher.close()
        await self.permissions.close()
        await self.people.close()
        await self.asking.close()
        await self.hooks.stop()
        await self.explain.close()
        await self.audit.close()
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

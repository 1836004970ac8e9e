"""Connections from the handshake to their end: opened and greeted, released when they are gone."""

from __future__ import annotations

import logging
import re
from typing import Any

from pov_rt.auth.tokens import Identity
from pov_rt.connections.budgets import CONNECTION
from pov_rt.connections.connection import Connection, Transport
from pov_rt.dispatch.dispatcher import Dispatcher
from pov_rt.dispatch.hooks import Hooks
from pov_rt.dispatch.host import Services
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.messages import Welcome
from pov_rt.runtime import turns
from pov_rt.runtime.clock import rfc3339
from pov_rt.runtime.logs import Throttle
from pov_rt.version import VERSION

log = logging.getLogger(__name__)

COME_BACK_S = 5.0
"""Clients are asked to come back within this time, each at an instant of its own."""
ENDS_PER_S, ENDS_AT_ONCE = 20.0, 200.0
"""Lines of the log on connections that ended: a client may open and close as many as it likes."""


class Arrivals:
    """The owner of all connections of a node. Owner: the server."""

    def __init__(self, services: Services, hooks: Hooks, dispatcher: Dispatcher) -> None:
        self._directory = services.directory
        self._budgets = services.budgets
        self._deadlines = services.deadlines
        self._hub = services.hub
        self._hooks = hooks
        self._permissions = services.permissions
        self._dispatcher = dispatcher
        self._clock = services.clock
        self._ping_interval_s = services.settings.ping.interval_s
        self._ended = turns.Backlog(turns.DISCONNECTS, self._release)
        self._ends = Throttle(log, ENDS_PER_S, self._clock, burst=ENDS_AT_ONCE)
        self.deliveries = services.hub
        self.receive = dispatcher.receive
        self.opened = 0
        """Connections opened since the start."""
        self.closes: dict[str, int] = {}
        """Connections closed since the start, by the sort of reason."""

    def open(
        self,
        transport: Transport,
        identity: Identity,
        *,
        v1: bool,
        device: str,
        kind: type[Connection] = Connection,
        **client: Any,
    ) -> Connection:
        """Enter a new connection and greet it.

        `client` is what `kind`, its class, wants to know of it: `remote_ip` and `user_agent`.
        """
        now = self._clock.monotonic()
        budget = self._budgets.of(identity.owner)
        budget.charge(CONNECTION, now)
        self.opened += 1
        connection = kind(
            self,
            transport,
            self._clock.new_id(),
            identity,
            v1=v1,
            device=device,
            opened_at=now,
            bucket=self._dispatcher.new_bucket(),
            budget=budget,
            **client,
        )
        self._directory.add(connection)
        self._deadlines.add(connection)
        if v1:
            connection.send(
                encode(
                    Welcome(
                        connection_id=connection.id,
                        user_id=identity.user_id,
                        device=device,
                        expires_at=rfc3339(identity.expires_at),
                        ping_interval=self._ping_interval_s,
                        version=VERSION,
                    )
                )
            )
        self._hooks.tell("connected", connection=connection)
        return connection

    def lagging(self, connection: Connection) -> None:
        self._hub.hold(connection)

    def closed(self, connection: Connection, reason: str) -> None:
        """Release a connection whose socket is ending; the `ConnectionOwner`'s part.

        When thousands end at once, a few are released in each turn of the loop: each takes a while,
        for all of which everybody else would wait.
        """
        # At once: it must not count against its user who comes back.
        self._directory.remove(connection)
        self._budgets.keep(connection.budget)
        self._ended.add((connection, reason))

    def come_back_after_s(self) -> float:
        return 0.5 + self._clock.random() * COME_BACK_S

    def stop(self) -> None:
        """Drop every socket that is left, and release all connections."""
        for connection in self._directory.all():
            connection.transport.abort()
        self._ended.finish()

    def _release(self, ended: tuple[Connection, str]) -> None:
        connection, reason = ended
        self._deadlines.remove(connection)
        for topic in list(connection.topics.values()):
            was_there = self._hub.leave(connection, topic.name)
            if topic.is_subscription:
                self._permissions.forget(connection, topic.pov_id)
            if was_there and topic.is_subscription:
                self._hooks.tell("unsubscribed", topic.pov_id, connection=connection)
        self._hub.replay.forget(connection)
        for task in (connection.worker, *(connection.tasks or ())):
            if task is not None:
                task.cancel()
        self._hooks.tell("disconnected", connection=connection)
        self._log_end(connection, reason)

    def _log_end(self, connection: Connection, reason: str) -> None:
        received, sent = connection.transport.traffic
        # Without what varies, for each sort becomes a series of the metrics.
        sort = re.split(r"[,:]| with \d", reason, maxsplit=1)[0]
        self.closes[sort] = self.closes.get(sort, 0) + 1
        self._ends.log(
            logging.INFO,
            "connection closed: %s",
            reason,
            user=connection.identity.user_id,
            device=connection.device,
            connection=connection.id,
            ip=connection.remote_ip,
            received=received,
            sent=sent,
            age_s=round(self._clock.monotonic() - connection.opened_at, 1),
        )

"""Connections from the handshake to their end: opened and greeted, released when they are gone."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any, TypeVar

from pov_rt.auth.tokens import Identity
from pov_rt.connections.budgets import CONNECTION
from pov_rt.connections.connection import Connection, Transport
from pov_rt.connections.directory import TRANSPORTS
from pov_rt.connections.ends import ROUTINE, SORTS, sort_of
from pov_rt.dispatch.dispatcher import Dispatcher
from pov_rt.dispatch.hooks import Hooks
from pov_rt.dispatch.host import Services
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode
from pov_rt.protocol.messages import Welcome
from pov_rt.runtime import turns
from pov_rt.runtime.clock import rfc3339
from pov_rt.runtime.measure.tally import OTHER, Tally
from pov_rt.runtime.process.logs import Throttle
from pov_rt.transport.wire import ABORTED
from pov_rt.version import VERSION

ConnectionT = TypeVar("ConnectionT", bound=Connection)

log = logging.getLogger(__name__)

COME_BACK_S = 5.0
"""A client that is closed is asked to come back within this time, at an instant of its own."""
RETURNS_PER_S = 2000.0
"""How many are asked to come back in a second where all are sent away at once: what one core takes
on beside its other work (docs/measurements.md, handshakes)."""
LEAST_SPREAD_S = 0.5
"""Even a few do not come in one instant."""
PARTINGS_PER_S = 8000.0
"""How many sockets come to their end in a second."""
PARTING_S = 0.3
"""How long an end may take: the client answers the close frame."""
LEAVING_S = 0.05
"""Until most have ended. Who comes then waits at the port for the successor, which is ready."""
START_S = 2.0
"""How long a server takes to start, and its manager to notice (docs/measurements.md, restarts)."""
NOTICE_S = 5.0
"""How long load balancers have to notice that clients are not welcome, before any are moved."""
WAVES = 10
"""In how many waves all are moved, one a second."""
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
        self._run = services.run
        self._borders = services.borders
        self._ping_interval_s = services.settings.ping.interval_s
        self._ended = turns.Backlog(turns.DISCONNECTS, self._release)
        self._ends = Throttle(log, ENDS_PER_S, self._clock, burst=ENDS_AT_ONCE)
        self._away_s, self._spread_s = 0.5, COME_BACK_S
        self._moving_since: float | None = None
        self._wave = 0
        self.deliveries = services.hub
        self.receive = dispatcher.receive
        self.opened = Tally(TRANSPORTS, OTHER)
        """Connections opened since the start, by transport."""
        self.closes = Tally(
            ((transport, sort) for transport, sorts in SORTS.items() for sort in sorts),
            (OTHER, OTHER),
        )
        """Connections closed since the start, by transport and the sort of reason."""

    def open(
        self,
        transport: Transport,
        identity: Identity,
        *,
        device: str,
        kind: Callable[..., ConnectionT],
        **client: Any,
    ) -> ConnectionT:
        """Enter a new connection and greet it.

        `client` is what `kind`, its class, wants to know of it, such as `remote_ip` and `v1`.
        """
        now = self._clock.monotonic()
        budget = self._budgets.hold(identity.owner)
        budget.charge(CONNECTION, now)
        name = transport.framing.transport
        self.opened[name] += 1
        connection = kind(
            self,
            transport,
            f"{self._clock.new_id()}.{self._run}",  # so that other nodes know where it is
            identity,
            device=device,
            opened_at=now,
            bucket=self._dispatcher.new_bucket(),
            budget=budget,
            **client,
        )
        self._directory.add(connection)
        self._deadlines.add(connection)
        try:
            self._greet(connection)
        except BaseException:  # nobody else would let go of it: its transport has no peer yet
            connection.lost(ABORTED)
            raise
        return connection

    def _greet(self, connection: Connection) -> None:
        if (opened := self._borders.opened) is not None:
            opened(connection)
        if connection.v1:
            connection.send(
                encode(
                    Welcome(
                        connection_id=connection.id,
                        user_id=connection.identity.user_id,
                        device=connection.device,
                        expires_at=rfc3339(connection.identity.expires_at),
                        ping_interval=self._ping_interval_s,
                        version=VERSION,
                    )
                )
            )
        self._hooks.tell("connected", connection=connection)

    def lagging(self, connection: Connection) -> None:
        self._hub.hold(connection)

    def closed(self, connection: Connection, reason: str) -> None:
        """Release a connection whose socket is ending; the `ConnectionOwner`'s part.

        When thousands end at once, a few are released in each turn of the loop: each takes a while,
        for all of which everybody else would wait.
        """
        # At once: it must not count against its user who comes back.
        self._directory.remove(connection)
        self._budgets.release(connection.budget)
        self._ended.add((connection, reason))

    def come_back_after_s(self) -> float:
        return self._away_s + self._clock.random() * self._spread_s

    def plan_return(self, *, port_stays: bool, is_succeeded: bool = False) -> float:
        """Decide when clients are to come back; return after how many seconds the first one may.

        Spread by their number; none before the port is left to the next server (which is ready
        where this one `is_succeeded`), or, unless it stays open meanwhile, before that one listens.
        """
        many = len(self._directory)
        self._away_s = many / PARTINGS_PER_S + (LEAVING_S if is_succeeded else PARTING_S)
        if not port_stays:
            self._away_s += START_S
        self._spread_s = max(LEAST_SPREAD_S, many / RETURNS_PER_S)
        return self._away_s

    async def send_away(self) -> None:
        """Close all connections at once, and have their clients come back as is planned.

        All are told first: whoever were closed later would be away for as much longer. Others have
        their turns meanwhile.
        """
        connections = self._directory.all()
        if connections:
            log.info(
                "closing %d connections: they come back after %.1f to %.1f s",
                len(connections),
                self._away_s,
                self._away_s + self._spread_s,
            )
        for start in range(0, len(connections), turns.SENDS):
            for connection in connections[start : start + turns.SENDS]:
                connection.close(CloseCode.RESTARTING)
            await asyncio.sleep(0)

    @property
    def moving_s(self) -> float:
        """For how long clients are being moved to other nodes; 0 while they are not."""
        since = self._moving_since
        return 0.0 if since is None else self._clock.monotonic() - since

    def move(self, *, is_due: bool) -> None:
        """Close the connections of a wave if their clients are better off on other nodes.

        Called once a second. A load balancer is given `NOTICE_S` to see that none is welcome here;
        whoever comes back to this node all the same has a turn again later.
        """
        if not is_due:
            self._moving_since = None
            return
        if self._moving_since is None:
            self._moving_since, self._wave = self._clock.monotonic(), 0
        if self.moving_s < NOTICE_S:
            return
        connections = [each for each in self._directory.all() if each.close_reason is None]
        if not self._wave and connections:
            self._wave = min(math.ceil(len(connections) / WAVES), int(RETURNS_PER_S))
            log.warning("moving %d clients, %d a second", len(connections), self._wave)
        for connection in connections[: self._wave]:
            connection.close(CloseCode.RESTARTING)

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
        self._dispatcher.release(connection)
        if (closed := self._borders.closed) is not None:
            closed(connection, reason)
        self._hooks.tell("disconnected", connection=connection)
        self._log_end(connection, reason)

    def _log_end(self, connection: Connection, reason: str) -> None:
        received, sent = connection.transport.traffic
        self.closes.add((connection.transport.framing.transport, sort_of(reason)))
        self._ends.log(
            logging.DEBUG if reason in ROUTINE else logging.INFO,
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

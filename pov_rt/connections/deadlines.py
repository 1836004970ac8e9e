"""Keeps watch over connections: silent ones are pinged and dropped, expired ones are closed.

One sweep a second looks only at what is due: deadlines lie in buckets of a second each.

They lie there by the monotonic clock, and a token ends by the wall clock. The one stands still
while the machine sleeps, the other is put right: whenever the two have moved against each other,
all deadlines of tokens are found anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain

from pov_rt.config.settings import AuthSettings, PingSettings
from pov_rt.connections.connection import Connection
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode
from pov_rt.protocol.messages import TokenExpiring
from pov_rt.runtime.clock import Clock, rfc3339

log = logging.getLogger(__name__)

SPREAD = 0.1
"""How much of the ping interval is left to chance, so that a storm of arrivals does not return."""


STEP_S = 1.0
"""How far the clocks may move against each other until the deadlines of tokens are found anew."""


class Wheel:
    """Connections by the second in which something is due; each is in it at most once.

    A connection knows the bucket that it is in (`due_in`): to look it up would take a dict as large
    as all buckets (docs/measurements.md, idle parts).
    """

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def __iter__(self) -> Iterator[Connection]:
        return chain.from_iterable(self._buckets.values())

    def put(self, connection: Connection, at: float) -> None:
        """Make the connection due at this instant and no other."""
        self.remove(connection)
        second = int(at) + 1
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = {}
        bucket[connection] = None
        connection.due_in = bucket

    def remove(self, connection: Connection) -> None:
        """Take the connection out."""
        if (bucket := connection.due_in) is not None:
            connection.due_in = None
            del bucket[connection]

    def take_due(self, now: float) -> list[Connection]:
        """Take out and return what is due, the longest overdue first."""
        # There are at most as many buckets as seconds to the last deadline, some thousands. Those
        # that all were taken out of go here, too.
        seconds = sorted(
            second for second, bucket in self._buckets.items() if second <= now or not bucket
        )
        due = [connection for second in seconds for connection in self._buckets.pop(second)]
        for connection in due:
            connection.due_in = None
        return due


class Deadlines:
    """The deadlines of all connections. Owner: the server.

    A connection is due at the first of its deadlines, and looked at for all of them then.
    """

    def __init__(self, pings: PingSettings, auth: AuthSettings, clock: Clock) -> None:
        self._pings = pings
        self._auth = auth
        self._clock = clock
        self._wheel = Wheel()
        self._ahead = clock.time() - clock.monotonic()
        """How far the wall clock was ahead when it was last compared."""

    def add(self, connection: Connection) -> None:
        """Watch a new connection."""
        self._await_ping(connection, 0.0)
        self.renew(connection)

    def renew(self, connection: Connection) -> None:
        """Take over a connection's new token."""
        connection.warned = False
        self._find_end(connection)

    def remove(self, connection: Connection) -> None:
        """Watch a connection no longer."""
        self._wheel.remove(connection)

    def reload(self, auth: AuthSettings) -> None:
        """Take over changed settings; they count when a connection is looked at the next time.

        That is when it is pinged, at the latest.
        """
        self._auth = auth

    def sweep(self, now: float) -> None:
        """Do what is due; `now` is monotonic."""
        ahead = self._clock.time() - self._clock.monotonic()
        if abs(ahead - self._ahead) > STEP_S:
            self._ahead = ahead
            for connection in list(self._wheel):
                self._find_end(connection)
        for connection in self._wheel.take_due(now):
            try:
                if now >= connection.silent_at:
                    self._check_silence(connection, now)
                if now >= self._token_at(connection):
                    self._check_token(connection, now)
            except Exception:  # a bug; the others that are due must not be forgotten
                log.exception("a deadline of %s could not be met", connection.id)
            if connection.close_reason is None and not connection.closed:
                self._await_next(connection)

    def _await_next(self, connection: Connection) -> None:
        self._wheel.put(connection, min(connection.silent_at, self._token_at(connection)))

    def _token_at(self, connection: Connection) -> float:
        """Return when there is something to do about a connection's token, or about its time."""
        if connection.warned:
            at = self._end_of(connection)
        else:
            at = connection.expires_at - self._auth.warning_s
        return min(at, connection.ends_at)

    def _end_of(self, connection: Connection) -> float:
        return connection.expires_at + (self._auth.grace_s if connection.has_grace else 0.0)

    def _find_end(self, connection: Connection) -> None:
        now = self._clock.monotonic()
        connection.expires_at = now + connection.identity.expires_at - self._clock.time()
        warn_at = connection.expires_at - self._auth.warning_s
        connection.warned = connection.warned and now >= warn_at
        self._await_next(connection)

    def _await_ping(self, connection: Connection, waited_s: float) -> None:
        spread = 1 + SPREAD * (2 * self._clock.random() - 1)
        connection.pinged = False
        connection.silent_at = self._clock.monotonic() + self._pings.interval_s * spread - waited_s

    def _check_silence(self, connection: Connection, now: float) -> None:
        heard = connection.transport.heard()
        if not connection.pinged:
            connection.pinged = True
            connection.transport.ping()
            connection.silent_at = now + self._pings.timeout_s
        elif heard:
            self._await_ping(connection, min(self._pings.timeout_s, self._pings.interval_s / 2))
        else:
            connection.close(CloseCode.PING_TIMEOUT)

    def _check_token(self, connection: Connection, now: float) -> None:
        if now >= connection.ends_at:
            connection.close(CloseCode.NORMAL)
        elif now >= self._end_of(connection):
            connection.close(CloseCode.TOKEN)
        elif not connection.warned:
            connection.warned = True
            if connection.v1:
                expires_at = rfc3339(connection.identity.expires_at)
                connection.send(encode(TokenExpiring(expires_at=expires_at)))

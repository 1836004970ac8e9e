"""What a wire is given: how messages are written, how much its client may make the server hold,
and who handles it.
"""  # noqa: D205  (one sentence that does not fit a line)

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from pov_rt.config.settings import LimitSettings
from pov_rt.runtime.limits import Rate, parse_rate
from pov_rt.runtime.process.logs import Throttle

CONTROL_BURST = 5.0
"""By how many seconds' worth `limits.control_rate` may be exceeded at once: a message of 1,000
small fragments is odd, but not an attack."""
LINES_PER_S, LINES_AT_ONCE = 5.0, 50.0
"""Of the log, on what clients did wrong."""


class LastBorder(Protocol):
    """Who may want to know what leaves a socket: a `Borders`, as wires see it."""

    @property
    def written(self) -> Callable[[Peer, int], None] | None:
        """What is told how many bytes begin to wait for a peer; and 0, when all have left."""


class Bounds(NamedTuple):
    """How much may wait for one client: `queue_bytes` ever, `slow_bytes` for `slow_s` seconds.

    `control_rate` bounds the frames that no message pays for: pings, pongs, small fragments.
    `complaint` is what all clients' mistakes are logged by, for each can make as many as it likes.
    `borders` is told of what cannot leave at once.
    """

    message_bytes: int
    queue_bytes: int
    slow_bytes: int
    slow_s: float
    control_rate: Rate
    complaint: Throttle
    borders: LastBorder | None = None


def bounds_of(limits: LimitSettings, borders: LastBorder | None = None) -> Bounds:
    """Return what the settings allow a client."""
    return Bounds(
        limits.message_bytes,
        limits.queue_bytes,
        limits.queue_slow_bytes,
        limits.queue_slow_s,
        parse_rate(limits.control_rate, CONTROL_BURST),
        Throttle(logging.getLogger(__name__), LINES_PER_S, burst=LINES_AT_ONCE),
        borders,
    )


class Framing(Protocol):
    """How a transport writes messages. One object for all transports of a kind, so that what they
    are sent is made once for all of them; pieces may be joined.
    """  # noqa: D205  (one sentence that does not fit a line)

    @property
    def transport(self) -> str:
        """What kind that is, for the metrics."""

    def frame(self, body: bytes) -> bytes:
        """Return one message as it is sent; with it who gets it has all there is."""

    def join(self, bodies: Sequence[bytes], *, up_to_date: bool = True) -> bytes:
        """Return several messages, in one piece; whether who gets it has all there is then."""


class Peer(Protocol):
    """Who handles the messages of a wire: a connection."""

    def receive(self, payload: bytes, is_text: bool) -> None:
        """Take one whole message."""

    def lagging(self) -> None:
        """Send the client no more than it asks for: much waits for it to read."""

    def lost(self, reason: str) -> None:
        """End, for the socket does; called once."""

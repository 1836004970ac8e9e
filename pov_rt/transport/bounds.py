"""What a wire is given: how much its client may make the server hold, and who handles it."""

from __future__ import annotations

import logging
from typing import NamedTuple, Protocol

from pov_rt.config.settings import LimitSettings
from pov_rt.runtime.limits import Rate, parse_rate
from pov_rt.runtime.logs import Throttle

CONTROL_BURST = 5.0
"""By how many seconds' worth `limits.control_rate` may be exceeded at once: a message of 1,000
small fragments is odd, but not an attack."""
LINES_PER_S, LINES_AT_ONCE = 5.0, 50.0
"""Of the log, on what clients did wrong."""


class Bounds(NamedTuple):
    """How much may wait for one client: `queue_bytes` ever, `slow_bytes` for `slow_s` seconds.

    `control_rate` bounds the frames that no message pays for: pings, pongs, small fragments.
    `complaint` is what all clients' mistakes are logged by, for each can make as many as it likes.
    """

    message_bytes: int
    queue_bytes: int
    slow_bytes: int
    slow_s: float
    control_rate: Rate
    complaint: Throttle


def bounds_of(limits: LimitSettings) -> Bounds:
    """Return what the settings allow a client."""
    return Bounds(
        limits.message_bytes,
        limits.queue_bytes,
        limits.queue_slow_bytes,
        limits.queue_slow_s,
        parse_rate(limits.control_rate, CONTROL_BURST),
        Throttle(logging.getLogger(__name__), LINES_PER_S, burst=LINES_AT_ONCE),
    )


class Peer(Protocol):
    """Who handles the messages of a wire: a connection."""

    def receive(self, payload: bytes, is_text: bool) -> None:
        """Take one whole message."""

    def lagging(self) -> None:
        """Send the client no more than it asks for: much waits for it to read."""

    def lost(self, reason: str) -> None:
        """End, for the socket does; called once."""

"""What a wire is given: how much its client may make the server hold, and who handles it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from pov_rt.config.settings import LimitSettings
from pov_rt.runtime.limits import Rate, parse_rate

CONTROL_BURST = 5.0
"""By how many seconds' worth `limits.control_rate` may be exceeded at once: a message of 1,000
small fragments is odd, but not an attack."""


class Bounds(NamedTuple):
    """How much may wait for one client: `queue_bytes` ever, `slow_bytes` for `slow_s` seconds.

    `control_rate` bounds the frames that no message pays for: pings, pongs, small fragments.
    """

    message_bytes: int
    queue_bytes: int
    slow_bytes: int
    slow_s: float
    control_rate: Rate


def bounds_of(limits: LimitSettings) -> Bounds:
    """Return what the settings allow a client."""
    return Bounds(
        limits.message_bytes,
        limits.queue_bytes,
        limits.queue_slow_bytes,
        limits.queue_slow_s,
        parse_rate(limits.control_rate, CONTROL_BURST),
    )


class Peer(Protocol):
    """Who handles the messages of a wire: a connection."""

    def receive(self, payload: bytes, is_text: bool) -> None:
        """Take one whole message."""

    def lagging(self) -> None:
        """Send the client no more than it asks for: much waits for it to read."""

    def lost(self, reason: str) -> None:
        """End, for the socket does; called once."""

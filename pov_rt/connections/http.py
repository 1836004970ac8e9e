"""Connections over HTTP: of who follows one log, and of one message that is sent alone.

The session of a client that can have no WebSocket is a connection as any other.
"""

from __future__ import annotations

from typing import Any

from pov_rt.connections.connection import Connection
from pov_rt.protocol.errors import CloseCode

ENDED = "its subscription was ended"


class StreamConnection(Connection):
    """A connection for one log's entries. It ends, and its client comes back for what follows.

    `ends_at` is when (monotonic). Unless it `is_present` its user is nobody on the PoV: neither
    presence nor any plugin knows of it.
    """

    __slots__ = ("ends_at", "is_present")

    is_exact = True
    has_grace = False

    def __init__(self, *args: Any, ends_at: float, is_present: bool, **more: Any) -> None:
        super().__init__(*args, v1=False, **more)
        self.ends_at = ends_at
        self.is_present = is_present

    def send(self, body: bytes) -> None:
        """Leave it out: the log alone is sent, which comes by another way."""

    def reply(self, body: bytes) -> None:
        """Leave it out."""

    def tell_position(self, body: bytes) -> None:
        """Say where it is."""
        super().send(body)

    def subscription_ended(self, body: bytes) -> None:
        """End: there is nothing else to follow."""
        self.close(CloseCode.NORMAL)
        self.close_reason = ENDED


class RequestConnection(Connection):
    """What a message is handled by that came in a request: `answers` has all that it is sent.

    It is entered nowhere, and is over when it is answered. What is published meanwhile is not for
    it, though it may have a place in a log for as long.
    """

    __slots__ = ("answers",)

    is_present = False
    may_subscribe = False

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, v1=True, **more)
        self.answers: list[bytes] = []

    def send(self, body: bytes) -> None:
        """Take an answer."""
        if not self.closed:
            self.answers.append(body)

    def reply(self, body: bytes) -> None:
        """Take an answer."""
        self.send(body)

    def end(self) -> None:
        """Drop what is sent from here on."""
        self.closed = True

"""A message's place in its connection's order, from its arrival to its answer."""

from __future__ import annotations

from pov_rt.auth.tokens import Identity
from pov_rt.connections.connection import Connection
from pov_rt.dispatch.handlers.context import ConnectionContext
from pov_rt.protocol.errors import ClientError
from pov_rt.protocol.messages import Message
from pov_rt.registry.build import Handler
from pov_rt.runtime.containment import Watched


class Slot(Watched):
    """One message and what becomes of it. Owner: the execution, which alone changes it.

    It waits, until `context` is there: then its handler was called; it is at work, as long as
    `work` is (which `release` cancels when the connection ends, and the watch of plain handlers'
    futures at their deadline); and it is done once `is_done`.
    """

    __slots__ = (
        "began", "connection", "context", "ended", "error", "handler", "identity", "is_beside",
        "is_done", "is_open", "message", "overlaps", "result",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, handler: Handler, message: Message, *, overlaps: bool
    ) -> None:
        # What `Watched` does, without its call.
        self.due, self.has_expired, self.work = 0.0, False, None
        self.connection = connection
        self.handler = handler
        self.message = message
        self.overlaps = overlaps
        """It need not wait for those before it that overlap, too."""
        self.is_open = overlaps
        """So do all before it: its handler was called."""
        self.is_beside = False
        """It has no place in the order: it is answered whenever it is done."""
        self.context: ConnectionContext | None = None
        self.identity: Identity = connection.identity
        """The sender's, when the handler was called."""
        self.began = self.ended = 0.0
        """By `Clock.monotonic`."""
        self.result: object = None
        self.error: ClientError | None = None
        self.is_done = False


class Refusal:
    """An answer that is ready, in the place of its message."""

    __slots__ = ("body", "is_open")

    context = work = None
    is_done = overlaps = True

    def __init__(self, body: bytes, *, is_open: bool) -> None:
        self.body = body
        self.is_open = is_open

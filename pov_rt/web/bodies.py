"""Bodies of requests while they arrive, and how many bytes of them there may be."""

from __future__ import annotations

from collections.abc import Callable

from pov_rt.config.settings import LimitSettings
from pov_rt.dispatch.request import Content
from pov_rt.protocol.errors import ClientError, TooLarge, Unavailable
from pov_rt.runtime.bounds import Shares
from pov_rt.runtime.clock import Clock

PATIENCE_S = 1.0
"""A body that has been on its way for longer makes room for others when there is none."""
BODY_S = 30.0
"""How long a body may take to arrive."""
NO_ROOM = "The server has no room for this body now; send it again later"


class Bodies:
    """All bodies that are there, those under way included. Owner: the web server.

    What has come is counted, and not what was promised: to promise much costs a sender nothing.
    When there is no room the oldest one under way makes some, so that nobody holds it by sending
    slowly; and when a user's own share is full, it is the new one that is refused.
    """

    def __init__(self, limits: LimitSettings, clock: Clock) -> None:
        self.shares = Shares(
            "bodies", "limits.bodies_bytes", limits.bodies_bytes, limits.bodies_bytes_per_user
        )
        self._most = limits.publish_bytes
        self.clock = clock
        self.arriving: dict[Body, float] = {}
        """Since when, the oldest first."""

    def check_size(self, size: int) -> None:
        """Raise `TooLarge` for more bytes than a body may have."""
        if size > self._most:
            raise TooLarge(f"The body is above {self._most} bytes; send less at once")

    def take(self, body: Body, amount: int) -> bool:
        """Take room for some bytes; return whether there was enough."""
        while not self.shares.take(body.owner, amount):
            held = self.shares.held(body.owner)
            oldest = next(iter(self.arriving), None)
            if (
                oldest is None
                or oldest is body
                or held + amount > self.shares.each
                or self.clock.monotonic() - self.arriving[oldest] < PATIENCE_S
            ):
                return False
            oldest.drop(Unavailable(NO_ROOM))
        return True

    def take_whole(self, owner: str, size: int) -> bool:
        """Take room for a body that has arrived; return whether there is some for the asking.

        Where there is not, nobody is refused yet: `Body` makes room, or says what there is too
        little of. Give it back to `shares`.
        """
        shares = self.shares
        return (
            size <= self._most
            and shares.used + size <= shares.bound.limit
            and shares.held(owner) + size <= shares.each
            and shares.take(owner, size)
        )


class Body:
    """One request's body, of at least `size` bytes. Until `release` it counts as its owner's.

    `refuse` is called with the reason if it is dropped under way. Raises `Unavailable` if its owner
    has no room for it.
    """

    def __init__(
        self, bodies: Bodies, owner: str, size: int, refuse: Callable[[ClientError], None]
    ) -> None:
        if not bodies.shares.has_share(owner, size):
            raise Unavailable(NO_ROOM)
        self.owner = owner
        self._bodies = bodies
        self._refuse: Callable[[ClientError], None] | None = refuse
        self._content: Content = b""
        self._held = 0
        bodies.arriving[self] = bodies.clock.monotonic()

    @property
    def is_arriving(self) -> bool:
        """Tell whether its end has not come."""
        return self in self._bodies.arriving

    def add(self, data: bytes) -> None:
        """Take a piece; past a bound the sender is refused, and the rest is not looked at."""
        if self._refuse is None:
            return
        size = self._held + len(data)
        try:
            self._bodies.check_size(size)
            if not self._bodies.take(self, len(data)):
                raise Unavailable(NO_ROOM)
        except ClientError as error:
            self.drop(error)
            return
        self._held = size
        if not self._content:
            self._content = data  # most come in one piece, which is not copied
        else:
            if isinstance(self._content, bytes):
                self._content = bytearray(self._content)
            self._content += data

    def complete(self) -> Content:
        """Return all of it; nobody drops it any more."""
        self._bodies.arriving.pop(self, None)
        return self._content

    def drop(self, error: ClientError) -> None:
        """Forget it, and refuse its sender."""
        refuse = self._refuse
        self.release()
        if refuse is not None:
            refuse(error)

    def release(self) -> None:
        """Give its bytes back."""
        self._refuse = None
        self._bodies.arriving.pop(self, None)
        if self._held:
            self._bodies.shares.give(self.owner, self._held)
        self._content, self._held = b"", 0

"""Calls of the functions inside Redis: a library that is gone is loaded, and the call repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pov_rt.engine.redis.client.connection import Reply, ServerError, pack
from pov_rt.engine.redis.client.library import is_missing, library
from pov_rt.engine.redis.client.link import Link, refusal
from pov_rt.engine.redis.layout import Partitions
from pov_rt.protocol.errors import Unavailable

ROTATIONS = 3
"""How often a log is asked to go over to another epoch: Redis may end again just then."""


def by_redis() -> int:
    """Leave it to Redis what time it is."""
    return 0


class Functions:
    """Calls over one link. `now` gives microseconds since 1970, or 0 for Redis's own clock."""

    def __init__(
        self, link: Link, partitions: Partitions, now: Callable[[], int] = by_redis
    ) -> None:
        self.link = link
        self.partitions = partitions
        self.now = now
        self.library = library()

    def pack(self, name: str, prefix: bytes, *args: bytes | str | int) -> bytes:
        """Return a call as it goes out; `prefix` is that of a partition."""
        return pack("FCALL", self.library.function(name), 1, prefix, self.now(), *args)

    async def call(
        self, name: str, of: str, *args: bytes | str | int, repeats: bool = True
    ) -> Reply:
        """Call a function in the partition of a topic, set or space; return its reply.

        Raises `Unavailable`: Redis is away, or cannot. Without `repeats` it is sent once only, and
        after `Away` nobody knows whether it was done.
        """
        packed = self.pack(name, self.partitions.of(of), *args)
        (reply,) = await self.call_all([packed], repeats=repeats)
        return reply

    async def ask(self, name: str, topic: str, *args: bytes | str | int) -> Reply:
        """Call a function that only reads; where a log has to go over to another epoch, it does.

        Raises `Unavailable`.
        """
        for _ in range(ROTATIONS):
            reply = await self.call(name, topic, topic, *args)
            if reply is not None:
                return reply
            await self.call("rotate", topic, topic)
        raise Unavailable("Redis does not stay: its process is another one at each look")

    async def call_all(self, packed: Sequence[bytes], *, repeats: bool = True) -> list[Reply]:
        """Send packed calls as one pipeline; return their replies. Raises as `call`."""
        replies = await self.link.send(b"".join(packed), len(packed), repeats=repeats)
        missing = [at for at, reply in enumerate(replies) if is_missing(reply)]
        if missing:
            await self.load()
            again = b"".join(packed[at] for at in missing)
            found = await self.link.send(again, len(missing), repeats=repeats)
            for at, reply in zip(missing, found, strict=True):
                replies[at] = reply
        for reply in replies:
            if isinstance(reply, ServerError):
                raise refusal(reply)
        return replies

    async def load(self) -> None:
        """Load the library. Raises `Unavailable`."""
        try:
            await self.library.load(await self.link.ready(0))
        except ServerError as error:
            raise refusal(error) from error

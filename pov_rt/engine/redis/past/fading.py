"""What is too old where it was appended to leaves its feed, but for a stub.

Who reads a feed sees stubs from the first moment on; Redis has the bodies until the next round.
"""

from __future__ import annotations

from collections.abc import Sequence

from pov_rt.engine.keeping import POVS, Keeping
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.walking import walk

STEP, STEP_BODIES = 200, 25
"""Entries that a step looks at, and whose bodies it replaces."""


class Fading:
    """Goes through all feeds, if any PoV is kept for a shorter time than they are."""

    def __init__(self, functions: Functions, keeping: Keeping) -> None:
        self._functions = functions
        self._keeping = keeping

    async def round(self) -> None:
        """Look at each entry of each feed. For one node at a time. Raises `Unavailable`."""
        if not self._keeping.fades:
            return
        async for _, names in walk(self._functions, "topics", self._functions.partitions.all):
            for topic in (name.decode() for name in names):
                if not topic.startswith(POVS):
                    await self._look_through(topic)

    async def _look_through(self, feed: str) -> None:
        last: int | None = 0
        while last is not None:
            now, last, *page = await self._functions.ask("fed", feed, last, STEP)
            old = [
                offset
                for offset, at, source in zip(*[iter(page)] * 3, strict=True)
                if int(at) < int(now) - self._keeping.of(source.decode()).max_age_s * 1e6
            ]
            for start in range(0, len(old), STEP_BODIES):
                await self._fade(feed, old[start : start + STEP_BODIES])

    async def _fade(self, feed: str, offsets: Sequence[int]) -> None:
        epoch, *bodies = await self._functions.call("fed_bodies", feed, feed, *offsets)
        args: list[bytes | int] = []
        for offset, body in zip(offsets, bodies, strict=True):
            if body is not None:
                args += (offset, body, self._keeping.stub(body))
        await self._functions.call("fade", feed, feed, epoch, *args)

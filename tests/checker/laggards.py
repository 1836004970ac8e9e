"""Readers that lag: one that retention passes, and those that come back to much on many PoVs."""

from __future__ import annotations

import asyncio
from functools import partial

from tests.checker.consumers import Consumer
from tests.checker.polling import wait_until

AWAY_S = (3.0, 6.0)
"""How long a returning reader stays away: enough that it misses more than may wait for a socket."""
STAY = 400
"""Deliveries after which it goes."""


class Passed(Consumer):
    """Reads without a break, but so slowly that it is served from the log and retention passes it.

    It is told so (4004), or that it is not recovered: it never has a hole.
    """

    bytes_per_s = 15_000

    def pause_s(self) -> float:
        """Return for how long it stops."""
        return 0.0


class Returning(Consumer):
    """Stays for a while, then away; it reads as fast as it can, and is no slow consumer."""

    receive_bytes = 64 * 1024
    """As on a phone."""

    async def run(self) -> None:
        """Be connected, until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._go_away())
            tasks.create_task(super().run())

    async def _go_away(self) -> None:
        await self.joined.wait()
        while not self.hurry:
            before = self.received
            await wait_until(partial(self._has_stayed, before))
            if not self.hurry:
                self._pause_s = self._random.uniform(*AWAY_S)
                self.reset()
                await asyncio.sleep(self._pause_s)

    def _has_stayed(self, before: int) -> bool:
        return self.hurry or self.received - before >= STAY

"""Who an engine tells what happens, on behalf of one node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from pov_rt.connections.directory import Register
from pov_rt.delivery.hub import Hub
from pov_rt.engine.base import Entry
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.topics import NODES

log = logging.getLogger(__name__)

RETRY_S = 1.0


class NodeFollower:
    """Gives the hub what concerns topics, and the register what nodes tell each other.

    What nodes may have said unheard is gone, save the revocations: `reread` enforces those stored.
    """

    def __init__(self, hub: Hub, register: Register, reread: Callable[[], Awaitable[None]]) -> None:
        self._hub = hub
        self._register = register
        self._reread = reread
        self._uncertain = self._rereading = False

    def entries(self, topic: str, epoch: str, entries: Sequence[Entry]) -> None:
        """Take over entries."""
        self._hub.entries(topic, epoch, entries)

    def signal(self, topic: str, body: bytes, origin: str) -> None:
        """Deliver a signal, or do what another node says."""
        if topic == NODES:
            self._register.hear(body)
        else:
            self._hub.signal(topic, body, origin)

    def uncertain(self, topic: str) -> None:
        """Look up what was missed."""
        if topic != NODES:
            self._hub.uncertain(topic)
            return
        self._uncertain = True
        if not self._rereading:
            self._rereading = True
            self._hub.spawn(self._look_up())

    async def _look_up(self) -> None:
        try:
            while self._uncertain:
                self._uncertain = False
                try:
                    await self._reread()
                except Unavailable as error:
                    log.warning("cannot read the revocations: %s", error)
                    self._uncertain = True
                    await asyncio.sleep(RETRY_S)
        finally:
            self._rereading = False

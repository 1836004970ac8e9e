"""Who an engine tells what happens, on behalf of one node."""

from __future__ import annotations

import asyncio
import logging

from pov_rt.connections.directory import Directory
from pov_rt.delivery.hub import Hub
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.topics import NODES

log = logging.getLogger(__name__)

RETRY_S = 1.0


class NodeFollower:
    """Gives the hub what concerns topics, and the directory what nodes tell each other.

    What nodes may have said unheard is gone, save the revocations: those are stored, and read.
    """

    def __init__(self, hub: Hub, directory: Directory) -> None:
        self._hub = hub
        self._directory = directory
        self.entries = hub.entries
        self._uncertain = self._rereading = False

    def signal(self, topic: str, body: bytes, origin: str) -> None:
        """Deliver a signal, or do what another node says."""
        if topic == NODES:
            self._directory.hear(body)
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
            self._hub.tasks.spawn(self._look_up())

    async def _look_up(self) -> None:
        try:
            while self._uncertain:
                self._uncertain = False
                try:
                    await self._directory.reread_revocations()
                except Unavailable as error:
                    log.warning("cannot read the revocations: %s", error)
                    self._uncertain = True
                    await asyncio.sleep(RETRY_S)
        finally:
            self._rereading = False

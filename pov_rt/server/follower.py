"""Who an engine tells what happens, on behalf of one node."""

from __future__ import annotations

import asyncio
import logging

from pov_rt.activities.digest import Digests
from pov_rt.connections.directory import Directory
from pov_rt.delivery.hub import Hub
from pov_rt.dispatch.hooks import Hooks
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.topics import NODES
from pov_rt.server.nodes.asking import Asking

log = logging.getLogger(__name__)

RETRY_S = 1.0


class NodeFollower:
    """Gives what happens to the hub, and to the plugins (leases).

    The directory is given what nodes say, and `Asking` what they ask and answer. What nodes may
    have said unheard is gone, save the revocations: those are stored, and read.
    """

    def __init__(
        self, hub: Hub, directory: Directory, digests: Digests, hooks: Hooks, asking: Asking
    ) -> None:
        self._hub = hub
        self.left = hooks.left
        self._directory = directory
        self._digests = digests
        self._asking = asking
        self.entries = hub.entries
        self._uncertain = self._rereading = False

    def signal(self, topic: str, body: bytes, origin: str) -> None:
        """Deliver a signal, or do or answer what another node says."""
        if topic == NODES:
            self._directory.hear(body)
        elif topic == self._asking.topic:
            self._asking.hear(body)
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

    def rewritten(self, topic: str) -> None:
        """Let go of what was made of a topic's activities."""
        self._hub.rewritten(topic)
        self._digests.rewritten(topic)

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

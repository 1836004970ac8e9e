"""A site under the strictest policy: its pages, the elements and the server are one origin."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from tests.browser.listener import HOST
from tests.browser.site import STRICT, Site
from tests.browser.tabs import Loop

CHUNK_BYTES = 64 * 1024


class Front(Site):
    """Serves a folder and tokens as `Site` does; the server behind it has `/ws/` and `/api/`.

    `port_of` says where that is now: it may be a `Cut`, or a server that was started anew.
    """

    def __init__(self, loop: Loop, folder: Path, port_of: Callable[[], int]) -> None:
        super().__init__(loop, folder)
        self.policy = STRICT
        self._port_of = port_of
        self.sockets: Literal["open", "stopped", "mute"] = "open"
        """What becomes of WebSockets: a proxy drops their `Upgrade`, or says nothing at all."""
        self.seen: list[str] = []
        """The paths that went on to the server, in order."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split(b" ", 2)[1].decode()
        if not target.startswith(("/ws/", "/api/")):
            await self._reply(target, writer)
            return
        self.seen.append(target.partition("?")[0])
        if target.startswith("/ws/") and self.sockets == "mute":
            await reader.read()  # until the browser gives up
            return
        if self.sockets == "stopped":
            head = re.sub(rb"(?im)^(upgrade|connection):.*\r\n", b"", head)
        await self._carry(head, reader, writer)

    async def _carry(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry a connection until either side ends it."""
        there, back = await asyncio.open_connection(HOST, self._port_of())
        back.write(head)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, back))
                group.create_task(pump(there, writer))
        finally:
            back.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    writer.close()

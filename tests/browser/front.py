"""A site under the strictest policy: its pages, the elements and the server are one origin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.browser.cut import HOST
from tests.browser.site import Site
from tests.browser.tabs import Loop

POLICY = "default-src 'self'; require-trusted-types-for 'script'"
CHUNK_BYTES = 64 * 1024


class Front(Site):
    """Serves a folder and tokens as `Site` does; what is under `/ws/` goes to the server behind it.

    `port_of` says where that is now: it may be a `Cut`, or a server that was started anew.
    """

    def __init__(self, loop: Loop, folder: Path, port_of: Callable[[], int]) -> None:
        super().__init__(loop, folder)
        self._port_of = port_of

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode()
            if target.startswith("/ws/"):
                await self._carry(head, reader, writer)
                return
            status, kind, body = self._answer(target)
            writer.write(
                f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: {kind}\r\n"
                f"Content-Security-Policy: {POLICY}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            writer.write(body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the browser opens some connections in advance, and closes them
        finally:
            writer.close()

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

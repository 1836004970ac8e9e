"""A way to a server that can be cut, for a browser's own offline mode leaves WebSockets alone.

Its port stays the same, whatever becomes of it and of the server behind it.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from tests.browser.listener import HOST, Listener
from tests.browser.tabs import Loop

CHUNK_BYTES = 64 * 1024


class Cut:
    """Carries TCP connections to the server at `port`, as a context.

    What a method does is done when it returns.
    """

    def __init__(self, loop: Loop, port: int) -> None:
        self.port = port
        """For connections to come: a server may start anew elsewhere."""
        self._loop = loop
        self._listener = Listener(self._carry)
        self._flows = asyncio.Event()
        # Bound, and no more: connections are refused while nobody listens, and no other program
        # gets the port.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind((HOST, 0))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._held.getsockname()[1]}"

    def __enter__(self) -> Cut:
        self.resume()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._held.close()

    def resume(self) -> None:
        """Carry everything; what a black hole has swallowed comes out."""
        self._loop.run(self._resume())

    def drop(self) -> None:
        """Reset all connections; new ones are carried."""
        self._loop.run(self._listener.drop())

    def refuse(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._loop.run(self._listener.close())

    def swallow(self) -> None:
        """Be a black hole: connections stay, new ones are taken, and nothing gets through."""
        self._loop.run(self._swallow())

    async def _resume(self) -> None:
        self._flows.set()
        await self._listener.open(self._held.getsockname()[1])

    async def _swallow(self) -> None:
        self._flows.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            await self._flows.wait()
            up_reader, up_writer = await asyncio.open_connection(HOST, self.port)
            writers.append(up_writer)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pump(reader, up_writer))
                ways.create_task(self._pump(up_reader, writer))
        except* (OSError, asyncio.CancelledError):
            # An end broke, or `drop` breaks it: then both ends learn it at once.
            for each in writers:
                if each.transport.is_closing():
                    continue  # that end broke; it has no socket any more
                ending = each.get_extra_info("socket")
                ending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.transport.abort()
        finally:
            for each in writers:
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self._flows.wait()
            writer.write(chunk)
            await writer.drain()
        await self._flows.wait()
        if writer.can_write_eof():
            writer.write_eof()

"""A TCP listener of which nothing is left: neither a connection nor what handles it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

HOST = "127.0.0.1"

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """Has `handle` care for each connection, which ends with it. Lives on one loop.

    The streams of asyncio alone refer weakly to each other: a handler of which the client has gone
    may be collected as garbage while it waits for somebody else, and its connection with it, open.
    And a task that is cancelled before it began closes nothing. So they are held here.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._held: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def open(self, port: int = 0) -> None:
        """Take connections, if that is not done already."""
        if self._server is None:
            self._server = await asyncio.start_server(self._take, HOST, port, reuse_address=True)

    async def close(self) -> None:
        """Take no more, and end all that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.drop()

    async def drop(self) -> None:
        """Cancel what handles the connections there are; they have ended when this returns."""
        for task in self._held:
            task.cancel()
        await asyncio.gather(*self._held, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # it was taken just before the port was closed
            writer.transport.abort()
            return
        task = asyncio.create_task(self._run(reader, writer))
        self._held[task] = writer
        task.add_done_callback(self._ended)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A browser opens some connections in advance, and closes them whenever it likes.
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._handle(reader, writer)
            writer.close()
            await writer.wait_closed()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._held.pop(task).transport.abort()
        if not task.cancelled() and (failure := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": "a connection's handler failed", "exception": failure, "task": task}
            )

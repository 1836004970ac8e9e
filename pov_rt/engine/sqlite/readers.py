"""The threads that read, for their users in turn: nobody's many reads hold up another's one.

Whose a read is says the context of who asks (`runtime.bounds.payer`). A user with many reads waits
for them; another's is next as soon as a thread has done what it is at. What nobody waits for any
more is not read.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pov_rt.engine.sqlite.jobs import Operation, ResultT
from pov_rt.engine.sqlite.schema import explain, open_reader
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import Bound, FairQueue, payer

THREADS = 2
EACH = THREADS - 1
"""What is read for one user at a time while others wait."""
MAX_WAITING = 10_000
"""Reads of one user that wait; past that they are refused. Tasks that wait take the memory."""


class Read(NamedTuple):
    """An operation, and who waits for it."""

    owner: str
    operation: Operation[Any]
    result: asyncio.Future[Any]


class Readers:
    """Threads with a connection each. Owner: the engine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(THREADS, "sqlite-reader")
        self._thread_local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._loop = asyncio.get_running_loop()
        self._queue: FairQueue[Read] = FairQueue()
        self._lock = threading.Lock()
        self._at_work: Counter[str] = Counter()
        """Reads that are being done, by owner; the lock is for what changes it."""
        self.bound = Bound("reads_waiting", "", MAX_WAITING, self._queue.longest)

    @property
    def executor(self) -> Executor:
        """The threads, for what else takes long."""
        return self._threads

    async def read(self, operation: Operation[ResultT]) -> ResultT:
        """Run an operation on a connection of a thread. Raises `Unavailable`."""
        owner = payer.get()
        if owner and self._queue.waiting(owner) >= MAX_WAITING:
            self.bound.refuse(owner, f"one owner may have {MAX_WAITING} reads that wait")
            raise Unavailable("You are waiting for too much already")
        result: asyncio.Future[ResultT] = self._loop.create_future()
        self._queue.put(owner, Read(owner, operation, result))
        # One call for each read, of whichever is next then.
        self._threads.submit(self._do_next)
        return await result

    def close(self) -> None:
        """End the threads, which do what waits first, and close what they opened."""
        self._threads.shutdown()
        while self._connections:
            self._connections.pop().close()

    def _do_next(self) -> None:
        read = self._begin_next()
        if read is None:
            return
        found: Any = None
        error: BaseException | None = None
        try:
            if read.result.cancelled():
                return
            found = self._run(read.operation)
        except BaseException as raised:
            error = raised
        finally:
            self._end(read.owner)
        self._loop.call_soon_threadsafe(_answer, read.result, found, error)

    def _begin_next(self) -> Read | None:
        with self._lock:
            served = [owner for owner, count in self._at_work.items() if count >= EACH]
            read = self._queue.take(served)
            if read is None:  # nobody else waits
                read = self._queue.take()
            if read is not None:
                self._at_work[read.owner] += 1
            return read

    def _end(self, owner: str) -> None:
        with self._lock:
            self._at_work[owner] -= 1
            if not self._at_work[owner]:
                del self._at_work[owner]

    def _run(self, operation: Operation[ResultT]) -> ResultT:
        try:
            connection: sqlite3.Connection | None = getattr(self._thread_local, "connection", None)
            if connection is None:
                connection = self._thread_local.connection = open_reader(self._path)
                self._connections.append(connection)
            try:
                return operation(connection)
            except BaseException:
                # A statement that was not read to its end keeps its snapshot: whoever read next on
                # this connection would see the log as it was then.
                self._thread_local.connection = None
                self._connections.remove(connection)
                connection.close()
                raise
        except sqlite3.Error as error:
            raise Unavailable(
                f"The log cannot be read: {explain(error, self._path)}".replace(
                    str(self._path), "its file"
                )
            ) from error


def _answer(result: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:
    if result.done():
        return
    if error is None:
        result.set_result(found)
    else:
        result.set_exception(error)

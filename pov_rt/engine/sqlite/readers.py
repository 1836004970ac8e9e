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
TURN = 32
"""Reads that a thread does in a row, before whatever else waits for a thread."""
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
        self._lock = threading.Lock()  # for all below, and to take from the queue or find it empty
        self._is_closing = False
        self._working = 0
        """Threads that do what waits, or are about to."""
        self._at_work: Counter[str] = Counter()
        """Reads that are being done, by owner."""
        self._answers: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        """What the loop has been told of and not taken yet: of many at once only of the first."""
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
        with self._lock:
            if self._working < THREADS:
                self._threads.submit(self._work)  # first: it may fail
                self._working += 1
            self._queue.put(owner, Read(owner, operation, result))
        return await result

    def close(self) -> None:
        """End the threads, which do what waits first, and close what they opened."""
        with self._lock:
            self._is_closing = True
        self._threads.shutdown()
        while self._connections:
            self._connections.pop().close()

    def _work(self) -> None:
        """Do what waits; of much only some, and the rest when it has a thread again."""
        done = 0
        while (read := self._begin_next()) is not None:
            self._do(read)
            done += 1
            if done >= TURN:
                with self._lock:
                    if not self._is_closing:
                        self._threads.submit(self._work)
                        return

    def _do(self, read: Read) -> None:
        found: Any = None
        error: BaseException | None = None
        try:
            if read.result.cancelled():
                return
            found = self._run(read.operation)
        except StopIteration as raised:  # which no future takes
            error = RuntimeError("a read raised StopIteration")
            error.__cause__ = raised
        except BaseException as raised:
            error = raised
        finally:
            self._end(read.owner)
        with self._lock:
            self._answers.append((read.result, found, error))
            is_first = len(self._answers) == 1
        if is_first:
            self._loop.call_soon_threadsafe(self._answer)

    def _begin_next(self) -> Read | None:
        """Take what is next; None: nothing waits, and who asked is not working any more."""
        with self._lock:
            served = [owner for owner, count in self._at_work.items() if count >= EACH]
            read = self._queue.take(served)
            if read is None:  # nobody else waits
                read = self._queue.take()
            if read is None:
                self._working -= 1
            else:
                self._at_work[read.owner] += 1
            return read

    def _end(self, owner: str) -> None:
        with self._lock:
            self._at_work[owner] -= 1
            if not self._at_work[owner]:
                del self._at_work[owner]

    def _answer(self) -> None:
        with self._lock:
            answers, self._answers = self._answers, []
        for result, found, error in answers:
            if result.done():
                continue
            if error is None:
                result.set_result(found)
            else:
                result.set_exception(error)

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

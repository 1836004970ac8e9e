"""The publisher of an app without a database of its own: a file keeps what is to be sent.

The file is an outbox in SQLite. Not with a write-ahead log: before 3.51.3 SQLite may damage one
that several processes write to. With a journal that is flushed, and flushed again when it is void,
a commit is on disk when it returns. That is four or five flushes, which threads share that publish
at the same time (docs/measurements.md, spools).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from msgspec import UNSET, UnsetType

from pov_rt.client.errors import Closed, PovError
from pov_rt.client.publishing.items import Item, make_item
from pov_rt.client.publishing.outbox import INSERT, Counts, Outbox
from pov_rt.client.publishing.relay import Relay, Token
from pov_rt.protocol.messages import NewActivity
from pov_rt.remote.addresses import Address, parse_url
from pov_rt.runtime.process.private import MODE, make_private

log = logging.getLogger(__name__)

MAX_ROWS, MAX_BYTES = 100_000, 64 * 1024 * 1024
BUSY_S = 10.0
"""How long a process waits for others to write."""
GATHER_S = 0.05
"""How long the first activity waits for others to travel with it, and to share its flushes."""
LOCK_S = 0.5
"""How often a process looks whether the one that sends is gone."""

_SIZE = """
CREATE TABLE IF NOT EXISTS spool_size (
    one INTEGER PRIMARY KEY CHECK (one = 1), rows INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO spool_size VALUES (1, 0, 0);
CREATE TRIGGER IF NOT EXISTS spool_came AFTER INSERT ON pov_rt_outbox BEGIN
    UPDATE spool_size SET rows = rows + 1, bytes = bytes + length(NEW.body); END;
CREATE TRIGGER IF NOT EXISTS spool_left AFTER DELETE ON pov_rt_outbox BEGIN
    UPDATE spool_size SET rows = rows - 1, bytes = bytes - length(OLD.body); END;
"""


class SpoolError(PovError):
    """The spool cannot keep an activity: its disk is full or fails. It is not published."""


class SpoolFull(SpoolError):
    """So many activities wait that the spool takes no more. This one is not published."""


def connect(path: Path) -> sqlite3.Connection:
    """Open a spool, and make it if it is not there. Raises `SpoolError`."""
    # Others may not read what waits; SQLite gives its other files the mode of this one.
    make_private(path)
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise SpoolError(f"cannot open the spool {path}: {error}") from error
    try:
        connection.execute("PRAGMA journal_mode = PERSIST")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        if not connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'spool_left'"
        ).fetchone():
            script = ";".join(Outbox.ddl("sqlite")) + ";" + _SIZE
            connection.executescript(f"BEGIN IMMEDIATE; {script} COMMIT")
    except sqlite3.Error as error:
        connection.close()
        raise SpoolError(f"{path} cannot be used as a spool: {error}") from error
    return connection


class Waiting:
    """An activity that a thread wants to be kept. Who commits it says so, or why it is not kept."""

    __slots__ = ("error", "is_done", "item")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.is_done = False
        self.error: PovError | None = None


class Publisher:
    """Publishes activities by way of a spool: what `publish` has returned of is never lost.

    Any number of threads and processes may share a spool; one of them sends. It does so in the
    background, from the first `publish` on (or `start`), for as long as the server is away, and by
    whoever opens the spool next. After a fork each process goes on by itself.

    At most `max_rows` activities and `max_bytes` wait, those that the server refused included.
    """

    def __init__(
        self,
        url: str | Address,
        token: Token,
        spool: str | os.PathLike[str],
        *,
        max_rows: int = MAX_ROWS,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = 10.0,
    ) -> None:
        self._address = parse_url(url) if isinstance(url, str) else url
        self._token = token
        self._path = Path(spool).absolute()
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._abandoned: list[object] = []
        """Of before a fork: to close it in the child would disturb the parent."""
        self._reset()
        _publishers.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        """Guards the next two alone, never during a commit."""
        self._waiting: list[Waiting] = []
        self._commits = False
        """Whether a thread commits, for all that it found waiting; others wait meanwhile."""
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._lock_file: int | None = None

    def publish(self, activity: NewActivity, *, traceparent: str | UnsetType | None = UNSET) -> str:
        """Return the activity's id, once it is on the disk; it is sent in the background.

        The `traceparent` of the request that it comes from travels in its details: of the one that
        is being handled, if a tracker or `traced` said so; None: of none.
        Raises `SpoolFull`, `SpoolError`, and `ClientError` for what the server would refuse at
        sight.
        """
        waiting = Waiting(make_item(activity, traceparent))
        together = self._join(waiting)
        if together:
            self._put_all(together)
        if waiting.error is not None:
            raise waiting.error
        if self._thread is None:
            self.start()
        if not self._wake.is_set():
            self._wake.set()
        return waiting.item.id

    async def apublish(
        self, activity: NewActivity, *, traceparent: str | UnsetType | None = UNSET
    ) -> str:
        """Publish without holding up the event loop; see `publish`."""
        return await asyncio.to_thread(self.publish, activity, traceparent=traceparent)

    def start(self) -> None:
        """Begin to send what is there from before; `publish` does so itself."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="pov-rt publisher", daemon=True
                )
                self._thread.start()

    def counts(self) -> Counts:
        """Count what waits, and what the server refused."""
        with self._lock:
            row = self._open().execute(
                "SELECT count(*) - count(refused), count(refused) FROM pov_rt_outbox"
            )
            return Counts(*row.fetchone())

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything is sent, for so long at most; return whether it is."""
        until = time.monotonic() + timeout_s
        self.start()
        self._wake.set()
        while self.counts().waiting:
            if time.monotonic() >= until or self._stop.is_set():
                return False
            time.sleep(0.02)
        return True

    def close(self, timeout_s: float = 5.0) -> bool:
        """Send what waits, for so long at most, and stop; return whether all is sent.

        What is not is safe, and is sent by whoever opens the spool next.
        """
        is_sent = self._thread is None or self.flush(timeout_s)
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(self._timeout_s + 1)
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        return is_sent

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._path)
        return self._connection

    def _join(self, waiting: Waiting) -> list[Waiting]:
        """Wait until it is committed, or return what this thread has to commit together."""
        with self._changed:
            self._waiting.append(waiting)
            self._changed.wait_for(lambda: waiting.is_done or not self._commits)
            if waiting.is_done:
                return []
            self._commits = True
            together, self._waiting = self._waiting, []
            return together

    def _put_all(self, together: Sequence[Waiting]) -> None:
        """Keep some in one transaction, and tell each whose it is."""
        try:
            with self._lock:
                self._put(together)
        except BaseException as error:
            for each in together:
                each.error = self._explain(error)
            if not isinstance(error, Exception):  # this thread is interrupted; others go on
                raise
        finally:
            with self._changed:
                for each in together:
                    each.is_done = True
                self._commits = False
                self._changed.notify_all()

    def _explain(self, error: BaseException) -> PovError:
        """Return what one of those is told that were not kept: each has an error of its own."""
        if isinstance(error, PovError):
            return type(error)(str(error))
        told = SpoolError(f"the spool {self._path} cannot be written: {error}")
        told.__cause__ = error
        return told

    def _put(self, together: Sequence[Waiting]) -> None:
        if self._stop.is_set():
            raise Closed("the publisher is closed")
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            rows, size = connection.execute("SELECT rows, bytes FROM spool_size").fetchone()
            for each in together:
                each.error = self._find_no_room(rows, size + len(each.item.body))
                if each.error is None:
                    connection.execute(INSERT, (each.item.pov, each.item.body))
                    rows, size = rows + 1, size + len(each.item.body)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _find_no_room(self, rows: int, size: int) -> SpoolFull | None:
        if rows < self._max_rows and size <= self._max_bytes:
            return None
        return SpoolFull(
            f"the spool {self._path} is full: {rows} activities wait, of {self._max_rows}, and "
            f"{size} bytes, of {self._max_bytes}; is the server away, does it refuse them? "
            f"See: pov-rt spool status {self._path}"
        )

    def _run(self) -> None:
        """Send, as long as no other process does."""
        stop, wake = self._stop, self._wake
        relay = Relay(
            lambda: connect(self._path),
            self._address,
            self._token,
            timeout_s=self._timeout_s,
            turn=self._lock,
        )
        try:
            while not stop.is_set():
                if not self._take_lock():
                    stop.wait(LOCK_S)
                    continue
                wake.clear()
                wait_s = relay.work()
                # What is published meanwhile does not have a server that is away asked sooner.
                if relay.is_failing:
                    stop.wait(wait_s)
                elif wake.wait(wait_s):
                    stop.wait(GATHER_S)
        finally:
            relay.close()
            with self._lock:
                self._release_lock()

    def _take_lock(self) -> bool:
        """Become the one that sends, if none is; the system ends that with the process.

        Not during a fork: a child that does not know of the file would have the lock for good.
        """
        with self._lock:
            if self._lock_file is not None:
                return True
            try:
                file = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
            except OSError as error:
                log.warning("nothing is sent from the spool: %s", error)
                return False
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # another process has it
                os.close(file)
                return False
            self._lock_file = file
            return True

    def _release_lock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def hold(self) -> None:
        """Begin nothing during a fork: a child must find neither a transaction half-way nor SQLite.

        What SQLite knows of the locks of its process is inherited, the locks are not.
        """
        self._lock.acquire()

    def go_on(self) -> None:
        """Go on as before, in the parent."""
        self._lock.release()

    def begin_anew(self) -> None:
        """Leave to the parent what is the parent's: its connection, thread and lock."""
        self._abandoned.append(self._connection)
        self._release_lock()  # this descriptor of it: the parent's own still holds it
        self._reset()


_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()
_held: list[Publisher] = []
"""Those that wait for the end of a fork."""


def _hold() -> None:
    _held.extend(_publishers)
    for publisher in _held:
        publisher.hold()


def _go_on() -> None:
    while _held:
        _held.pop().go_on()


def _begin_anew() -> None:
    while _held:
        _held.pop().begin_anew()


os.register_at_fork(before=_hold, after_in_parent=_go_on, after_in_child=_begin_anew)

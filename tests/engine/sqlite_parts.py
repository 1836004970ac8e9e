"""What the tests of the SQLite engine share: engines on real files, and ways to hold them up."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import NewEntry
from pov_rt.engine.bounds import TopicCount
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.engine.sqlite.log import LogStore
from pov_rt.engine.sqlite.state import StateStore
from pov_rt.engine.sqlite.tails import Tails
from pov_rt.runtime.clock import ManualClock, SteadyTime
from pov_rt.suites import Recorder

WAIT_S = 30.0
"""Nothing takes so long; past that a test fails instead of hanging."""
COUNTS = "SELECT count(*) FROM entries GROUP BY topic"
PLACES = """
    SELECT entries.topic, entries."offset", bodies.body
    FROM entries LEFT JOIN bodies ON bodies.id = entries.body
"""


@asynccontextmanager
async def opened(
    path: Path, clock: ManualClock | None = None, **settings: Any
) -> AsyncIterator[tuple[SqliteEngine, Recorder]]:
    """Open an engine on the file; close it in the end."""
    engine = SqliteEngine(path, EngineSettings(**settings), clock or ManualClock(), "node-1")
    recorder = Recorder()
    await engine.start(recorder)
    try:
        yield engine, recorder
    finally:
        await engine.close()


class NobodyWatches:
    """No topic is watched."""

    def __contains__(self, name: object) -> bool:
        return False

    def begun(self, name: str) -> str | None:
        """Return None: nobody was told an epoch."""


def open_store(
    connection: sqlite3.Connection,
    settings: EngineSettings,
    clock: ManualClock,
    epoch: str,
    keeping: Keeping | None = None,
) -> LogStore:
    """Return what the writer's thread works with, on a connection for this thread."""
    tails = Tails(connection, epoch, TopicCount(settings, clock), NobodyWatches())
    state = StateStore(settings, SteadyTime(clock))
    return LogStore(connection, settings, clock, tails, state, keeping)


def entries(topic: str, count: int, body: bytes = b"{}", start: int = 0) -> list[NewEntry]:
    """Return entries to append, with keys that count from `start`."""
    return [NewEntry(topic, "p", str(start + number), body) for number in range(count)]


def rows(path: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Ask the file itself, as another program would."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(statement, values).fetchall()


def content(path: Path, *, beside: bool = True) -> bytes:
    """Return all bytes on disk of a database; those of the files beside it only if asked for."""
    files = sorted(path.parent.glob(f"{path.name}*")) if beside else [path]
    return b"".join(part.read_bytes() for part in files)


class Held:
    """The writer's connection, held before it commits. Owner: `held`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.reached = asyncio.Event()
        self._connection = connection
        self._go = threading.Event()
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str) -> sqlite3.Cursor:
        """Execute a statement, a commit once that is let go."""
        if statement == "COMMIT":
            self._loop.call_soon_threadsafe(self.reached.set)
            self._go.wait(WAIT_S)
        return self._connection.execute(statement)

    def release(self) -> None:
        """Let it go on."""
        self._go.set()


@contextmanager
def held(engine: SqliteEngine) -> Iterator[Held]:
    """Hold the writer before its next commit, until the end at the latest."""
    writer: Any = engine.writer
    connection = writer.connection
    held = writer.connection = Held(connection)
    try:
        yield held
    finally:
        held.release()
        writer.connection = connection


async def tidied(engine: SqliteEngine, times: int = 1) -> None:
    """Wait until the idle writer has looked after old entries so many times more."""
    loop, done = asyncio.get_running_loop(), asyncio.Semaphore(0)
    store: Any = engine.writer.store
    tidy = store.tidy

    def tell() -> None:
        tidy()
        loop.call_soon_threadsafe(done.release)

    store.tidy = tell
    try:
        async with asyncio.timeout(WAIT_S):
            for _ in range(times):
                await done.acquire()
    finally:
        store.tidy = tidy


async def offsets(engine: SqliteEngine, topic: str) -> Sequence[int]:
    """Return the offsets that can be read of a topic."""
    return [entry.offset for entry in (await engine.log.read(topic, 0, 100_000)).entries]


def check_bodies(connection: sqlite3.Connection) -> None:
    """Each entry has its body, and each body an entry that has it."""
    missing = (
        "SELECT count(*) FROM entries WHERE at > 0 AND body NOT IN (SELECT id FROM bodies)",
        "SELECT count(*) FROM bodies WHERE id NOT IN (SELECT body FROM entries)",
        "SELECT count(*) FROM entries WHERE at = 0 AND body <> 0",
    )
    for statement in missing:
        assert connection.execute(statement).fetchall() == [(0,)]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """Mount a disk of that size, such as `1m`; yield what mounts it anew with other options."""
    folder.mkdir()
    given = f"size={size},mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", given, "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root with CAP_SYS_ADMIN")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_disk(path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        path.write_bytes(b"x" * 1_000_000)

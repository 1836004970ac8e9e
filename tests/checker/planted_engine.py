"""Bugs in the log: what is acknowledged, kept and known again."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from pov_rt.activities import publishing
from pov_rt.engine.base import Appended
from pov_rt.engine.memory import MemoryLog
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.engine.sqlite import log as log_module
from pov_rt.engine.sqlite.jobs import Job
from pov_rt.engine.sqlite.log import LogStore
from pov_rt.engine.sqlite.writer import Writer
from pov_rt.runtime.clock import SteadyTime, SystemClock
from tests.checker.planting import find, one_in, replace

EARLY_S = 0.2
AGE_S = 1200.0


def acknowledge_early() -> None:
    """Acknowledge, and commit a while later."""

    def commit(writer: Writer, group: Sequence[Job[Any]]) -> None:
        writer.connection.execute("BEGIN IMMEDIATE")
        results = writer.store.apply(group)
        writer._loop.call_soon_threadsafe(writer._deliver, group, results)
        time.sleep(EARLY_S)
        writer.connection.execute("COMMIT")

    replace(Writer, "_commit", commit)


def mix_feeds() -> None:
    """Put some activities into the feed of another team."""
    team_topic = find(publishing, "team_topic")

    def mix(team: str) -> str:
        return str(team_topic("quiet" if one_in(20) else team))

    replace(publishing, "team_topic", mix)


def forget_ids() -> None:
    """Forget at each start which ids were used."""
    begin = LogStore.__init__

    def forget(store: LogStore, connection: sqlite3.Connection, *rest: Any) -> None:
        connection.execute("DELETE FROM keys")
        begin(store, connection, *rest)

    replace(LogStore, "__init__", forget)


def miss_conflicts() -> None:
    """Take other contents under a known id for a retry."""

    def miss(epoch: str, offset: int) -> Appended:
        return Appended(epoch, offset, True)

    replace(log_module, "Conflict", miss)


def keep_epoch() -> None:
    """Give each log in memory the same epoch."""
    begin = MemoryLog.__init__

    def keep(log: MemoryLog, *rest: Any) -> None:
        begin(log, *rest)
        log.epoch = "kept"

    replace(MemoryLog, "__init__", keep)


def believe_clock() -> None:
    """Keep entries for so short that a step of the clock makes all of them too old."""
    begin = SqliteEngine.__init__

    def believe(engine: SqliteEngine, path: Any, settings: Any, *rest: Any) -> None:
        begin(engine, path, msgspec.structs.replace(settings, max_age_s=AGE_S), *rest)

    def now(_: SteadyTime) -> float:
        return SystemClock.time()

    replace(SqliteEngine, "__init__", believe)
    replace(SteadyTime, "now", now)

"""The one thread that writes: takes all that waits, commits it at once, and says so to the loop.

While a commit flushes the disk, what arrives collects into the next one (group commit): one flush
serves them all.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from pov_rt.engine.base import Health
from pov_rt.engine.sqlite.jobs import Append, Job, ResultT, Scrub
from pov_rt.engine.sqlite.log import LogStore
from pov_rt.engine.sqlite.remnants import LARGE_BYTES, FilePages
from pov_rt.engine.sqlite.schema import begin, commit, explain
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import Shares
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.process.logs import Throttle

log = logging.getLogger(__name__)

GROUP_BYTES = 2 * 1024 * 1024
GROUP_JOBS = 2000
"""Bounds of a group, which is committed at once. In a larger one the first jobs would wait for the
last."""
CROWD_JOBS, GATHER_S = 4, 0.002
"""After a group of `CROWD_JOBS` or more the next jobs are gathered for this long, because a commit,
with the deliveries after it, has a fixed cost (docs/measurements.md, commits)."""
TIDY_S = 0.5
"""How often at least old entries are looked for, and how often a failed disk is tried again."""
BEHIND_S = 0.02
"""How often an idle writer takes a step of retention while there is more to remove."""
REST_PAGES = 2000
"""Size of the write-ahead log (8 MB) at which it is copied into the database, once no job waits.
SQLite would do so within a commit, which is then late (docs/measurements.md, commits)."""
COMMIT_PAGES, PAGE_BYTES = 8, 1024
"""Estimate of what a commit adds to the write-ahead log: `COMMIT_PAGES`, and a page for each
`PAGE_BYTES` of its jobs. An activity changes the tables of ids, bodies and places."""


class Writer:
    """The writer's thread with its queue. Owner: the engine, which closes it.

    Its `health` is that of the engine: degraded while nothing can be written.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        store: LogStore,
        pages: FilePages,
        loop: asyncio.AbstractEventLoop,
        backlog_bytes: int,
        clock: Clock,
    ) -> None:
        self.health = Health()
        # Neither is changed but by tests, which have the disk fail or see what is done.
        self.connection = connection
        self.store = store
        self.backlog = Shares(
            "backlog_bytes", "engine.backlog_bytes", backlog_bytes, backlog_bytes / 2
        )
        """What waits to be written, or is being written; one publisher's is half of it at most."""
        self._path = pages.path
        self._clock = clock
        self._file = pages
        self._loop = loop
        self._failed_bytes = 0
        self._pages = 0.0
        self._tidied_at = 0.0
        self._emptied_at = 0.0
        self._chores = deque((self._copy, self._tidy, self._trim, self._empty, self._look))
        self._queue: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._fresh: list[Job[Any]] = []
        self._closed = False
        self._complaint = Throttle(log, per_s=0.1)
        self._relief = Throttle(log, per_s=0.1)
        self._advice = Throttle(log, per_s=1 / 3600)
        self._thread = threading.Thread(target=self._work, name="sqlite-writer", daemon=True)
        self._thread.start()

    def write(self, job: Job[ResultT]) -> asyncio.Future[ResultT]:
        """Have a job written; return what gets its result when that is on disk.

        It gets `Unavailable` when that cannot be written, or too much waits already. Whoever
        cancels it leaves the job: it may be on its way to the disk.
        """
        if self._closed:
            job.future.set_exception(Unavailable("The log is closed"))
            return job.future
        if not self.backlog.take(job.owner, job.size):
            words = "The log is behind with writing; try again"
            job.future.set_exception(Unavailable(words, retry_after_s=1.0))
            return job.future
        if not self._fresh:
            self._loop.call_soon(self._hand_over)
        self._fresh.append(job)
        return job.future

    async def close(self, executor: Executor) -> None:
        """Write what waits, then end the thread; `executor` is where that is waited for."""
        self._closed = True
        self._hand_over()
        self._queue.put(None)
        await self._loop.run_in_executor(executor, self._thread.join)

    def _hand_over(self) -> None:
        """Queue the jobs of one turn of the loop together.

        Queued one by one, the first would be committed alone while the loop reads the next: many
        small commits, each of which the jobs behind it wait for (docs/measurements.md, commits).
        """
        for job in self._fresh:
            self._queue.put(job)
        self._fresh = []

    # The thread:

    def _work(self) -> None:
        last, is_busy, gathers_until = False, False, 0.0
        while not last:
            try:
                # A chore has taken some of that time, or all of it.
                if (left_s := gathers_until - time.monotonic()) > 0:
                    time.sleep(left_s)
                group, last = self._take(BEHIND_S if is_busy else TIDY_S)
                is_busy = False
                appends = [job for job in group if isinstance(job, Append)]
                if len(appends) < len(group):
                    group = [*appends, *self._set_apart(group)]
                if group:
                    self._commit(group)
                    is_crowd = len(group) >= CROWD_JOBS
                    gathers_until = time.monotonic() + GATHER_S if is_crowd else 0.0
                elif self._is_failing:
                    self.probe()
                if not last and not self._is_failing:
                    # One that has failed is tried again in its time.
                    is_busy = self._do_a_chore() and not self._is_failing
            except Exception:  # a bug; the thread must not end, for all would wait for ever
                log.exception("the log's writer failed")

    def _set_apart(self, group: Sequence[Job[Any]]) -> list[Job[Any]]:
        """Return what is applied after the batches, whose order is that of the offsets.

        What is to be rebuilt is rebuilt before.
        """
        scrubs = [job for job in group if isinstance(job, Scrub)]
        if scrubs:
            self._scrub(scrubs)
        return [job for job in group if not isinstance(job, Append | Scrub)]

    def _do_a_chore(self) -> bool:
        """Do the next chore that is due, and no second one: a job that comes meanwhile waits.

        Return whether there is more to do.
        """
        for chore in tuple(self._chores):
            self._chores.rotate(-1)
            if chore():
                return self.store.is_behind or self.store.is_untidy or self._may_look
        return False

    def _copy(self) -> bool:
        if self._pages < REST_PAGES or not self._queue.empty():
            return False
        self._pages = 0.0
        self._attempt(self.store.copy)
        return True

    def _tidy(self) -> bool:
        now = time.monotonic()
        if not self.store.is_untidy and now < self._tidied_at + TIDY_S:
            return False
        self._tidied_at = now
        self._attempt(self.store.tidy)
        return True

    def _trim(self) -> bool:
        if not self.store.is_behind:
            return False
        self._attempt(self.store.trim)
        return True

    def _empty(self) -> bool:
        now = time.monotonic()
        if not self.store.is_stale or now < self._emptied_at + TIDY_S:
            return False
        self._emptied_at, self._pages = now, 0.0
        self._attempt(self.store.empty)
        return True

    @property
    def _may_look(self) -> bool:
        # Not while the write-ahead log has something that is copied into the file only later.
        return self.store.search.is_due and not self.store.is_stale

    def _look(self) -> bool:
        if not self._may_look:
            return False
        self._attempt(self._look_for_remnants)
        return True

    def _look_for_remnants(self) -> None:
        number, size = self.store.search.step(self._file), self._file.size
        if number is None:
            return
        if number == 0:
            self.store.search.end()
            self.store.is_stale = True
            self.store.empty()
            return
        if size > LARGE_BYTES:
            self._advice.log(
                logging.WARNING,
                "what was amended or retracted may have left copies in %d pages of %s, which is "
                "too large (%d MB) to be written anew while it is in use: stop the server and run "
                "pov-rt db scrub",
                number, self._path, size // 1_000_000,
            )  # fmt: skip
            return
        began = time.monotonic()
        try:
            self.store.rebuild(self._path)
        except sqlite3.Error as error:
            self.store.search.repeat()
            log.warning(
                "%s has copies of what was amended or retracted, and cannot be written anew; that "
                "is tried again: %s",
                self._path, explain(error, self._path),
            )  # fmt: skip
            return
        log.info(
            "wrote %s anew (%d MB, %.2f s): %d pages had copies of what was moved or changed",
            self._path, size // 1_000_000, time.monotonic() - began, number,
        )  # fmt: skip

    def _scrub(self, jobs: Sequence[Job[Any]]) -> None:
        result: Unavailable | None = None
        try:
            self.store.rebuild(self._path)
        except sqlite3.Error as error:
            result = Unavailable(f"The log cannot be rebuilt: {self._reason(error)}")
        self._loop.call_soon_threadsafe(self._deliver, jobs, [result] * len(jobs))

    def _take(self, wait_s: float) -> tuple[list[Job[Any]], bool]:
        """Return what waits, up to a group's bounds, and whether that was the last."""
        group: list[Job[Any]] = []
        size = 0
        try:
            job = self._queue.get(timeout=wait_s)
            while job is not None:
                group.append(job)
                size += job.size
                if size >= GROUP_BYTES or len(group) >= GROUP_JOBS:
                    return group, False
                job = self._queue.get_nowait()
        except queue.Empty:
            return group, False
        return group, True

    def _commit(self, group: Sequence[Job[Any]]) -> None:
        try:
            results = self.store.apply(group)
            commit(self.connection)
            self.store.committed()
            self._pages += COMMIT_PAGES + sum([job.size for job in group]) / PAGE_BYTES
        except Exception as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error):
                self._failed_bytes = min(sum(job.size for job in group), GROUP_BYTES)
                self._fail(error)
            else:
                log.exception("the log's writer failed")
            results = [Unavailable(f"The log cannot be written: {self._reason(error)}")]
            results *= len(group)
        else:
            if self._is_failing:
                self._recover()
        self._loop.call_soon_threadsafe(self._deliver, group, results)

    def _reason(self, error: Exception) -> str:
        if isinstance(error, sqlite3.Error):
            return explain(error, self._path).replace(str(self._path), "its file")
        return "an internal error"

    def probe(self) -> None:
        """Find out whether the database can be written again.

        Writes as many bytes as the group that failed: a full disk may have room for fewer.
        """
        try:
            begin(self.connection)
            self.connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(?))", (self._failed_bytes,)
            )
            commit(self.connection)
            self.connection.execute("DELETE FROM meta WHERE name = 'probe'")
        except sqlite3.Error as error:
            self._roll_back()
            self._fail(error)
        else:
            self._recover()

    def _attempt(self, work: Callable[[], float | None]) -> None:
        """Do a chore; it returns how many pages it adds to the write-ahead log, if it does."""
        try:
            self._pages += work() or 0.0
        except Exception as error:
            self._roll_back()
            if not isinstance(error, sqlite3.Error):
                raise
            self._fail(error)

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            try:
                self.connection.execute("ROLLBACK")
            except sqlite3.Error as error:  # SQLite has rolled back by itself
                log.debug("no rollback: %s", error)
        self.store.forget()

    @property
    def _is_failing(self) -> bool:
        return self.health.state != "ok"

    def _fail(self, error: sqlite3.Error) -> None:
        fault = explain(error, self._path)
        if fault != self.health.line:  # once, and not for everyone who tries meanwhile
            since = self.health.since if self._is_failing else self._clock.time()
            self.health = Health("degraded", fault, since)
            self._complaint.log(logging.ERROR, "the log cannot be written: %s", fault)

    def _recover(self) -> None:
        self.health = Health()
        self._relief.log(logging.WARNING, "the log can be written again")

    # The loop:

    def _deliver(self, group: Sequence[Job[Any]], results: Sequence[Any]) -> None:
        said: list[Any] = []
        for job, result in zip(group, results, strict=True):
            self.backlog.give(job.owner, job.size)
            if not isinstance(result, Exception):
                try:
                    result = job.finish(result)
                except Exception as error:  # a bug: the others must have their answers
                    log.exception("what was written could not be taken over")
                    said.append(error)
                    continue
            said.append(result)
        for job, result in zip(group, said, strict=True):
            if not job.future.done():
                if isinstance(result, Exception):
                    job.future.set_exception(result)
                else:
                    job.future.set_result(result)

"""The trace's file: events as lines of JSON, bounded in bytes and hours.

There are two, `trace.jsonl` and, before it, `trace.1.jsonl`. The newer one is appended to until it
has half of the bytes, or its first event half of the age, that are allowed; then it takes the
older one's place, with all that was in that. So at least half of what is allowed is there, and
never more than all. A line that a crash cut short is passed over.

What touches the files runs in a thread, one thing after the other.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pov_rt.config.settings import TraceSettings
from pov_rt.protocol.encoding import encode
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.process.logs import Throttle
from pov_rt.runtime.process.private import open_private
from pov_rt.server.trace.events import Event, needles_of, read_those, without
from pov_rt.server.trace.history import left_at

ResultT = TypeVar("ResultT")

log = logging.getLogger(__name__)

NEWER, OLDER = "trace.jsonl", "trace.1.jsonl"


class Spill:
    """Writes and reads the file. Owner: the server; `folder` is there."""

    def __init__(self, folder: Path, settings: TraceSettings, clock: Clock) -> None:
        self._newer, self._older = folder / NEWER, folder / OLDER
        self._settings = settings
        self._clock = clock
        self._lock = asyncio.Lock()
        self._began: float | None = None
        """When the newer file's first event was; None: not looked at yet."""
        self._complaint = Throttle(log, per_s=0.1, burst=3)
        self.bytes = 0
        """What both files take, as of the last writing."""

    async def write(self, lines: Sequence[bytes]) -> None:
        """Append the lines of events. What cannot be written is lost, and the log says so."""
        try:
            await self._do(lambda: self._write(lines))
        except OSError as error:
            words = "the trace cannot be written: %s; explain will not know of what happened now"
            self._complaint.log(logging.WARNING, words, error.strerror)

    async def read(self, user_id: str) -> Sequence[Event]:
        """Return what is written of a user, and of the node itself."""
        needles = needles_of(user_id)
        oldest = self._clock.time() - self._settings.max_age_s

        def is_wanted(event: Event) -> bool:
            return event.at >= oldest and event.user in (user_id, "")

        return await self._do(lambda: self._read(needles, is_wanted))

    async def about(self, activity_id: str) -> Sequence[Event]:
        """Return the attempts to publish an id that were refused."""

        def is_wanted(event: Event) -> bool:
            return event.kind in ("rejected", "conflict") and event.more.get("id") == activity_id

        return await self._do(lambda: self._read((encode(activity_id),), is_wanted))

    async def left_at(self, run: str) -> Mapping[str, float]:
        """Return when users left before this run, as far as the file knows. Raises OSError."""
        return await self._do(lambda: left_at(each for each in self._events() if each.run != run))

    async def erase(self, user_id: str) -> None:
        """Leave nothing of a user in the files. Raises OSError."""
        await self._do(lambda: self._erase(user_id))

    async def _do(self, work: Callable[[], ResultT]) -> ResultT:
        async with self._lock:
            # Shielded: whoever goes away must not have two threads at one file.
            task = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.wait([task])
                raise

    # In the thread:

    def _write(self, lines: Sequence[bytes]) -> None:
        now = self._clock.time()
        data = b"".join(lines)
        size = self._newer.stat().st_size if self._newer.exists() else 0
        if size and self._began is None:
            with self._newer.open("rb") as file:
                first = next(read_those((file.readline(),), (b"",)), None)
            self._began = now if first is None else first.at
        is_old = (
            size and self._began is not None and now - self._began > self._settings.max_age_s / 2
        )
        if size and (is_old or size + len(data) > self._settings.file_bytes / 2):
            self._newer.replace(self._older)
            os.utime(self._older, (now, now))  # by the clock that its age is told by
            size, self._began = 0, None
        if self._began is None:
            self._began = now
        with open(self._newer, "ab", opener=open_private) as file:
            if size and not self._ends_well():
                file.write(b"\n")
            file.write(data)
        older = self._older.stat() if self._older.exists() else None
        if older is not None and now - older.st_mtime > self._settings.max_age_s:
            self._older.unlink()
            older = None
        self.bytes = size + len(data) + (0 if older is None else older.st_size)

    def _ends_well(self) -> bool:
        with self._newer.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"

    def _read(self, needles: Sequence[bytes], is_wanted: Callable[[Event], bool]) -> list[Event]:
        return [event for event in self._events(needles) if is_wanted(event)]

    def _events(self, needles: Sequence[bytes] = (b"",)) -> Iterator[Event]:
        """Yield the events, oldest first, whose lines have one of these in them."""
        for path in (self._older, self._newer):
            try:
                with path.open("rb") as file:
                    yield from read_those(file, needles)
            except FileNotFoundError:
                continue

    def _erase(self, user_id: str) -> None:
        for path in (self._older, self._newer):
            if not path.exists():
                continue
            rest = path.with_suffix(".new")
            with path.open("rb") as old, open(rest, "wb", opener=open_private) as new:
                new.writelines(without(old, user_id))
            times = path.stat()
            os.utime(rest, (times.st_atime, times.st_mtime))
            rest.replace(path)

"""What pages showed, as their browsers said it, against the log: each once, in order, all."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.browser.listener import HOST
from tests.browser.tabs import Loop

LIMIT = 1000
"""How many rows a feed keeps; it may drop the oldest of more (clients/js/src/api.ts)."""
LAST = 20
"""How many events are told with a violation."""


class Place(NamedTuple):
    """Where the log has an activity."""

    pov: str
    offset: int


@dataclass
class Shown:
    """What a life shows of a PoV: all of `low` to `high`, or something is missing."""

    low: int
    high: int
    number: int = 0
    missing: list[int] = field(default_factory=list)
    """What was told of."""

    @property
    def is_whole(self) -> bool:
        """Tell whether no offset between the first and the last is missing."""
        return self.number == self.high - self.low + 1


def number_of(name: str) -> int:
    """Return the number in an activity's id: they are numbered in the order of publishing."""
    return int(name.rpartition("-")[2])


@dataclass
class Life:
    """A page from when it loads until it is gone, and what became of its list."""

    tab: str
    number: int
    id: str = ""
    heard: int = 0
    """The number of the last message."""
    state: str = ""
    lines: int = 0
    """Its connections: none if it is over, or asleep."""
    newest: int = 0
    """The highest number of what it ever showed."""
    peaks: list[tuple[int, int]] = field(default_factory=list)
    """When (ms since 1970) a higher number was shown, and which."""
    names: set[str] = field(default_factory=set)
    """Of all that it ever showed."""
    shown: dict[str, Shown] = field(default_factory=dict)
    _told: deque[tuple[int, list[list[str]]]] = field(default_factory=deque)
    _rows: list[str] = field(default_factory=list)
    """The newest first."""
    _ever: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """Return how it is called in a report."""
        return f"tab {self.tab}, page life {self.number}"

    def take(self, at: int, changes: list[list[str]]) -> None:
        """Note changes of its list: `[id, id of the next]` was added, `[id]` was removed."""
        self._told.append((at, changes))
        self.names.update(each[0] for each in changes if len(each) == 2)
        newest = max((number_of(each[0]) for each in changes if len(each) == 2), default=0)
        if newest > self.newest:
            self.newest = newest
            self.peaks.append((at, newest))

    def showed(self, number: int) -> int | None:
        """Return when it first showed something of this number or a higher one."""
        return next((at for at, newest in self.peaks if newest >= number), None)

    def check(self, log: Mapping[str, Place]) -> Iterator[tuple[int, str]]:
        """Compare what was noted since the last time with the log; yield when and what is wrong."""
        while self._told:
            at, changes = self._told.popleft()
            for what in self._apply(changes, log):
                yield at, what

    def _apply(self, changes: list[list[str]], log: Mapping[str, Place]) -> Iterator[str]:
        removed: list[Place] = []
        for name, *after in changes:
            place = log.get(name)
            if place is None:
                yield f"{name} is not in the log"
            elif after:
                yield from self._add(name, after[0], place, log)
            elif name in self._rows:
                self._rows.remove(name)
                removed.append(place)
        for pov, offset in removed:
            shown = self.shown[pov]
            shown.number -= 1
            shown.low = max(shown.low, offset + 1)
        if removed and len(self._rows) < LIMIT:
            yield f"{len(removed)} were removed, and only {len(self._rows)} are left"
        for pov in {log[name].pov for name, *_ in changes if name in log}:
            shown = self.shown[pov]
            if not shown.number or shown.is_whole:
                continue
            have = {log[name].offset for name in self._rows if log[name].pov == pov}
            # Of what came late some may be too old for a full list at once: it begins behind that.
            shown.low = min(have)
            missing = sorted({*range(shown.low, shown.high + 1)} - have)
            if missing and missing != shown.missing:
                yield f"of {pov} {len(missing)} are missing: {_ranges(missing)}"
            shown.missing = missing

    def _add(self, name: str, after: str, place: Place, log: Mapping[str, Place]) -> Iterator[str]:
        pov, offset = place
        index = self._rows.index(after) if after in self._rows else len(self._rows)
        self._rows.insert(index, name)
        if name in self._ever:
            yield f"{name} ({pov} {offset}) was added twice"
            self._rows.remove(name)
            return
        self._ever.add(name)
        newer = (log[each] for each in reversed(self._rows[:index]))
        older = (log[each] for each in self._rows[index + 1 :])
        above = next((each.offset for each in newer if each.pov == pov), offset + 1)
        below = next((each.offset for each in older if each.pov == pov), offset - 1)
        if not below < offset < above:
            yield f"{name} ({pov} {offset}) stands between {below} and {above}"
        shown = self.shown.setdefault(pov, Shown(offset, offset))
        if not shown.number:
            shown.low = shown.high = offset
        shown.low, shown.high = min(shown.low, offset), max(shown.high, offset)
        shown.number += 1


def _ranges(numbers: list[int]) -> str:
    """Return ascending numbers as ranges."""
    parts: list[list[int]] = []
    for each in numbers:
        if parts and parts[-1][1] == each - 1:
            parts[-1][1] = each
        else:
            parts.append([each, each])
    return ", ".join(f"{low} to {high}" if low < high else str(low) for low, high in parts)


class Ledger:
    """Hears what pages say of their lists, from all tabs, and of itself what happened; a context.

    Pages say it over a WebSocket of their own, as it happens: so nothing is lost with a page.
    """

    def __init__(self, loop: Loop, path: Path) -> None:
        self.lives: dict[str, list[Life]] = {}
        """By tab, the latest last."""
        self.violations: list[str] = []
        self.events: deque[tuple[int, str]] = deque(maxlen=2000)
        """When (ms since 1970), and what."""
        self._loop = loop
        self._file = path.open("w")
        self._changed = threading.Condition()
        self._server: Server | None = None

    def __enter__(self) -> Ledger:
        self._loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._stop())
        self._file.close()

    @property
    def url(self) -> str:
        """Return where pages find it; the tab's name follows."""
        assert self._server is not None
        return f"ws://{HOST}:{next(iter(self._server.sockets)).getsockname()[1]}"

    def note(self, what: str) -> None:
        """Note an event: what the bench does, or what a page says of itself."""
        with self._changed:
            at = now_ms()
            self.events.append((at, what))
            self._file.write(json.dumps({"at": at, "event": what}) + "\n")

    def life(self, tab: str) -> Life:
        """Return the latest life of a tab."""
        return self.lives[tab][-1]

    def wait(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something holds of what pages said; return whether it does."""
        with self._changed:
            return self._changed.wait_for(holds, timeout_s)

    def violate(self, who: str, what: str, at: int | None = None) -> None:
        """Note that something is wrong, with what happened before."""
        with self._changed:
            until = now_ms() if at is None else at
            before = [(when, event) for when, event in self.events if when <= until][-LAST:]
            lines = [f"    {when - until:+7d} ms  {event}" for when, event in before]
            text = "\n".join([f"{who}: {what}", *lines])
            self.violations.append(text)
            self._file.write(json.dumps({"at": until, "violation": text}) + "\n")

    def check(self, log: Mapping[str, Place]) -> None:
        """Compare all that was noted since the last time with the log."""
        with self._changed:
            self._file.write(json.dumps({"at": now_ms(), "log": log}) + "\n")
            found = [
                (life.name, at, what)
                for lives in self.lives.values()
                for life in lives
                for at, what in life.check(log)
            ]
        for name, at, what in found:
            self.violate(name, what, at)

    async def _start(self) -> None:
        self._server = await serve(
            self._hear, HOST, 0, max_size=None, ping_interval=None, compression=None
        )

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _hear(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        _, tab, name = connection.request.path.split("/")
        with self._changed:
            lives = self.lives.setdefault(tab, [])
            if not lives or lives[-1].id != name:
                lives.append(Life(tab, len(lives) + 1, name))
            life = lives[-1]
            life.lines += 1
        try:
            async for text in connection:
                told = json.loads(text)
                if told["number"] > life.heard:
                    life.heard = told["number"]
                    self._take(life, told)
                await connection.send(str(life.heard))
        except ConnectionClosed:
            pass  # it crashed, or was asleep
        with self._changed:
            self.note(f"{life.name} is heard no more")
            life.lines -= 1
            self._changed.notify_all()

    def _take(self, life: Life, told: dict[str, Any]) -> None:
        with self._changed:
            self._file.write(json.dumps({"tab": life.tab, "life": life.number, **told}) + "\n")
            if "begins" in told:
                self.events.append((told["at"], f"{life.name} begins"))
            elif "rows" in told:
                life.take(told["at"], told["rows"])
            elif "state" in told:
                life.state = told["state"]
                self.events.append((told["at"], f"{life.name}: {told['state']} {told['why']}"))
            elif "read" in told:
                self.events.append((told["at"], f"{life.name}: read failed: {told['read']}"))
            self._changed.notify_all()
        if "gaps" in told:
            self.violate(life.name, f"shows gaps: {json.dumps(told['gaps'])}", told["at"])
        if "error" in told:
            self.violate(life.name, f"did not catch: {told['error']}", told["at"])


def now_ms() -> int:
    """Return the time as pages tell it."""
    return int(time.time() * 1000)

"""The memory engine as one that may lose the end of its logs, as a server can that it talks to.

`lose` is such a restart: the last entries are gone, with their ids and producers; all else is
there, and each log has another epoch. A log remembers which epochs it had, and where they ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Appended, Health, NewEntry, Position
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.local import MemoryLeases
from pov_rt.engine.memory import MemoryEngine, MemoryLog
from pov_rt.engine.memory.copying import MemoryCopying
from pov_rt.engine.state import MemoryMarks
from pov_rt.runtime.clock import Clock


class LosingLog(MemoryLog):
    """A log of which the end may be lost."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._runs: dict[str, int] = {}
        self._past: dict[str, dict[str, int]] = {}
        self._appended: list[tuple[str, ...]] = []

    def epoch_of(self, topic: str) -> str:
        run = self._runs.get(topic, 0)
        return super().epoch_of(topic) + (f".{run}" if run else "")

    def _append(self, new: NewEntry, *rest: Any) -> Any:
        done = super()._append(new, *rest)
        if isinstance(done, Appended) and not done.duplicate:
            self._appended.append((new.topic, new.feed) if new.feed else (new.topic,))
        return done

    async def holds(self, topic: str, position: Position) -> bool:
        return self.placed(topic, position).epoch == self.epoch_of(topic) and (
            position.offset <= self._top(topic).offset
        )

    def placed(self, topic: str, position: Position) -> Position:
        """Return a position, or what begins with its epoch, as one of now, if it still is one."""
        for epoch, end in self._past.get(topic, {}).items():
            own, dash, rest = position.epoch, "", ""
            if own != epoch and own.startswith(f"{epoch}-"):
                own, dash, rest = epoch, "-", own.removeprefix(f"{epoch}-")
            if own == epoch and position.offset <= end:
                return Position(f"{self.epoch_of(topic)}{dash}{rest}", position.offset)
        return position

    def _remove(self, topic: str) -> None:
        super()._remove(topic)
        self._past.pop(topic, None)

    def lose(self, number: int) -> None:
        """Lose the newest entries of all topics, and begin another epoch in each."""
        lost = self._appended[max(0, len(self._appended) - number) :]
        del self._appended[len(self._appended) - len(lost) :]
        for topic in [each for topics in reversed(lost) for each in topics]:
            log = self.logs[topic]
            if log.entries:
                del log.entries[-1], log.places[-1]
            log.head = min(log.head, len(log.entries))
            log.offset -= 1
        gone = [key for key, at in self.keys.items() if at.offset > self.logs[key[0]].offset]
        self._drop_keys(gone)
        self.producers.discard(lambda _: True)
        for topic in {*self.logs, *self.watched}:
            end = self._top(topic).offset
            past = self._past.setdefault(topic, {})
            past[self.epoch_of(topic)] = end
            self._past[topic] = {epoch: min(end, before) for epoch, before in past.items()}
            self._runs[topic] = self._runs.get(topic, 0) + 1


class LosingMarks(MemoryMarks):
    """Marks that go over to the next epoch with their topics' logs."""

    log: LosingLog

    async def advance(self, topic: str, user: str, name: str, position: Position) -> Position:
        return await super().advance(topic, user, name, self.log.placed(topic, position))

    def follow(self) -> None:
        """Have all marks speak of the logs as they are now."""
        for (topic, name, user), mark in list(self._marks.items()):
            position = self.log.placed(topic, mark.position)
            self._marks[topic, name, user] = mark._replace(position=position)


class LosingEngine(MemoryEngine):
    """All parts in memory, which lose what they are told to."""

    log: LosingLog
    marks: LosingMarks
    LOG = LosingLog
    state = Health()
    """How it says that it is."""

    def __init__(
        self, settings: EngineSettings, clock: Clock, node: str, keeping: Keeping | None = None
    ) -> None:
        super().__init__(settings, clock, node, keeping)
        keeping = keeping or Keeping(settings)
        self.marks = LosingMarks(settings, clock, keeping.ages[-1])
        self.log = self.LOG(settings, clock, self.marks, keeping)
        self.marks.log = self.log
        self.leases = MemoryLeases(clock, node, self.log.watched)
        self.copying = MemoryCopying(self.log, self.marks, self.sets, self.store, keeping, clock)
        own, log = {"topics", "marks", "ids", "producers"}, self.log
        mine = (log.count.bound, self.marks.rules.bound, log.ids, log.producers.rules.bound)
        self.bounds = (*mine, *(each for each in self.bounds if each.name not in own))

    def health(self) -> Health:
        return self.state

    def lose(self, number: int) -> None:
        """Lose the newest entries, as in a restart; nobody is told."""
        self.log.lose(number)
        self.marks.follow()

    def notice(self, topics: Sequence[str] | None = None) -> None:
        """Find out that something may have been missed, as at every reconnect."""
        watched: Mapping[str, int] = self.log.watched
        if self.log.follower is not None:
            for topic in watched if topics is None else topics:
                self.log.follower.uncertain(topic)

"""What was published and answered, what each subscriber has seen, and whether that can be true.

A subscriber's view of a topic is what it was sent since it last began anew: from its base on every
offset up to its place, and nothing else. A view is broken in silence where it lacks an offset, or
has something at an offset that is not there in Redis, and the subscriber was not told of a gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.checker.records import Notes, Place

REMEMBERED = 2000
"""Offsets of a view that are kept: more than Redis keeps."""


class Told(NamedTuple):
    """A subscriber was told of a gap: what came after `since` is not sent."""

    topic: str
    since: Place
    missed: int | None
    subscriber: str


class View:
    """What one subscriber knows of a topic."""

    def __init__(self, ledger: Ledger, subscriber: str, topic: str) -> None:
        self.topic = topic
        self.place: Place | None = None
        """Where it is; None: it was never subscribed."""
        self.seen: dict[int, str] = {}
        self._ledger = ledger
        self._subscriber = subscriber

    def begin(self, place: Place, recovered: bool | None, missed: int | None) -> None:
        """Take an answer to `subscribe`: with a position it was `recovered` or not."""
        before = self.place
        if before is None or not recovered:
            if before is not None:
                told = Told(self.topic, before, missed, self._subscriber)
                self._ledger.told.append(told)
            self.seen.clear()
            self.place = place
        else:
            self.place = Place(place.epoch, before.offset)

    def move(self, place: Place) -> None:
        """Take the epoch that the log goes on under."""
        assert self.place is not None
        if place.offset != self.place.offset:
            text = f"was told to be at {place.offset} of the new epoch, and is at"
            self._note("hole", f"{text} {self.place.offset}")
        self.place = place
        self._ledger.moves += 1

    def receive(self, offset: int, name: str) -> None:
        """Take an activity."""
        assert self.place is not None
        self._ledger.received += 1
        if offset != self.place.offset + 1:
            kind = "hole" if offset > self.place.offset else "repeated"
            self._note(kind, f"was sent {offset} after {self.place.offset}")
        self.seen[offset] = name
        self.place = Place(self.place.epoch, offset)
        self.seen.pop(offset - REMEMBERED, None)

    def is_at(self, top: Place | None) -> bool:
        """Tell whether it is where the log ends."""
        return self.place is not None and self.place == top

    def compare(self, ids: Mapping[int, str]) -> None:
        """Compare the view with what is kept in Redis."""
        oldest = min(ids, default=0)
        for offset, name in self.seen.items():
            if offset < oldest:
                continue
            there = ids.get(offset)
            if there != name:
                self._note("ghost", f"has {name} as {offset}, where Redis has {there}")
                return
        first = min(self.seen, default=None)
        if first is not None and (
            lacks := [at for at in ids if at > first and at not in self.seen]
        ):
            self._note("hole", f"lacks {lacks[0]} ({len(lacks)} in all), and was told nothing")

    def _note(self, kind: str, text: str) -> None:
        self._ledger.notes.add(kind, f"{self._subscriber} {text} of {self.topic}")


class Ledger:
    """All of a run."""

    def __init__(self) -> None:
        self.notes = Notes()
        self.counts: Counter[str] = Counter()
        self.topics: dict[str, str] = {}
        """By id: on which topic it was published."""
        self.acked: dict[str, Place] = {}
        """By id: where it was acknowledged; those that are known to be lost or to have left are
        not in it any more."""
        self.lost: dict[str, Place] = {}
        """What was acknowledged, and was not there after a fault that may lose it."""
        self.told: list[Told] = []
        self.views: list[View] = []
        self.moves = 0
        """How often a subscriber was told of a new epoch and lost nothing."""
        self.received = 0
        self.slowest_s = 0.0
        """The longest that an answer of a node that works took in this cycle."""

    def view(self, subscriber: str, topic: str) -> View:
        """Return a view, to be filled by its subscriber."""
        view = View(self, subscriber, topic)
        self.views.append(view)
        return view

    def send(self, name: str, topic: str) -> None:
        """Note what is about to be published."""
        self.topics[name] = topic
        self.counts["sent"] += 1

    def acknowledge(self, name: str, place: Place) -> None:
        """Note what a publisher was answered."""
        before = self.acked.get(name)
        if before is None:
            self.counts["acknowledged"] += 1
        elif before.offset != place.offset and name not in self.lost:
            text = f"a retry of {name} was answered {place.offset}, at first it was {before.offset}"
            self.notes.add("retry", text)
        self.acked[name] = place

    def compare(
        self, topic: str, top: Place, kept: Sequence[tuple[int, str]], *, may_lose: bool
    ) -> int:
        """Compare a topic with what Redis has of it; return how many acknowledged ones are lost."""
        lost, ids = 0, dict(kept)
        said = [offset for offset, _ in kept]
        if said != list(range(top.offset - len(kept) + 1, top.offset + 1)):
            self.notes.add("place", f"{topic} ends at {top.offset}, and its entries say {said}")
        offsets: dict[str, int] = {}
        for offset, name in ids.items():
            if name in offsets:
                text = f"{name} is {offsets[name]} and {offset} of {topic}"
                self.notes.add("twice", text)
            offsets[name] = offset
        oldest = min(ids, default=top.offset + 1)
        for name in [each for each, of in self.topics.items() if of == topic]:
            place = self.acked.get(name)
            if place is None:
                continue
            if offsets.get(name) == place.offset:
                continue
            if place.offset < oldest and place.offset <= top.offset and name not in offsets:
                self._forget(name)  # it has left for its age
                continue
            lost += 1
            where = f"{name}, acknowledged as {place.offset} of {topic},"
            if not may_lose:
                self.notes.add("lost", f"{where} is {offsets.get(name)}")
            if place.epoch == top.epoch:
                self.notes.add("epoch", f"{where} is lost, and the epoch is the same")
            self.lost[name] = place
            del self.acked[name]
        for view in self.views:
            if view.topic == topic:
                view.compare(ids)
        return lost

    def _forget(self, name: str) -> None:
        self.acked.pop(name, None)
        self.topics.pop(name, None)

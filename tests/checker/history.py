"""Whether what was received is what was promised. It looks at records, and at nothing else.

- What was acknowledged was received by each reader that was not told of a gap there.
- What was received was sent, as it was sent.
- An id has one place in an epoch, whatever its publisher was answered, and a place one id; so all
  readers agree on the order. The feed has each PoV's activities in that PoV's order.
- A connection's offsets are without a hole and without a repetition from where it began. What is
  repeated to another connection is the same to the byte.
- What was published with a producer's number is there exactly once, in the order of the numbers.
- A reader is told of a gap only where there may be one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.checker.courses import Course, follow
from tests.checker.numbers import check_numbers
from tests.checker.records import History, Join, Notes, Place, Stream, Violation, extend
from tests.checker.worlds import World, Worlds, check_removal, has_reason


class Verdict(NamedTuple):
    """What is wrong, and how much of what was promised nobody was held to."""

    violations: Sequence[Violation]
    counts: Mapping[str, int]
    """Violations by kind: those that are not in words, too."""
    received: int
    excused: int
    """Offsets of which readers were told that they would not get them."""


def check(history: History) -> Verdict:
    """Compare all that was received with what was promised."""
    notes = Notes()
    worlds: Worlds = {}
    for stream in history.streams:
        for join, start, end in stream.connections():
            world = worlds.setdefault((stream.topic, join.epoch), World())
            _merge(history, world, stream, (start, end), notes)
            check_removal(stream, join, history, notes)
    _check_acks(history, worlds, notes)
    _check_places(history, worlds, notes)
    if history.durable:  # else a producer's numbers go with its log
        check_numbers(history, worlds, notes)
    excused = 0
    for stream in history.streams:
        if not stream.joins:
            continue  # its reader took no part
        if isinstance(stream, Course):
            excused += follow(stream, worlds, history, notes)
            continue
        reader = Reader(history, stream, notes)
        reader.follow()
        if stream.topic.startswith("*"):
            reader.check_feed()
        else:
            reader.check_end()
        excused += reader.excused
    received = sum(len(stream.offsets) for stream in history.streams)
    violations = [*history.notes.violations, *notes.violations]
    return Verdict(violations, history.notes.counts + notes.counts, received, excused)


def _merge(
    history: History, world: World, stream: Stream, bounds: tuple[int, int], notes: Notes
) -> None:
    """Enter what a connection received; what was received before must be the same."""
    start, end = bounds
    if start == end:
        return
    offsets = stream.offsets[start:end]
    first, last = offsets[0], offsets[-1]
    extend(world.numbers, max(offsets))
    extend(world.payloads, max(offsets))
    numbers, payloads = stream.numbers[start:end], stream.payloads[start:end]
    if (
        offsets == array("q", range(first, last + 1))
        and world.numbers[first - 1 : last] == numbers
        and world.payloads[first - 1 : last] == payloads
    ):
        return
    for offset, number, payload in zip(offsets, numbers, payloads, strict=True):
        known, same = world.numbers[offset - 1], world.payloads[offset - 1]
        where = f"{stream.topic} {offset}"
        if not known:
            world.numbers[offset - 1], world.payloads[offset - 1] = number, payload
        elif known != number:
            names = f"{history.names[number]}, others {history.names[known]}"
            notes.add("order", f"{stream.reader} received as {where} {names}")
        elif not same:
            world.payloads[offset - 1] = payload
        elif payload and same != payload:
            text = f"{stream.reader} received {where} with other bytes than it was sent before"
            notes.add("payload", text)


def _check_acks(history: History, worlds: Worlds, notes: Notes) -> None:
    """What was acknowledged and received has the same place in both."""
    for (topic, epoch), acks in history.acks.items():
        world = worlds.get((topic, epoch), World())
        for offset, (acked, received) in enumerate(zip(acks, world.numbers, strict=False), 1):
            if acked and received and acked != received:
                names = f"{history.names[acked]}, and {history.names[received]} was received there"
                notes.add("place", f"acknowledged as {topic} {offset} was {names}")


def _check_places(history: History, worlds: Worlds, notes: Notes) -> None:
    """An id has one place in each epoch; the feed keeps the order of every PoV."""
    places: dict[str, array[int]] = {}
    for (topic, epoch), world in worlds.items():
        # By number: at which offset it is, of its PoV's log or of the feed.
        kind = topic if topic.startswith("*") else ""
        place = places.setdefault(f"{epoch} {kind}", array("q", bytes(8 * len(history.names))))
        for offset, number in enumerate(world.numbers, 1):
            if not number:
                continue
            if place[number]:
                text = f"{history.names[number]} is {topic} {place[number]} and {offset}"
                notes.add("twice", text)
            if topic not in (history.topics[number], history.feeds[number]):
                text = f"{history.names[number]} of {history.feeds[number]} is {topic} {offset}"
                notes.add("foreign", text)
            place[number] = offset
    for (topic, epoch), world in worlds.items():
        if topic.startswith("*") and f"{epoch} " in places:
            place = places[f"{epoch} "]
            newest: dict[str, int] = {}
            for number in world.numbers:
                pov = history.topics[number]
                if number and 0 < place[number] < newest.get(pov, 0):
                    text = f"the feed {topic} has {history.names[number]} after a later one of it"
                    notes.add("order", f"{text}s PoV {pov}")
                newest[pov] = max(newest.get(pov, 0), place[number])


class Reader:
    """Follows one reader through its connections."""

    def __init__(self, history: History, stream: Stream, notes: Notes) -> None:
        self.excused = 0
        self._history = history
        self._stream = stream
        self._notes = notes
        self._position: Place | None = None
        self._bases: dict[str, int] = {}
        """By epoch: the offset up to which nothing was promised."""
        self._ends: dict[str, int] = {}
        self._forgiving = False

    def follow(self) -> None:
        """Check that every connection begins where it should and is without a hole."""
        for join, start, end in self._stream.connections():
            offsets = self._stream.offsets[start:end]
            expected = self._begin(join, offsets)
            if offsets and offsets != array("q", range(expected, expected + len(offsets))):
                self._find_holes(join.epoch, expected, offsets)
            newest = max(expected - 1, max(offsets, default=0))
            if join.recovered and self._position is not None:
                newest = max(newest, self._position.offset)
            self._position = Place(join.epoch, newest)
            self._ends[join.epoch] = newest

    def check_end(self) -> None:
        """What was acknowledged last has come, too."""
        for (topic, epoch), acks in self._history.acks.items():
            if topic != self._stream.topic:
                continue
            if epoch in self._ends:
                end = self._ends[epoch]
                if self._position is None or self._position.epoch == epoch:
                    self._lose(epoch, end + 1, len(acks))
            elif self._history.durable and self._stream.joins:
                self._lose(epoch, 1, len(acks))

    def check_feed(self) -> None:
        """Every activity of the team has come, but for as many as the reader was told of."""
        history, seen = self._history, bytearray(len(self._history.names))
        for number in self._stream.numbers:
            seen[number] = 1
        missing = [
            number
            for number in range(1, len(history.names))
            if not seen[number]
            and history.acked[number]
            and history.feeds[number] == self._stream.topic
        ]
        if len(missing) > self.excused + sum(self._bases.values()) and not self._forgiving:
            names = ", ".join(history.names[number] for number in missing[:3])
            text = f"lost {len(missing)} acknowledged activities of {self._stream.topic}: {names}"
            self._add("lost", f"{text} ...")

    def _begin(self, join: Join, offsets: array[int]) -> int:
        """Return the first offset that has to come."""
        position = self._position
        if position is None or join.since is None:
            self._bases[join.epoch] = join.top
            return join.top + 1
        if not join.recovered:
            self._excuse(join, position)
            return join.top + 1
        if join.epoch != join.since.epoch:
            self._add("flag", f"recovered {self._stream.topic} over a change of the epoch")
            return join.top + 1
        if not join.cursor:
            return join.since.offset + 1
        if not offsets:
            return position.offset + 1
        # It gets anew what it had received and not acknowledged, or not heard to be acknowledged.
        if offsets[0] <= join.since.offset:
            where = f"{self._stream.topic} went back to {offsets[0] - 1}"
            self._add("cursor", f"cursor on {where}, {join.since.offset} was confirmed")
            return offsets[0]
        return min(offsets[0], position.offset + 1)

    def _excuse(self, join: Join, position: Place) -> None:
        """Take note of a gap that the reader was told of; there must have been a reason."""
        topic = self._stream.topic
        since = join.since or position
        if join.epoch != position.epoch:
            self._forgiving = True
            self._bases[join.epoch] = join.top
            if self._history.durable:
                self._add("flag", f"was told that the log of {topic} was replaced")
            return
        self.excused += max(0, join.top - position.offset)
        if join.top < since.offset:
            text = f"was told that {topic} ends with {join.top}, it had come to {since.offset}"
            self._add("epoch", f"{text} in the same epoch")
        elif not has_reason(join, since):
            text = f"was not given {topic} after {since.offset} ({join.missed} missed)"
            if self._history.durable:
                self._add("flag", f"{text} without a reason")
        elif not join.cursor and join.missed != join.top - since.offset:
            text = f"missed {join.missed} of {topic} after {since.offset}, top {join.top}"
            self._add("flag", f"was told to have {text}")

    def _find_holes(self, epoch: str, expected: int, offsets: Sequence[int]) -> None:
        """Say where a connection's deliveries leave out or repeat something."""
        for offset in offsets:
            if offset > expected:
                text = f"was sent {self._stream.topic} {offset} instead of {expected}"
                self._add("hole", text)
                self._lose(epoch, expected, offset - 1)
            elif offset < expected:
                text = f"was sent {self._stream.topic} {offset} after {expected - 1}"
                self._add("repeated", f"{text} on one connection")
            expected = max(expected, offset + 1)

    def _lose(self, epoch: str, first: int, last: int) -> None:
        """Say what of a range was acknowledged."""
        history = self._history
        acks = history.acks.get((self._stream.topic, epoch), array("q"))[first - 1 : last]
        lost = [history.names[number] for number in acks if number]
        if lost:
            where = f"of {self._stream.topic}, {first} to {last}"
            self._add("lost", f"lost {len(lost)} acknowledged activities {where}: {lost[0]} ...")

    def _add(self, kind: str, text: str) -> None:
        self._notes.add(kind, f"{self._stream.reader} {text}")


def find_idleness(
    history: History, faults: int, verdict: Verdict, played: Sequence[str] = ()
) -> Iterator[Violation]:
    """Yield why a run proves nothing, if it does not; all of `played` has to be counted."""
    if not faults:
        yield Violation("idle", "no fault was injected")
    if not history.counts["acked"]:
        yield Violation("idle", "nothing was acknowledged")
    for name in played:
        if not history.counts[name]:
            yield Violation("idle", f"not once in the run: {name}")
    if history.durable and verdict.excused > verdict.received:
        yield Violation("idle", f"{verdict.excused} offsets were excused, more than were received")

"""What was sent, acknowledged and received in a run, as `history` checks it in the end.

Noting is cheap, for millions of deliveries: an id is a number from 1, and a delivery is one row of
three arrays.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SHOWN = 20
"""Violations of one kind that are put into words."""
PRINTED = 3
"""Of these, at the end of a run."""


class Violation(NamedTuple):
    """A promise that was not kept."""

    kind: str
    text: str


class Notes:
    """Violations: all are counted, the first ones of each kind put into words."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, text: str) -> None:
        """Note a violation."""
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.violations.append(Violation(kind, text))


def print_some(violations: Iterable[Violation]) -> None:
    """Print the first few violations of each kind."""
    shown: Counter[str] = Counter()
    for kind, text in violations:
        shown[kind] += 1
        if shown[kind] <= PRINTED:
            print(f"- {kind}: {text}")


class Place(NamedTuple):
    """A position in a log."""

    epoch: str
    offset: int


class Kept(NamedTuple):
    """What an answer says of the log: its oldest offset, and how many entries it keeps."""

    oldest: int = 1
    entries: int = 0


class Kind(NamedTuple):
    """What of an activity filters look at."""

    type: str
    action: str
    user: str


UNKNOWN = Kind("", "", "")


class Join(NamedTuple):
    """An answer to `subscribe`, and the number of deliveries before it.

    `since` is the position that was asked for, None: from now on. With `cursor` it is the last one
    that the server has confirmed, and the reader may have received more.
    """

    at: int
    epoch: str
    top: int
    since: Place | None = None
    cursor: bool = False
    recovered: bool | None = None
    missed: int | None = None
    kept: Kept | None = None


class Stream:
    """What one reader received of one topic: a PoV's id, or `*` and the team."""

    def __init__(self, history: History, reader: str, topic: str) -> None:
        self.reader = reader
        self.topic = topic
        self.joins: list[Join] = []
        self.offsets = array("q")
        self.numbers = array("q")
        self.payloads = array("I")
        self._history = history

    def join(
        self,
        epoch: str,
        top: int,
        since: Place | None = None,
        *,
        cursor: bool = False,
        recovered: bool | None = None,
        missed: int | None = None,
        kept: Kept | None = None,
    ) -> None:
        """Note an answer to `subscribe`; what is received from now on is of a new connection."""
        at = len(self.offsets)
        self.joins.append(Join(at, epoch, top, since, cursor, recovered, missed, kept))

    def receive(self, offset: int, name: str, content: int, payload: int) -> None:
        """Note a delivery, with checksums of what was published and of all that was received."""
        history = self._history
        number = history.numbers.get(name, 0)
        if not number or history.contents[number] != content:
            what = "was changed on the way" if number else "was never sent"
            text = f"{self.reader} received {name} as {self.topic} {offset}, which {what}"
            history.notes.add("foreign", text)
        self.offsets.append(offset)
        self.numbers.append(number)
        self.payloads.append(payload)

    def connections(self) -> Iterator[tuple[Join, int, int]]:
        """Yield each connection's beginning, and where its deliveries begin and end."""
        ends = [*[join.at for join in self.joins], len(self.offsets)][1:]
        for join, end in zip(self.joins, ends, strict=True):
            yield join, join.at, end


class History:
    """All that happened. `durable`: the logs are promised to survive a crash."""

    def __init__(self, *, durable: bool = True) -> None:
        self.durable = durable
        self.numbers: dict[str, int] = {}
        self.names = [""]
        self.topics = [""]
        self.feeds = [""]
        self.contents = array("I", [0])
        self.kinds = [UNKNOWN]
        self.authors: set[str] = set()
        self.sent_on: Counter[str] = Counter()
        """How many were ever sent, by PoV."""
        self.acked = array("q", [0])
        """The offset at which each was acknowledged last; 0: it was not yet."""
        self.acked_in = [""]
        self.numbered: dict[int, int] = {}
        """What was published with a producer's number, and that number."""
        self.kept: dict[int, Place] = {}
        """What is there, or was, at this place or before: so its publisher was answered."""
        self.acks: dict[tuple[str, str], array[int]] = {}
        """By topic and epoch: the number that was acknowledged for each offset, from 1."""
        self.streams: list[Stream] = []
        self.counts: Counter[str] = Counter()
        self.notes = Notes()
        """What is plainly wrong as soon as it happens."""

    def stream(self, reader: str, topic: str) -> Stream:
        """Return where a reader's deliveries of a topic are noted."""
        stream = Stream(self, reader, topic)
        self.streams.append(stream)
        return stream

    def send(self, name: str, topic: str, team: str, content: int, kind: Kind = UNKNOWN) -> None:
        """Note what is about to be published for the first time."""
        self.sent_on[topic] += 1
        self.kinds.append(kind)
        self.authors.add(kind.user)
        self.numbers[name] = len(self.names)
        self.names.append(name)
        self.topics.append(topic)
        self.feeds.append(f"*{team}")
        self.contents.append(content)
        self.acked.append(0)
        self.acked_in.append("")

    def acknowledge(self, name: str, epoch: str, offset: int) -> None:
        """Note that the server answered for an id, perhaps not for the first time."""
        number = self.numbers[name]
        topic, before = self.topics[number], self.acked[number]
        if not before:
            self.counts["acked"] += 1
        elif epoch == self.acked_in[number]:
            self.counts["repeated"] += 1
            if offset != before:
                text = f"a retry of {name} on {topic} answered {offset}, at first it was {before}"
                self.notes.add("retry", text)
        self.acked[number] = offset
        self.acked_in[number] = epoch
        other = put(self.acks.setdefault((topic, epoch), array("q")), offset, number)
        if other not in (0, number):
            text = f"{self.names[other]} and {name} were both acknowledged as {topic} {offset}"
            self.notes.add("place", text)


def put(row: array[int], offset: int, value: int) -> int:
    """Set the value of an offset from 1; return what was there, 0 for nothing."""
    extend(row, offset)
    before, row[offset - 1] = row[offset - 1], value
    return before


def extend(row: array[int], offset: int) -> None:
    """Give a row a place for every offset up to this one."""
    if offset > len(row):
        row.frombytes(bytes(row.itemsize * (offset - len(row))))

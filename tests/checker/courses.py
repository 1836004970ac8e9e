"""What a client received of one topic that also changes its filter, moves, publishes and leaves.

Its deliveries are noted as in any `Stream`; beside them stands everything that names a position.
The rule is one for all of these: when it is sent, everything up to that offset that the client
wants, and nothing after it, has been sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.checker.records import History, Kept, Kind, Notes, Place, Stream
from tests.checker.worlds import World, Worlds, has_reason


class Filter(NamedTuple):
    """An `only`: what it does not name gets through."""

    types: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    not_users: frozenset[str] = frozenset()

    def wants(self, kind: Kind) -> bool:
        """Tell whether an activity gets through."""
        return (
            (not self.types or kind.type in self.types)
            and (not self.actions or kind.action in self.actions)
            and (not self.users or kind.user in self.users)
            and kind.user not in self.not_users
        )

    def __str__(self) -> str:
        """Say what it asks for."""
        return ", ".join(f"{name}: {values}" for name, values in self.message.items())

    @property
    def message(self) -> Mapping[str, list[str]]:
        """It as it is sent."""
        names = {"types": self.types, "actions": self.actions, "users": self.users}
        return {
            name: sorted(values)
            for name, values in {**names, "notUsers": self.not_users}.items()
            if values
        }


EVERYTHING = Filter()


class Entered(NamedTuple):
    """An answer to `subscribe`. `again`: on a connection that was subscribed already.

    With `since` it is asked for from a position, or with `cursor` from the device's, which is this
    one or behind it, but not behind `confirmed`.
    """

    offset: int
    only: Filter
    again: bool = False
    since: Place | None = None
    cursor: bool = False
    confirmed: int = 0
    recovered: bool | None = None

    @property
    def earliest(self) -> Place:
        """Where what was asked for may begin."""
        assert self.since is not None
        return self.since._replace(offset=self.confirmed) if self.cursor else self.since


class Named(NamedTuple):
    """A position that the connection was told; `what` said so."""

    offset: int
    what: str


class Course(Stream):
    """What one client received of a topic, with all that it was told in between."""

    def __init__(self, history: History, reader: str, topic: str) -> None:
        super().__init__(history, reader, topic)
        self.said: list[tuple[int, Entered | Named]] = []
        """With the number of deliveries before it."""
        self.ended = False
        """Whether the client is not subscribed in the end."""

    def enter(
        self, epoch: str, entered: Entered, missed: int | None = None, kept: Kept | None = None
    ) -> None:
        """Note an answer to `subscribe`."""
        self.said.append((len(self.offsets), entered))
        self.join(
            epoch,
            entered.offset,
            entered.since,
            cursor=entered.cursor,
            recovered=entered.recovered,
            missed=missed,
            kept=kept,
        )

    def name(self, offset: int, what: str) -> None:
        """Note a position."""
        self.said.append((len(self.offsets), Named(offset, what)))

    def publish(self, offset: int, name: str, content: int) -> None:
        """Note an answer that stands for what this connection published itself."""
        self.name(offset - 1, "published")
        self.receive(offset, name, content, 0)
        self.name(offset, "own")


def follow(course: Course, worlds: Worlds, history: History, notes: Notes) -> int:
    """Check a course; return of how many offsets the client was told that it does not get them."""
    return Walk(course, worlds, history, notes).walk()


class Walk:
    """Follows a course from its beginning."""

    def __init__(self, course: Course, worlds: Worlds, history: History, notes: Notes) -> None:
        self._course = course
        self._worlds = worlds
        self._history = history
        self._notes = notes
        self._only = EVERYTHING
        self._reached = 0
        """Everything up to here was sent."""
        self._floor = 0
        """Nothing up to here may be sent; between this and `_reached` a cursor may lie."""
        self._world = World()
        self._epoch = ""

    def walk(self) -> int:
        """Do it."""
        excused, said = 0, iter(self._course.said)
        upcoming = next(said, None)
        own = {
            at for at, what in self._course.said if isinstance(what, Named) and what.what == "own"
        }
        joins = iter(self._course.joins)
        for at in range(len(self._course.offsets) + 1):
            while upcoming is not None and upcoming[0] == at:
                _, what = upcoming
                if isinstance(what, Entered):
                    join = next(joins)
                    before = self._reached
                    self._epoch = join.epoch
                    self._world = self._worlds.get((self._course.topic, join.epoch), World())
                    self._enter(what)
                    if what.recovered is False:
                        excused += max(0, what.offset - before)
                        if what.since is not None and not has_reason(join, what.earliest):
                            where = f"{self._course.topic} after {what.since.offset}"
                            self._add("flag", f"was not given {where} without a reason")
                elif what.what != "own":
                    self._name(what)
                upcoming = next(said, None)
            if at < len(self._course.offsets):
                self._receive(self._course.offsets[at], is_own=at + 1 in own)
        self._end()
        return excused

    def _enter(self, entered: Entered) -> None:
        if entered.since is None:
            if entered.again:
                self._name(Named(entered.offset, "subscribed"))
            self._reached = self._floor = entered.offset
        elif entered.recovered:
            self._reached = entered.since.offset
            self._floor = entered.confirmed if entered.cursor else self._reached
        else:
            self._reached = self._floor = entered.offset
        self._only = entered.only

    def _name(self, named: Named) -> None:
        where = f"{self._course.topic} {named.offset}"
        if named.offset < self._floor:
            text = f"{named.what} named {where} behind {self._reached}, which had come"
            self._add("behind", text)
            return
        self._skip(named.offset, "ahead", f"{named.what} named {where} before")

    def _receive(self, offset: int, *, is_own: bool) -> None:
        where = f"{self._course.topic} {offset}"
        if offset <= self._floor:
            text = f"was sent {where} after {self._reached}"
            self._add("own" if is_own else "repeated", f"{text} on one connection")
            return
        if offset > self._reached:
            self._skip(offset - 1, "hole", f"was sent {where} before")
        number = self._number(offset)
        if number and not is_own and not self._only.wants(self._history.kinds[number]):
            kind = " ".join(self._history.kinds[number])
            text = f"was sent {where}, which is {kind}, and wants {self._only}"
            self._add("filter", text)
        self._reached = self._floor = offset

    def _skip(self, offset: int, kind: str, text: str) -> None:
        """Move on to an offset; nothing that is wanted may lie in between."""
        for between in range(self._reached + 1, offset + 1):
            number = self._number(between)
            if self._only == EVERYTHING or (
                number and self._only.wants(self._history.kinds[number])
            ):
                self._add(kind, f"{text} {between} of it; wants {self._only}")
                break
        self._reached = self._floor = max(self._reached, offset)

    def _end(self) -> None:
        """What was acknowledged last has come, too."""
        if not self._course.ended:
            acks = self._history.acks.get((self._course.topic, self._epoch), ())
            for number in acks[self._reached :]:
                if number and self._only.wants(self._history.kinds[number]):
                    name = self._history.names[number]
                    self._add("lost", f"lost {name} of {self._course.topic}, acknowledged")
                    break

    def _number(self, offset: int) -> int:
        """Return what is at an offset, 0 if nobody saw it."""
        numbers = self._world.numbers
        return numbers[offset - 1] if offset <= len(numbers) else 0

    def _add(self, kind: str, text: str) -> None:
        self._notes.add(kind, f"{self._course.reader} {text}")

"""How far users have read: what they said, what they were answered, and what others are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.checker.records import Notes


class Mark(NamedTuple):
    """How far a user has read a PoV, as confirmed, and since when: when that was sent."""

    offset: int = 0
    at: float = 0.0


class Readings:
    """The read marks of all users. A mark never goes back, and nobody sees one that was not set."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._asked: dict[tuple[str, str], int] = {}
        self._confirmed: dict[tuple[str, str], Mark] = {}

    def ask(self, user: str, pov: str, offset: int) -> None:
        """Note that a user says to have read a PoV up to there."""
        self._asked[user, pov] = max(offset, self._asked.get((user, pov), 0))

    def confirmed(self, user: str, pov: str) -> Mark:
        """Return the furthest mark that was confirmed."""
        return self._confirmed.get((user, pov), Mark())

    def marks(self, pov: str) -> Mapping[str, Mark]:
        """Return the marks on a PoV by user."""
        return {user: mark for (user, other), mark in self._confirmed.items() if other == pov}

    def hear(
        self, reader: str, user: str, pov: str, offset: int, floor: int, gone: int = 0
    ) -> None:
        """Check what a client is told of a mark, of which it knew `floor` when it asked.

        What is `gone` counts as read by everybody.
        """
        asked = max(gone, self._asked.get((user, pov), 0))
        if not floor <= offset <= asked:
            text = f"{reader} was told that {user} has read {pov} up to {offset}"
            self._notes.add("read", f"{text}; it was {floor} to {asked}")

    def confirm(self, user: str, pov: str, mark: Mark) -> None:
        """Note that the server confirmed a mark."""
        if mark.offset > self.confirmed(user, pov).offset:
            self._confirmed[user, pov] = mark

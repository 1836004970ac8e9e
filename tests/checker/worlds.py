"""A topic's log as all readers together saw it, and what may be missing from it."""

from __future__ import annotations

from array import array

from tests.checker.records import History, Join, Notes, Place, Stream

MAX_REPLAY = 1000
"""Whoever missed more is told so, and is sent nothing of it (docs/protocol.md, Recovery)."""


class World:
    """A topic's log in one epoch: a row for each offset from 1. A payload of 0 is not known."""

    def __init__(self) -> None:
        self.numbers = array("q")
        self.payloads = array("I")


Worlds = dict[tuple[str, str], World]
"""By topic and epoch."""


def has_reason(join: Join, since: Place) -> bool:
    """Tell whether not to recover from a position has a reason that a reader can see.

    More was missed than is replayed, or the oldest that is kept lies behind it.
    """
    if join.missed is None:
        return False
    return join.missed > MAX_REPLAY or (
        join.kept is not None and since.offset < join.kept.oldest - 1
    )


def check_removal(stream: Stream, join: Join, history: History, notes: Notes) -> None:
    """Check that no more left a log than those that are too many: nothing is too old in a run.

    The log may be ahead of what its server has delivered so far, but not by half of what it keeps.
    """
    if join.kept is None or not join.kept.entries or not history.durable:
        return
    oldest, entries = join.kept
    if oldest > max(1, join.top - entries // 2 + 1):
        text = f"{stream.topic} begins with {oldest}, though its top is {join.top}"
        notes.add("removed", f"{stream.reader} was told that {text} and {entries} are kept")

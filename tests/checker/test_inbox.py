"""Each broken promise about an inbox is found, and none where all were kept."""

from __future__ import annotations

import pytest

from tests.checker.inbox import Inbox, Mail
from tests.checker.records import Notes


def story(*connections: tuple[int, ...], sent: int = 5, confirmed: int = 0) -> set[str]:
    """Return the kinds of violations; the device confirms after its first connection."""
    notes = Notes()
    inbox = Inbox(notes)
    for offset in range(1, sent + 1):
        inbox.acknowledge(f"n-{offset}", offset)
    for offsets in connections:
        inbox.begin()
        for offset in offsets:
            inbox.receive(f"n-{offset}", offset)
        inbox.confirmed = confirmed
    inbox.check()
    return set(notes.counts)


def test_an_inbox_of_which_all_came_passes_though_some_came_again() -> None:
    assert story((1, 2, 3), (), (3, 4, 5), confirmed=2) == set()
    assert story((1, 2), (1, 2, 3, 4, 5, 6)) == set(), "6 was sent, its sender heard nothing"


@pytest.mark.parametrize(
    ("connections", "kinds"),
    [
        (((1, 2), (4, 5)), {"hole", "lost"}),
        (((1, 2, 4, 5),), {"hole", "lost"}),
        (((1, 2, 3),), {"lost"}),
        (((1, 2, 2, 3, 4, 5),), {"repeated"}),
        (((1, 2, 3), (1, 2, 3, 4, 5)), {"cursor"}),
    ],
    ids=["begins too late", "leaves out", "ends early", "repeats", "goes back"],
)
def test_what_was_not_kept_is_found(
    connections: tuple[tuple[int, ...], ...], kinds: set[str]
) -> None:
    assert story(*connections, confirmed=1 if kinds == {"cursor"} else 0) == kinds


def test_one_offset_is_one_notification() -> None:
    notes = Notes()
    inbox = Inbox(notes)
    inbox.acknowledge("n-1", 1)
    inbox.acknowledge("n-2", 1)
    inbox.receive("n-1", 1)
    inbox.begin()
    inbox.receive("n-2", 1)
    assert set(notes.counts) == {"place", "order"}


def devices(kept: int = 0) -> tuple[Notes, Inbox, Inbox]:
    """Return two devices of a user to whom five were sent."""
    notes, mail = Notes(), Mail(kept)
    first, second = Inbox(notes, mail, "first"), Inbox(notes, mail, "second")
    for offset in range(1, 6):
        first.acknowledge(f"n-{offset}", offset)
    return notes, first, second


def receive(inbox: Inbox, *offsets: int) -> None:
    inbox.begin()
    for offset in offsets:
        inbox.receive(f"n-{offset}", offset)


def test_each_device_gets_all_that_the_user_has_not_read() -> None:
    notes, first, second = devices()
    receive(first, 1, 2, 3, 4, 5)
    first.confirmed = 5
    first.mail.asked = first.mail.read = 3
    receive(second, 4, 5)
    first.hear(3)
    second.check()
    assert notes.violations == []


def test_what_another_device_acknowledged_is_not_excused() -> None:
    notes, first, second = devices()
    receive(first, 1, 2, 3, 4, 5)
    first.confirmed = 5
    receive(second, 4, 5)
    second.check()
    assert set(notes.counts) == {"hole", "lost"}


def test_what_was_read_does_not_come_again() -> None:
    notes, first, second = devices()
    first.mail.asked = first.mail.read = 3
    receive(second, 3, 4, 5)
    assert set(notes.counts) == {"cursor"}


def test_a_read_mark_never_goes_back_and_is_none_that_nobody_set() -> None:
    notes, first, _ = devices()
    first.mail.asked = 4
    first.hear(4)
    first.hear(3)
    first.hear(5)
    assert notes.counts == {"read": 2}


def test_what_retention_took_is_excused() -> None:
    notes, first, _ = devices(kept=2)
    receive(first, 4, 5)
    first.check()
    assert notes.violations == []

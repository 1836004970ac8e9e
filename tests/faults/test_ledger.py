"""What counts as lost, as told and as missing in silence."""

from __future__ import annotations

import pytest

from tests.checker.records import Place
from tests.faults.ledger import Ledger, View

TOPIC = "pov/a"
OLD, NEW = "e1", "e2"


def seen(ledger: Ledger, *names: str) -> View:
    """Return a view of somebody who was there from the beginning and was sent these."""
    view = ledger.view("s", TOPIC)
    view.begin(Place(OLD, 0), None, None)
    for offset, name in enumerate(names, 1):
        view.receive(offset, name)
    return view


def published(*names: str) -> Ledger:
    ledger = Ledger()
    for offset, name in enumerate(names, 1):
        ledger.send(name, TOPIC)
        ledger.acknowledge(name, Place(OLD, offset))
    return ledger


def compare(ledger: Ledger, epoch: str, *names: str, may_lose: bool = True) -> set[str]:
    """Compare all with a log in Redis; return the kinds of violations."""
    kept = list(enumerate(names, 1))
    ledger.compare(TOPIC, Place(epoch, len(names)), kept, may_lose=may_lose)
    return {*ledger.notes.counts}


def test_an_entry_that_is_not_where_it_says_is_found() -> None:
    ledger = published("a", "b")
    ledger.compare(TOPIC, Place(OLD, 2), [(1, "a"), (2, "lost"), (2, "b")], may_lose=False)
    assert {*ledger.notes.counts} == {"place"}


def test_a_log_and_a_view_that_are_the_same_are_right() -> None:
    ledger = published("a", "b")
    view = seen(ledger, "a", "b")
    assert compare(ledger, OLD, "a", "b", may_lose=False) == set()
    assert view.is_at(Place(OLD, 2))
    assert not view.is_at(Place(NEW, 2))


@pytest.mark.parametrize(
    ("epoch", "names", "may_lose", "kinds"),
    [
        (OLD, ("a",), False, {"lost", "epoch"}),
        (NEW, ("a",), False, {"lost"}),
        (OLD, ("a",), True, {"epoch"}),
        (NEW, ("a",), True, set()),
        (NEW, ("a", "b", "a"), True, {"twice", "lost", "epoch"}),
    ],
)
def test_what_is_acknowledged_is_there_once_or_the_epoch_is_new(
    epoch: str, names: tuple[str, ...], *, may_lose: bool, kinds: set[str]
) -> None:
    found = compare(published("a", "b"), epoch, *names, may_lose=may_lose)
    assert found <= kinds
    assert found or not kinds


def test_a_view_of_what_was_lost_is_a_ghost_unless_it_was_told_of_a_gap() -> None:
    ledger = published("a", "b")
    view = seen(ledger, "a", "b")
    assert compare(ledger, NEW, "a", "other") == {"ghost"}
    ledger = published("a", "b")
    view = seen(ledger, "a", "b")
    view.begin(Place(NEW, 2), False, None)
    assert compare(ledger, NEW, "a", "other") == set()
    assert [told.since for told in ledger.told] == [Place(OLD, 2)]


def test_who_keeps_its_place_over_a_new_epoch_has_to_have_everything() -> None:
    ledger = published("a", "b")
    view = seen(ledger, "a", "b")
    view.move(Place(NEW, 2))
    assert compare(ledger, NEW, "a", "b") == set()
    assert view.is_at(Place(NEW, 2))
    view.move(Place("e3", 1))
    assert {*ledger.notes.counts} == {"hole"}


@pytest.mark.parametrize(("offset", "kind"), [(3, "hole"), (1, "repeated")])
def test_offsets_follow_each_other(offset: int, kind: str) -> None:
    ledger = published("a", "b", "c")
    seen(ledger, "a").receive(offset, "x")
    assert {*ledger.notes.counts} == {kind}


def test_a_retry_has_the_place_of_the_first_unless_that_was_lost() -> None:
    ledger = published("a", "b")
    ledger.acknowledge("a", Place(NEW, 1))
    assert {*ledger.notes.counts} == set()
    ledger.acknowledge("a", Place(NEW, 5))
    assert {*ledger.notes.counts} == {"retry"}
    ledger = published("a", "b")
    assert compare(ledger, NEW, "a") == set()
    assert ledger.lost == {"b": Place(OLD, 2)}
    ledger.acknowledge("b", Place(NEW, 7))
    assert {*ledger.notes.counts} == set()


def test_what_has_left_for_its_number_is_not_lost() -> None:
    ledger = published("a", "b", "c")
    ledger.compare(TOPIC, Place(OLD, 3), [(2, "b"), (3, "c")], may_lose=False)
    assert {*ledger.notes.counts} == set()
    assert {*ledger.acked} == {"b", "c"}

"""Each part of the verdict tells what it is for, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import pytest

from tests.checker.records import Notes
from tests.publishing.activities import Seen, make, recognise
from tests.publishing.ledger import Told
from tests.publishing.verdict import KINDS, check

SPOOLED = Told(5, frozenset({1, 2, 4}), frozenset({3}))
"""The fifth was cut off."""


def seen(*numbers: int, lane: str = "a") -> list[Seen]:
    return [Seen(lane, number, True) for number in numbers]


def kinds(
    told: Told, logs: Mapping[str, Sequence[Seen]], kept: Mapping[str, Set[int]] | None = None
) -> dict[str, int]:
    notes = Notes()
    check(notes, {"a": told}, kept or {}, logs)
    return dict(notes.counts)


@pytest.mark.parametrize("log", [seen(1, 2, 4), seen(1, 2, 4, 5)])
def test_of_what_was_cut_off_nobody_was_told(log: list[Seen]) -> None:
    assert kinds(SPOOLED, {"pov": log}) == {}


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (seen(1, 4), {"lost": 1}),
        ([], {"lost": 3}),
        (seen(1, 2, 4, 5, 5), {"doubled": 1}),
        (seen(1, 4, 2), {"order": 1}),
        (seen(1, 2, 3, 4), {"unwanted": 1}),
        (seen(1, 2, 4, 6), {"unwanted": 1}),
        ([*seen(1, 2, 4), *seen(1, lane="b")], {"unwanted": 1}),
        ([*seen(1, 2), Seen("a", 4, False)], {"altered": 1}),
    ],
)
def test_what_breaks_a_promise_of_a_spool_is_told(log: list[Seen], found: dict[str, int]) -> None:
    assert kinds(SPOOLED, {"pov": log}) == found
    assert set(found) <= set(KINDS)


def test_one_that_is_on_two_povs_is_doubled_and_their_orders_are_their_own() -> None:
    assert kinds(SPOOLED, {"x": seen(2), "y": seen(1, 4)}) == {}
    assert kinds(SPOOLED, {"x": seen(1, 2), "y": seen(1, 4)}) == {"doubled": 1}


@pytest.mark.parametrize(
    ("rows", "log", "found"),
    [
        ({1, 2, 4}, seen(1, 2, 4), {}),
        ({1, 2, 4, 5}, seen(1, 2, 4, 5), {}),
        ({1, 2, 4, 5}, seen(1, 2, 4), {"lost": 1}),
        ({1, 2, 4}, seen(1, 2, 4, 5), {"unwanted": 1}),
        ({1, 2}, seen(1, 2), {"forgotten": 1}),
        ({1, 2, 3, 4}, seen(1, 2, 3, 4), {"unwanted": 1}),
    ],
)
def test_of_a_transaction_its_own_row_says_whether_it_was_committed(
    rows: set[int], log: list[Seen], found: dict[str, int]
) -> None:
    assert kinds(SPOOLED, {"pov": log}, {"a": rows}) == found


def test_one_that_is_changed_or_on_another_pov_is_recognised() -> None:
    made = make("a", 7, "x")
    data = {
        "type": made.type,
        "action": made.action,
        "povId": "x",
        "userId": "a",
        "details": made.details,
    }
    assert recognise(data, "x") == Seen("a", 7, True)
    assert recognise(data, "y") == Seen("a", 7, False)
    assert recognise({**data, "action": "undone"}, "x") == Seen("a", 7, False)
    assert recognise({**data, "details": {"n": 8, "text": "a 7 x"}}, "x") == Seen("a", 8, False)

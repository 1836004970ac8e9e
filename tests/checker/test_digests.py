"""A digest that cannot be true is found."""

from __future__ import annotations

from typing import Any

import pytest

from tests.checker.digests import find_digest_problem
from tests.checker.records import History, Kind


@pytest.fixture
def history() -> History:
    history = History()
    for number in range(1, 6):
        user = "ana" if number % 2 else "ben"
        history.send(f"a-{number}", "p", "t", number, Kind("task", "created", user))
    return history


def digest(**changes: Any) -> dict[str, Any]:
    return {
        "counted": 5,
        "people": 2,
        "activities": [{"type": "task", "action": "created", "count": 5}],
        "users": [{"userId": "ana", "count": 3}, {"userId": "ben", "count": 2}],
    } | changes


def test_none_and_a_true_one_are_no_problem(history: History) -> None:
    assert find_digest_problem(None, history) is None
    assert find_digest_problem(digest(), history) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"counted": 7},
        {"counted": 4},
        {"people": 3},
        {"users": [{"userId": "ben", "count": 2}, {"userId": "ana", "count": 3}]},
        {"users": [{"userId": "ana", "count": 3}, {"userId": "eve", "count": 2}]},
        {"activities": []},
    ],
)
def test_what_cannot_be_true_is_a_problem(history: History, changes: dict[str, Any]) -> None:
    assert find_digest_problem(digest(**changes), history) is not None

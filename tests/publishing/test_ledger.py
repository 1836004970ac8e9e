"""Notes of a lane outlive its app, and numbers are not used twice."""

from __future__ import annotations

from pathlib import Path

from tests.publishing.ledger import SAFE, VOID, Lane, Told, names, read


def test_another_life_of_an_app_goes_on_behind_the_last_one(tmp_path: Path) -> None:
    first = Lane(tmp_path, "a")
    assert [first.begin(), first.begin(), first.begin()] == [1, 2, 3]
    first.tell(SAFE, 1)
    first.tell(VOID, 2)
    assert Lane(tmp_path, "a").begin() == 4
    assert read(tmp_path, "a") == Told(4, frozenset({1}), frozenset({2}))
    assert (read(tmp_path, "b"), names(tmp_path)) == (Told(), ["a"])

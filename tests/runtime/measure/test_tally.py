"""What is counted is there from the start, and clients cannot make more of it."""

from __future__ import annotations

from pov_rt.runtime.measure.tally import Tally


def test_what_is_declared_is_there_at_nought() -> None:
    tally = Tally(["a", "b"], "other")
    assert tally == {"a": 0, "b": 0}
    tally["a"] += 1
    tally.add("b", 3)
    assert tally == {"a": 1, "b": 3}


def test_values_that_nobody_declared_are_so_many_and_then_all_count_as_one() -> None:
    tally = Tally(["a"], "other", most=2)
    for value in ("a", "b", "c", "d", "e", "b"):
        tally.add(value)
    assert tally == {"a": 1, "b": 2, "c": 1, "other": 2}

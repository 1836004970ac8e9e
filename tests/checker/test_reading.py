"""What clients are told of read marks lies between what was confirmed and what was asked for."""

from __future__ import annotations

from tests.checker.reading import Mark, Readings
from tests.checker.records import Notes


def test_a_mark_never_goes_back_and_is_none_that_was_not_set() -> None:
    notes = Notes()
    readings = Readings(notes)
    readings.ask("ana", "p", 5)
    readings.hear("ben", "ana", "p", 5, floor=0)
    readings.confirm("ana", "p", Mark(5, 1.0))
    readings.confirm("ana", "p", Mark(3, 2.0))
    assert readings.confirmed("ana", "p") == Mark(5, 1.0)
    assert readings.marks("p") == {"ana": Mark(5, 1.0)}
    assert notes.violations == []
    readings.hear("ben", "ana", "p", 4, floor=5)
    readings.hear("ben", "ana", "p", 6, floor=5)
    assert notes.counts == {"read": 2}

"""When users left is known, of as many as there is room for."""

from __future__ import annotations

from pov_rt.connections.last_seen import LastSeen
from pov_rt.runtime.clock import ManualClock


def test_those_are_forgotten_who_are_away_for_longest() -> None:
    clock = ManualClock(1000.0)
    seen = LastSeen(clock, 2)
    for user in ("ana", "ben", "ana", "cy"):
        seen.came(user)
        clock.advance(1.0)
        seen.left(user)
    assert dict(seen.left_at) == {"ana": 1003.0, "cy": 1004.0}


def test_who_left_before_is_known_unless_something_newer_is() -> None:
    seen = LastSeen(ManualClock(1000.0), 3)
    seen.left("ana")
    before = {"eve": 1.0, "ana": 900.0, "ben": 901.0, "cy": 902.0, "dee": 903.0}
    seen.restore(before, here=["dee"])
    assert dict(seen.left_at) == {"ben": 901.0, "cy": 902.0, "ana": 1000.0}
    seen.came("ben")
    seen.left("ben")
    seen.left("flo")
    assert list(seen.left_at) == ["ana", "ben", "flo"]


def test_who_is_here_is_none_of_them() -> None:
    seen = LastSeen(ManualClock(), 2)
    seen.left("ana")
    seen.came("ana")
    seen.forget("ben")
    assert not seen.left_at

"""What is remembered takes a bounded number of bytes, of which no owner takes another's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pov_rt.auth.remembered import SHARE, Remembered
from pov_rt.runtime.clock import ManualClock


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 120), st.floats(0, 50)),
        max_size=120,
    )
)
def test_what_they_take_is_bounded_for_all_and_for_each_and_the_newest_is_there(
    added: list[tuple[int, int, float]],
) -> None:
    clock, room = ManualClock(), 1600
    kept: Remembered[int, str] = Remembered(room, clock)
    for number, (owner, size, wait) in enumerate(added):
        clock.advance(wait)
        kept.add(number, "found", str(owner), size, clock.time() + 100)
        assert kept.used <= room
        assert kept.get(number) == ("found" if size <= room // SHARE else None)
    clock.advance(100)
    assert not any(kept.get(number) for number in range(len(added)))
    assert kept.used == len(kept) == 0


def test_an_owner_of_many_pushes_out_nobody_elses() -> None:
    clock = ManualClock()
    kept: Remembered[str, str] = Remembered(64_000, clock)
    for number in range(40):
        kept.add(f"good {number}", "found", f"user {number}", 1000, clock.time() + 3600)
    for number in range(5000):
        clock.advance(0.05)
        kept.add(f"many {number}", "found", "mallory", 900, clock.time() + 3600)
    assert all(kept.get(f"good {number}") for number in range(40))
    assert kept.used <= 40_000 + 64_000 // SHARE


def test_those_that_are_no_longer_good_leave_first() -> None:
    clock = ManualClock()
    kept: Remembered[str, str] = Remembered(64_000, clock)
    kept.add("old but good", "found", "ana", 1000, clock.time() + 3600)
    for number in range(60):
        kept.add(f"short {number}", "found", f"b{number}", 1000, clock.time() + 1)
    clock.advance(2)
    for number in range(60):
        kept.add(f"new {number}", "found", f"c{number}", 1000, clock.time() + 3600)
    assert kept.get("old but good") is not None
    assert all(kept.get(f"new {number}") for number in range(60))

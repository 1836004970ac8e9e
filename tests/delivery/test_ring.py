"""A ring has a topic's newest messages without a hole, and no more than it may hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pov_rt.delivery import ring as ring_module
from pov_rt.delivery.ring import RING_BYTES, RING_ENTRIES, Ring

FIRST = 10_001
"""The offset of the entry that comes next when a ring is made."""


def messages(first: int, count: int, size: int = 10) -> list[bytes]:
    return [b"%*d" % (size, offset) for offset in range(first, first + count)]


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 700), st.sampled_from((10, 400, 3000))),
        max_size=12,
    )
)
def test_whatever_comes_before_and_behind_each_message_is_at_its_offset(
    steps: list[tuple[bool, int, int]],
) -> None:
    ring, top = Ring(FIRST), FIRST - 1
    for is_older, count, size in steps:
        if is_older:
            ring.fill(messages(ring.first - count, count, size))
        else:
            ring.add(messages(top + 1, count, size))
            top += count
        found = ring.after(ring.first - 1)
        assert found is not None
        assert list(map(int, found)) == list(range(ring.first, top + 1))
        assert ring.size == sum(map(len, found))
        assert ring.after(ring.first - 2) is None, "where it does not reach is no empty answer"
        assert ring.after(top) == []


def test_it_is_cut_to_its_bounds_once_it_holds_twice_as_much() -> None:
    many = Ring(1)
    many.add(messages(1, 2 * RING_ENTRIES))
    assert len(many.bodies) == 2 * RING_ENTRIES
    many.add(messages(2 * RING_ENTRIES + 1, 1))
    assert len(many.bodies) == RING_ENTRIES
    large = Ring(1)
    large.add(messages(1, 2 * RING_BYTES // 4096, 4096))
    assert large.size == 2 * RING_BYTES
    large.add(messages(large.first + len(large.bodies), 1, 4096))
    assert large.size == RING_BYTES


def test_a_message_above_the_bound_is_held_alone() -> None:
    ring = Ring(1)
    ring.add([*messages(1, 3), bytes(3 * ring_module.RING_BYTES)])
    assert (ring.first, len(ring.bodies)) == (4, 1)
    assert ring.size == 3 * RING_BYTES

"""Whatever a socket takes at a time, the bytes that wait leave in order, each once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pov_rt.transport.sendqueue import BUFFERS_AT_ONCE, HELD_BYTES, SendQueue, is_much, joined


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=200), st.data())
def test_no_byte_is_lost_or_sent_twice(pieces: list[bytes], data: st.DataObject) -> None:
    queue, sent = SendQueue(0.0), b""
    for piece in pieces:
        queue.add(piece)
    while queue.size:
        offered = b"".join(queue.first())
        taken = data.draw(st.integers(1, len(offered)))
        sent += offered[:taken]
        queue.remove(taken)
        assert queue.size == sum(map(len, pieces)) - len(sent)
    assert sent == b"".join(pieces)


def test_a_send_is_of_a_bounded_number_of_pieces_and_copies_none() -> None:
    queue, shared = SendQueue(0.0), bytes(10)
    for _ in range(2 * BUFFERS_AT_ONCE):
        queue.add(shared)
    first = queue.first()
    assert len(first) == BUFFERS_AT_ONCE
    assert all(piece is shared for piece in first)


def test_a_piece_that_has_begun_stays_whole_when_the_others_are_let_go() -> None:
    queue = SendQueue(0.0)
    for piece in (b"first", b"second", b"third"):
        queue.add(piece)
    queue.remove(2)
    queue.keep_head()
    assert (b"".join(queue.first()), queue.size) == (b"rst", 3)
    queue.add(b"close")
    assert b"".join(queue.first()) == b"rstclose"


def test_what_is_held_back_is_joined_unless_that_would_copy_much() -> None:
    few, many = [bytes(HELD_BYTES)] * 2, [bytes(HELD_BYTES)] * 3
    assert list(joined(few)) == [b"".join(few)]
    assert joined(many) is many
    assert is_much(few)
    assert not is_much(few[:1])

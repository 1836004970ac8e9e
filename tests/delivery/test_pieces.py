"""A fan-out in pieces: each connection gets its share once, in pieces of bounded size."""

from __future__ import annotations

from pov_rt.delivery.pieces import JOIN_BYTES, join
from pov_rt.transport.frames import TEXT_FRAMING


def test_pieces_are_bounded_and_a_larger_message_goes_alone() -> None:
    bodies = [b"x" * size for size in (1, JOIN_BYTES, JOIN_BYTES + 1, 10, 20)]
    pieces = list(join(TEXT_FRAMING, bodies))
    framed = [TEXT_FRAMING.frame(body) for body in bodies]
    assert pieces == [framed[0], framed[1], framed[2], framed[3] + framed[4]]
    assert list(join(TEXT_FRAMING, [])) == []

"""A fan-out in pieces: each connection gets its share once, in pieces of bounded size."""

from __future__ import annotations

from pov_rt.delivery.pieces import JOIN_BYTES, Spread, join
from pov_rt.runtime.clock import ManualClock
from pov_rt.transport.frames import TEXT_FRAMING
from tests.transports import connection, recorder


def test_pieces_are_bounded_and_a_larger_message_goes_alone() -> None:
    bodies = [b"x" * size for size in (1, JOIN_BYTES, JOIN_BYTES + 1, 10, 20)]
    pieces = list(join(TEXT_FRAMING, bodies))
    framed = [TEXT_FRAMING.frame(body) for body in bodies]
    assert pieces == [framed[0], framed[1], framed[2], framed[3] + framed[4]]
    assert list(join(TEXT_FRAMING, [])) == []


def test_however_they_are_settled_and_drained_each_gets_its_share_once() -> None:
    made = [connection(str(n), str(n), ManualClock()) for n in range(6)]
    spread = Spread()
    spread.fill({each: (TEXT_FRAMING.frame(b'{"n":%d}' % n),) for n, each in enumerate(made)})
    spread.settle(made[3])
    spread.settle(made[3])
    spread.drain(2)
    assert [len(recorder(each).sends) for each in made] == [1, 1, 0, 1, 0, 0]
    spread.settle(made[5])
    spread.drain(2)  # one of these two has its share already, and still counts
    spread.drain(2)
    assert not spread.shares
    assert [recorder(each).messages for each in made] == [[{"n": n}] for n in range(6)]
    spread.drain(10)
    assert [len(recorder(each).sends) for each in made] == [1] * 6


def test_a_share_of_several_frames_leaves_in_as_few_sends_as_fit() -> None:
    one = connection("1", "1", ManualClock())
    spread = Spread()
    half = TEXT_FRAMING.frame(b'{"x":"%b"}' % (b"x" * (JOIN_BYTES // 2)))
    spread.fill({one: (TEXT_FRAMING.frame(b'{"n":1}'), TEXT_FRAMING.frame(b'{"n":2}'), half, half)})
    spread.drain(1)
    assert [len(data) > len(half) for data in recorder(one).sends] == [True, False]
    assert recorder(one).messages[:2] == [{"n": 1}, {"n": 2}]
    assert len(recorder(one).messages) == 4

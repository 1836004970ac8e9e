"""What one turn produced reaches each subscriber once, in order, in as few sends as fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pov_rt.connections.connection import Connection
from pov_rt.delivery.pieces import Spread
from pov_rt.delivery.topic import Pending, Topic, choose
from pov_rt.runtime.clock import ManualClock
from tests.transports import Recorder, connection, recorder


def subscribed(topic: Topic, name: str, *, v1: bool = True) -> Connection:
    made = connection(name, name, ManualClock(), v1=v1)
    topic.enter(made)
    topic.go_live(made)
    return made


def add(topic: Topic, n: int, *, signal: bool = False, spare: Connection | None = None) -> None:
    body = json.dumps({"type": "x", "n": n}).encode()
    topic.pending.append(Pending(body, None if signal else ACTIVITY, spare))


ACTIVITY = b'{"type":"t","action":"a","userId":"u"}'


def got(made: Connection) -> list[int]:
    return [message["n"] for message in recorder(made).messages]


def test_a_turns_frames_leave_in_one_send() -> None:
    topic = Topic("pov/a", Spread())
    members = [subscribed(topic, str(n)) for n in range(3)]
    for n in range(10):
        add(topic, n)
    assert topic.flush() == 30
    assert [got(each) for each in members] == [list(range(10))] * 3
    assert [len(recorder(each).sends) for each in members] == [1, 1, 1]
    assert topic.flush() == 0


def test_a_plain_client_gets_no_signals_and_the_spared_one_not_its_own() -> None:
    topic = Topic("pov/a", Spread())
    plain, sender = subscribed(topic, "p", v1=False), subscribed(topic, "s")
    add(topic, 1, signal=True)
    add(topic, 2)
    add(topic, 3, signal=True, spare=sender)
    add(topic, 4)
    topic.flush()
    assert got(plain) == [2, 4]
    assert got(sender) == [1, 2, 4]


def test_one_that_was_settled_gets_the_rest_later_and_nothing_twice() -> None:
    topic = Topic("pov/a", Spread())
    early, other, gone = (subscribed(topic, name) for name in "eog")
    add(topic, 1)
    topic.settle(early)
    topic.remove(gone)
    assert (got(early), got(other), got(gone)) == ([1], [], [1])
    add(topic, 2)
    topic.settle(early)
    topic.settle(early)
    add(topic, 3)
    late = subscribed(topic, "l")
    assert (got(late), got(other)) == ([], [])
    add(topic, 4)
    topic.flush()
    assert got(early) == got(other) == [1, 2, 3, 4]
    assert (got(late), got(gone)) == ([4], [1]), "what came before a newcomer is not for it"


def test_the_newest_few_do_not_wait_for_all_the_others_nor_these_for_ever() -> None:
    topics = [Topic(f"pov/{n}", Spread()) for n in range(12)]
    for topic in topics:
        topic.users = 1
    few, many, later = choose(topics, 4, is_free=True)
    assert [topics.index(topic) for topic in few] == [11, 10, 9, 8, 0]
    assert (many, later) == ([], topics[1:8])
    big = topics[3]
    big.users = 5
    few, many, later = choose(topics, 4, is_free=False)
    assert big in later
    few, many, later = choose(topics, 4, is_free=True)
    assert many == [big]
    assert {*few, *many, *later} == {*topics}
    assert choose([], 4, is_free=True) == ([], [], [])


class Lines:
    """Another framing: each message on a line of its own."""

    transport = "sse"

    def frame(self, body: bytes) -> bytes:
        return body + b"\n"

    def join(self, bodies: Sequence[bytes], *, up_to_date: bool = True) -> bytes:
        return b"".join(map(self.frame, bodies))


class LineRecorder(Recorder):
    framing: Any = Lines()


def test_transports_of_two_kinds_get_the_same_messages_each_in_its_own_framing() -> None:
    topic = Topic("pov/a", Spread())
    frames = subscribed(topic, "f")
    lines, early = (connection(name, name, ManualClock()) for name in "le")
    for each in (lines, early):
        each.transport = LineRecorder()
        topic.enter(each)
        topic.go_live(each)
    add(topic, 1)
    topic.settle(early)
    add(topic, 2)
    assert topic.flush() == 6
    assert got(frames) == [1, 2]
    one, two = b'{"type": "x", "n": 1}\n', b'{"type": "x", "n": 2}\n'
    assert recorder(lines).sends == [one + two], "joined as well"
    assert recorder(early).sends == [one, two]

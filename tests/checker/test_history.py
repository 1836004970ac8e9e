"""Each broken promise is found in a history made by hand, and none where all were kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.checker.history import check, find_idleness
from tests.checker.records import SHOWN, History, Place, Stream


class Story:
    """A history in which `a-1` to `a-9` on the PoV `p` are sent and the first six acknowledged."""

    def __init__(self, *, durable: bool = True) -> None:
        self.history = History(durable=durable)
        for number in range(1, 10):
            self.history.send(f"a-{number}", "p", "t", number)
        self.acknowledge(1, 6)

    def acknowledge(self, first: int, last: int, epoch: str = "e") -> None:
        for number in range(first, last + 1):
            self.history.acknowledge(f"a-{number}", epoch, number)

    def reader(self, name: str = "ana", topic: str = "p", top: int = 0) -> Stream:
        stream = self.history.stream(name, topic)
        stream.join("e", top)
        return stream

    @property
    def kinds(self) -> set[str]:
        return {violation.kind for violation in check(self.history).violations}


def receive(stream: Stream, *offsets: int, payload: int = 0) -> None:
    """Have it receive `a-1` as 1, and so on."""
    for offset in offsets:
        stream.receive(offset, f"a-{offset}", offset, payload or 100 + offset)


def back(stream: Stream, since: int, top: int = 6, **more: object) -> None:
    """Have it come back."""
    answer = {"recovered": True, "missed": None, "cursor": False, **more}
    stream.join("e", top, Place("e", since), **answer)  # type: ignore[arg-type]


def test_a_history_in_which_all_was_kept_passes() -> None:
    story = Story()
    ana, ben = story.reader(), story.reader("ben", top=2)
    receive(ana, 1, 2, 3)
    back(ana, 3, 5)
    receive(ana, 4, 5, 6)
    receive(ben, 3, 4)
    back(ben, 4, 4)
    receive(ben, 5)
    back(ben, 3, cursor=True)
    receive(ben, 4, 5, 6)
    verdict = check(story.history)
    assert verdict.violations == []
    assert (verdict.received, verdict.excused) == (12, 0)
    assert list(find_idleness(story.history, 1, verdict)) == []


def test_what_was_not_acknowledged_may_be_received_or_not() -> None:
    story = Story()
    receive(story.reader(), 1, 2, 3, 4, 5, 6)
    receive(story.reader("ben"), 1, 2, 3, 4, 5, 6, 7)
    assert story.kinds == set()


def test_a_gap_that_was_told_of_with_a_reason_is_excused() -> None:
    history = History()
    ana = history.stream("ana", "p")
    ana.join("e", 0)
    for number in range(1, 1003):
        history.send(f"a-{number}", "p", "t", number)
        history.acknowledge(f"a-{number}", "e", number)
    receive(ana, 1)
    ana.join("e", 1002, Place("e", 1), recovered=False, missed=1001)
    assert check(history).violations == []
    assert check(history).excused == 1001
    (idle,) = find_idleness(history, 1, check(history))
    assert "excused" in idle.text


def test_a_new_epoch_is_no_violation_where_the_log_is_in_memory_only() -> None:
    story = Story(durable=False)
    ana = story.reader()
    receive(ana, 1, 2, 3)
    story.history.acknowledge("a-7", "f", 1)
    ana.join("f", 1, Place("e", 3), recovered=False)
    story.history.acknowledge("a-8", "f", 2)
    ana.receive(2, "a-8", 8, 108)
    assert story.kinds == set()
    story.history.acknowledge("a-9", "f", 3)
    assert story.kinds == {"lost"}


def miss_the_end(story: Story) -> None:
    receive(story.reader(), 1, 2, 3, 4, 5)


def leave_out_one(story: Story) -> None:
    receive(story.reader(), 1, 2, 4, 5, 6)


def leave_out_one_while_away(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3)
    back(ana, 3)
    receive(ana, 5, 6)


def leave_out_behind_the_cursor(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3)
    back(ana, 2, cursor=True)
    receive(ana, 5, 6)


def go_back_behind_the_cursor(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3)
    back(ana, 2, cursor=True)
    receive(ana, 2, 3, 4, 5, 6)


def repeat_on_one_connection(story: Story) -> None:
    receive(story.reader(), 1, 2, 3, 3, 4, 5, 6)


def repeat_to_the_next_connection(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3)
    back(ana, 3)
    receive(ana, 3, 4, 5, 6)


def receive_what_nobody_sent(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3, 4, 5, 6)
    ana.receive(7, "b-7", 7, 107)


def receive_other_contents(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3, 4, 5)
    ana.receive(6, "a-6", 5, 106)


def disagree_on_the_order(story: Story) -> None:
    receive(story.reader(), 1, 2, 3, 4, 5, 6, 7, 8)
    ben = story.reader("ben", top=6)
    ben.receive(7, "a-8", 8, 108)
    ben.receive(8, "a-7", 7, 107)


def send_other_bytes_again(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3, 4, 5, 6)
    back(ana, 5, cursor=True)
    receive(ana, 6, payload=9)


def put_one_at_two_places(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3, 4, 5, 6)
    ana.receive(7, "a-6", 6, 107)


def acknowledge_two_for_one_place(story: Story) -> None:
    receive(story.reader(), 1, 2, 3, 4, 5, 6)
    story.history.acknowledge("a-7", "e", 6)


def acknowledge_one_and_deliver_another(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3, 4, 5)
    ana.receive(6, "a-7", 7, 107)


def answer_a_retry_otherwise(story: Story) -> None:
    receive(story.reader(), 1, 2, 3, 4, 5, 6)
    story.history.acknowledge("a-6", "e", 7)


def flag_without_a_reason(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3)
    back(ana, 3, recovered=False, missed=3)


def flag_what_is_ahead_of_the_log(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3, 4, 5, 6)
    back(ana, 6, 5, recovered=False)
    receive(ana, 6)


def replace_a_durable_log(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3, 4, 5, 6)
    ana.join("f", 0, Place("e", 6), recovered=False)


def recover_over_a_change_of_the_epoch(story: Story) -> None:
    ana = story.reader()
    receive(ana, 1, 2, 3, 4, 5, 6)
    ana.join("f", 6, Place("e", 6), recovered=True)


def leave_one_out_of_the_feed(story: Story) -> None:
    receive(story.reader(topic="*t"), 1, 2, 3)
    story.history.streams[0].receive(4, "a-5", 5, 105)
    story.history.streams[0].receive(5, "a-6", 6, 106)


def turn_the_order_round_in_the_feed(story: Story) -> None:
    receive(story.reader(), 1, 2, 3, 4, 5, 6)
    feed = story.reader("ben", "*t")
    for offset, number in enumerate((1, 3, 2, 4, 5, 6), 1):
        feed.receive(offset, f"a-{number}", number, 0)


@pytest.mark.parametrize(
    ("break_a_promise", "found"),
    [
        (miss_the_end, {"lost"}),
        (leave_out_one, {"hole", "lost"}),
        (leave_out_one_while_away, {"hole", "lost"}),
        (leave_out_behind_the_cursor, {"hole", "lost"}),
        (go_back_behind_the_cursor, {"cursor"}),
        (repeat_on_one_connection, {"repeated"}),
        (repeat_to_the_next_connection, {"repeated"}),
        (receive_what_nobody_sent, {"foreign"}),
        (receive_other_contents, {"foreign"}),
        (disagree_on_the_order, {"order"}),
        (send_other_bytes_again, {"payload"}),
        (put_one_at_two_places, {"twice"}),
        (acknowledge_two_for_one_place, {"place"}),
        (acknowledge_one_and_deliver_another, {"place"}),
        (answer_a_retry_otherwise, {"retry", "lost"}),
        (flag_without_a_reason, {"flag"}),
        (flag_what_is_ahead_of_the_log, {"epoch"}),
        (replace_a_durable_log, {"flag"}),
        (recover_over_a_change_of_the_epoch, {"flag"}),
        (leave_one_out_of_the_feed, {"lost"}),
        (turn_the_order_round_in_the_feed, {"order"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_broken_promise_is_found(
    break_a_promise: Callable[[Story], None], found: set[str]
) -> None:
    story = Story()
    break_a_promise(story)
    assert story.kinds == found


def test_of_many_violations_only_the_first_ones_are_put_into_words() -> None:
    story = Story()
    for _ in range(SHOWN + 5):
        receive(story.reader(), 1, 2, 3, 4, 5)
    verdict = check(story.history)
    assert len(verdict.violations) == SHOWN
    assert verdict.counts == {"lost": SHOWN + 5}


def test_a_run_without_faults_or_acknowledgements_proves_nothing() -> None:
    history = History()
    texts = [idle.text for idle in find_idleness(history, 0, check(history))]
    assert texts == ["no fault was injected", "nothing was acknowledged"]
    (idle,) = find_idleness(Story().history, 1, check(Story().history), ["refreshed"])
    assert idle.text == "not once in the run: refreshed"

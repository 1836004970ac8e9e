"""What has a producer's number is there exactly once, in the order of the numbers."""

from __future__ import annotations

from tests.checker.history import check
from tests.checker.records import History, Kind, Place, Stream


class Numbered:
    """A history in which `n-1` to `n-6` on the PoV `p` are sent with those numbers."""

    def __init__(self, *, durable: bool = True) -> None:
        self.history = History(durable=durable)
        for number in range(1, 7):
            self.history.send(f"n-{number}", "p", "t", number, Kind("t", "a", "n"))
            self.history.numbered[number] = number
        self.reader: Stream = self.history.stream("ana", "p")
        self.reader.join("e", 0)

    def receive(self, *numbers: int) -> None:
        """Have the reader receive these, as 1 and so on."""
        for offset, number in enumerate(numbers, 1):
            self.reader.receive(offset, f"n-{number}", number, 100 + number)

    def keep(self, number: int, offset: int) -> None:
        """Have the publisher be told that one is there, by this offset."""
        self.history.kept[number] = Place("e", offset)

    @property
    def kinds(self) -> set[str]:
        return {violation.kind for violation in check(self.history).violations}


def test_what_was_kept_passes() -> None:
    story = Numbered()
    story.receive(1, 2, 4, 6)
    for number, offset in ((1, 2), (2, 2), (6, 4)):
        story.keep(number, offset)
    assert story.kinds == set()


def test_a_number_that_came_twice_is_found() -> None:
    story = Numbered()
    story.receive(1, 2, 3, 2)
    assert story.kinds == {"twice", "order"}


def test_numbers_in_another_order_are_found() -> None:
    story = Numbered()
    story.receive(1, 3, 2)
    assert story.kinds == {"order"}


def test_what_is_said_to_be_there_and_is_not_is_found() -> None:
    story = Numbered()
    story.receive(1, 2, 4)
    story.keep(3, 3)
    assert story.kinds == {"number"}


def test_where_nobody_saw_all_nothing_is_said() -> None:
    story = Numbered()
    story.receive(1, 2)
    story.keep(3, 5)
    assert story.kinds == set()


def test_what_does_not_outlast_a_kill_is_not_held_to_it() -> None:
    story = Numbered(durable=False)
    story.receive(2, 1)
    story.keep(3, 2)
    assert story.kinds == set()

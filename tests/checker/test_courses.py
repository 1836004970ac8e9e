"""Each broken promise to a client that filters, moves and publishes is found, and no kept one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.checker.courses import EVERYTHING, Course, Entered, Filter
from tests.checker.history import check
from tests.checker.records import History, Kept, Kind, Place

TASKS = Filter(types=frozenset({"task"}))
PHASES = Filter(types=frozenset({"phase"}))


class Story:
    """`a-1` to `a-10` on the PoV `p`, acknowledged: the odd ones are tasks, the others phases."""

    def __init__(self) -> None:
        self.history = History()
        for number in range(1, 11):
            kind = Kind("task" if number % 2 else "phase", "created", "ben")
            self.history.send(f"a-{number}", "p", "t", number, kind)
            self.history.acknowledge(f"a-{number}", "e", number)
        world = self.history.stream("all", "p")
        world.join("e", 0)
        for number in range(1, 11):
            world.receive(number, f"a-{number}", number, 100 + number)
        self.course = Course(self.history, "ana", "p")
        self.history.streams.append(self.course)

    def enter(self, offset: int, only: Filter = EVERYTHING, **more: object) -> None:
        entered = Entered(offset, only, **more)  # type: ignore[arg-type]
        self.course.enter("e", entered, kept=Kept(1, 100))

    def receive(self, *offsets: int) -> None:
        for offset in offsets:
            self.course.receive(offset, f"a-{offset}", offset, 100 + offset)

    def own(self, offset: int) -> None:
        self.course.publish(offset, f"a-{offset}", offset)

    @property
    def kinds(self) -> set[str]:
        return set(check(self.history).counts)


def filter_change(story: Story) -> None:
    story.enter(0)
    story.receive(1, 2, 3)
    story.enter(3, TASKS, again=True)
    story.receive(5, 7)
    story.course.name(8, "position")
    story.enter(8, PHASES, again=True)
    story.receive(10)


def comes_back(story: Story) -> None:
    story.enter(0, TASKS)
    story.receive(1, 3, 5)
    story.course.name(6, "position")
    story.enter(10, TASKS, since=Place("e", 6), recovered=True)
    story.receive(7, 9)


def moves_back(story: Story) -> None:
    story.enter(0)
    story.receive(1, 2, 3, 4)
    story.enter(4, again=True, since=Place("e", 2), recovered=True)
    story.receive(3, 4, 5, 6, 7, 8, 9, 10)


def resumes(story: Story) -> None:
    story.enter(0)
    story.receive(1, 2, 3, 4)
    story.enter(10, since=Place("e", 4), cursor=True, confirmed=2, recovered=True)
    story.receive(4, 5, 6, 7, 8, 9, 10)


def publishes(story: Story) -> None:
    story.enter(0, PHASES)
    story.receive(2)
    story.own(3)
    story.receive(4, 6)
    story.own(8)
    story.receive(10)


def leaves(story: Story) -> None:
    story.enter(0)
    story.receive(1, 2)
    story.course.ended = True


@pytest.mark.parametrize(
    "keep", [filter_change, comes_back, moves_back, resumes, publishes, leaves]
)
def test_what_was_kept_passes(keep: Callable[[Story], None]) -> None:
    story = Story()
    keep(story)
    assert check(story.history).violations == []


def answer_ahead(story: Story) -> None:
    story.enter(0)
    story.receive(1, 2)
    story.enter(10, again=True)
    story.receive(*range(3, 11))


def answer_behind(story: Story) -> None:
    story.enter(0)
    story.receive(1, 2, 3)
    story.enter(2, again=True)
    story.receive(*range(4, 11))


def filtered_too_early(story: Story) -> None:
    story.enter(0)
    story.receive(1)
    story.enter(3, TASKS, again=True)
    story.receive(5, 7, 9)


def filtered_too_late(story: Story) -> None:
    story.enter(2, TASKS)
    story.receive(3, 4, 5, 7, 9)


def hole_by_filter(story: Story) -> None:
    story.enter(0, TASKS)
    story.receive(1, 3, 7, 9)


def position_ahead(story: Story) -> None:
    story.enter(0, TASKS)
    story.receive(1, 3)
    story.course.name(9, "position")


def position_behind(story: Story) -> None:
    story.enter(0, TASKS)
    story.receive(1, 3, 5)
    story.course.name(4, "position")
    story.receive(7, 9)


def echo_in_spite(story: Story) -> None:
    story.enter(0)
    story.receive(1, 2, 3)
    story.own(3)
    story.receive(*range(4, 11))


def echo_after_all(story: Story) -> None:
    story.enter(0)
    story.receive(1, 2)
    story.own(3)
    story.receive(*range(3, 11))


def answer_out_of_place(story: Story) -> None:
    story.enter(0)
    story.receive(1)
    story.own(3)
    story.receive(*range(4, 11))


def cursor_back(story: Story) -> None:
    story.enter(0)
    story.receive(1, 2, 3, 4)
    story.enter(10, since=Place("e", 4), cursor=True, confirmed=2, recovered=True)
    story.receive(*range(2, 11))


def end_missing(story: Story) -> None:
    story.enter(0, TASKS)
    story.receive(1, 3, 5, 7)


def not_recovered(story: Story) -> None:
    story.enter(0)
    story.receive(1, 2)
    story.enter(10, since=Place("e", 2), recovered=False)


@pytest.mark.parametrize(
    ("break_a_promise", "found"),
    [
        (answer_ahead, {"ahead", "repeated"}),
        (answer_behind, {"behind", "hole"}),
        (filtered_too_early, {"ahead"}),
        (filtered_too_late, {"filter"}),
        (hole_by_filter, {"hole"}),
        (position_ahead, {"ahead"}),
        (position_behind, {"behind"}),
        (echo_in_spite, {"behind", "own"}),
        (echo_after_all, {"repeated"}),
        (answer_out_of_place, {"ahead"}),
        (cursor_back, {"repeated"}),
        (end_missing, {"lost"}),
        (not_recovered, {"flag"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_broken_promise_is_found(
    break_a_promise: Callable[[Story], None], found: set[str]
) -> None:
    story = Story()
    break_a_promise(story)
    assert found <= story.kinds


def test_a_filter_is_sent_and_judged_alike() -> None:
    only = Filter(frozenset({"task"}), frozenset({"created"}), not_users=frozenset({"eve"}))
    assert only.message == {"types": ["task"], "actions": ["created"], "notUsers": ["eve"]}
    assert only.wants(Kind("task", "created", "ana"))
    for kind in (("phase", "created", "ana"), ("task", "ended", "ana"), ("task", "created", "eve")):
        assert not only.wants(Kind(*kind))
    assert EVERYTHING.message == {}
    assert EVERYTHING.wants(Kind("any", "any", "any"))

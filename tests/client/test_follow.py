"""Where one is in a PoV: whatever comes, each activity is given once, in order, or it is a gap."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pov_rt.client.follow import (
    Followed,
    Gap,
    Item,
    Joined,
    Only,
    PlacedActivity,
    Position,
    Start,
    question,
)
from tests.clients import span


def data(user: str = "ana") -> dict[str, Any]:
    return {"id": "1", "type": "t", "action": "a", "povId": "acme", "userId": user}


def joined(offset: int, **more: Any) -> Joined:
    fields: dict[str, Any] = {"pov_id": "acme", "epoch": "e", "offset": offset}
    return Joined(**fields | more)


def live(at: int = 0, **options: Any) -> Followed:
    followed = Followed("acme", **options)
    followed.answered(joined(at))
    followed.given.clear()
    return followed


def offsets(items: list[Item]) -> list[int]:
    return [each.offset for each in items if isinstance(each, PlacedActivity)]


def starts(followed: Followed) -> list[Start]:
    return [each for each in followed.given if isinstance(each, Start)]


class TestQuestions:
    def test_one_alone_is_asked_for_in_the_plain_way(self) -> None:
        assert question([Followed("acme")]) == {"type": "subscribe", "povId": "acme"}
        last = question([Followed("acme", last=5, durable=True)])
        assert (last["since"], last["durable"]) == ({"last": 5}, True)

    def test_what_has_been_joined_is_asked_for_from_its_position(self) -> None:
        followed = live(7, last=5)
        followed.lost()
        assert question([followed])["since"] == {"epoch": "e", "offset": 7}

    def test_several_share_a_question(self) -> None:
        some = [Followed(name, Position("e", 3), only=Only(users=["a"])) for name in ("x", "y")]
        assert some[0].common == some[1].common
        asked = question(some)
        assert asked["povIds"] == ["x", "y"]
        assert asked["positions"] == {name: {"epoch": "e", "offset": 3} for name in ("x", "y")}
        assert asked["only"] == {"users": ["a"]}


class TestAnswers:
    def test_the_first_one_says_where_it_begins(self) -> None:
        followed = Followed("acme")
        followed.answered(joined(9))
        assert followed.given == [Start(Position("e", 9), None)]
        assert followed.state == "live"

    def test_what_was_missed_follows_behind_the_place_it_names(self) -> None:
        followed = Followed("acme", Position("e", 3))
        followed.answered(joined(9, recovered=True, after=3))
        for offset in span(4, 9):
            followed.received(offset, data())
        assert offsets(followed.given) == span(4, 9)

    def test_what_is_too_much_is_read_from_the_history(self) -> None:
        followed = Followed("acme", Position("e", 3))
        followed.answered(joined(2000, missed=1997))
        assert followed.state == "paging"
        followed.received(2001, data())
        followed.paged("e", 1, [(offset, data()) for offset in span(4, 500)], 500)
        assert (followed.state, followed.position) == ("paging", Position("e", 500))
        assert offsets(followed.given) == span(4, 500)

    def test_what_retention_takes_from_under_the_pages_is_a_gap(self) -> None:
        followed = Followed("acme", Position("e", 3))
        followed.answered(joined(2000))
        followed.given.clear()
        followed.paged("e", 10, [(10, data())], 10)
        (start,) = starts(followed)
        assert start.gap is not None
        assert (start.gap.missed, start.at.offset) == (6, 9)
        assert offsets(followed.given) == [10]

    def test_pages_of_another_log_are_asked_about(self) -> None:
        followed = Followed("acme", Position("e", 3))
        followed.answered(joined(2000))
        followed.paged("f", 1, [(4, data())], 4)
        assert (followed.state, offsets(followed.given)) == ("joining", [])

    def gap(self, followed: Followed, answer: Joined) -> Gap:
        followed.answered(answer)
        assert followed.state == "live"
        (start,) = starts(followed)
        assert start.gap is not None
        assert start.at == start.gap.to == Position(answer.epoch, answer.offset)
        return start.gap

    def test_what_is_there_no_more_is_a_gap_with_its_reason(self) -> None:
        asked = Position("e", 3)
        other = self.gap(Followed("acme", asked), joined(9, epoch="f"))
        assert "another one" in str(other)
        old = self.gap(Followed("acme", asked), joined(9, oldest_offset=5, missed=6))
        assert (old.missed, "6 were missed" in str(old)) == (6, True)
        ahead = self.gap(Followed("acme", Position("e", 12)), joined(9))
        assert ahead.since == Position("e", 12)
        feed = self.gap(Followed("*", asked), joined(2000))
        assert "too many or too old" in str(feed)
        assert self.gap(Followed("acme", "cursor"), joined(9)).since is None


class TestActivities:
    def test_a_hole_is_asked_about_and_then_believed(self) -> None:
        followed = live()
        followed.received(1, data())
        followed.received(3, data())
        assert (followed.state, offsets(followed.given)) == ("joining", [1])
        followed.answered(joined(3, recovered=True, after=1))
        followed.received(3, data())
        assert offsets(followed.given) == [1, 3]
        (start,) = starts(followed)
        assert start.gap is not None
        assert start.gap.missed == 1

    def test_a_filter_has_holes_that_are_none(self) -> None:
        followed = live(only=Only(types=["t"], not_users=["bo"]))
        followed.received(3, data())
        followed.moved(8)
        followed.received(9, data("bo"))
        assert offsets(followed.given) == [3]
        assert followed.given[1:] == [Position("e", 8), Position("e", 9)]

    def test_a_log_that_has_another_epoch_is_followed_on_from_the_same_offset(self) -> None:
        followed = live(2)
        followed.received(3, data())
        followed.moved(3, "f")
        followed.moved(2, "e")
        followed.received(4, data())
        activity, place, later = followed.given
        assert place == Position("f", 3) == followed.given[1]
        assert isinstance(activity, PlacedActivity)
        assert isinstance(later, PlacedActivity)
        assert (activity.position, later.position) == (Position("e", 3), Position("f", 4))

    def test_what_comes_before_the_answer_or_after_the_end_is_dropped(self) -> None:
        followed = Followed("acme")
        followed.received(1, data())
        followed.moved(5)
        assert followed.given == []
        followed.state = "ended"
        followed.lost()
        assert followed.state == "ended"

    def test_what_is_sent_again_is_counted_and_not_given(self) -> None:
        followed = live()
        for offset in (1, 2, 2, 1):
            followed.received(offset, data())
        assert (offsets(followed.given), followed.repeated) == ([1, 2], 2)

    @given(st.lists(st.integers(1, 12), max_size=60))
    def test_whatever_comes_is_given_once_and_in_order(self, coming: list[int]) -> None:
        followed, top = live(), 0
        for offset in [*coming, 12]:
            top = max(top, offset)
            followed.received(offset, data())
            while followed.state == "joining":  # a server that has everything
                position = followed.position
                assert position is not None
                followed.answered(joined(top, recovered=True, after=position.offset))
                for each in span(position.offset + 1, top):
                    followed.received(each, data())
        assert offsets(followed.given) == span(1, 12)
        assert starts(followed) == []

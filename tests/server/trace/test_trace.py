"""Events are kept by user and PoV, within bounds, and go with their user."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pov_rt.config.settings import TraceSettings
from pov_rt.connections.borders import Flushed, Stored
from pov_rt.engine.base import Appended, Conflict, NewEntry
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.trace.events import Event, read_line
from pov_rt.server.trace.trace import PASSES, Trace


def make(events_each: int = 100, events: int = 50_000) -> Trace:
    return Trace(TraceSettings(events_each=events_each, events=events), ManualClock())


def test_of_one_user_the_newest_are_kept_and_of_all_those_heard_of_last() -> None:
    trace = make(events_each=3, events=5)
    for number in range(5):
        trace.note("opened", "ana", offset=number)
    assert [each.offset for each in trace.of("ana")] == [2, 3, 4]
    for user in ("ben", "eve", "ana", "kim"):
        trace.note("opened", user)
    assert trace.kept == 5
    assert [len(trace.of(user)) for user in ("ben", "eve", "ana", "kim")] == [0, 1, 3, 1]
    assert trace.bound.used() == 5


def test_a_user_is_forgotten_everywhere() -> None:
    trace = make()
    trace.note("opened", "ana")
    trace.note("rejected", "ana", topic="pov/a", key="pov/a", id="x")
    trace.note("rejected", "ben", topic="pov/a", key="pov/a", id="x")
    assert [each.user for each in trace.about("x")] == ["ana", "ben"]
    trace.forget("ana")
    assert trace.of("ana") == ()
    assert [each.user for each in trace.of("pov/a")] == ["ben"]
    assert [read_line(each).user for each in trace.unwritten] == ["ben"]
    assert trace.kept == 1


noted = st.tuples(
    st.sampled_from(["ana", "ben", "eve"]), st.sampled_from(["c1", "c2", ""]), st.text(max_size=5)
)


@given(st.lists(noted, max_size=60), st.integers(1, 6), st.integers(1, 20))
def test_whatever_is_noted_is_read_as_it_was_written_and_the_newest_of_each_is_kept(
    events: list[tuple[str, str, str]], each: int, most: int
) -> None:
    trace = make(each, most)
    written: dict[str, list[Event]] = {}
    for user, connection, text in events:
        trace.note("failed", user, device=text, connection=connection, text=text, user_=[user])
        written.setdefault(user, []).append(read_line(trace.unwritten[-1]))
    kept = {user: list(trace.of(user)) for user in written}
    assert sum(map(len, kept.values())) == trace.kept <= max(most, each)
    for user, found in kept.items():
        assert found == (written[user][-len(found) :] if found else [])
        assert len(found) <= each
    if events:
        assert kept[events[-1][0]], "who was heard of last"
        trace.forget("ana")
        assert trace.kept == sum(len(trace.of(user)) for user in written)
        assert trace.of("ana") == ()


def test_listeners_are_told_of_each_event_and_may_leave_meanwhile() -> None:
    trace, heard = make(), list[Event]()

    def once(event: Event) -> None:
        heard.append(event)
        trace.listeners.remove(once)

    trace.listeners.append(once)
    trace.note("opened", "ana")
    trace.note("closed", "ana")
    assert [each.kind for each in heard] == ["opened"]


def entry(key: str) -> NewEntry:
    return NewEntry("pov/a", "service:app", key, b"{}")


def test_what_passed_a_pov_says_when_an_entry_was_stored_and_handed_out() -> None:
    clock = ManualClock()
    trace = Trace(TraceSettings(), clock)
    places = [Appended("e", 1), Appended("e", 2), Appended("e", 1, duplicate=True)]
    trace.stored(Stored([entry("1"), entry("2"), entry("1")], places, 0.25, 0.5))
    trace.flushed(Flushed("pov/a", "e", 2, 10, 0.1))
    clock.advance(1)
    trace.stored(Stored([entry("3")], [Appended("e", 3)], 0.1, 0.2))
    trace.flushed(Flushed("pov/a", "e", 3, 5, 0.1))
    trace.flushed(Flushed("pov/a", "e", 3, 5, 0.1))  # a signal
    first, third = trace.append_of("pov/a", 2), trace.append_of("pov/a", 3)
    assert first is not None
    assert third is not None
    assert (first.first, first.last, first.publisher, first.whole_s) == (1, 2, "service:app", 0.5)
    assert third.at == first.at + 1
    handed = trace.handout_of("pov/a", 1)
    assert handed is not None
    assert (handed.offset, handed.messages) == (2, 10)
    for topic, offset in (("pov/a", 4), ("pov/none", 1)):
        assert trace.handout_of(topic, offset) is None
        assert trace.append_of(topic, offset) is None


def test_what_a_ring_has_lost_is_not_made_up() -> None:
    trace = make()
    for offset in range(1, PASSES + 10):
        trace.flushed(Flushed("pov/a", "e", offset, 1, 0.0))
    assert trace.handout_of("pov/a", 1) is None
    newest = trace.handout_of("pov/a", PASSES + 9)
    assert newest is not None
    assert newest.offset == PASSES + 9


def test_an_id_that_was_used_for_something_else_is_kept_with_its_pov() -> None:
    trace = make()
    trace.stored(Stored([entry("x")], [Conflict("e", 7)], 0.1, 0.2))
    (event,) = trace.about("x")
    assert (event.kind, event.topic, event.offset) == ("conflict", "pov/a", 7)

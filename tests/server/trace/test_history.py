"""Events told anew: what each device was sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pov_rt.server.trace.case import Case
from pov_rt.server.trace.events import Event, Kind, cut, filter_of, line_of, read_line
from pov_rt.server.trace.history import Device, left_at, tell

POV = "pov/acme"


class Teller:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.run = "run"

    def add(
        self, kind: Kind, connection: str = "c", topic: str = "", offset: int = 0, **more: Any
    ) -> None:
        at, number = float(len(self.events)), len(self.events)
        user = "" if kind in ("started", "stopped") else "ana"
        name = connection if user else ""
        event = Event(at, kind, self.run, number, user, "phone", name, topic, offset, more)
        self.events.append(event)

    def tell(self) -> Mapping[str, Device]:
        nodes = {"run of b": "b"}
        return tell(Case("ana", "a-1", 0.0, None, self.events, node="a", nodes=nodes), POV)


def test_users_left_when_their_last_connection_did_or_the_node() -> None:
    told = Teller()
    told.add("opened")
    assert left_at(told.events) == {"ana": 0.0}
    told.add("closed")
    assert left_at(told.events) == {"ana": 1.0}
    told.add("opened", "d")
    told.add("refused", "")
    told.add("stopped")  # which takes along what is open
    assert left_at(told.events) == {"ana": 4.0}
    told.add("started")
    told.add("opened", "e")
    told.add("refused", "")  # the last that is known before the crash
    assert left_at(told.events) == {"ana": 7.0}
    told.add("started")
    assert left_at(told.events) == {"ana": 7.0}


def test_a_subscription_is_a_span_from_its_answer_to_its_end() -> None:
    told = Teller()
    told.add("opened")
    told.add("joined", topic=POV, offset=3, top=5, recovered=True, epoch="e")
    told.add("joined", topic="pov/other", offset=1)
    told.add("left", topic=POV, offset=9)
    told.add("closed", reason="closed by the client")
    (visit,) = told.tell()["phone"].visits
    assert (visit.began, visit.ended, visit.reason) == (0.0, 4.0, "closed by the client")
    (span,) = visit.spans
    assert (span.after, span.top, span.until, span.was_left) == (3, 5, 9, True)
    assert visit.others == ["pov/other"]


def test_one_that_is_asked_for_anew_ends_where_it_was_sent_up_to() -> None:
    told = Teller()
    told.add("joined", topic=POV, offset=0, top=0, epoch="e")
    told.add("joined", topic=POV, offset=2, top=7, sent=7, recovered=True, epoch="e")
    (visit,) = told.tell()["phone"].visits
    assert [(span.after, span.until) for span in visit.spans] == [(0, 7), (2, None)]


def test_what_a_start_of_the_server_finds_open_has_ended() -> None:
    told = Teller()
    told.add("joined", topic=POV, offset=0, epoch="e")
    told.add("started")
    told.add("opened", "d")
    first, second = told.tell()["phone"].visits
    assert (first.reason, first.ended, second.ended) == ("the server ended", 1.0, None)
    assert first.spans[0].until is None, "nobody knows"


def test_a_connection_whose_begin_is_forgotten_is_one() -> None:
    told = Teller()
    told.add("acked", topic=POV, offset=4)
    told.add("closed", reason="ping timeout")
    told.add("closed", reason="again")
    (visit,) = told.tell()["phone"].visits
    assert visit.reason == "ping timeout"


def test_what_others_wrote_is_kept_in_part() -> None:
    assert cut("x" * 300).endswith("...")
    assert filter_of(None) is None
    assert filter_of({"types": ["a"]}) == {"types": ["a"]}
    assert filter_of({"types": ["a" * 60] * 50}) is True


def test_the_end_of_a_node_ends_what_was_open_there() -> None:
    told = Teller()
    told.add("opened", "c")
    told.run = "run of b"
    told.add("opened", "d")
    told.add("started")
    here, there = told.tell()["phone"].visits
    assert (here.id, here.node, here.ended) == ("c", "a", None)
    assert (there.id, there.node, there.ended, there.reason) == ("d", "b", 2.0, "the server ended")


def test_what_no_encoder_takes_is_kept_with_question_marks() -> None:
    event = Event(1.0, "failed", "run", 1, "ana\ud800", more={"message": "\udfff", "povs": ["é"]})
    kept = read_line(line_of(event))
    assert (kept.user, kept.more) == ("ana?", {"message": "?", "povs": ["é"]})

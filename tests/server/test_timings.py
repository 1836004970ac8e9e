"""What a node does is timed where it crosses the borders."""

from __future__ import annotations

from typing import cast

from pov_rt.connections.borders import Borders, Handled
from pov_rt.connections.connection import Connection
from pov_rt.runtime.measure.histogram import Histogram
from pov_rt.server.timings import SAMPLE, Timings
from pov_rt.testing import Connect, RunningServer
from tests.clients import publish, subscribe


def timings(server: RunningServer) -> Timings:
    return server.web.server.timings


def counts(server: RunningServer, *names: str) -> list[int]:
    """Return how often each of these was timed."""

    def read() -> list[int]:
        found: list[Histogram] = [getattr(timings(server), name) for name in names]
        return [times.buckets()[-1][1] for times in found]

    return server.call(read)


def test_a_publication_is_timed_as_a_whole_and_in_its_parts(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect()
    subscribe(ana)
    assert counts(server, "publish", "commit") == [0, 0]
    publish(server, 3)
    for _ in range(3):
        assert ana.receive()["type"] == "activity"
    stored, committed, delivered = counts(server, "publish", "commit", "delivery")
    assert stored == committed >= 1
    assert delivered >= 1
    assert timings(server).publish.sum >= timings(server).commit.sum > 0


def test_what_nobody_gets_is_no_delivery(server: RunningServer) -> None:
    publish(server, 1)
    assert counts(server, "publish", "delivery") == [1, 0]


def test_handlers_are_timed_and_what_never_came_to_one_is_not(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect()
    ana.request({"type": "ping"})
    assert counts(server, "handler") == [1]
    ana.request({"type": "history"})
    ana.request({"type": "nobody's"})
    assert counts(server, "handler") == [1]


def test_of_many_messages_only_some_are_timed_and_then_none_costs_anything() -> None:
    borders, nobody = Borders(), cast("Connection", None)
    timings = Timings(borders)
    for second in (1, 2):
        for _ in range(SAMPLE):
            assert borders.handled is not None
            borders.handled(nobody, Handled("ping", None, None, None, 0.01))
        assert borders.handled is None
        assert timings.handler.buckets()[-1][1] == second * SAMPLE
        for _ in range(2):
            timings.sweep()


def test_who_comes_back_is_counted_by_what_it_gets_and_timed_until_it_is_live(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect()
    position = subscribe(ana)
    publish(server, 3)
    epoch = position["epoch"]
    subscribe(connect(), since={"epoch": "another", "offset": 1})
    assert server.call(lambda: dict(timings(server).recoveries)) == {"yes": 0, "no": 1}
    (before,) = counts(server, "replay")
    back = connect()
    subscribe(back, since={"epoch": epoch, "offset": 1})
    assert [back.receive()["offset"] for _ in range(2)] == [2, 3]
    # It is live by the turn in which this is answered: nothing is left to be replayed.
    back.request({"type": "ping"})
    recoveries = server.call(lambda: dict(timings(server).recoveries))
    assert (recoveries, counts(server, "replay")) == ({"yes": 1, "no": 1}, [before + 1])

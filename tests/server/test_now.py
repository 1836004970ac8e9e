"""An hour of numbers is kept, and what is published while an operator looks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pov_rt.auth.grants import Grants
from pov_rt.protocol.bodies import EngineState, Happened, NodeState
from pov_rt.runtime.clock import ManualClock, rfc3339
from pov_rt.server.now import AWAY_S, EVERY_S, SAMPLES, SHOWN, Hour
from tests.server.trace.plant import TASK, Plant, planted

ALL = Grants(None, frozenset({"operate"}), "main")


def state(number: int) -> NodeState:
    return NodeState(
        engine=EngineState(state="ok", what="", since=None, survives="process"),
        node="n", version="1", operator="", since="", not_ready=None, actions=False,
        connections=number, users=0, behind=2, published=10 * number, delivered=20 * number,
        unsent_bytes=0, unsent_s=0.0, lag_s=0.5, delivery_s=None,
        refused={"forbidden": number, "rate_limited": 1}, off={},
    )  # fmt: skip


def test_an_hour_has_a_sample_each_half_minute_and_no_more_than_that() -> None:
    clock = ManualClock()
    hour = Hour(clock)
    assert hour.told("n").samples == []
    due: list[bool] = []
    for number in range(200):
        due.append(hour.is_due)
        hour.take(state(number))
        clock.advance(EVERY_S - 1)
        due.append(hour.is_due)
        clock.advance(1)
    assert due == 200 * [True, False]
    told = hour.told("n")
    assert [each.connections for each in told.samples] == list(range(200 - SAMPLES, 200))
    last = told.samples[-1]
    assert (last.published, last.delivered, last.behind, last.lag_s) == (1990, 3980, 2, 0.5)
    assert last.at == rfc3339(clock.time() - EVERY_S)
    assert last.refused == 200
    assert told.refused_before == {"forbidden": 200 - SAMPLES, "rate_limited": 1}


@pytest.fixture
def plant() -> Iterator[Plant]:
    with planted() as plant:
        yield plant


def look(plant: Plant, grants: Grants = ALL) -> list[Happened]:
    return plant.server.call(lambda: list(plant.node.happening.look(grants)))


def test_what_is_published_is_shown_from_the_first_look_on(plant: Plant) -> None:
    plant.follow()
    plant.follow(pov="*")
    plant.publish("before")
    assert look(plant) == []
    plant.publish("one")
    plant.publish("one")  # a retry
    plant.publish("two", povId="beta", userId="cy")
    two, one = look(plant)
    assert (one.id, one.pov_id, one.type, one.action, one.user_id, one.to) == (
        "one", "acme", "task", "done", "ben", 2,
    )  # fmt: skip
    assert (two.id, two.pov_id, two.user_id, two.to) == ("two", "beta", "cy", 1)


def test_of_many_the_newest_are_kept(plant: Plant) -> None:
    look(plant)
    batch = [{**TASK, "id": f"n-{number}"} for number in range(2 * SHOWN)]
    plant.http.post("/api/activities", batch, user="app", service=True)
    plant.publish("last")
    shown = [each.id for each in look(plant)]
    assert shown == ["last", *(f"n-{2 * SHOWN - 1 - back}" for back in range(SHOWN - 1))]


def test_nothing_is_kept_when_nobody_looks_any_more_or_a_user_is_erased(plant: Plant) -> None:
    def sweep() -> bool:
        plant.node.happening.sweep()
        return plant.node.happening in plant.node.borders.observers

    look(plant)
    plant.publish()
    assert plant.server.call(sweep)
    plant.server.advance(AWAY_S + 1)
    assert not plant.server.call(sweep)
    assert look(plant) == []
    plant.publish("again")
    assert [each.id for each in look(plant)] == ["again"]
    plant.http.delete("/api/users/ben", user="ops", service=True, can=["operate"])
    assert look(plant) == []


def test_an_operator_of_one_team_sees_nothing_of_another() -> None:
    with planted(auth={"tenants": True}) as plant:
        look(plant)
        for team in ("red", "blue"):
            body = {**TASK, "id": team}
            plant.http.post("/api/activities", body, user="app", service=True, team_id=team)
        red = Grants(None, frozenset({"operate"}), "red", tenant="red")
        assert [each.id for each in look(plant, red)] == ["red"]

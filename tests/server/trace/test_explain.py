"""What is known is gathered from memory, file, log and connections, whoever asks."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import EngineSettings, ServerSettings
from pov_rt.connections.borders import Observer
from pov_rt.connections.connection import Connection
from pov_rt.runtime.clock import rfc3339
from pov_rt.server.trace.spill import NEWER
from tests.server.trace.plant import TASK, Plant, planted


def on_disk(folder: Path) -> dict[str, Any]:
    server = ServerSettings(port=0, admin_port=0, drain_s=0.2, data=str(folder))
    return {"server": server, "engine": EngineSettings(url="sqlite://")}


def test_the_answer_survives_a_restart(tmp_path: Path) -> None:
    with planted(**on_disk(tmp_path)) as plant:
        plant.hang_up(plant.follow())
        plant.publish()
    with planted(**on_disk(tmp_path)) as plant:
        plant.says("away")
        found = plant.ask()
        assert found.trace_since is not None
        assert [each.device for each in found.lanes] == ["laptop"]
        # After the restart it comes back with what it has, and gets it.
        epoch = plant.http.get("/api/povs/acme/activities").body["epoch"]
        plant.get(plant.follow(since={"epoch": epoch, "offset": 0}))
        plant.says("written")


def test_who_was_connected_when_the_server_ended_was_not_away(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    with planted(**on_disk(before)) as plant:
        plant.follow()
        plant.server.run(lambda: written(plant))
        # As a crash leaves it.
        (after / NEWER).write_bytes((before / NEWER).read_bytes())
    with planted(**on_disk(after)) as plant:
        plant.publish()
        plant.says("restart")


def test_an_erased_user_is_in_neither_memory_nor_file(tmp_path: Path) -> None:
    with planted(**on_disk(tmp_path)) as plant:
        plant.follow()
        plant.server.run(lambda: written(plant))
        assert b'"ana"' in (tmp_path / NEWER).read_bytes()
        ended = Ended()
        plant.server.call(lambda: plant.node.borders.add(ended))
        answer = plant.http.delete("/api/users/ana", user="ops", service=True, can=["operate"])
        assert answer.status == 200, answer.body
        # Also when the connection has ended, which may be later.
        assert ended.event.wait(40)
        assert plant.trace.of("ana") == ()
        plant.server.run(lambda: written(plant))
        assert b'"ana"' not in (tmp_path / NEWER).read_bytes()
        plant.server.connect("ana")
        assert plant.trace.of("ana")[0].kind == "opened", "anew"


def left_at(plant: Plant, *users: str) -> dict[str, float]:
    """Return when users left, as soon as that is known of all these."""
    for _ in range(10_000):
        found = plant.server.call(lambda: dict(plant.node.directory.last_seen.left_at))
        if found.keys() >= set(users):
            return found
    pytest.fail(f"of {users} is not known when they left: {found}")


def test_it_is_known_over_a_restart_when_a_user_was_here_last(tmp_path: Path) -> None:
    with planted(**on_disk(tmp_path)) as plant:
        first = plant.node.clock.time()
        plant.hang_up(plant.follow())
        plant.server.advance(100)
        later = plant.node.clock.time()
        for user in ("ben", "cy"):
            plant.server.connect(user)
        answer = plant.http.delete("/api/users/cy", user="ops", service=True, can=["operate"])
        assert answer.status == 200, answer.body
    with planted(**on_disk(tmp_path)) as plant:
        found = left_at(plant, "ana", "ben")
        assert set(found) == {"ana", "ben"}, "who was erased is not known"
        assert first <= found["ana"] < later <= found["ben"]
        rows = plant.http.get("/api/users", user="ops", service=True, can=["operate"]).body["users"]
        assert {each["userId"]: each["lastSeen"] for each in rows} == {
            user: rfc3339(at) for user, at in found.items()
        }


class Ended(Observer):
    """Waits for the end of a connection, which the trace is not to know of."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def closed(self, connection: Connection, reason: str) -> None:
        self.event.set()


async def written(plant: Plant) -> None:
    """Have what waits written to the file."""
    spill = plant.node.explain.spill
    assert spill is not None
    events = list(plant.trace.unwritten)
    plant.trace.unwritten.clear()
    await spill.write(events)


def test_of_several_places_that_which_the_user_follows_is_meant() -> None:
    with planted() as plant:
        plant.publish(povId="beta")
        plant.publish(povId="acme")
        plant.publish(povId="gamma")
        plant.get(plant.follow(since={"last": 1}))
        found = plant.ask()
        assert (found.cause, found.activity.pov_id) == ("written", "acme")  # type: ignore[union-attr]


def test_an_id_that_no_publisher_is_remembered_by_is_looked_for_in_the_log() -> None:
    with planted(engine={"id_window_s": 60.0}) as plant:
        plant.publish()
        plant.follow(since={"last": 1})
        plant.server.advance(120)
        plant.publish("later")
        found = plant.ask()
        assert found.cause == "written"
        assert found.activity.publisher is not None  # type: ignore[union-attr]


def test_without_a_trace_the_log_and_the_connections_are_known() -> None:
    with planted() as plant:
        plant.follow()
        plant.publish()
        plant.server.call(lambda: setattr(plant.node.explain, "trace", None))
        found = plant.ask()
        assert (found.cause, found.events) == ("written", [])
        found = plant.ask(user="eve")
        assert found.cause == "never_connected"


def test_the_line_has_a_time_for_each_station_that_was_passed() -> None:
    with planted() as plant:
        parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        ana = plant.follow()
        offset = plant.publish(details={"traceparent": parent})
        plant.get(ana)
        ana.request({"type": "ack", "povId": "acme", "offset": offset, "shown": True})
        found = plant.ask()
        (lane,) = found.lanes
        assert [each.name for each in lane.stations if each.passed] == [
            "published", "log", "node", "queue", "socket", "acknowledged", "shown",
        ]  # fmt: skip
        times = [each.at for each in lane.stations if isinstance(each.at, str)]
        assert times == sorted(times)
        assert len(times) >= 5
        assert found.activity.traceparent == parent  # type: ignore[union-attr]


def test_what_is_asked_for_may_be_on_another_users_word_alone() -> None:
    with planted(auth={"tenants": True}) as plant:
        body = {**TASK, "id": "x"}
        plant.http.post("/api/activities", body, user="app", service=True, team_id="blue")
        path, can = "/api/activities/x/explain?userId=ana", ["operate"]
        answer = plant.http.get(path, user="ops", service=True, can=can, team_id="red")
        assert answer.body["cause"] == "unknown", "an operator of one team learns of no other"

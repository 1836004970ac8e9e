"""Who was sent what is kept where a PoV's settings want it, once each, and goes as the log goes."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import EngineSettings, PovSettings
from pov_rt.engine.keeping import AUDITED, AUDITS, Keeping
from tests.server.trace.plant import TASK, Plant, planted

OPS: dict[str, Any] = {"user": "ops", "service": True, "can": ["operate"]}


@pytest.fixture
def plant() -> Iterator[Plant]:
    with planted(pov={"ac*": PovSettings(audit=True)}) as made:
        yield made


def rows(plant: Plant, pov: str = "acme") -> Sequence[dict[str, str]]:
    """Return what is noted, when all is."""
    plant.server.run(lambda: plant.node.audit.close())
    answer = plant.http.get(f"/api/povs/{pov}/audit", **OPS)
    assert answer.status == 200, answer.body
    return list(csv.DictReader(io.StringIO(answer.body)))


def short(found: Sequence[dict[str, str]]) -> list[tuple[str, str, str]]:
    return sorted((each["device"], each["activityId"], each["how"]) for each in found)


def test_who_was_sent_what_and_how_is_in_it_once(plant: Plant) -> None:
    laptop = plant.follow("laptop")
    plant.publish("1")
    plant.get(laptop, "1")
    phone = plant.follow("phone", since={"last": 1})
    plant.get(phone, "1")
    plant.publish("2")
    for each in (laptop, phone):
        plant.get(each, "2")
    found = rows(plant)
    assert short(found) == [
        ("laptop", "1", "live"),
        ("laptop", "2", "live"),
        ("phone", "1", "replayed"),
        ("phone", "2", "live"),
    ]
    first = found[0]
    assert (first["userId"], first["offset"]) == ("ana", "1")
    assert first["at"].endswith("Z")
    assert first["connectionId"] == laptop.connection_id
    assert short(rows(plant)) == short(found), "nothing is noted twice"


def test_what_a_filter_leaves_out_was_not_sent(plant: Plant) -> None:
    ana = plant.follow(only={"types": ["comment"]})
    plant.publish("1")
    plant.publish("2", type="comment")
    plant.get(ana, "2")
    assert short(rows(plant)) == [("laptop", "2", "live")]


def test_who_follows_the_whole_team_was_sent_it_too(plant: Plant) -> None:
    ana = plant.follow(pov="*")
    plant.publish("1")
    plant.publish("2", povId="other")
    plant.get(ana, "2")
    assert short(rows(plant)) == [("laptop", "1", "live")]
    assert rows(plant, "other") == []


def test_other_povs_have_none_and_a_server_without_such_settings_looks_at_nothing(
    plant: Plant,
) -> None:
    ana = plant.follow(pov="other")
    plant.publish("1", povId="other")
    plant.get(ana, "1")
    assert rows(plant, "other") == []
    with planted() as without:
        assert without.node.audit not in without.node.borders.observers


def test_it_goes_with_its_user_and_with_its_pov(plant: Plant) -> None:
    ana = plant.follow()
    plant.publish("1")
    plant.get(ana, "1")
    ben = plant.server.connect("ben", device="desk")
    ben.request({"type": "subscribe", "povId": "acme"})
    plant.publish("2")
    plant.get(ben, "2")
    assert len(rows(plant)) == 3
    exported = plant.http.get("/api/users/ana/export", **OPS).body
    assert exported.count('"kind":"delivery"') == 2
    plant.http.delete("/api/users/ana", **OPS)
    assert short(rows(plant)) == [("desk", "2", "live")]
    plant.http.delete("/api/povs/acme", **OPS)
    assert rows(plant) == []


def test_it_is_in_the_database_and_there_after_a_restart(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "pov": {"acme": PovSettings(audit=True)},
        "engine": EngineSettings(url=f"sqlite://{tmp_path}/log.db"),
    }
    with planted(**sections) as plant:
        ana = plant.follow()
        plant.publish("1")
        plant.get(ana, "1")
    with planted(**sections) as plant:
        assert short(rows(plant)) == [("laptop", "1", "live")]


def test_what_is_being_noted_when_the_server_stops_is_there_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections: dict[str, Any] = {
        "pov": {"acme": PovSettings(audit=True)},
        "engine": EngineSettings(url=f"sqlite://{tmp_path}/log.db"),
    }
    with planted(**sections) as plant:
        ana = plant.follow()
        closing = asyncio.Event()
        note, close = plant.node.audit._note, plant.node.audit.close  # noqa: SLF001

        async def note_late(*handed: Any) -> None:
            await closing.wait()
            await note(*handed)

        async def close_all() -> None:
            closing.set()
            await close()

        monkeypatch.setattr(plant.node.audit, "_note", note_late)
        monkeypatch.setattr(plant.node.audit, "close", close_all)
        plant.publish("1")
        plant.get(ana, "1")
    with planted(**sections) as plant:
        assert short(rows(plant)) == [("laptop", "1", "live")]


def test_a_batch_is_in_it_whole(plant: Plant) -> None:
    ana = plant.follow()
    batch = [{**TASK, "id": f"n-{number}"} for number in range(250)]
    plant.http.post("/api/activities", batch, user="app", service=True)
    plant.get(ana, "n-249")
    assert {each["activityId"] for each in rows(plant)} == {f"n-{n}" for n in range(250)}


def test_it_is_kept_as_long_as_its_pov_and_has_room_for_many_receivers() -> None:
    own = {"ac*": PovSettings(max_age_s=60.0, audit=True), "acme": PovSettings(max_entries=5)}
    keeping = Keeping(EngineSettings(max_entries=100), own)
    assert keeping.audits("pov/acid")
    assert not keeping.audits("pov/acme"), "the most specific pattern counts"
    assert not keeping.audits("pov/other")
    assert keeping.of(f"{AUDITS}acid") == (100 * AUDITED, 60.0)
    assert keeping.of(f"{AUDITS}acme").max_entries == 5 * AUDITED

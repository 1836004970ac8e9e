"""What operators ask is described: every route of theirs, with what it takes."""

from __future__ import annotations

import msgspec

from pov_rt.registry.schema.operators import ANSWERS, Document, operator_paths


def ref(kind: type[msgspec.Struct]) -> Document:
    return {"$ref": kind.__name__}


def parameter(name: str, place: str, schema: Document) -> Document:
    return {"name": name, "in": place}


def responses(good: dict[str, tuple[str, Document | None]]) -> Document:
    return {status: answer[1] for status, answer in good.items()}


def test_each_route_says_what_it_takes_and_answers() -> None:
    paths = operator_paths(ref, parameter, responses)
    taken = {
        path: [each["name"] for each in found["get"]["parameters"]] for path, found in paths.items()
    }
    assert taken == {
        "/api/activities/{activityId}": ["activityId"],
        "/api/activities/{activityId}/explain": ["activityId", "userId", "povId", "device"],
        "/api/povs/{povId}/audit": ["povId"],
        "/api/trace": ["userId", "povId", "follow"],
    }
    explain = paths["/api/activities/{activityId}/explain"]["get"]
    assert explain["responses"]["200"] == ref(ANSWERS[0])
    assert all("`operate`" in found["get"]["summary"] for found in paths.values())

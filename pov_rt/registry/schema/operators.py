"""In OpenAPI: what operators ask about activities and their users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pov_rt.protocol.bodies import Explained, FoundActivities

ANSWERS: tuple[type[msgspec.Struct], ...] = (Explained, FoundActivities)

Document = dict[str, Any]


def operator_paths(
    ref: Callable[[type[msgspec.Struct]], Document],
    parameter: Callable[[str, str, Document], Document],
    responses: Callable[[dict[str, tuple[str, Document | None]]], Document],
) -> Document:
    """Return the paths: `ref` refers to a class, the others make a parameter and answers."""
    text = {"type": "string"}
    activity = parameter("activityId", "path", text)
    user, pov, device = (parameter(name, "query", text) for name in ("userId", "povId", "device"))
    follow = parameter("follow", "query", {"type": "boolean"})
    table = {"schema": {**text, "description": "A row for each activity and connection."}}
    sent = {"description": "CSV", "content": {"text/csv": table}}
    lines = {"schema": {**text, "description": "An object with an `event` a line."}}
    ndjson = {"description": "NDJSON", "content": {"application/x-ndjson": lines}}

    def get(name: str, what: str, parameters: list[Document], answers: Document) -> Document:
        return {
            "get": {
                "operationId": name,
                "summary": f"{what}; needs the grant `operate`",
                "security": [{"service": []}],
                "parameters": parameters,
                "responses": answers,
            }
        }

    return {
        "/api/activities/{activityId}": get(
            "findActivity",
            "Find activities by their id",
            [activity],
            responses({"200": ("All of that id", ref(FoundActivities))}),
        ),
        "/api/activities/{activityId}/explain": get(
            "explainActivity",
            "Say why a user did not get an activity",
            [activity, {**user, "required": True}, pov, device],
            responses({"200": ("Why", ref(Explained))}),
        ),
        "/api/povs/{povId}/audit": get(
            "readAudit",
            "Read who was sent what of a PoV, where its settings have it kept",
            [parameter("povId", "path", text)],
            {"200": sent, **responses({})},
        ),
        "/api/trace": get(
            "readTrace",
            "Read what happened to a user or on a PoV, on all nodes",
            [user, pov, follow],
            {"200": ndjson, **responses({})},
        ),
    }

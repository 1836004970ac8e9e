"""What two documents differ in: messages, routes, and who sends what."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import ActivitySettings, LimitSettings, Settings
from pov_rt.registry.build import build_registry
from pov_rt.registry.schema.changes import NoDocumentError, as_json, find_changes, kind_of
from pov_rt.registry.schema.documents import asyncapi, openapi

REGISTRY = build_registry({})
SOCKET = asyncapi(REGISTRY, Settings())
HTTP = openapi(REGISTRY, Settings())
Edit = Callable[[Any], object]


def changed(document: Any, edit: Edit) -> Any:
    new = copy.deepcopy(document)
    edit(new)
    return new


def parts(document: Any, name: str) -> Any:
    return document["components"]["schemas"][name]


def posting(document: Any) -> Any:
    return document["paths"]["/api/activities"]["post"]


def page(document: Any) -> Any:
    return document["paths"]["/api/povs/{povId}/activities"]["get"]


QUERY = {"in": "query", "name": "type", "schema": {"type": "string"}}

# What is done to the document, and what is then said; "!" stands for breaking.
SOCKET_EDITS: list[tuple[Edit, set[str]]] = [
    (lambda d: d["operations"].pop("receive.typing"), {"! sent typing: is gone"}),
    (lambda d: d["operations"].pop("send.typing"), {"! received typing: is gone"}),
    (lambda d: parts(d, "Subscribe")["properties"].pop("durable"),
     {"! sent subscribe.durable: is gone"}),
    (lambda d: parts(d, "Subscribe").update(required=["type", "durable"]),
     {"! sent subscribe.durable: has to be there now"}),
    (lambda d: parts(d, "Activity")["properties"].update(more={"type": "string"}),
     {"received Activity.more: is new"}),
    (lambda d: parts(d, "Activity")["required"].remove("userId"),
     {"! received Activity.userId: may be absent now"}),
    (lambda d: parts(d, "Activity")["required"].append("at"),
     {"received Activity.at: has to be there now"}),
    (lambda d: d["operations"]["receive.ack"]["reply"]["messages"].append(
        {"$ref": "#/channels/socket/messages/muted"}),
     {"! received the answer to ack: may be muted now"}),
    (lambda d: d["operations"]["receive.ack"].pop("reply"),
     {"! received the answer to ack: is acked no longer"}),
    (lambda d: d["info"].update(version="99"), set()),
]  # fmt: skip
HTTP_EDITS: list[tuple[Edit, set[str]]] = [
    (lambda d: d["paths"].pop("/api/activities"), {"! sent POST /api/activities: is gone"}),
    (lambda d: d["paths"]["/api/activities"].update(put={}),
     {"sent PUT /api/activities: is new"}),
    (lambda d: page(d)["parameters"].append(QUERY),
     {"sent GET /api/povs/{povId}/activities query.type: is new"}),
    (lambda d: page(d)["parameters"].append({**QUERY, "required": True}),
     {"! sent GET /api/povs/{povId}/activities query.type: is new, and has to be there"}),
    (lambda d: page(d)["parameters"][1].update(required=True),
     {"! sent GET /api/povs/{povId}/activities query.after: has to be there now"}),
    (lambda d: page(d)["parameters"].pop(1),
     {"! sent GET /api/povs/{povId}/activities query.after: is gone"}),
    (lambda d: page(d)["parameters"][3]["schema"].update(maximum=50),
     {"! sent GET /api/povs/{povId}/activities query.limit: maximum is 50, and was none"}),
    (lambda d: posting(d)["requestBody"]["content"].pop("application/x-ndjson"),
     {"! sent POST /api/activities body as application/x-ndjson: is gone"}),
    (lambda d: posting(d).pop("requestBody"), {"! sent POST /api/activities body: is gone"}),
    (lambda d: posting(d)["responses"].pop("201"),
     {"! received POST /api/activities 201: is gone"}),
    (lambda d: posting(d)["responses"].update({"202": {}}),
     {"received POST /api/activities 202: is new"}),
    (lambda d: posting(d)["security"].append({"access": []}),
     {"sent POST /api/activities: takes the token as `access`, too"}),
    (lambda d: posting(d)["security"].clear(),
     {"! sent POST /api/activities: does not take the token as `service` any more"}),
    (lambda d: parts(d, "Problem")["properties"].pop("retryAfter"),
     {"! received Problem.retryAfter: is gone"}),
]  # fmt: skip
EDITS = [(SOCKET, *each) for each in SOCKET_EDITS] + [(HTTP, *each) for each in HTTP_EDITS]


def say(old: Any, new: Any) -> set[str]:
    return {
        f"{'! ' if breaking else ''}{direction} {where}: {what}"
        for breaking, direction, where, what in find_changes(old, new)
    }


@pytest.mark.parametrize(
    ("document", "edit", "said"), EDITS, ids=[" ".join(sorted(each[-1])) for each in EDITS]
)
def test_what_is_done_to_a_document_is_told_once_with_who_is_broken(
    document: Any, edit: Edit, said: set[str]
) -> None:
    new = changed(document, edit)
    assert say(document, new) == said
    assert find_changes(document, document) == find_changes(new, new) == []


def test_messages_and_routes_of_plugins_that_are_off_are_gone() -> None:
    without = build_registry({"presence": {"enabled": False}})
    gone = say(SOCKET, asyncapi(without, Settings()))
    assert {"! sent presence: is gone", "! received presence_diff: is gone"} <= gone
    assert {line.removeprefix("! ").replace("gone", "new") for line in gone} == say(
        asyncapi(without, Settings()), SOCKET
    )
    path = "GET /api/povs/{povId}/presence"
    assert say(HTTP, openapi(without, Settings())) == {f"! sent {path}: is gone"}


def test_what_is_declared_of_activities_breaks_those_who_publish(tmp_path: Path) -> None:
    file = tmp_path / "task.json"

    def documents(schema: Any) -> tuple[Any, Any]:
        file.write_text(json.dumps(schema))
        given = {"task.completed": ActivitySettings(details=str(file))}
        registry = build_registry({}, None, given)
        return asyncapi(registry, Settings()), openapi(registry, Settings())

    title = {"properties": {"title": {"type": "string"}, "state": {"enum": ["a", "b"]}}}
    socket, http = documents(title)
    key = "(task.completed)"
    assert say(SOCKET, socket) == {
        f"! sent NewActivity {key}: is declared now",
        f"received Activity {key}: is declared now",
    }
    assert say(HTTP, http) == {
        f"! sent PublishedActivity {key}: is declared now",
        f"received Activity {key}: is declared now",
    }
    fewer = {"properties": {**title["properties"], "state": {"enum": ["a"]}}}
    details = "TaskCompletedDetails"
    assert say(http, documents(fewer)[1]) == {
        f'! sent {details}.state: may not be "b" any more',
        f'received {details}.state: may not be "b" any more',
    }
    more = {"properties": {**title["properties"], "by": {"type": "string"}}}
    assert say(socket, documents(more)[0]) == {
        f"sent {details}.by: is new",
        f"received {details}.by: is new",
    }
    needed = {**title, "required": ["title"]}
    assert say(socket, documents(needed)[0]) == {
        f"! sent NewActivity {key}.details: has to be there now",
        f"! sent {details}.title: has to be there now",
        f"received Activity {key}.details: has to be there now",
        f"received {details}.title: has to be there now",
    }


def test_limits_that_the_documents_have_are_compared() -> None:
    fewer = openapi(REGISTRY, Settings(limits=LimitSettings(publish_batch=5)))
    assert say(HTTP, fewer) == {"! sent POST /api/activities body: maxItems is 5, and was 1000"}


@pytest.mark.parametrize("value", [None, 5, [], {}, {"asyncapi": 1, "openapi": 1}, "asyncapi"])
def test_what_is_no_document_is_said(value: Any) -> None:
    with pytest.raises(NoDocumentError, match="no document that `pov-rt schema"):
        kind_of(value)


DAMAGE: list[Edit] = [
    lambda d: d.pop("operations"),
    lambda d: d.update(operations=5),
    lambda d: d["operations"].update({"receive.ack": 5}),
    lambda d: d["components"]["schemas"].pop("Activity"),
    lambda d: parts(d, "Ack").update(properties=[1]),
]


@pytest.mark.parametrize("edit", DAMAGE)
def test_a_damaged_document_is_said_to_be_one(edit: Edit) -> None:
    with pytest.raises(NoDocumentError, match="is damaged: "):
        find_changes(changed(SOCKET, edit), SOCKET)


def test_programs_get_each_change_with_its_parts() -> None:
    new = changed(SOCKET, lambda d: d["operations"].pop("send.typing"))
    assert json.loads(as_json(find_changes(SOCKET, new))) == [
        {"breaking": True, "direction": "received", "where": "typing", "what": "is gone"}
    ]

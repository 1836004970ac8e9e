"""What the documents say of activities is what the server checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import is_valid
from msgspec import UNSET

from pov_rt.activities.details.declared import Declared
from pov_rt.activities.details.files import FileDetails
from pov_rt.activities.details.structs import StructDetails
from pov_rt.config.settings import ActivitySettings, Settings
from pov_rt.plugin import Part
from pov_rt.protocol.errors import InvalidActivity
from pov_rt.protocol.messages import Activity
from pov_rt.registry.build import Registry, build_registry
from pov_rt.registry.schema.activities import add_details, pascal, struct_kinds
from pov_rt.registry.schema.documents import asyncapi, openapi

LOCAL = {
    "$id": "https://schemas.example/task",
    "properties": {
        "a": {"$ref": "#/$defs/a"},
        "b": {"$ref": "#/$defs/b~1c"},
        "c": {"$ref": "#/properties/a"},
        "d": {"$ref": "#"},
        "e": {"$ref": "#/$defs/a/items"},
        "f": {"$ref": "#/$defs/never"},
    },
    "$defs": {
        "a": {"type": "array", "items": {"$ref": "#/$defs/b~1c"}},
        "b/c": {"type": "integer"},
        "never": False,
    },
}


class Comment(Part):
    """What somebody wrote."""

    by: str


DECLARED = Declared(
    {
        "task.completed": FileDetails(LOCAL),
        "task.*": FileDetails({"required": ["why"]}),
        "comment.*": StructDetails(Comment),
        "a.b.c": FileDetails({"required": ["x"]}),
    }
)


def document() -> dict[str, Any]:
    """Return what is true for an activity, by the references of a document."""
    (kind,) = struct_kinds(DECLARED)
    ref = {"$ref": "#/components/schemas/Comment"}
    schemas: dict[str, Any] = {
        "Comment": {"type": "object", "properties": {"by": {"type": "string"}}, "required": ["by"]},
        "TaskCompletedDetails": {"title": "whose name this is"},
    }
    rules = add_details(schemas, DECLARED, {kind: ref})
    return {"allOf": rules, "components": {"schemas": schemas}}


DOCUMENT = document()
JSON = st.recursive(
    st.sampled_from([None, 1, "x", True]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from("abcdefxy"), inner, max_size=3)
    ),
    max_leaves=6,
)
DETAILS = st.none() | st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e", "f", "by", "why", "x"]), JSON, max_size=3
)


@given(
    st.sampled_from(["task", "comment", "a", "a.b", "other"]),
    st.sampled_from(["completed", "begun", "b.c", "c", "*"]),
    DETAILS,
)
def test_the_documents_refuse_what_the_server_refuses(
    kind: str, action: str, details: dict[str, Any] | None
) -> None:
    activity = Activity(
        id="1",
        type=kind,
        action=action,
        pov_id="p",
        user_id="u",
        details=UNSET if details is None else details,
    )
    try:
        DECLARED.check(activity)
        refused = False
    except InvalidActivity:
        refused = True
    sent = {"type": kind, "action": action, **({} if details is None else {"details": details})}
    assert is_valid(DOCUMENT, sent) is not refused


def test_a_name_that_is_taken_stays_whose_it_is() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["TaskCompletedDetails"] == {"title": "whose name this is"}
    assert "TaskCompletedDetails2" in schemas
    assert pascal("a-b.c_d") == "ABCD"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "task.json").write_text(json.dumps(LOCAL))
    task = ActivitySettings(details=str(tmp_path / "task.json"))
    return build_registry({}, None, {"task.completed": task})


def test_whoever_publishes_or_receives_is_told_and_notifications_are_as_they_were(
    registry: Registry,
) -> None:
    for described, having in (
        (asyncapi(registry, Settings()), {"Activity", "NewActivity"}),
        (openapi(registry, Settings()), {"Activity", "PublishedActivity"}),
    ):
        schemas = described["components"]["schemas"]
        assert {name for name, each in schemas.items() if "allOf" in each} == having
        (rule,) = schemas["Activity"]["allOf"]
        assert rule["title"] == "task.completed"
        assert rule["then"]["properties"]["details"] == {
            "$ref": "#/components/schemas/TaskCompletedDetails"
        }
        assert "$id" not in schemas["TaskCompletedDetails"], "which would change where it leads"


def test_every_reference_into_a_file_leads_to_its_place_in_the_document(
    registry: Registry,
) -> None:
    from tests.registry.schema.test_documents import follow, references

    for described in (asyncapi(registry, Settings()), openapi(registry, Settings())):
        for reference in references(described):
            follow(described, reference)

"""Where schemas are in a schema, and where references lead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pov_rt.activities.details.walk import (
    LISTS,
    MAPS,
    SINGLE,
    follow,
    map_references,
    resolve,
    subschemas,
)

DATA = {"$ref": "no reference: this is data"}


def everywhere(inner: Any) -> dict[str, Any]:
    """Return a schema that has another one wherever there can be one, and data where not."""
    found: dict[str, Any] = {keyword: {"$ref": inner} for keyword in MAPS}
    found |= {keyword: [inner, True] for keyword in LISTS}
    found |= dict.fromkeys(SINGLE, inner)
    return {**found, "const": DATA, "enum": [DATA], "default": DATA, "examples": [DATA]}


def test_every_schema_inside_is_found_with_its_path_and_no_data_is_taken_for_one() -> None:
    schema = everywhere({"title": "inner"})
    found = dict(subschemas(schema))
    assert found.pop(()) is schema
    assert len(found) == len(MAPS) + len(LISTS) + len(SINGLE)
    for path, each in found.items():
        assert each == {"title": "inner"} == follow(schema, path)


def test_references_are_changed_wherever_they_are_and_nothing_else_is() -> None:
    schema = everywhere({"$ref": "#/a", "title": "kept"})
    changed = map_references(schema, lambda reference: reference.replace("#", "elsewhere"))
    assert changed == everywhere({"$ref": "elsewhere/a", "title": "kept"})
    assert schema == everywhere({"$ref": "#/a", "title": "kept"}), "the first one stays as it was"


@given(st.lists(st.text(max_size=4), min_size=1, max_size=4))
def test_a_pointer_leads_to_its_place_whatever_the_names(names: list[str]) -> None:
    root: Any = "here"
    for name in reversed(names):
        root = {name: root, "other": [root]}
    parts = (name.replace("~", "~0").replace("/", "~1") for name in names)
    assert resolve(root, "/".join(["#", *parts])) == "here"


@pytest.mark.parametrize(
    "reference", ["#/nowhere", "#/list/2", "#/list/-1", "#/list/x", "#/text/0/0"]
)
def test_a_pointer_to_nothing_is_an_error(reference: str) -> None:
    root = {"list": [1, 2], "text": {"0": 5}}
    assert resolve(root, "#") is root
    assert resolve(root, "#/list/1") == 2
    with pytest.raises(LookupError):
        resolve(root, reference)

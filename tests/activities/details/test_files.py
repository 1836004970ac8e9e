"""Details by JSON Schema: what a file may be, and what is said of details that do not fit."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pov_rt.activities.details.files import (
    DIALECT,
    MAX_BYTES,
    MAX_DEPTH,
    FileDetails,
    SchemaError,
    read_details,
)
from pov_rt.protocol.errors import InvalidActivity

SCHEMA: dict[str, Any] = {
    "$schema": DIALECT,
    "type": "object",
    "required": ["items"],
    "additionalProperties": False,
    "properties": {
        "items": {"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/item"}},
        "span": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/span"}]},
        "name": {"type": "string", "pattern": "^(a+)+$", "maxLength": 60},
        "mail": {"type": "string", "format": "email"},
        "odd": {"not": {"type": "string"}},
        "gone": False,
        "state": {"const": "done"},
    },
    "dependentRequired": {"mail": ["name"]},
    "$defs": {
        "item": {
            "type": "object",
            "required": ["dueAt"],
            "properties": {"dueAt": {"type": "string"}},
        },
        "span": {"type": "object", "properties": {"days": {"type": "integer", "minimum": 1}}},
    },
}
DETAILS = FileDetails(SCHEMA)

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "details.items", "is missing; it must be a list of at most 3 items"),
    ({"items": {}}, "details.items", "must be a list of at most 3 items"),
    ({"items": [{}] * 4}, "details.items", "must be a list of at most 3 items"),
    ({"items": [{"dueAt": ""}, {}]}, "details.items[1].dueAt", "is missing; it must be a string"),
    ({"items": [{"dueAt": 5}]}, "details.items[0].dueAt", "must be a string"),
    ({"items": [], "more": 1}, "details.more",
     "; there are: gone, items, mail, name, odd, span, state"),
    ({"items": [], "span": 5}, "details.span", "must be null or an object"),
    ({"items": [], "span": {"days": 0}}, "details.span.days", "be a whole number of at least 1"),
    ({"items": [], "name": "b"}, "details.name", "that matches ^(a+)+$"),
    ({"items": [], "mail": "a@b.example"}, "details.name", "is missing"),
    ({"items": [], "name": "a", "mail": "a"}, "details.mail", "must be an e-mail address"),
    ({"items": [], "odd": "secret"}, "details.odd", "the value"),
    ({"items": [], "gone": 1}, "details.gone", "may not be there"),
    ({"items": [], "state": "open"}, "details.state", 'must be "done"'),
]  # fmt: skip


@pytest.mark.parametrize(("details", "field", "words"), BAD, ids=lambda each: str(each))
def test_the_field_at_fault_is_named_with_what_it_should_be(
    details: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidActivity) as raised:
        DETAILS.check(details)
    assert raised.value.field == field
    assert f"'{field}'" in raised.value.message or raised.value.message.startswith(f"{field}: ")
    assert words in raised.value.message
    assert "secret" not in raised.value.message, "what was sent is not sent back"


def test_what_fits_passes() -> None:
    DETAILS.check({"items": [{"dueAt": "x", "more": 1}], "span": None, "name": "aa"})


REFUSED: list[tuple[str, str]] = [
    ("[]", "is no JSON Schema: it must be an object"),
    ("{", "is no JSON: "),
    ("[" * 5000, "is no JSON: "),
    ("\udcff", "is no JSON: "),
    (f'{{"title": "{"x" * MAX_BYTES}"}}', f"of {MAX_BYTES} that are allowed"),
    ('{"properties": {"a": {"type": "text"}}}', "#/properties/a/type is no JSON Schema"),
    ('{"properties": 5}', "#/properties is no JSON Schema"),
    ('{"type": "string"}', "details are always an object"),
    ('{"$schema": "http://json-schema.org/draft-07/schema#"}', f"this server knows '{DIALECT}'"),
    ('{"$schema": 5}', "this server knows"),
    ('{"$ref": "https://schemas.example/task"}', "nothing is fetched"),
    ('{"$ref": "other.json#/x"}', "nothing is fetched"),
    ('{"$ref": "file:///etc/passwd"}', "nothing is fetched"),
    ('{"$ref": "#/$defs/none"}', "refers to '#/$defs/none', which is not there"),
    ('{"title": "x", "$ref": "#/title"}', "which is no schema"),
    ('{"properties": {"a": {"$anchor": "b"}}}', "#/properties/a has $anchor; refer to"),
    ('{"$dynamicRef": "#a"}', "# has $dynamicRef; refer to"),
    ('{"$defs": {"a": {"$id": "b"}}}', "#/$defs/a has an $id of its own"),
    ('{"properties": {"a": {"pattern": "("}}}', "#/properties/a/pattern is no pattern"),
    ('{"properties": {"a": {"pattern": "(?=a)"}}}', "without look-around"),
    ('{"properties": {"a": {"pattern": "a{1000}{1000}{1000}"}}}', "bytes at most when compiled"),
    ('{"not":' * (MAX_DEPTH + 1) + "{}" + "}" * (MAX_DEPTH + 1), "which is too deep"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=lambda each: each[:60])
def test_what_is_no_usable_schema_is_refused_with_the_file(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "task.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(SchemaError) as raised:
        read_details(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert words in str(raised.value)


def test_a_file_that_is_not_there_is_named_and_a_byte_order_mark_is_passed_over(
    tmp_path: Path,
) -> None:
    with pytest.raises(SchemaError, match=r"none\.json: cannot be read: No such file"):
        read_details(tmp_path / "none.json")
    (tmp_path / "marked.json").write_text("\ufeff{}")
    read_details(tmp_path / "marked.json")


def test_what_only_looks_like_a_reference_is_data() -> None:
    FileDetails({"properties": {"$ref": {"type": "string"}, "a": {"enum": [{"$ref": "x"}]}}})


def test_a_pattern_that_would_hang_others_takes_no_time() -> None:
    begun = time.process_time()
    with pytest.raises(InvalidActivity):
        DETAILS.check({"items": [], "name": "a" * 59 + "b"})
    assert time.process_time() - begun < 1


def test_a_schema_that_contains_itself_ends() -> None:
    tree = FileDetails({"properties": {"left": {"$ref": "#"}}, "additionalProperties": False})
    tree.check({"left": {"left": {}}})
    with pytest.raises(InvalidActivity) as raised:
        tree.check({"left": {"left": {"right": 1}}})
    assert raised.value.field == "details.left.left.right"
    FileDetails({"$ref": "#"}).check({"a": 1})
    FileDetails({"anyOf": [{"$ref": "#"}, {"required": ["a"]}]}).check({"a": 1})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("abd", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["items", "span", "days", "dueAt", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*SCHEMA["properties"], "x"]), JSON, max_size=4))
def test_whatever_is_wrong_a_field_below_details_is_named(details: dict[str, Any]) -> None:
    found = None
    try:
        DETAILS.check(details)
    except InvalidActivity as error:
        found = error
    if found is not None:
        assert found.field is not None
        assert found.field == "details" or found.field.startswith("details.")
        assert found.field in found.message


def test_a_server_without_schemas_needs_no_library_and_one_with_them_is_told(
    tmp_path: Path,
) -> None:
    """Run without the package: as it is after a plain `pip install pov-rt`."""
    (tmp_path / "task.json").write_text(json.dumps(SCHEMA))
    code = (
        "import sys; sys.modules['jsonschema_rs'] = None\n"
        "from pathlib import Path\n"
        "from pov_rt.activities.details.files import read_details\n"
        f"read_details(Path({str(tmp_path / 'task.json')!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'pov-rt[schemas]'" in done.stderr

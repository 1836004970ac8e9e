"""What is expected, in words."""

from __future__ import annotations

from typing import Any

import pytest

from pov_rt.activities.details.words import FORMATS, KINDS, SAID, SIZES, expected

WORDS: list[tuple[Any, str]] = [
    ({"type": "string"}, "a string"),
    ({"type": "string", "minLength": 1}, "a string of at least 1 character"),
    ({"type": "string", "minLength": 1, "maxLength": 5}, "a string of 1 to 5 characters"),
    ({"type": "string", "minLength": 3, "maxLength": 3}, "a string of 3 characters"),
    ({"type": "string", "pattern": "^a+$"}, "a string that matches ^a+$"),
    ({"type": "string", "format": "date"}, "a date such as 2030-01-31"),
    ({"type": "string", "format": "hostname"}, "a string in the format hostname"),
    ({"type": "integer", "minimum": 0}, "a whole number of at least 0"),
    ({"type": "integer", "minimum": 1, "maximum": 9}, "a whole number from 1 to 9"),
    ({"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5},
     "a number above 0 that is a multiple of 0.5"),
    ({"type": "array", "maxItems": 3, "uniqueItems": True},
     "a list of at most 3 items without repetitions"),
    ({"type": "object", "minProperties": 1}, "an object of at least 1 field"),
    ({"type": ["string", "null"]}, "a string or null"),
    ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "true or false or null"),
    ({"enum": ["low", "high", None]}, 'one of "low", "high", null'),
    ({"const": "only"}, '"only"'),
    ({"enum": [1]}, "1"),
    ({"enum": list(range(12))}, "one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 2 others"),
    ({"$ref": "#/$defs/size"}, "a whole number of at least 1"),
    ({"$ref": "#/$defs/loop"}, "another value"),
    (True, "another value"),
    ({"not": {"type": "string"}}, "another value"),
]  # fmt: skip
ROOT = {"$defs": {"size": {"type": "integer", "minimum": 1}, "loop": {"$ref": "#/$defs/loop"}}}


@pytest.mark.parametrize(("schema", "words"), WORDS, ids=lambda each: str(each))
def test_a_schema_in_words(schema: Any, words: str) -> None:
    assert expected(schema, ROOT) == words


def test_every_keyword_that_is_said_to_have_words_changes_them() -> None:
    examples = {keyword for schema, _ in WORDS if isinstance(schema, dict) for keyword in schema}
    bounds = {bound for low, high, _ in SIZES for bound in (low, high)}
    assert SAID - bounds - examples <= {"oneOf", "exclusiveMaximum"}
    assert {"string", "null", "boolean", "integer", "number", "array", "object"} == set(KINDS)
    assert "date-time" in FORMATS

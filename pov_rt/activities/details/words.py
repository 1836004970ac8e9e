"""What a schema wants, in words: for whoever sent something else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pov_rt.activities.details.walk import resolve

MOST_CHOICES = 10
"""Choices, alternatives and fields that are named; of more it is said how many there are."""

FORMATS = {
    "date": "a date such as 2030-01-31",
    "date-time": "a time as RFC 3339 has it, such as 2030-01-31T09:00:00Z",
    "duration": "a duration as ISO 8601 has it, such as PT5M",
    "email": "an e-mail address",
    "uri": "a URI",
    "uuid": "a UUID",
}
KINDS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}
SIZES = (
    ("minLength", "maxLength", "character"),
    ("minItems", "maxItems", "item"),
    ("minProperties", "maxProperties", "field"),
)

SAID = frozenset(
    {"$ref", "anyOf", "const", "enum", "format", "multipleOf", "oneOf", "pattern", "type"}
    | {"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "uniqueItems"}
    | {bound for low, high, _ in SIZES for bound in (low, high)}
)
"""The keywords that `expected` has words for."""


def expected(schema: Any, root: Any, *, depth: int = 4) -> str:
    """Return what fits a schema, such as `a string of at most 64 characters`.

    `root` is the document that its references lead into; `depth` bounds how many are followed, and
    how far alternatives are looked into.
    """
    if not isinstance(schema, dict) or not depth:
        return "another value"
    if "$ref" in schema:
        return expected(resolve(root, schema["$ref"]), root, depth=depth - 1)
    if "const" in schema:
        return literal(schema["const"])
    if "enum" in schema:
        choices = [literal(each) for each in schema["enum"]]
        return choices[0] if len(choices) == 1 else f"one of {listed(choices)}"
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            kinds = (expected(each, root, depth=depth - 1) for each in schema[keyword])
            return " or ".join(dict.fromkeys(kinds))
    kinds = schema.get("type", ())
    names = [kinds] if isinstance(kinds, str) else kinds
    said = [_kind(name, schema) for name in names]
    return " or ".join(said) or "another value"


def _kind(name: str, schema: Mapping[str, Any]) -> str:
    words = KINDS.get(name, name)
    if name == "string" and (named := schema.get("format")) is not None:
        words = FORMATS.get(named, f"a string in the format {named}")
    return " ".join([words, *_bounds(name, schema)])


def _bounds(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    wanted = {"string": SIZES[0], "array": SIZES[1], "object": SIZES[2]}.get(name)
    if wanted is not None:
        low, high = schema.get(wanted[0]), schema.get(wanted[1])
        most = low if high is None else high
        unit = wanted[2] if most == 1 else f"{wanted[2]}s"
        if low is not None or high is not None:
            yield f"of {_range(low, high)} {unit}"
    if name == "string" and "pattern" in schema:
        yield f"that matches {schema['pattern']}"
    if name == "array" and schema.get("uniqueItems"):
        yield "without repetitions"
    if name in ("integer", "number"):
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and high is not None:
            yield f"from {low} to {high}"
        elif low is not None or high is not None:
            yield f"of {_range(low, high)}"
        for keyword, word in (("exclusiveMinimum", "above"), ("exclusiveMaximum", "below")):
            if keyword in schema:
                yield f"{word} {schema[keyword]}"
        if "multipleOf" in schema:
            yield f"that is a multiple of {schema['multipleOf']}"


def _range(low: Any, high: Any) -> str:
    if low is None:
        return f"at most {high}"
    if high is None:
        return f"at least {low}"
    return str(low) if low == high else f"{low} to {high}"


def literal(value: Any) -> str:
    """Return a value as it stands in JSON."""
    return json.dumps(value, ensure_ascii=False)


def listed(words: list[str]) -> str:
    """Return them with commas, not all if there are many."""
    more = len(words) - MOST_CHOICES
    return ", ".join(words[:MOST_CHOICES]) + (f", and {more} others" if more > 0 else "")

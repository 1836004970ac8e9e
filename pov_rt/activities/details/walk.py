"""Where a JSON Schema has schemas inside of it, and where its references lead.

The keywords are those of draft 2020-12. What is in `const`, `enum`, `default` or `examples` is
data, however much it looks like a schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Path = tuple[str | int, ...]

MAPS = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
SINGLE = (
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
"""The keywords whose value is one schema."""


def subschemas(schema: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield a schema and all that are inside of it, each with its path; booleans are left out."""
    waiting: list[tuple[Path, Any]] = [((), schema)]
    while waiting:
        path, each = waiting.pop()
        if not isinstance(each, dict):
            continue
        yield path, each
        for keyword in MAPS:
            if isinstance(named := each.get(keyword), dict):
                waiting += [((*path, keyword, name), inner) for name, inner in named.items()]
        for keyword in LISTS:
            if isinstance(several := each.get(keyword), list):
                waiting += [((*path, keyword, i), inner) for i, inner in enumerate(several)]
        waiting += [((*path, keyword), each[keyword]) for keyword in SINGLE if keyword in each]


def map_references(schema: Any, change: Callable[[str], str]) -> Any:
    """Return a copy whose references are what `change` makes of them."""
    if not isinstance(schema, dict):
        return schema
    changed: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword == "$ref":
            changed[keyword] = change(value)
        elif keyword in MAPS and isinstance(value, dict):
            changed[keyword] = {
                name: map_references(inner, change) for name, inner in value.items()
            }
        elif keyword in LISTS and isinstance(value, list):
            changed[keyword] = [map_references(inner, change) for inner in value]
        elif keyword in SINGLE:
            changed[keyword] = map_references(value, change)
        else:
            changed[keyword] = value
    return changed


def follow(root: Any, path: Path) -> Any:
    """Return what is at a path. Raises `LookupError`."""
    place = root
    for step in path:
        try:
            place = place[step]
        except TypeError as error:
            raise LookupError(step) from error
    return place


def resolve(root: Any, reference: str) -> Any:
    """Return what a reference within the document leads to: `#`, or `#/` and a JSON pointer.

    Raises `LookupError`.
    """
    place = root
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        place = follow(place, (int(key) if isinstance(place, list) and key.isdecimal() else key,))
    return place

"""The declared details of activities in a document: as components, and who has them.

Which activity has which details is said with `if` and `then`: exactly what the server checks.
Generators that do not read these still have the activity as it always is, and each declared type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pov_rt.activities.details import walk
from pov_rt.activities.details.declared import ANY, Declared, split_key
from pov_rt.activities.details.structs import StructDetails
from pov_rt.protocol.errors import InvalidActivity

COMPONENTS = "#/components/schemas/"
DEFINITIONS = ("$defs", "definitions")


def struct_kinds(declared: Declared) -> Iterator[type[msgspec.Struct]]:
    """Yield the structs that plugins declare, which a document describes with all others."""
    for each in declared.types.values():
        if isinstance(each, StructDetails):
            yield each.source


def add_details(
    schemas: dict[str, Any],
    declared: Declared,
    refs: Mapping[type, Mapping[str, str]],
) -> list[dict[str, Any]]:
    """Add the schemas of files to a document's; return what to say in `allOf` of an activity.

    `refs` has the references to the structs, which are there already.
    """
    rules = []
    for key, details in sorted(declared.types.items()):
        if isinstance(details, StructDetails):
            ref = refs[details.source]
        else:
            ref = _add(schemas, f"{pascal(key)}Details", details.source)
        then: dict[str, Any] = {"properties": {"details": dict(ref)}}
        try:
            details.check({})
        except InvalidActivity:
            then["required"] = ["details"]
        rules.append({"title": key, "if": _condition(key, declared), "then": then})
    return rules


def _condition(key: str, declared: Declared) -> dict[str, Any]:
    """Return what is true for the activities that a key is for."""
    found = [_named(kind, action, declared) for kind, action in split_key(key)]
    names = found[0] if len(found) == 1 else {"anyOf": found}
    return {"required": ["type", "action"], **names}


def _named(kind: str, action: str, declared: Declared) -> dict[str, Any]:
    wanted: dict[str, Any] = {"const": action}
    if action == "*":
        own = [
            each
            for key in declared.types
            if not key.endswith(ANY)
            for other, each in split_key(key)
            if other == kind
        ]
        wanted = {"not": {"enum": sorted(own)}} if own else {}
    return {"properties": {"type": {"const": kind}, **({"action": wanted} if wanted else {})}}


def _add(schemas: dict[str, Any], wanted: str, schema: dict[str, Any]) -> dict[str, str]:
    """Add a file's schema, and each of its definitions by itself, so that they have names."""
    name = _free(wanted, schemas)
    schemas[name] = {}
    moved = {"#": f"{COMPONENTS}{name}"}
    inner: dict[str, Any] = {}
    for keyword in DEFINITIONS:
        for own, each in schema.get(keyword, {}).items():
            component = _free(name + pascal(own), schemas)
            schemas[component] = {}
            escaped = own.replace("~", "~0").replace("/", "~1")
            moved[f"#/{keyword}/{escaped}"] = f"{COMPONENTS}{component}"
            inner[component] = each

    def move(reference: str) -> str:
        parts = reference.split("/")
        for end in range(len(parts), 0, -1):
            if (target := moved.get("/".join(parts[:end]))) is not None:
                return "/".join([target, *parts[end:]])
        return reference

    moved_away = {"$schema", "$id", *DEFINITIONS}
    own = {keyword: value for keyword, value in schema.items() if keyword not in moved_away}
    for component, each in {name: own, **inner}.items():
        if isinstance(each, bool):
            each = {} if each else {"not": {}}
        schemas[component] = walk.map_references(each, move)
    return {"$ref": moved["#"]}


def _free(wanted: str, schemas: Mapping[str, Any]) -> str:
    name, number = wanted, 2
    while name in schemas:
        name, number = f"{wanted}{number}", number + 1
    return name


def pascal(name: str) -> str:
    """Return a name in the style of types: `task.completed` as `TaskCompleted`."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", name))

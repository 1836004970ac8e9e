"""Details that a JSON Schema describes: the operator's file, read, checked and compiled.

The dialect is draft 2020-12. References lead into the file itself and nowhere else: nothing is
fetched, ever. Patterns run in time linear to the text (an engine without backtracking), so that
none of them can keep the server; `format` is checked where the format is a known one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pov_rt.activities.details import walk
from pov_rt.activities.details.declared import field_of
from pov_rt.activities.details.words import SAID, expected, listed
from pov_rt.protocol.errors import InvalidActivity
from pov_rt.protocol.faults import MISSING, UNKNOWN, Fault

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator, ValidationError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_BYTES = 256 * 1024
"""Size of a file: a schema costs memory, and time at each start."""
MAX_DEPTH = 64
"""Levels of objects and lists in a file; also how many references may follow each other."""
PATTERN_BYTES = 1024 * 1024
"""What a compiled pattern may take."""

ELSEWHERE = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef")
"""Keywords that make references other than pointers."""


class SchemaError(ValueError):
    """A file is no schema that can be used; the text says why, and what would be right."""


class FileDetails:
    """Details as a schema has them. Raises `SchemaError`."""

    def __init__(self, schema: dict[str, Any]) -> None:
        _check_own_rules(schema)
        self.source = schema
        self._validator = _compile(schema)

    def check(self, details: dict[str, Any]) -> None:
        """Raise `InvalidActivity` that names the field at fault."""
        if not self._validator.is_valid(details):
            error = _most_telling(next(self._validator.iter_errors(details)))
            fault = _explain(error, self.source)
            raise InvalidActivity(fault.sentence, field=fault.path)


def read_details(path: Path) -> FileDetails:
    """Read a file. Raises `SchemaError`, which names it."""
    try:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SchemaError(f"cannot be read: {error.strerror}") from error
        return FileDetails(_decode(data))
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error


def _decode(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise SchemaError(f"has {len(data)} bytes, of {MAX_BYTES} that are allowed")
    try:
        schema = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise SchemaError(f"is no JSON: {error}") from error
    if not isinstance(schema, dict):
        raise SchemaError('is no JSON Schema: it must be an object, such as {"type": "object"}')
    return schema


def _check_own_rules(schema: dict[str, Any]) -> None:
    """Raise for what JSON Schema allows and this server does not."""
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.removesuffix("#") != DIALECT:
        raise SchemaError(f"$schema is {dialect!r}; this server knows {DIALECT!r} alone")
    kinds = schema.get("type", "object")
    if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
        raise SchemaError(f'type is {kinds!r}, and details are always an object: "type": "object"')
    for path, each in walk.subschemas(schema):
        at = "/".join(map(str, ("#", *path)))
        if len(path) > MAX_DEPTH:
            raise SchemaError(f"{at} is below {MAX_DEPTH} levels, which is too deep")
        if "$id" in each and path:
            raise SchemaError(f"{at} has an $id of its own: only the whole file may have one")
        for keyword in ELSEWHERE:
            if keyword in each:
                raise SchemaError(f"{at} has {keyword}; refer to '#/$defs/NAME' with $ref")
        if "$ref" in each:
            _check_reference(schema, each["$ref"], at)


def _check_reference(schema: dict[str, Any], reference: Any, at: str) -> None:
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise SchemaError(
            f"{at} refers to {reference!r}, and may only refer to a place in this file, such as "
            "'#/$defs/NAME': nothing is fetched"
        )
    try:
        target = walk.resolve(schema, reference)
    except LookupError as error:
        raise SchemaError(f"{at} refers to {reference!r}, which is not there") from error
    if not isinstance(target, dict | bool):
        raise SchemaError(f"{at} refers to {reference!r}, which is no schema")


def _compile(schema: dict[str, Any]) -> Draft202012Validator:
    try:
        import jsonschema_rs
    except ImportError as error:
        raise SchemaError(
            "a JSON Schema needs the package jsonschema-rs: pip install 'pov-rt[schemas]'"
        ) from error
    try:
        return jsonschema_rs.Draft202012Validator(
            schema,
            offline=True,
            validate_formats=True,
            mask="the value",
            pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES),
        )
    except jsonschema_rs.ValidationError as error:
        at = "/".join(map(str, ("#", *error.instance_path)))
        if error.instance_path[-1:] == ["pattern"]:
            raise SchemaError(
                f"{at} is no pattern that can be used: without look-around and references back, "
                f"and of {PATTERN_BYTES} bytes at most when compiled"
            ) from error
        raise SchemaError(f"{at} is no JSON Schema: {error.message}") from error


def _most_telling(error: ValidationError) -> ValidationError:
    """Return what is at fault inside of alternatives, where one of them fits better than others."""
    while branches := getattr(error.kind, "context", None):
        firsts = [branch[0] for branch in branches if branch]
        deepest = max(firsts, key=lambda each: len(each.instance_path), default=error)
        if len(deepest.instance_path) <= len(error.instance_path):
            break
        error = deepest
    return error


def _explain(error: ValidationError, root: dict[str, Any]) -> Fault:
    """Return the field at fault, and what is wrong with it."""
    keyword, path = error.kind.name, tuple(error.instance_path)
    schema = walk.follow(root, tuple(error.schema_path[:-1]))
    if keyword == "required":
        wanted = schema.get("properties", {}).get(error.kind.value)
        more = f"; it must be {expected(wanted, root)}" if isinstance(wanted, dict) else ""
        return Fault(field_of((*path, error.kind.value)), MISSING, more)
    if keyword in ("additionalProperties", "unevaluatedProperties"):
        known = listed(sorted(schema.get("properties", {}))) or "none"
        return Fault(field_of((*path, error.kind.value[0])), UNKNOWN, f"; there are: {known}")
    field = field_of(path)
    if keyword == "falseSchema":
        return Fault(field, "may not be there")
    if keyword in SAID:
        return Fault(field, f"must be {expected(schema, root)}")
    return Fault(field, error.message, is_own=True)

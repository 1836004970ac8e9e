"""Says which field of a decoded value is at fault, without reading a validator's prose."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec


def find_fault(kind: Any, value: Any) -> str | None:
    """Return the path of the first field of `value` that does not fit the type, or None if all do.

    Nor does half a character fit (a lone surrogate), anywhere. `value` is what JSON or TOML decodes
    to. Paths look like `data.povId` or `povIds[2]`; "" is the
    value itself. The first fault in the order of the declaration wins; a key that a struct refuses
    to know comes before all.
    """
    try:
        msgspec.convert(value, kind, str_keys=True)
        msgspec.json.encode(value)
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError):
        return _inside(kind, value)
    return None


def _inside(kind: Any, value: Any) -> str:
    for name, inner in _faults(kind, value):
        if inner is not None:
            dot = "" if not inner or inner.startswith("[") else "."
            return f"{name}{dot}{inner}"
    return ""


def _faults(kind: Any, value: Any) -> Iterator[tuple[str, str | None]]:
    """Yield each part of an object or an array with its fault; a plain value is itself at fault.

    Only those of a union's members that are of the value's sort have any.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from _faults(arguments[0], value)
    elif origin in (Union, UnionType):
        for each in arguments:
            yield from _faults(each, value)
    elif isinstance(value, list) and origin in (list, tuple, set, frozenset):
        for index, item in enumerate(value):
            yield f"[{index}]", find_fault(arguments[0], item)
    elif isinstance(value, dict) and origin is dict:
        for name, item in value.items():
            yield str(name), find_fault(arguments[1], item)
    elif isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from _struct_faults(kind, value)


def _struct_faults(
    kind: type[msgspec.Struct], value: dict[str, Any]
) -> Iterator[tuple[str, str | None]]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    if kind.__struct_config__.forbid_unknown_fields:
        for name in value:
            if name not in fields:
                yield name, ""
    for name, field in fields.items():
        if name in value:
            yield name, find_fault(field.type, value[name])
        elif field.required:
            yield name, ""

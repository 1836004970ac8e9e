"""Says which field of a decoded value is at fault, without reading a validator's prose."""

from __future__ import annotations

from collections.abc import Iterable
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
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _inside(arguments[0], value)
    if origin in (Union, UnionType):
        # Only one member can be meant by an object or an array; a plain value is itself at fault.
        return next((_inside(each, value) for each in arguments if _fits(each, value)), "")
    if isinstance(value, dict):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return _first(_struct_faults(kind, value))
        if origin is dict:
            return _first(
                (str(name), find_fault(arguments[1], item)) for name, item in value.items()
            )
    if isinstance(value, list) and origin in (list, tuple, set, frozenset):
        return _first(
            (f"[{index}]", find_fault(arguments[0], item)) for index, item in enumerate(value)
        )
    return ""


def _struct_faults(
    kind: type[msgspec.Struct], value: dict[str, Any]
) -> Iterable[tuple[str, str | None]]:
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


def _first(faults: Iterable[tuple[str, str | None]]) -> str:
    for name, inner in faults:
        if inner is not None:
            dot = "" if not inner or inner.startswith("[") else "."
            return f"{name}{dot}{inner}"
    return ""


def _fits(kind: Any, value: Any) -> bool:
    """Tell whether a union's member is of the value's sort: object or array."""
    if get_origin(kind) is Annotated:
        return _fits(get_args(kind)[0], value)
    plain = get_origin(kind) or kind
    if isinstance(value, dict):
        return plain is dict or (isinstance(plain, type) and issubclass(plain, msgspec.Struct))
    return isinstance(value, list) and plain in (list, tuple, set, frozenset)

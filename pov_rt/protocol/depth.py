"""How deep JSON may be nested: what is deeper is named and refused, for readers recurse.

A decoder or encoder that recurses ends somewhere between 900 and 10,000 levels, each elsewhere, and
at fewer the deeper its caller stands. What one of them wrote the next one might not read. So the
bound is far below, and the same at every door.
"""

from __future__ import annotations

import re
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import inspect as shape

from pov_rt.protocol.errors import ClientError, InvalidActivity, InvalidRequest
from pov_rt.protocol.messages import NewActivity, NewNotification

MAX_DETAILS_DEPTH = 100
"""The largest bound that may be set."""

ENVELOPE = 2
"""Levels around `details` where it lies deepest, in a `publish`: the message and its `data`."""

KEPT_LEVELS = MAX_DETAILS_DEPTH + ENVELOPE + 1
MAX_TOKENS = 200_000
"""Looked at to find what is too deep (some 30 ms); a body with more is refused as a whole."""

OPENING = b"{"
"""What `{` and `[` are after a translation that has `LEVELS` in it."""

LEVELS = {ord("{"): ord("{"), ord("["): ord("{")}

_SHAPE = bytes(LEVELS.get(byte, ord(" ")) for byte in range(256))
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_BOUNDED = (NewActivity, NewNotification)
"""Their `details` are looked at when they are published."""


def may_be_deeper(content: bytes | bytearray, levels: int) -> bool:
    """Tell whether encoded JSON has as many objects and lists as it needs to be deeper."""
    return len(content) > 2 * levels and content.translate(_SHAPE).count(OPENING) > levels


def is_deeper(value: Any, levels: int) -> bool:
    """Tell whether objects and lists are nested in more levels, the value itself being the first.

    Without recursion, and also for what contains itself.
    """
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(levels):
        inner: dict[int, Any] = {}
        for each in level:
            for item in each.values() if isinstance(each, dict) else each:
                if isinstance(item, (dict, list)):
                    inner[id(item)] = item
        if not inner:
            return False
        level = list(inner.values())
    return bool(level)


def check_details(details: Any, levels: int, field: str = "details") -> None:
    """Raise `InvalidActivity`, naming the bound, for details that are nested deeper."""
    if is_deeper(details, levels):
        raise InvalidActivity(f"{field} is nested deeper than {levels} levels", field=field)


def prune(content: bytes, levels: int) -> bytes:
    """Return JSON with 0 in place of all that is nested deeper, so that a decoder can read it.

    What is cut out need not be right. Raises RecursionError where that takes too long to find.
    """
    kept: list[bytes] = []
    depth = start = 0
    for count, found in enumerate(_TOKEN.finditer(content)):
        mark = content[found.start()]
        if mark in b"[{":
            if depth == levels:
                kept += (content[start : found.start()], b"0")
            depth += 1
        elif mark in b"]}":
            depth -= 1
            if depth == levels:
                start = found.end()
        if count >= MAX_TOKENS:
            raise RecursionError(f"nested too deep, and more than {MAX_TOKENS} parts")
    if depth <= levels:
        kept.append(content[start:])
    return b"".join(kept)


def find_deep(kind: type[msgspec.Struct], value: Any, levels: int) -> ClientError | None:
    """Say which field of a decoded value is too deep: details, or the value as a whole.

    The whole may have `ENVELOPE` more levels than details may.
    """
    if not is_deeper(value, levels):
        return None
    if (found := _find_details(kind, value, levels, "")) is not None:
        return found
    left = levels + ENVELOPE
    if not is_deeper(value, left):
        return None
    path, inner = "", kind
    while (fields := _fields(inner)) and isinstance(value, dict):
        left -= 1
        names = [name for name in fields if is_deeper(value.get(name), left)]
        if not names:
            break
        path, value, inner = _join(path, names[0]), value[names[0]], fields[names[0]]
    words = f"{path or 'this'} is nested too deep: there are {levels + ENVELOPE} levels in all"
    return InvalidRequest(words, field=path or None)


def is_open(kind: type[msgspec.Struct]) -> bool:
    """Tell whether a value of a type may be nested as deep as its sender likes.

    Details do not count: they are looked at when they are published.
    """
    return _is_open(shape.type_info(kind), set())


def _find_details(kind: Any, value: Any, levels: int, path: str) -> ClientError | None:
    fields = _fields(kind)
    if not isinstance(value, dict):
        return None
    for name, inner in fields.items():
        if name not in value:
            continue
        where = _join(path, name)
        if name == "details" and issubclass(kind, _BOUNDED):
            try:
                check_details(value[name], levels, where)
            except InvalidActivity as error:
                return error
        elif (found := _find_details(inner, value[name], levels, where)) is not None:
            return found
    return None


def _fields(kind: Any) -> dict[str, Any]:
    """Return the types of a struct's fields by wire name, of a struct each; {} for another type."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return {}
    return {field.encode_name: _struct(field.type) for field in msgspec.structs.fields(kind)}


def _struct(kind: Any) -> Any:
    """Return the first struct of a union or an annotated type."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _struct(get_args(kind)[0])
    if origin in (Union, UnionType):
        return next(filter(_fields_of, map(_struct, get_args(kind))), None)
    return kind


def _fields_of(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_open(kind: shape.Type, seen: set[type]) -> bool:
    match kind:
        case shape.Metadata(type=inner):
            return _is_open(inner, seen)
        case shape.UnionType(types=types):
            return any(_is_open(each, seen) for each in types)
        case shape.ListType(item_type=inner) | shape.VarTupleType(item_type=inner):
            return _is_open(inner, seen)
        case shape.DictType(value_type=inner):
            return _is_open(inner, seen)
        case shape.StructType(cls=owner):
            if issubclass(owner, _BOUNDED):
                return False
            if owner in seen:
                return True  # it contains itself
            return any(_is_open(field.type, seen | {owner}) for field in kind.fields)
    return isinstance(kind, shape.AnyType | shape.RawType)

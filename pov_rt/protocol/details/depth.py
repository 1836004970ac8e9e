"""How deep JSON may be nested: what is deeper is named and refused, for readers recurse.

A decoder or encoder that recurses ends somewhere between 900 and 10,000 levels, each elsewhere, and
at fewer the deeper its caller stands. What one of them wrote the next one might not read. So the
bound is far below, and the same at every door.
"""

from __future__ import annotations

import re
from functools import lru_cache
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
MAX_RUNS = 8_000
"""Runs of brackets looked at to find what is too deep: a few ms. What has more is not named."""

OPENING = b"{"
"""What `{` and `[` are after a translation that has `LEVELS` in it."""

LEVELS = {ord("{"): ord("{"), ord("["): ord("{")}

_SHAPE = bytes(LEVELS.get(byte, ord(" ")) for byte in range(256))
_RUN = re.compile(rb'(?:[^"\[\]{}]|"(?:[^"\\]|\\.)*+")*+([\[{]+|[\]}]+)', re.DOTALL)
"""Brackets, several at a time: of the deepest JSON there are fewest."""

_SCALARS = frozenset({str, int, float, bool, type(None)})
_BOUNDED = (NewActivity, NewNotification)
"""Their `details` are looked at when they are published."""


def may_be_deeper(content: bytes | bytearray, levels: int) -> bool:
    """Tell whether encoded JSON has as many objects and lists as it needs to be deeper."""
    return len(content) > 2 * levels and content.translate(_SHAPE).count(OPENING) > levels


def is_deeper(value: Any, levels: int) -> bool:
    """Tell whether objects and lists are nested in more levels, the value itself being the first.

    Without recursion, and also for what contains itself.
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        inner: list[Any] = []
        for each in level:
            items = each.values() if isinstance(each, dict) else each
            inner += [item for item in items if type(item) not in _SCALARS]
        inner = [item for item in inner if isinstance(item, dict | list)]
        if not inner:
            return False
        # Once each: what contains itself twice would double at each level.
        level = inner if len(inner) < 100 else list({id(item): item for item in inner}.values())
    return bool(level)


def check_details(details: Any, levels: int) -> None:
    """Raise `InvalidActivity`, naming the bound, for details that are nested deeper."""
    if is_deeper(details, levels):
        raise _too_deep("details", levels)


def prune(content: bytes, levels: int) -> bytes:
    """Return JSON with 0 in place of all that is nested deeper, so that a decoder can read it.

    What is cut out need not be right. Raises RecursionError where it would take too long.
    """
    kept: list[bytes] = []
    depth = start = 0
    for count, found in enumerate(_RUN.finditer(content)):
        first, end = found.span(1)
        size = end - first
        if content[first] in b"[{":
            if depth <= levels < depth + size:
                kept += (content[start : first + levels - depth], b"0")
            depth += size
        elif content[first] in b"]}":
            if depth - size <= levels < depth:
                start = first + depth - levels
            depth -= size
        if count >= MAX_RUNS:
            raise RecursionError(f"nested too deep, with more than {MAX_RUNS} runs of brackets")
    if depth <= levels:
        kept.append(content[start:])
    return b"".join(kept)


def find_deep(kind: type[msgspec.Struct], value: Any, levels: int) -> ClientError | None:
    """Say which field of a decoded value is too deep for the whole to be taken.

    The whole may have `ENVELOPE` more levels than `details`, which are looked at by themselves when
    they are published.
    """
    left = levels + ENVELOPE
    if not is_deeper(value, left):
        return None
    path, inner = "", kind
    while (fields := _fields(inner)) and isinstance(value, dict):
        left -= 1
        names = [name for name in fields if isinstance(value.get(name), dict | list)]
        if len(names) != 1:
            names = [name for name in names if is_deeper(value[name], left)]
        if not names:
            break
        (name, *_), owner = names, inner
        path = f"{path}.{name}" if path else name
        if name == "details" and issubclass(owner, _BOUNDED):
            return _too_deep(path, levels)
        value, inner = value[name], fields[name]
    words = f"{path or 'this'} is nested too deep: there are {levels + ENVELOPE} levels in all"
    return InvalidRequest(words, field=path or None)


@lru_cache(maxsize=1024)
def is_open(kind: type[msgspec.Struct]) -> bool:
    """Tell whether a value of a type may be nested as deep as its sender likes.

    Details do not count: they are looked at when they are published.
    """
    return _is_open(shape.type_info(kind), set())


def _too_deep(field: str, levels: int) -> InvalidActivity:
    return InvalidActivity(f"{field} is nested deeper than {levels} levels", field=field)


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

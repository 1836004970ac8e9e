"""Makes the ids in a decoded message those of its sender's team (`protocol.tenants`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import inspect as shape

from pov_rt.protocol.tenants import TenantId
from pov_rt.protocol.topics import TEAM_FEED

Scope = Callable[[Any, str], Any]
"""Returns a value with the team's ids in it: `(value, team_id)`. Structs are changed in place."""

OWN = frozenset({"pov", "feed", "unchecked", "user"})
"""The sorts of ids that are a team's own; an activity's id belongs to its publisher."""


@lru_cache(256)
def scope_of(kind: type[msgspec.Struct]) -> Scope | None:
    """Return what scopes a struct; None if there is no id of a team in it."""
    return make_scope(shape.type_info(kind))


def make_scope(kind: shape.Type) -> Scope | None:
    """Build what scopes every id in a value of the given type; None if there can be none."""
    match kind:
        case shape.Metadata(type=inner):
            sort = (kind.extra or {}).get("id")
            return _leaf if sort in OWN else None if sort else make_scope(inner)
        case shape.UnionType(types=types):
            return _first([make_scope(each) for each in types])
        case shape.ListType(item_type=inner):
            return _each(list, make_scope(inner))
        case shape.VarTupleType(item_type=inner):
            return _each(tuple, make_scope(inner))
        case shape.SetType(item_type=inner):
            return _each(set, make_scope(inner))
        case shape.FrozenSetType(item_type=inner):
            return _each(frozenset, make_scope(inner))
        case shape.DictType(key_type=key, value_type=inner):
            return _items(make_scope(key), make_scope(inner))
        case shape.TupleType(item_types=types):
            return _places([make_scope(each) for each in types])
        case shape.TypedDictType():
            return _named({each.encode_name: make_scope(each.type) for each in kind.fields})
        case shape.NamedTupleType(cls=owner):
            scope = _places([make_scope(each.type) for each in kind.fields])
            return scope and _made(owner, scope)
        case shape.StructType(cls=owner) | shape.DataclassType(cls=owner):
            return _attributes(owner, {each.name: make_scope(each.type) for each in kind.fields})
    return None


def _leaf(value: Any, team_id: str) -> Any:
    if not isinstance(value, str) or value == TEAM_FEED or type(value) is TenantId:
        return value
    return TenantId.of(team_id, value)


def _first(inner: list[Scope | None]) -> Scope | None:
    """Scope a value that is of one of several types: each leaves the others' alone."""
    there = [each for each in inner if each is not None]

    def scope(value: Any, team_id: str) -> Any:
        for each in there:
            value = each(value, team_id)
        return value

    return scope if len(there) > 1 else next(iter(there), None)


def _each(owner: Callable[[Any], Any], inner: Scope | None) -> Scope | None:
    if inner is None:
        return None

    def scope(value: Any, team_id: str) -> Any:
        if not isinstance(value, list | tuple | set | frozenset):
            return value
        return owner(inner(item, team_id) for item in value)

    return scope


def _items(key: Scope | None, inner: Scope | None) -> Scope | None:
    if key is None and inner is None:
        return None

    def scope(value: Any, team_id: str) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            key(name, team_id) if key else name: inner(item, team_id) if inner else item
            for name, item in value.items()
        }

    return scope


def _places(inner: list[Scope | None]) -> Scope | None:
    """Scope a tuple in which each place has a type of its own."""
    if not any(inner):
        return None

    def scope(value: Any, team_id: str) -> Any:
        if not isinstance(value, tuple):
            return value
        return tuple(
            each(item, team_id) if each else item for each, item in zip(inner, value, strict=False)
        )

    return scope


def _made(owner: Any, inner: Scope) -> Scope:
    """Scope a named tuple."""

    def scope(value: Any, team_id: str) -> Any:
        return owner(*inner(value, team_id)) if isinstance(value, owner) else value

    return scope


def _named(fields: dict[str, Scope | None]) -> Scope | None:
    """Scope a dict whose keys have types of their own."""
    there = {name: inner for name, inner in fields.items() if inner is not None}

    def scope(value: Any, team_id: str) -> Any:
        if not isinstance(value, dict):
            return value
        return value | {
            name: inner(value[name], team_id) for name, inner in there.items() if name in value
        }

    return scope if there else None


def _attributes(owner: type, fields: dict[str, Scope | None]) -> Scope | None:
    there = [(name, inner) for name, inner in fields.items() if inner is not None]

    def scope(value: Any, team_id: str) -> Any:
        if isinstance(value, owner):
            for name, inner in there:
                # Frozen for handlers; here it is still being made.
                scoped = inner(getattr(value, name), team_id)
                if isinstance(value, msgspec.Struct):
                    msgspec.structs.force_setattr(value, name, scoped)
                else:
                    object.__setattr__(value, name, scoped)
        return value

    return scope if there else None

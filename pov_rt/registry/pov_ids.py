"""Finds the PoV ids in a message, so that every one is checked against the token's grants."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import inspect as shape

FindIds = Callable[[Any], Iterable[str]]


def find_ids(kind: shape.Type, inside: tuple[type, ...] = ()) -> FindIds | None:
    """Build what yields every `PovId` in a value of the given type; None if there can be none.

    Raises TypeError for a struct that contains itself.
    """
    if isinstance(kind, shape.Metadata):
        if (kind.extra or {}).get("id") == "pov":
            return lambda value: (value,) if isinstance(value, str) else ()
        return find_ids(kind.type, inside)
    if isinstance(kind, shape.UnionType):
        return _chain([find_ids(each, inside) for each in kind.types])
    if isinstance(kind, (shape.ListType, shape.SetType, shape.FrozenSetType, shape.VarTupleType)):
        items = find_ids(kind.item_type, inside)
        if items is None:
            return None
        return lambda value: (
            (found for item in value for found in items(item))
            if isinstance(value, (list, set, frozenset, tuple))
            else ()
        )
    if isinstance(kind, shape.DictType):
        keys, values = find_ids(kind.key_type, inside), find_ids(kind.value_type, inside)
        return _chain(
            [
                keys and (lambda value: _each(keys, value, dict.keys)),
                values and (lambda value: _each(values, value, dict.values)),
            ]
        )
    if isinstance(kind, shape.StructType):
        if kind.cls in inside:
            raise TypeError(f"{kind.cls.__name__} contains itself, which messages may not")
        return _chain(
            [
                _attribute(field.name, kind.cls, find_ids(field.type, (*inside, kind.cls)))
                for field in kind.fields
            ]
        )
    return None


def _attribute(name: str, owner: type, find: FindIds | None) -> FindIds | None:
    if find is None:
        return None
    return lambda value: find(getattr(value, name)) if isinstance(value, owner) else ()


def _each(find: FindIds, value: Any, part: Callable[[Any], Iterable[Any]]) -> Iterable[str]:
    return (
        (found for item in part(value) for found in find(item)) if isinstance(value, dict) else ()
    )


def _chain(finders: Iterable[FindIds | None]) -> FindIds | None:
    there = [find for find in finders if find is not None]
    if len(there) < 2:
        return there[0] if there else None
    return lambda value: (found for find in there for found in find(value))

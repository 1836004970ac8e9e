"""Finds the ids in a message, so that every one is checked, PoV ids against the token's grants."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import repeat
from typing import Any, Protocol

import msgspec
from msgspec import inspect as shape

from pov_rt.protocol.errors import InvalidId
from pov_rt.protocol.messages import check_id
from pov_rt.protocol.topics import TEAM_FEED

CheckId = Callable[[str, str], None]
"""Raises what is wrong with an id: `(text, path)`."""


class CheckIds(Protocol):
    """Checks all ids in a value."""

    def __call__(self, value: Any, check_pov: CheckId, place: str = "") -> None:
        """Raise what is wrong with the first bad one, PoV ids by `check_pov`.

        `place` is the path of the value itself.
        """


def make_check(
    kind: shape.Type, inside: tuple[type, ...] = (), *, dot: str = ""
) -> CheckIds | None:
    """Build what checks every id in a value of the given type; None if there can be none.

    Paths look like `data.povId` or `povIds[2]`; of a set's members and a dict's keys the path is
    that of the set or dict. `dot` is what a struct puts between its own path and a field's.
    Raises TypeError for a struct that contains itself.
    """
    match kind:
        case shape.Metadata(type=inner):
            sort = (kind.extra or {}).get("id")
            return make_check(inner, inside, dot=dot) if sort is None else _leaf(sort)
        case shape.UnionType(types=types):
            return _chain(make_check(each, inside, dot=dot) for each in types)
        case shape.ListType(item_type=inner) | shape.VarTupleType(item_type=inner):
            return _members((list, tuple), enumerate, "[%s]", make_check(inner, inside, dot="."))
        case shape.SetType(item_type=inner) | shape.FrozenSetType(item_type=inner):
            return _members((set, frozenset), _unnamed, "%s", make_check(inner, inside, dot="."))
        case shape.DictType(key_type=key, value_type=inner):
            keys = _members((dict,), _unnamed, "%s", make_check(key, inside, dot="."))
            values = _members((dict,), dict.items, ".%s", make_check(inner, inside, dot="."))
            return _chain([keys, values])
        case shape.StructType(cls=owner):
            if owner in inside:
                raise TypeError(f"{owner.__name__} contains itself, which messages may not")
            within = (*inside, owner)
            return _attributes(
                owner,
                [
                    (field.name, dot + field.encode_name, make_check(field.type, within, dot="."))
                    for field in kind.fields
                ],
            )
    return None


@lru_cache(256)
def check_of(kind: type[msgspec.Struct]) -> CheckIds | None:
    """Return what `make_check` builds for a struct."""
    return make_check(shape.type_info(kind))


def find_bad_id(kind: type[msgspec.Struct], value: Any) -> InvalidId | None:
    """Say what is wrong with an id in a decoded value that is all right but for ids."""
    check = check_of(kind)
    try:
        if check is not None:
            check(msgspec.convert(value, kind, str_keys=True), check_id)
    except InvalidId as error:
        return error
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError):
        pass
    return None


def _leaf(sort: str) -> CheckIds | None:
    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        if isinstance(value, str):
            check_pov(value, place)

    def check_other(value: Any, check_pov: CheckId, place: str = "") -> None:
        if isinstance(value, str) and not (sort == "feed" and value == TEAM_FEED):
            check_id(value, place)

    if sort == "unchecked":
        return None
    return check if sort == "pov" else check_other


def _unnamed(value: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    return zip(repeat(""), value)


def _members(
    owners: tuple[type, ...],
    split: Callable[[Any], Iterable[tuple[Any, Any]]],
    suffix: str,
    inner: CheckIds | None,
) -> CheckIds | None:
    if inner is None:
        return None

    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        if isinstance(value, owners):
            for key, item in split(value):
                inner(item, check_pov, place + suffix % key)

    return check


def _attributes(owner: type, fields: Iterable[tuple[str, str, CheckIds | None]]) -> CheckIds | None:
    there = [(name, path, inner) for name, path, inner in fields if inner is not None]

    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        if isinstance(value, owner):
            for name, path, inner in there:
                inner(getattr(value, name), check_pov, place + path)

    return check if there else None


def _chain(checks: Iterable[CheckIds | None]) -> CheckIds | None:
    there = [check for check in checks if check is not None]

    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        for each in there:
            each(value, check_pov, place)

    return check if len(there) > 1 else next(iter(there), None)

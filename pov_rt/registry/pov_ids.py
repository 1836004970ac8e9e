"""Finds the ids in a message, so that every one is checked, PoV ids against the token's grants."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
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
    kind: shape.Type, path: str | None = None, inside: tuple[type, ...] = ()
) -> CheckIds | None:
    """Build what checks every id in a value of the given type; None if there can be none.

    Paths look like `data.povId` or `povIds[2]`; of a set's members and a dict's keys the path is
    that of the set or dict. Raises TypeError for a struct that contains itself.
    """
    if isinstance(kind, shape.Metadata):
        sort = (kind.extra or {}).get("id")
        if sort is not None:
            return _leaf(sort, path or "") if sort != "unchecked" else None
        return make_check(kind.type, path, inside)
    if isinstance(kind, shape.UnionType):
        return _chain([make_check(each, path, inside) for each in kind.types])
    if isinstance(kind, (shape.ListType, shape.SetType, shape.FrozenSetType, shape.VarTupleType)):
        return _items(make_check(kind.item_type, "", inside), path or "")
    if isinstance(kind, shape.DictType):
        keys = make_check(kind.key_type, path, inside)
        return _chain(
            [
                keys and _keys(keys),
                _values(make_check(kind.value_type, "", inside), path or ""),
            ]
        )
    if isinstance(kind, shape.StructType):
        if kind.cls in inside:
            raise TypeError(f"{kind.cls.__name__} contains itself, which messages may not")
        start = "" if path is None else f"{path}."
        fields = [
            (field.name, make_check(field.type, start + field.encode_name, (*inside, kind.cls)))
            for field in kind.fields
        ]
        return _attributes(kind.cls, fields)
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


def _leaf(sort: str, path: str) -> CheckIds:
    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        if isinstance(value, str):
            check_pov(value, place + path)

    def check_other(value: Any, check_pov: CheckId, place: str = "") -> None:
        if isinstance(value, str) and not (sort == "feed" and value == TEAM_FEED):
            check_id(value, place + path)

    return check if sort == "pov" else check_other


def _items(items: CheckIds | None, path: str) -> CheckIds | None:
    if items is None:
        return None

    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        if isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                items(item, check_pov, f"{place}{path}[{index}]")
        elif isinstance(value, (set, frozenset)):
            for item in value:
                items(item, check_pov, place + path)

    return check


def _keys(keys: CheckIds) -> CheckIds:
    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        if isinstance(value, dict):
            for key in value:
                keys(key, check_pov, place)

    return check


def _values(values: CheckIds | None, path: str) -> CheckIds | None:
    if values is None:
        return None

    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                values(item, check_pov, f"{place}{path}.{key}")

    return check


def _attributes(owner: type, fields: Iterable[tuple[str, CheckIds | None]]) -> CheckIds | None:
    there = [(name, inner) for name, inner in fields if inner is not None]
    if not there:
        return None

    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        if isinstance(value, owner):
            for name, inner in there:
                inner(getattr(value, name), check_pov, place)

    return check


def _chain(checks: Iterable[CheckIds | None]) -> CheckIds | None:
    there = [check for check in checks if check is not None]
    if len(there) < 2:
        return there[0] if there else None

    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        for each in there:
            each(value, check_pov, place)

    return check

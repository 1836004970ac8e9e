"""Finds the ids in a message, so that every one is checked, PoV ids against the token's grants.

And what is named like a PoV and is none of them, for nobody would check it (`find_unchecked`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import inspect as shape

from pov_rt.protocol.errors import InvalidId
from pov_rt.protocol.messages import check_id
from pov_rt.protocol.topics import TEAM_FEED

CheckId = Callable[[str, str], object]
"""Raises what is wrong with an id: `(text, path)`; or takes note of it."""
Getter = Callable[[Any], Any]
_Fielded = shape.StructType | shape.DataclassType | shape.NamedTupleType | shape.TypedDictType

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_AT_END = re.compile(r"povs?(?:ids?)?$")
POV_WORDS = frozenset({"pov", "povs", "povid", "povids", "povsid", "povsids"})
ID_WORDS = frozenset({"id", "ids"})


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
            sort = _sort(kind)
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
        case shape.TupleType(item_types=types):
            items = [make_check(each, inside, dot=".") for each in types]
            places = [(itemgetter(i), f"[{i}]", item) for i, item in enumerate(items)]
            return _parts(tuple, places)
        case shape.StructType() | shape.DataclassType() | shape.NamedTupleType():
            return _parts(kind.cls, _fields(kind, inside, dot, attrgetter))
        case shape.TypedDictType():
            return _parts(dict, _fields(kind, inside, dot, _getter))
    return None


def _fields(
    kind: _Fielded, inside: tuple[type, ...], dot: str, getter: Callable[[str], Getter]
) -> list[tuple[Getter, str, CheckIds | None]]:
    if kind.cls in inside:
        raise TypeError(f"{kind.cls.__name__} contains itself, which messages may not")
    within = (*inside, kind.cls)
    return [
        (getter(field.name), dot + field.encode_name, make_check(field.type, within, dot="."))
        for field in kind.fields
    ]


def _getter(name: str) -> Getter:
    # Of a `TypedDict` fields may be absent; None is no id.
    return lambda value: value.get(name)


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


def words_of(name: str) -> set[str]:
    """Return the words of a name, in whatever case it is: `povId`, `pov_id`, `POV-ID`, `aPOVid`."""
    words = {word.lower() for word in _WORD.findall(name)}
    return words | {*_AT_END.findall(name.lower())}


def names_pov(name: str) -> bool:
    """Tell whether something of this name looks like a PoV."""
    return not POV_WORDS.isdisjoint(words_of(name))


def names_id(name: str) -> bool:
    """Tell whether something of this name is a PoV or a user."""
    return names_pov(name) or name in ("user_id", "userId")


class Unchecked(NamedTuple):
    """A field that is named like a PoV, and not made of ids; of which class, and its path."""

    owner: type
    name: str
    path: str


@lru_cache(maxsize=1024)
def find_unchecked(kind: type[msgspec.Struct]) -> Unchecked | None:
    """Return the first field of what a client sends that looks like a PoV and nobody checks.

    So does an `id` inside of such a field. A number is no PoV's id unless it says so.
    """
    return next(_find_unchecked(shape.type_info(kind), "", is_pov=False), None)


def _find_unchecked(kind: shape.Type, path: str, *, is_pov: bool) -> Iterator[Unchecked]:
    if not isinstance(kind, _Fielded):
        for inner in _inner_types(kind):
            yield from _find_unchecked(inner, path, is_pov=is_pov)
        return
    for field in kind.fields:
        there = f"{path}.{field.encode_name}" if path else field.encode_name
        words = words_of(field.name) | words_of(field.encode_name)
        looks_so = bool(words & POV_WORDS) or (is_pov and bool(words & ID_WORDS))
        is_id = any(word.endswith(("id", "ids")) for word in words)
        if looks_so and _is_loose(field.type, is_id=is_id):
            yield Unchecked(kind.cls, field.name, there)
        yield from _find_unchecked(field.type, there, is_pov=looks_so)


def _is_loose(kind: shape.Type, *, is_id: bool) -> bool:
    """Tell whether a value can be a PoV's id that is not marked as an id."""
    if _sort(kind) is not None or (isinstance(kind, shape.DictType) and _sort(kind.key_type)):
        return False  # a dict by PoV: it is named for its keys
    if isinstance(kind, _NUMBERS):
        return is_id
    return isinstance(kind, _LOOSE) or any(
        _is_loose(inner, is_id=is_id) for inner in _inner_types(kind)
    )


_NUMBERS = (shape.IntType, shape.FloatType, shape.DecimalType)
_LOOSE = (shape.StrType, shape.AnyType, shape.RawType, shape.UUIDType, shape.BytesType)


def _sort(kind: shape.Type) -> str | None:
    """Return which sort of id something is, if it is marked as one."""
    return (kind.extra or {}).get("id") if isinstance(kind, shape.Metadata) else None


def _inner_types(kind: shape.Type) -> Iterable[shape.Type]:
    """Return the types of what is in a value, fields of their own aside."""
    match kind:
        case shape.Metadata(type=inner):
            return (inner,)
        case shape.UnionType(types=types) | shape.TupleType(item_types=types):
            return types
        case shape.DictType(key_type=key, value_type=value):
            return (key, value)
        case shape.CollectionType(item_type=inner):
            return (inner,)
    return ()


def has_povs(kind: type[msgspec.Struct]) -> bool:
    """Tell whether a struct may have PoV ids that are checked against the token's grants."""
    return any(_sort(each) == "pov" for each in _all_types(shape.type_info(kind)))


def _all_types(kind: shape.Type) -> Iterator[shape.Type]:
    yield kind
    inside = (each.type for each in kind.fields) if isinstance(kind, _Fielded) else ()
    for inner in (*_inner_types(kind), *inside):
        yield from _all_types(inner)


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


def _parts(owner: type, parts: Iterable[tuple[Getter, str, CheckIds | None]]) -> CheckIds | None:
    there = [(get, path, inner) for get, path, inner in parts if inner is not None]

    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        if isinstance(value, owner):
            for get, path, inner in there:
                inner(get(value), check_pov, place + path)

    return check if there else None


def _chain(checks: Iterable[CheckIds | None]) -> CheckIds | None:
    there = [check for check in checks if check is not None]

    def check(value: Any, check_pov: CheckId, place: str = "") -> None:
        for each in there:
            each(value, check_pov, place)

    return check if len(there) > 1 else next(iter(there), None)

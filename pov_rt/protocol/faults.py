"""Says which field of a decoded value is at fault and what has to be there, in words of its own.

A validator's prose is not read: "Expected `int`, got `str`" says nothing to who writes JavaScript
or TOML, and it changes with the validator's version.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import inspect as shape

MISSING = "is missing"
UNKNOWN = "is none"
HALF_A_CHARACTER = "has half a character in it (a lone surrogate)"
INSTANT = "a time like '2026-01-31T12:00:00Z'"

_LISTS = (
    shape.ListType,
    shape.VarTupleType,
    shape.SetType,
    shape.FrozenSetType,
    shape.TupleType,
)
_OBJECTS = (
    shape.DictType,
    shape.StructType,
    shape.DataclassType,
    shape.TypedDictType,
    shape.NamedTupleType,
)


class Fault(NamedTuple):
    """What is wrong with a value. `path` looks like `data.povId` or `povIds[2]`; "" is the value.

    `problem` goes on from the field's name: "must be a whole number from 1 to 9". `more` goes on
    from that; of the value it has only its sort, or a number, for a text may be secret. With
    `is_own` the problem is what the type's own check (`__post_init__`) says of itself.
    """

    path: str
    problem: str
    more: str = ""
    is_own: bool = False

    @property
    def sentence(self) -> str:
        """All of it, for people."""
        if self.is_own:
            return f"{self.path}: {self.problem}" if self.path else self.problem
        if self.problem == UNKNOWN:
            return f"There is no field '{self.path}'{self.more}"
        name = f"The field '{self.path}'" if self.path else "This"
        return f"{name} {self.problem}{self.more}"


def find_fault(kind: Any, value: Any, *, strict: bool = True) -> Fault | None:
    """Return the first field of `value` that does not fit the type, or None if all do.

    Nor does half a character fit (a lone surrogate), anywhere. `value` is what JSON or TOML decodes
    to; unless `strict`, a text does for a number, as in variables of the environment. The first
    fault in the order of the declaration wins; a key that a struct refuses to know comes before
    all.
    """
    try:
        msgspec.convert(value, kind, str_keys=True, strict=strict)
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        own = Fault("", HALF_A_CHARACTER)
    except (msgspec.ValidationError, RecursionError) as error:
        words = wanted(kind)
        own = Fault("", f"must be {words}", _instead(words, value))
        if isinstance(error.__cause__, ValueError | TypeError):
            own = Fault("", str(error.__cause__), is_own=True)
    else:
        return None
    for name, fault in _faults(kind, value, strict):
        if fault is not None:
            return fault._replace(path=join_path(name, fault.path))
    return own


def join_path(start: str, path: str) -> str:
    """Return the path of what is at `path` of something that is at `start` itself."""
    dot = "" if not path or path.startswith("[") else "."
    return f"{start}{dot}{path}"


def wanted(kind: Any) -> str:
    """Say what a type takes: "a whole number from 0 to 9", "a list of at most 5 items".

    That null does as well, where it does, is left out: it says no more than nothing at all.
    """
    said: dict[str, None] = {}
    for each in _members(kind):
        if get_origin(each) is Literal:
            said |= dict.fromkeys(map(_quoted, get_args(each)))
        elif each not in (None, type(None), msgspec.UnsetType):
            said |= dict.fromkeys(_wanted(shape.type_info(each)))
    *others, last = said or ["null"]
    return f"{', '.join(others)} or {last}" if others else last


def _wanted(kind: shape.Type) -> list[str]:
    """Return the choices that a type leaves, of which most leave one."""
    match kind:
        case shape.Metadata(type=inner):
            return _wanted(inner)
        case shape.StrType():
            form = "" if kind.pattern is None else " of another form"
            return [f"a string{_length(kind.min_length, kind.max_length, 'character')}{form}"]
        case shape.IntType():
            return [f"a whole number{_range(kind)}"]
        case shape.FloatType():
            return [f"a number{_range(kind)}"]
        case shape.BoolType():
            return ["true", "false"]
        case shape.DateTimeType():
            return [INSTANT]
        case shape.EnumType(cls=cls):
            return [_quoted(each.value) for each in cls]
        case shape.TupleType(item_types=items):
            return [f"a list{_length(len(items), len(items), 'item')}"]
        case shape.ListType() | shape.VarTupleType() | shape.SetType() | shape.FrozenSetType():
            return [f"a list{_length(kind.min_length, kind.max_length, 'item')}"]
        case _ if isinstance(kind, _OBJECTS):
            return ["an object"]
    return ["a value of another sort"]


def _length(least: int | None, most: int | None, what: str) -> str:
    if most is None and not least:
        return ""
    count = least if most is None else most
    ending = f"{count} {what}{'' if count == 1 else 's'}"
    if most is None:
        return f" of at least {ending}"
    if least == most:
        return f" of {ending}"
    return f" of {least} to {ending}" if least else f" of at most {ending}"


def _range(kind: shape.IntType | shape.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f" from {_number(kind.ge)} to {_number(kind.le)}"
    bounds = {"above": kind.gt, "at least": kind.ge, "below": kind.lt, "at most": kind.le}
    said = [f"{words} {_number(bound)}" for words, bound in bounds.items() if bound is not None]
    of = "of " if said and said[0].startswith("at ") else ""
    return f" {of}{' and '.join(said)}" if said else ""


def _number(number: float) -> str:
    return str(int(number) if number == int(number) else number)


def _quoted(choice: object) -> str:
    return f"'{choice}'" if isinstance(choice, str) else json.dumps(choice)


def _instead(words: str, value: object) -> str:
    """Say what is there, where that says more than what is wanted."""
    if value is None or isinstance(value, bool | int | float):
        return f", not {json.dumps(value)}"
    for sort, name in ((str, "a string"), (list, "a list")):
        if isinstance(value, sort):
            if name in words:
                return "" if "another form" in words else f"; it has {len(value)}"
            return "" if sort is str and "'" in words else f", not {name}"
    return "" if "an object" in words else ", not an object"


def _members(kind: Any) -> tuple[Any, ...]:
    """Return what a union is made of, or the type alone."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated and get_origin(arguments[0]) in (Union, UnionType, Literal):
        return _members(arguments[0])
    return arguments if origin in (Union, UnionType) else (kind,)


def _faults(kind: Any, value: Any, strict: bool) -> Iterator[tuple[str, Fault | None]]:
    """Yield each part of an object or an array with its fault; a plain value is itself at fault.

    Only those of a union's members that are of the value's sort have any.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from _faults(arguments[0], value, strict)
    elif origin in (Union, UnionType):
        for each in arguments:
            yield from _faults(each, value, strict)
    elif isinstance(value, list) and origin in (list, tuple, set, frozenset):
        for index, item in enumerate(value):
            yield f"[{index}]", find_fault(arguments[0], item, strict=strict)
    elif isinstance(value, dict) and origin is dict:
        for name, item in value.items():
            yield str(name), find_fault(arguments[1], item, strict=strict)
    elif isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from _struct_faults(kind, value, strict)


def _struct_faults(
    kind: type[msgspec.Struct], value: dict[str, Any], strict: bool
) -> Iterator[tuple[str, Fault | None]]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    if kind.__struct_config__.forbid_unknown_fields:
        for name in value:
            if name not in fields:
                similar = difflib.get_close_matches(name, fields, n=1)
                hint = f"; did you mean '{similar[0]}'?" if similar else ""
                yield name, Fault("", UNKNOWN, hint)
    for name, field in fields.items():
        if name in value:
            yield name, find_fault(field.type, value[name], strict=strict)
        elif field.required:
            yield name, Fault("", MISSING)

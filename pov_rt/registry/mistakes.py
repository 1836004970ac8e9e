"""Mistakes that neither Python nor msgspec tells of, or not with the line to mend.

A field that is dropped, or that no client can ever fill; a grant that no token has; a decorator
above nothing; arguments in another order; an error that is returned. Each is a `PluginError`.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import math
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property, lru_cache
from types import FunctionType, SimpleNamespace
from typing import Any, ClassVar, NamedTuple, get_origin

import msgspec
from msgspec import inspect as shape

from pov_rt.auth.grants import GRANTS
from pov_rt.plugin.declare import Plugin, Source
from pov_rt.plugin.interfaces import Access, Context, Host, Request
from pov_rt.protocol.bodies import Published
from pov_rt.protocol.messages import Activity, Event, Message
from pov_rt.registry.discovery import PluginError

Wrong = Callable[[str], PluginError]
"""Makes the error for a problem of what is being checked."""

RESERVED = {Message: ("id", "it is the client's, and echoed without your help")}
"""What a field of a class derived from one of these may not be called, and why."""


class Argument(NamedTuple):
    """An argument that a function is called with: what it is called in the docs, and its class."""

    name: str
    kind: type


MESSAGE = Argument("message", Message)
CONTEXT = Argument("context", Context)
HOST = Argument("host", Host)
REQUEST = Argument("request", Request)
POV = Argument("pov_id", str)
USER = Argument("user_id", str)
EVENT = Argument("event", Event)

ARGUMENTS: Mapping[str, Sequence[Argument]] = {
    "connected": (CONTEXT,),
    "disconnected": (CONTEXT,),
    "subscribed": (POV, CONTEXT),
    "unsubscribed": (POV, CONTEXT),
    "lost": (POV, CONTEXT),
    "published": (Argument("activity", Activity), Argument("published", Published), HOST),
    "expired": (POV, Argument("member", str), HOST),
    "gone": (POV, Argument("members", Sequence), HOST),
    "lapsed": (HOST,),
    "before_publish": (Argument("activity", Activity), HOST),
    "authorise": (Argument("access", Access), HOST),
    "erased": (USER, HOST),
    "exported": (USER, HOST),
}
"""What the functions of each hook are called with."""

FOLLOWED = ARGUMENTS["published"]
"""What a follower is called with."""

_GIVEN = (Message, Context, Host, Request, Activity, Published, Access, Event, str)


def blame(source: Source, what: str) -> Wrong:
    """Return what makes the errors of something that was declared."""
    return lambda problem: PluginError(source, f"{what}: {problem}")


def check_finished(plugin: Plugin[Any]) -> None:
    """Raise for a decorator that decorates nothing, as one without its parentheses does."""
    for what, argument, source in plugin.unfinished:
        above = "class" if what == "activity" else "function"
        is_decorated = inspect.isclass if above == "class" else inspect.isroutine
        if is_decorated(argument):
            at = _first_line(argument) or source
            raise PluginError(
                at, f"@plugin.{what} needs its parentheses: @plugin.{what}({_EXAMPLES[what]})"
            )
        raise PluginError(source, f"plugin.{what}(...) is above no {above}: nothing comes of it")


_EXAMPLES = {
    "activity": '"task.completed"',
    "follows": "",
    "on": "Vote",
    "every": "60",
    "hears": "Closed",
    "http": '"GET", "/tally", grant="..."',
}


def _first_line(function: Any) -> Source | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return Source(code.co_filename, code.co_firstlineno) if code else None


def check_grant(grant: Any, known: Collection[str], wrong: Wrong) -> None:
    """Raise for a grant that is neither the server's nor declared by a plugin."""
    if not isinstance(grant, str) or grant not in known:
        raise wrong(
            f"{say_unknown(grant, known)}; one of your own is declared: "
            f'Plugin("...", grants=["{grant}"])'
        )


def say_unknown(grant: Any, known: Collection[str]) -> str:
    """Say that there is no such grant, and which there are."""
    near = get_close_matches(str(grant), known, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"there is no grant {grant!r}{hint}; there are {', '.join(sorted(known))}"


def check_own_grants(plugin: Plugin[Any], wrong: Wrong) -> None:
    """Check the grants that a plugin declares for itself."""
    if isinstance(plugin.grants, str):
        raise wrong(f"grants must be a list: grants=[{plugin.grants!r}]")
    for grant in plugin.grants:
        if not isinstance(grant, str) or not re.fullmatch(r"[a-z][a-z0-9_.]{0,63}", grant):
            raise wrong(f"the grant {grant!r} must look like 'vote' or 'poll.vote'")
        if near := [each for each in get_close_matches(grant, GRANTS, 1, 0.9) if each != grant]:
            raise wrong(f"the grant {grant!r} is too much like the server's own {near[0]!r}")


def check_seconds(seconds: Any, wrong: Wrong) -> None:
    """Raise unless a timer has a time to wait."""
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < math.inf:
        raise wrong(f"the seconds must be a number above 0, not {seconds!r}")


def _taken(function: Callable[..., Any]) -> str:
    signature, bare = inspect.signature(function), inspect.Parameter.empty
    parameters = [each.replace(annotation=bare) for each in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=bare))


def check_arguments(function: Callable[..., Any], wanted: Sequence[Argument], wrong: Wrong) -> None:
    """Raise unless a function can be called with these, in this order.

    Where it says what it takes, it must not be something else of what plugins are given.
    """
    names = ", ".join(each.name for each in wanted)
    try:
        signature = inspect.signature(function)
        signature.bind(*wanted)
    except (TypeError, ValueError) as error:
        taken = _taken(function) if callable(function) else "(?)"
        raise wrong(f"the function must take ({names}), and takes {taken}") from error
    hints = hints_of(function)
    for place, (parameter, argument) in enumerate(
        zip(signature.parameters.values(), wanted, strict=False), 1
    ):
        if parameter.kind is parameter.VAR_POSITIONAL:
            break
        declared = get_origin(hints.get(parameter.name)) or hints.get(parameter.name)
        if not isinstance(declared, type):
            continue
        is_given = any(_is_same(declared, each) for each in _GIVEN)
        if is_given and not _is_same(declared, argument.kind):
            raise wrong(
                f"argument {place}, {parameter.name!r}, is the {argument.name}, and is declared "
                f"as {declared.__name__}; the function must take ({names})"
            )


def _is_same(declared: type, kind: type) -> bool:
    # Protocols that can be checked by their methods alone have no say here.
    return kind in declared.__mro__


def check_function(function: Callable[..., Any], wrong: Wrong, *, may_yield: bool = False) -> None:
    """Raise for a function that yields, or returns an error that it has to raise."""
    plain = inspect.unwrap(function)
    if not may_yield and (inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain)):
        raise wrong("the function must not `yield`: only those of @plugin.lifespan and exported do")
    for each in _members(hints_of(function).get("return")):
        if isinstance(each, type) and issubclass(each, BaseException):
            raise wrong(f"it returns {each.__name__}; write `raise {each.__name__}(...)`")
    if isinstance(plain, FunctionType) and (found := _find_returned_error(plain)) is not None:
        name, source = found
        raise PluginError(source, f"{name} is returned and not raised; write `raise {name}(...)`")


def _members(hint: Any) -> Iterator[Any]:
    yield hint
    for each in typing.get_args(hint):
        yield from _members(each)


# Functions and classes do not change: what was found is known for the next registry of the process
# (a reload; each test that starts a server), which looks at the same ones.
@lru_cache(maxsize=1024)
def _find_returned_error(function: FunctionType) -> tuple[str, Source] | None:
    """Return the error that a function makes and returns, and where."""
    code = function.__code__
    tree = _functions_of(code.co_filename).get(code.co_firstlineno)
    for node in () if tree is None else _own_nodes(tree):
        if isinstance(node, ast.Return) and node.value is not None:
            for made in _results(node.value):
                kind = _named(made.func, function) if isinstance(made, ast.Call) else None
                if isinstance(kind, type) and issubclass(kind, BaseException):
                    return kind.__name__, Source(code.co_filename, made.lineno)
    return None


def _functions_of(file: str) -> Mapping[int, ast.AST]:
    """Return the functions in a file by the line that each begins at, its decorators included."""
    return _functions_in("".join(linecache.getlines(file)))


@lru_cache(maxsize=1)
def _functions_in(text: str) -> Mapping[int, ast.AST]:
    try:
        tree = ast.parse(text)
    except SyntaxError:  # it was written anew since it was loaded
        return {}
    return {
        min([each.lineno, *(above.lineno for above in each.decorator_list)]): each
        for each in ast.walk(tree)
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is in a function, but not in those inside of it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _own_nodes(child)


def _results(value: ast.expr) -> Iterator[ast.expr]:
    if isinstance(value, ast.IfExp):
        yield from _results(value.body)
        yield from _results(value.orelse)
    elif isinstance(value, ast.BoolOp):
        for each in value.values:
            yield from _results(each)
    else:
        yield value


def _named(node: ast.expr, function: FunctionType) -> Any:
    if isinstance(node, ast.Name):
        return function.__globals__.get(node.id, getattr(builtins, node.id, None))
    if isinstance(node, ast.Attribute):
        return getattr(_named(node.value, function), node.attr, None)
    return None


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what a function's arguments and result are declared as, as far as that is known.

    A name may be imported for type checkers alone; the checks that need it are left to those.
    """
    plain = inspect.unwrap(function)
    annotations = getattr(plain, "__annotations__", None) or {}
    names = getattr(plain, "__globals__", {})
    found = {}
    for name, annotation in annotations.items():
        with suppress(Exception):  # of any kind: it is evaluated
            found[name] = _evaluate(name, annotation, names)
    return found


def _evaluate(name: str, annotation: Any, names: Mapping[str, Any]) -> Any:
    holder = SimpleNamespace(__annotations__={name: annotation})
    return typing.get_type_hints(holder, dict(names), include_extras=True)[name]


def check_struct(kind: Any, used_at: Source, *, is_received: bool = True) -> None:
    """Raise for a field of a struct, or of one inside of it, that cannot work; names its line.

    `is_received`: it is made of JSON or the settings, so that every field must say how.
    """
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        raise PluginError(used_at, f"{kind!r} is no class derived from msgspec.Struct")
    _check_struct(kind, used_at, set(), is_received=is_received)


def _check_struct(kind: type, used_at: Source, seen: set[type], *, is_received: bool) -> None:
    seen.add(kind)
    for owner in kind.__mro__:
        if owner.__module__.partition(".")[0] not in ("builtins", "msgspec", "typing"):
            _check_unannotated(owner, used_at)
            _check_reserved(owner, used_at)
    try:
        fields = _fields_of(kind)
    except Exception as error:
        name, hint = _find_bad_field(kind)
        for inner in _members(hint):  # where it may be one of its own that is bad
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and inner not in seen:
                _check_struct(inner, used_at, seen, is_received=is_received)
        if name is None:
            raise PluginError(used_at, f"{kind.__name__}: {error}") from error
        raise _at_field(kind, name, used_at, str(error)) from error
    for field in fields:
        for inner in _all_kinds(field.type):
            if isinstance(inner, shape.CustomType) and is_received:
                raise _at_field(
                    kind,
                    field.name,
                    used_at,
                    f"nothing can be decoded into {_shown(inner.cls)}; use a struct, a standard "
                    "type such as str, int, list or dict, or Any",
                )
            if isinstance(inner, _FIELDED) and inner.cls not in seen:
                _check_struct(inner.cls, used_at, seen, is_received=is_received)


_FIELDED = (shape.StructType, shape.DataclassType, shape.NamedTupleType, shape.TypedDictType)


@lru_cache(maxsize=1024)
def _fields_of(kind: type) -> Sequence[Any]:
    described: Any = shape.type_info(kind)
    fields: Sequence[Any] = described.fields
    msgspec.json.Decoder(kind)  # which refuses unions that it cannot tell apart
    return fields


def _all_kinds(kind: shape.Type) -> Iterator[shape.Type]:
    yield kind
    if isinstance(kind, _FIELDED):
        return
    inside = (getattr(kind, name, ()) for name in _INSIDE)
    for each in inside:
        for inner in each if isinstance(each, tuple) else (each,):
            if isinstance(inner, shape.Type):
                yield from _all_kinds(inner)


_INSIDE = ("type", "types", "item_type", "item_types", "key_type", "value_type")


def _find_bad_field(kind: type) -> tuple[str | None, Any]:
    """Return the field for which a struct cannot be used, and its type if it has one."""
    for owner in kind.__mro__:
        names = vars(sys.modules.get(owner.__module__, object))
        for name, annotation in vars(owner).get("__annotations__", {}).items():
            hint = None
            try:
                hint = _evaluate(name, annotation, names)
                if get_origin(hint) is not ClassVar:
                    msgspec.json.Decoder(hint)
            except Exception:  # of any kind: it is evaluated
                return str(name), hint
    return None, None


def _check_unannotated(owner: type, used_at: Source) -> None:
    """Raise for a value in a class's body that looks like a field and is none.

    A constant is in capitals or a `ClassVar`; functions and what is like them are no fields.
    """
    annotated = vars(owner).get("__annotations__", {})
    for name, value in vars(owner).items():
        if name.startswith("_") or name.isupper() or name in annotated:
            continue
        is_inner = isinstance(value, type) and value.__qualname__.startswith(owner.__qualname__)
        if isinstance(value, _METHODS) or inspect.isdatadescriptor(value) or is_inner:
            continue
        shown = (
            f"{name}: {_shown(value)}"
            if isinstance(value, type) or get_origin(value)
            else (f"{name}: {type(value).__name__} = ...")
        )
        raise _at_field(
            owner,
            name,
            used_at,
            f"without an annotation this is no field; write `{shown}`, or "
            "`ClassVar` for a constant",
        )


_METHODS = (FunctionType, property, classmethod, staticmethod, cached_property)


def _check_reserved(owner: Any, used_at: Source) -> None:
    for base, (name, why) in RESERVED.items():
        if owner is base or not issubclass(owner, base):
            continue
        if name in vars(owner).get("__annotations__", {}):
            raise _at_field(owner, name, used_at, f"every message has one: {why}")


def _shown(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _at_field(owner: type, name: str, used_at: Source, problem: str) -> PluginError:
    return PluginError(
        find_field(owner, name) or used_at, f"{owner.__name__}: the field {name!r}: {problem}"
    )


def find_field(owner: type, name: str) -> Source | None:
    """Return where a class, or the one that it has it from, has a field; None: nobody can tell."""
    for each in owner.__mro__:
        if name not in vars(each).get("__annotations__", {}) and name not in vars(each):
            continue
        with suppress(OSError, TypeError):
            lines, first = inspect.getsourcelines(each)
            for number, text in enumerate(lines, first):
                if re.match(rf"\s+{re.escape(name)}\s*[:=]", text):
                    return Source(inspect.getfile(each), number)
    return None

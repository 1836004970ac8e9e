"""Writes docs/plugin-api.md: all that a plugin and its tests import, from the docstrings."""

from __future__ import annotations

import ast
import enum
import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from pov_rt import plugin as api
from pov_rt.plugin import declare
from pov_rt.protocol import messages
from pov_rt.registry.mistakes import ARGUMENTS

HEAD = """# The plugin API

All that a plugin imports, `from pov_rt.plugin import ...`, and what its tests get from
`pov_rt.testing`. This page is printed by `pov-rt schema plugin-api`, from the docstrings;
[plugins.md](plugins.md) is the way in.
"""
FIRST = ("Plugin", "Host", "Context", "Request", "Storage", "Message", "Part", "Event")
"""What everybody needs; the rest follows by its name."""


def reference(testing: ModuleType) -> str:
    """Return the page. `testing` is `pov_rt.testing`, which stands above this room."""
    names = [*FIRST, *sorted(set(api.__all__) - set(FIRST), key=str.lower)]
    parts = [HEAD, "## What a plugin imports\n"]
    texts = _texts_of(messages)
    for name in names:
        parts += _entry(name, getattr(api, name), texts)
    parts += ["## What hooks are called with\n", *_hooks(), "\n## What tests have\n"]
    for name in ("connect", "http", "clock", "pov_rt_options", "pov_rt_settings", "pov_rt_plugins"):
        fixture = getattr(testing, name)
        parts.append(f"- the fixture `{name}`: {_first(_function_of(fixture))}")
    parts.append("")
    for name in ("Client", "Http", "Answer", "TestClock", "RunningServer"):
        parts += _class(name, getattr(testing, name))
    parts += _function("make_settings", testing.make_settings)
    return "\n".join(parts).rstrip() + "\n"


def _entry(name: str, value: Any, texts: dict[str, str]) -> Iterator[str]:
    if isinstance(value, type):
        yield from _class(name, value)
    elif inspect.isfunction(value):
        yield from _function(name, value)
    else:
        yield f"### {name}\n"
        shown = f"`{value}`" if isinstance(value, int) else ""
        about = texts.get(name, _OTHERS.get(name, ""))
        yield "\n".join(filter(None, [about, shown])) + "\n"


_OTHERS = {
    "UNSET": "What a field has that is not sent.",
    "Since": "A position, or a number.",
    "Reason": "Why not.",
    "encode": "Return JSON, as messages are sent.",
}


def _class(name: str, kind: Any) -> Iterator[str]:
    yield f"### {name}\n"
    yield (inspect.getdoc(kind) or "") + "\n"
    rows = list(_fields(kind))
    for owner in reversed(kind.__mro__[:-1]):
        if owner.__module__.startswith("pov_rt"):
            rows += [row for member, value in vars(owner).items() for row in _member(member, value)]
    seen = list(dict.fromkeys(rows))
    if seen:
        yield "\n".join(seen) + "\n"


def _fields(kind: Any) -> Iterator[str]:
    if issubclass(kind, enum.Enum):
        yield from (f"- `{each.name}`" for each in kind)
    elif issubclass(kind, msgspec.Struct) or hasattr(kind, "_fields"):
        for name in (
            getattr(kind, "__struct_fields__", None) or getattr(kind, "_fields", None) or ()
        ):
            annotation = next(
                (
                    vars(owner)["__annotations__"][name]
                    for owner in kind.__mro__
                    if name in vars(owner).get("__annotations__", {})
                ),
                "",
            )
            yield f"- `{name}: {_shown(annotation)}`"
    elif kind is declare.Plugin:
        yield f"- `Plugin{_signature(kind.__init__)}`"


def _member(name: str, value: Any) -> Iterator[str]:
    if name.startswith("_"):
        return
    if isinstance(value, property):
        yield f"- `{name}`: {_text(value.fget)}"
    elif inspect.isfunction(value) and inspect.getdoc(value):
        before = "await " if inspect.iscoroutinefunction(value) else ""
        yield f"- `{before}{name}{_signature(value)}`: {_text(value)}"


def _function(name: str, function: Callable[..., Any]) -> Iterator[str]:
    yield f"### {name}\n"
    yield f"`{name}{_signature(function)}`\n"
    yield (inspect.getdoc(function) or "") + "\n"


def _hooks() -> Iterator[str]:
    for name, arguments in sorted(ARGUMENTS.items()):
        taken = ", ".join(f"{each.name}: {each.kind.__name__}" for each in arguments)
        yield f"- `@plugin.{name}`: `({taken})`"
    yield "- `@plugin.every(60)` and `@plugin.lifespan`: `(host: Host)`"
    yield "- `@plugin.follows()`: as `published`"
    yield "- `@plugin.hears(Closed)`: `(event: Closed, host: Host)`"
    yield '- `@plugin.http("GET", "/tally", grant="subscribe")`: `(request: Request)`'
    yield "- `@plugin.on(Vote)`: `(message: Vote, context: Context)`"


def _signature(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    shown: list[str] = []
    is_keyword = False
    for each in signature.parameters.values():
        if each.name == "self":
            continue
        if each.kind is each.KEYWORD_ONLY and not is_keyword:
            is_keyword = True
            shown.append("*")
        stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(each.kind.name, "")
        is_keyword = is_keyword or stars == "*"
        kind = "" if each.annotation is each.empty else f": {_shown(each.annotation)}"
        default = "" if each.default is each.empty else f" = {_default(each.default)}"
        shown.append(f"{stars}{each.name}{kind}{default}")
    result = signature.return_annotation
    after = "" if result in (signature.empty, "None", None) else f" -> {_shown(result)}"
    return f"({', '.join(shown)}){after}"


def _default(value: Any) -> str:
    return value.name if isinstance(value, enum.Enum) else repr(value)


def _shown(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "...")


def _text(function: Any) -> str:
    """Return a docstring as the text of a list's item."""
    return (inspect.getdoc(function) or "").replace("\n", "\n  ")


def _first(function: Any) -> str:
    return (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")


def _function_of(fixture: Any) -> Any:
    return inspect.unwrap(getattr(fixture, "_fixture_function", fixture))


def _texts_of(module: ModuleType) -> dict[str, str]:
    """Return what a module says, below each, of the names that it assigns."""
    body: Sequence[ast.stmt] = ast.parse(Path(module.__file__ or "").read_text("utf-8")).body
    found = {}
    for statement, after in pairwise(body):
        if isinstance(statement, ast.Assign) and isinstance(after, ast.Expr):
            name = getattr(statement.targets[0], "id", "")
            found[name] = inspect.cleandoc(str(getattr(after.value, "value", "")))
    return found

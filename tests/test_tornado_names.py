"""Tornado's private names: docs/architecture.md lists those in use, with why, and no others.

A release of Tornado may rename any of them, and that release may be a security fix.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import tornado

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "pov_rt").glob("**/*.py"))
SECTION = "## Tornado's private names"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(tree: ast.AST) -> set[str]:
    """Return the private names that a source gives to something."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return set(filter(is_private, names))


THEIRS = set[str]().union(
    *(defined(ast.parse(path.read_text())) for path in Path(tornado.__file__).parent.glob("*.py"))
)


@lru_cache
def names_in(module: ModuleType) -> set[str]:
    return defined(ast.parse(inspect.getsource(module))) & THEIRS


@lru_cache
def inherited(path: Path, name: str) -> set[str]:
    """Return the private names of the Tornado classes from which a class of a file inherits."""
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    kind = getattr(module, name, None)
    found: set[str] = set()
    for each in getattr(kind, "__mro__", ()):
        if each.__module__.startswith("tornado."):
            found |= names_in(importlib.import_module(each.__module__))
    return found


def used(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the private names of Tornado that a file uses, or overrides, with the line."""
    tree = ast.parse(path.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules = [node for node in imports if (node.module or "").split(".")[0] == "tornado"]
    for node in modules:
        yield from ((each.name, node.lineno) for each in node.names if is_private(each.name))
    inside: dict[ast.AST, str] = {}
    for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        inside |= dict.fromkeys(ast.walk(kind), kind.name)
        for member in kind.body:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                if is_private(member.name) and member.name in inherited(path, kind.name):
                    yield member.name, member.lineno
    for attribute in (node for node in ast.walk(tree) if isinstance(node, ast.Attribute)):
        name, owner = attribute.attr, attribute.value
        if not is_private(name) or name not in THEIRS:
            continue
        if isinstance(owner, ast.Name) and owner.id in ("self", "cls"):
            if attribute in inside and name in inherited(path, inside[attribute]):
                yield name, attribute.lineno
        elif modules:
            yield name, attribute.lineno


def test_every_private_name_in_use_is_listed_and_no_other() -> None:
    page = (ROOT / "docs/architecture.md").read_text().split(SECTION)[1].split("\n## ")[0]
    listed = {
        (name, place)
        for places, name in re.findall(r"^\| ([^|]+) \| `(_\w+)` \|", page, re.M)
        for place in re.findall(r"`([\w/]+)`", places)
    }
    found = {
        (name, str(path.relative_to(ROOT / "pov_rt").with_suffix(""))): line
        for path in FILES
        for name, line in used(path)
    }
    assert found.keys() - listed == set(), "a private name more: is there no public one?"
    assert listed - found.keys() == set(), "used no more, or Tornado has it no more"


def test_the_look_finds_each_way_to_use_one(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text(
        "from tornado.web import Application, _HandlerDelegate\n"
        "def f(server): return server._connections, server._ours, server.__class__\n"
    )
    assert dict(used(source)) == {"_HandlerDelegate": 1, "_connections": 2}
    assert {"_finished", "_log"} <= inherited(ROOT / "pov_rt/web/http.py", "JsonHandler")

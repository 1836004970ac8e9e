"""Finds plugins in their three places and loads them, or says what is wrong, file and line.

The places, in this order: the modules of `pov_rt.plugins`, entry points of the group
`pov_rt.plugins`, the files of `server.plugins_dir`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pov_rt.plugins
from pov_rt.plugin.declare import Plugin, Source

GROUP = "pov_rt.plugins"


class PluginError(Exception):
    """A plugin cannot be used; the text names file and line and shows the line."""

    def __init__(self, source: Source, problem: str) -> None:
        line = linecache.getline(source.file, source.line).rstrip()
        shown = f"\n    {line.strip()}" if line.strip() else ""
        super().__init__(f"{source}: {problem}{shown}")
        self.source = source
        self.problem = problem


class Found(NamedTuple):
    """A plugin with where it came from: `built-in`, `package NAME` or `plugins-dir`."""

    plugin: Plugin[Any]
    origin: str
    module: ModuleType


def discover(plugins_dir: Path | Sequence[Path] | None) -> Iterator[Found]:
    """Load every plugin there is: built-in, installed, of a folder (or those files of one).

    Raises `PluginError` at the first that does not load.
    """
    for info in sorted(pkgutil.iter_modules(pov_rt.plugins.__path__), key=lambda info: info.name):
        yield _found(_import(f"{pov_rt.plugins.__name__}.{info.name}"), "built-in")
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        package = point.dist.name if point.dist else point.value
        yield _found(_import(point.module), f"package {package}", point.attr or "plugin")
    if plugins_dir is None:
        return
    for path in list_files(plugins_dir) if isinstance(plugins_dir, Path) else plugins_dir:
        yield _found(load_file(path), "plugins-dir")


def list_files(plugins_dir: Path) -> list[Path]:
    """Return a folder's files that are plugins by their names. Raises `PluginError`."""
    if not plugins_dir.is_dir():
        raise PluginError(Source(str(plugins_dir), 0), "the plugins folder does not exist")
    return [
        path
        for path in sorted(plugins_dir.glob("*.py"))
        if path.name != "conftest.py" and not path.name.startswith(("_", "test_"))
    ]


def load_file(path: Path) -> ModuleType:
    """Load a plugin file under a module name of its own; loading it again makes a new module."""
    digest = hashlib.blake2b(bytes(path.resolve()), digest_size=6).hexdigest()
    name = f"pov_rt_plugin_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:  # pragma: no cover  (only for names without .py)
        raise PluginError(Source(str(path), 0), "this is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Type hints of its classes are looked up in sys.modules, so it has to be there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise _blame(error, str(path)) from error
    return module


def _import(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    file = spec.origin if spec and spec.origin else name
    try:
        return importlib.import_module(name)
    except BaseException as error:
        raise _blame(error, file) from error


def _found(module: ModuleType, origin: str, attribute: str = "plugin") -> Found:
    plugin = getattr(module, attribute, None)
    if not isinstance(plugin, Plugin):
        raise PluginError(
            Source(module.__file__ or module.__name__, 1),
            f'there is no `{attribute} = Plugin("...")` in this file',
        )
    return Found(plugin, origin, module)


def _blame(error: BaseException, file: str) -> PluginError:
    """Say where in the plugin's file loading it failed."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, SyntaxError) and error.filename:
        return PluginError(Source(error.filename, error.lineno or 0), f"syntax error: {error.msg}")
    line = 0
    for frame in traceback.extract_tb(error.__traceback__):
        # As a module knows its file, whichever way its folder was named.
        if os.path.abspath(frame.filename) == os.path.abspath(file):
            line = frame.lineno or 0
    return PluginError(Source(file, line), f"{type(error).__name__}: {error}")

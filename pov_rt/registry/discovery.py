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
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pov_rt.plugins
from pov_rt.plugin.declare import Plugin, Source

GROUP = "pov_rt.plugins"
BUILT_IN = "built-in"


class PluginError(Exception):
    """A plugin cannot be used; the text names file and line and shows the line.

    `others` are what else is wrong with the plugins, which the text says, too.
    """

    def __init__(self, source: Source, problem: str) -> None:
        line = linecache.getline(source.file, source.line).rstrip()
        shown = f"\n    {line.strip()}" if line.strip() else ""
        super().__init__(f"{source}: {problem}{shown}")
        self.source = source
        self.problem = problem
        self.others: Sequence[PluginError] = ()

    def __str__(self) -> str:
        return "\n".join([str(self.args[0]), *map(str, self.others)])


class Problems:
    """Gathers what is wrong with plugins, so that an author is told all of it at once."""

    def __init__(self) -> None:
        self._found: list[PluginError] = []

    @contextmanager
    def gather(self) -> Iterator[None]:
        """Go on after the block, whatever is wrong in it."""
        try:
            yield
        except PluginError as error:
            self._found.append(error)

    def check(self) -> None:
        """Raise what was found, if anything was."""
        # One mistake may show in several places, such as a message with two handlers.
        found = list({str(error): error for error in self._found}.values())
        if found:
            first, *first.others = found
            raise first from first.__cause__


class Found(NamedTuple):
    """A plugin with where it came from: `built-in`, `package NAME` or `plugins-dir`."""

    plugin: Plugin[Any]
    origin: str
    module: ModuleType


def discover(plugins_dir: Path | Sequence[Path] | None, problems: Problems) -> Iterator[Found]:
    """Load every plugin there is: built-in, installed, of a folder (or those files of one).

    What does not load is left out, and one of the problems.
    """
    for info in built_in():
        with problems.gather():
            yield _found(_import(f"{pov_rt.plugins.__name__}.{info}"), BUILT_IN)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        package = point.dist.name if point.dist else point.value
        with problems.gather():
            yield _found(_import(point.module), f"package {package}", point.attr or "plugin")
    if plugins_dir is None:
        return
    for path in list_files(plugins_dir) if isinstance(plugins_dir, Path) else plugins_dir:
        with problems.gather():
            yield _found(load_file(path), "plugins-dir")


def built_in() -> list[str]:
    """Return the names of the built-in plugins' modules, which are the plugins' own."""
    return sorted(info.name for info in pkgutil.iter_modules(pov_rt.plugins.__path__))


def list_files(plugins_dir: Path) -> list[Path]:
    """Return a folder's files that are plugins by their names. Raises `PluginError`."""
    if not plugins_dir.is_dir():
        # Its name is a setting's value, which no error repeats.
        raise PluginError(Source("server.plugins_dir", 0), "the plugins folder does not exist")
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
        raise blame(error, [path]) from error
    return module


def _import(name: str) -> ModuleType:
    files = [Path(name)]
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            files = [Path(spec.origin)]
            if (package := name.partition(".")[0]) != name or spec.submodule_search_locations:
                files += map(Path, sys.modules[package].__path__ if package in sys.modules else [])
        return importlib.import_module(name)
    except BaseException as error:
        raise blame(error, files) from error


def _found(module: ModuleType, origin: str, attribute: str = "plugin") -> Found:
    plugin = getattr(module, attribute, None)
    if not isinstance(plugin, Plugin):
        raise PluginError(
            Source(module.__file__ or module.__name__, 1),
            f'there is no `{attribute} = Plugin("...")` in this file',
        )
    return Found(plugin, origin, module)


def blame(error: BaseException, files: Sequence[Path]) -> PluginError:
    """Return what a plugin raised, with the innermost place in it: its file, or its folders."""
    if isinstance(error, KeyboardInterrupt | PluginError):
        raise error
    if isinstance(error, SyntaxError) and error.filename:
        return PluginError(Source(error.filename, error.lineno or 0), f"syntax error: {error.msg}")
    # As a module knows its file, whichever way its folder was named.
    own = [os.path.abspath(path) for path in files]
    place = Source(str(files[0]), 0)
    for frame in traceback.extract_tb(error.__traceback__):
        file = os.path.abspath(frame.filename)
        if any(file == each or file.startswith(f"{each}{os.sep}") for each in own):
            place = Source(str(files[0]) if file == own[0] else frame.filename, frame.lineno or 0)
    words = str(error)
    return PluginError(place, f"{type(error).__name__}: {words}" if words else type(error).__name__)

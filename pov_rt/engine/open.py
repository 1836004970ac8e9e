"""Chooses the engine by the scheme of its URL."""

from __future__ import annotations

from pov_rt.config.settings import ENGINES, Settings, SettingsError, database_path
from pov_rt.engine.base import Engine
from pov_rt.engine.memory import MemoryEngine
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.runtime.clock import Clock


def open_engine(settings: Settings, clock: Clock, node: str) -> Engine:
    """Return the engine that `engine.url` names, not started. Raises `SettingsError`."""
    scheme = settings.engine.url.partition("://")[0]
    if scheme == "memory":
        return MemoryEngine(settings.engine, clock, node)
    if scheme == "sqlite":
        path = database_path(settings)
        if path is None:
            raise SettingsError("engine.url: names no file, and server.data is not set")
        return SqliteEngine(path, settings.engine, clock, node)
    raise SettingsError(
        f"engine.url: there is no engine {scheme!r}; there are: {', '.join(ENGINES)}"
    )

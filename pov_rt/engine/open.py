"""Chooses the engine by the scheme of its URL."""

from __future__ import annotations

from pov_rt.clock import Clock
from pov_rt.engine.base import Engine
from pov_rt.engine.memory import MemoryEngine
from pov_rt.settings import ENGINES, EngineSettings, SettingsError


def open_engine(settings: EngineSettings, clock: Clock, node: str) -> Engine:
    """Return the engine that `engine.url` names, not started. Raises `SettingsError`."""
    scheme = settings.url.partition("://")[0]
    if scheme == "memory":
        return MemoryEngine(settings, clock, node)
    raise SettingsError(
        f"engine.url: there is no engine {scheme!r}; there are: {', '.join(ENGINES)}"
    )

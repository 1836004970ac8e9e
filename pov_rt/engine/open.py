"""Chooses the engine by the scheme of its URL."""

from __future__ import annotations

from pov_rt.config.settings import ENGINES, Settings, SettingsError, database_path
from pov_rt.engine.base import Engine
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.memory import MemoryEngine
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.runtime.clock import Clock

REDIS = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")


def open_engine(
    settings: Settings, clock: Clock, node: str, keeping: Keeping | None = None
) -> Engine:
    """Return the engine that `engine.url` names, not started. Raises `SettingsError`."""
    keeping = keeping or Keeping(settings.engine, settings.pov)
    scheme = settings.engine.url.partition("://")[0]
    if scheme == "memory":
        return MemoryEngine(settings.engine, clock, node, keeping)
    if scheme == "sqlite":
        path = database_path(settings)
        if path is None:
            raise SettingsError("engine.url: names no file, and server.data is not set")
        return SqliteEngine(path, settings.engine, clock, node, keeping)
    if scheme in REDIS:
        return _open_redis(settings, clock, node, keeping)
    raise SettingsError(
        f"engine.url: there is no engine {scheme!r}; there are: {', '.join(ENGINES)}"
    )


def _open_redis(settings: Settings, clock: Clock, node: str, keeping: Keeping) -> Engine:
    try:
        from pov_rt.engine.redis.client.address import BadAddress
        from pov_rt.engine.redis.client.sentinels import parse_place
        from pov_rt.engine.redis.engine import RedisEngine
    except ImportError as error:
        raise SettingsError(
            "engine.url: Redis needs the package hiredis: pip install 'pov-rt[redis]'"
        ) from error
    try:
        place = parse_place(settings.engine.url, settings.engine.redis, node)
    except BadAddress as error:
        raise SettingsError(f"engine.url: {error}") from error
    return RedisEngine(place, settings.engine, clock, node, keeping)

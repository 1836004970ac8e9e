"""Chooses the engine by the scheme of its URL."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from pov_rt.config.settings import ENGINES, Settings, SettingsError, database_path
from pov_rt.engine.base import Engine
from pov_rt.engine.copying import Copying
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.memory import MemoryEngine
from pov_rt.engine.sqlite import SqliteEngine, moving
from pov_rt.runtime.clock import Clock

if TYPE_CHECKING:
    from pov_rt.engine.redis.client.address import Place

NODE = "copy"
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
    place = _find_redis(settings, node)
    from pov_rt.engine.redis.engine import RedisEngine

    return RedisEngine(place, settings.engine, clock, node, keeping)


def _find_redis(settings: Settings, node: str) -> Place:
    try:
        from pov_rt.engine.redis.client.address import BadAddress
        from pov_rt.engine.redis.client.sentinels import parse_place
    except ImportError as error:
        raise SettingsError(
            "engine.url: Redis needs the package hiredis: pip install 'pov-rt[redis]'"
        ) from error
    try:
        return parse_place(settings.engine.url, settings.engine.redis, node)
    except BadAddress as error:
        raise SettingsError(f"engine.url: {error}") from error


def open_source(settings: Settings) -> AbstractAsyncContextManager[Copying]:
    """Return what opens the database that `engine.url` names to copy from. Raises `SettingsError`.

    To enter it raises `Unavailable` where it is not there, or somebody uses it.
    """
    return _open_copying(settings, is_source=True)


def open_target(settings: Settings) -> AbstractAsyncContextManager[Copying]:
    """Return what opens the database that `engine.url` names to copy to. Raises `SettingsError`.

    To enter it raises `Unavailable` where anything is there, or somebody uses it. What was copied
    is there if the block ends well.
    """
    return _open_copying(settings, is_source=False)


def _open_copying(settings: Settings, *, is_source: bool) -> AbstractAsyncContextManager[Copying]:
    keeping = Keeping(settings.engine, settings.pov)
    path = database_path(settings)
    if path is not None:
        opened = moving.source if is_source else moving.target
        return opened(path, settings.engine, keeping)
    if settings.engine.url.partition("://")[0] not in REDIS:
        raise SettingsError("engine.url: only sqlite:// and Redis can be copied from and to")
    place = _find_redis(settings, NODE)
    from pov_rt.engine.redis.moving import database

    opened_redis = database.source if is_source else database.target
    return opened_redis(place, settings.engine, keeping)

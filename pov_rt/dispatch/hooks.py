"""The plugins of a running server: their hosts, lifespans, timers and hooks.

A callback that fails is one line in the log and costs nobody anything.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pov_rt.connections.connection import Connection
from pov_rt.dispatch.context import ConnectionContext
from pov_rt.dispatch.host import PluginHost, Services
from pov_rt.engine.base import Lease
from pov_rt.plugin.declare import ListenerSpec, TimerSpec, source_of
from pov_rt.plugin.interfaces import Access, Allowed
from pov_rt.protocol.errors import ClientError
from pov_rt.protocol.messages import Activity, Event
from pov_rt.protocol.tenants import restore
from pov_rt.registry.build import Registry
from pov_rt.registry.discovery import Found, PluginError, blame
from pov_rt.runtime import containment, turns

log = logging.getLogger(__name__)

STOP_S = 5.0
"""How long a plugin's lifespan may take to shut down."""

EXPIRE_S = 0.5
RENEW_S = 10.0
"""How often the node's lease is renewed: a third of the time it lasts."""


class Hook(NamedTuple):
    """A plugin's function, and the host that it is called with."""

    host: PluginHost
    function: Callable[..., Any]


class Hooks:
    """Starts, calls and stops the plugins. Owner: the server."""

    def __init__(self, services: Services) -> None:
        self._registry = registry = services.registry
        self.hosts = {
            plugin.name: PluginHost(plugin.name, services, self, plugin.announces)
            for plugin in (found.plugin for found in registry.found)
        }
        self._hooks: dict[str, list[Hook]] = {}
        self._listeners: dict[Any, list[tuple[PluginHost, ListenerSpec]]] = {}
        for found in registry.found:
            host = self.hosts[found.plugin.name]
            for name, function, _ in found.plugin.hooks:
                self._hooks.setdefault(name, []).append(Hook(host, function))
            for spec in found.plugin.listeners:
                tag = spec.event.__struct_config__.tag
                self._listeners.setdefault(tag, []).append((host, spec))
        self.authorise = self._ask_whether if "authorise" in self._hooks else None
        self.before_publish = self._ask_before if "before_publish" in self._hooks else None
        self.published = partial(self.tell, "published") if "published" in self._hooks else None
        self._services = services
        self._lifespans: list[tuple[PluginHost, AsyncIterator[Any]]] = []
        self._timers: set[asyncio.Task[None]] = set()
        self._ended = turns.Backlog(turns.LEASES, self._tell_ended)

    async def start(self) -> None:
        """Run the lifespans to their `yield`, then start the timers.

        Raises `PluginError` naming the plugin whose lifespan failed; what was started is stopped.
        """
        for found in self._registry.found:
            host = self.hosts[found.plugin.name]
            for function in found.plugin.lifespans:
                lifespan = function(host)
                try:
                    host.state = await anext(lifespan)
                except BaseException as error:
                    await self.stop()
                    raise _lifespan_failed(found, function, containment.contain(error)) from error
                self._lifespans.append((host, lifespan))
        # Without an `expired` hook too: leases of any plugin end with the node's.
        self._timers.add(asyncio.get_running_loop().create_task(self._watch_leases()))
        for found in self._registry.found:
            for timer in found.plugin.timers:
                work = self._run_timer(self.hosts[found.plugin.name], timer)
                self._timers.add(asyncio.get_running_loop().create_task(work))

    async def stop(self) -> None:
        """Stop the timers, then run the lifespans to their end, the last started first.

        But who hears ends after who announces, which may be at its end.
        """
        await containment.end(self._timers, "timers")
        self._timers.clear()
        self._ended.finish()
        lifespans, self._lifespans = self._lifespans, []
        place = {name: place for place, name in enumerate(_stop_order(self._registry))}
        for host, lifespan in sorted(lifespans, key=lambda each: place[each[0].name]):
            with containment.logged(log, "a plugin failed to shut down", plugin=host.name):
                async with asyncio.timeout(STOP_S):
                    await anext(lifespan, None)

    def tell(
        self,
        hook: str,
        *arguments: Any,
        connection: Connection | None = None,
        plugin: str | None = None,
    ) -> None:
        """Call the hooks of this name, or one plugin's of them.

        After the arguments each gets its plugin's host, or the connection as that plugin sees it.
        """
        for host, function in self._hooks.get(hook, ()):
            if plugin not in (None, host.name):
                continue
            # Like `containment.logged`, which is dearer (docs/measurements.md, hooks).
            try:
                last = host if connection is None else ConnectionContext(host, connection)
                function(*arguments, last)
            except BaseException as error:
                failure, where = containment.contain(error), source_of(function)
                extra = {"plugin": host.name}
                log.exception("a plugin's hook failed at %s", where, exc_info=failure, extra=extra)

    def announce(self, event: Event) -> None:
        """Call those who hear an event, each with the class that it declared."""
        for host, spec in self._listeners.get(event.__struct_config__.tag, ()):
            with containment.logged(
                log, "a plugin's hook failed at %s", spec.source, plugin=host.name
            ):
                heard = event
                if type(event) is not spec.event:
                    heard = msgspec.convert(event, spec.event, from_attributes=True)
                spec.function(heard, host)

    async def _watch_leases(self) -> None:
        """Renew the node's lease, and tell each plugin which of its own have ended."""
        leases, clock = self._services.engine.leases, self._services.clock
        renewed_at = -math.inf
        while True:
            await asyncio.sleep(EXPIRE_S)
            with containment.logged(log, "watching over leases failed"):
                now = clock.monotonic()
                # Before looking: after a stall this node's own would be taken for a dead node's.
                if now - renewed_at >= RENEW_S:
                    await leases.renew()
                    renewed_at = now
                while ended := await leases.expire():
                    for each in ended:
                        self._ended.add(each)
                    while self._ended:  # noqa: ASYNC110  (before more are asked for)
                        await asyncio.sleep(0)

    def _tell_ended(self, ended: tuple[str, Lease]) -> None:
        name, lease = ended
        plugin, _, pov_id = name.partition("/")
        self.tell("expired", restore(pov_id), restore(lease.member), plugin=plugin)

    async def _ask_whether(self, access: Access) -> Allowed | None:
        """Call the `authorise` hooks; raise what one refuses with, or `Internal`.

        Of several answers the one that stands for the shortest time counts.
        """
        deadline_s = self._services.settings.limits.handler_deadline_s
        shortest: Allowed | None = None
        for host, function in self._hooks["authorise"]:
            try:
                answer = await containment.call(function, access, host, deadline_s=deadline_s)
                allowed = _check_answer(answer)
            except ClientError:
                raise
            except Exception as error:  # who cannot be asked has not allowed it
                raise containment.internal(
                    self._services.clock,
                    log,
                    "an authorise hook failed at %s",
                    source_of(function),
                    error=error,
                    plugin=host.name,
                ) from error
            if allowed is not None and (shortest is None or allowed.for_s < shortest.for_s):
                shortest = allowed
        return shortest

    async def _ask_before(self, activity: Activity) -> Activity:
        """Call the `before_publish` hooks in turn; what one changed the next one sees."""
        for host, function in self._hooks["before_publish"]:
            result = function(activity, host)
            if inspect.isawaitable(result):
                result = await result
            if result is not None:
                if not isinstance(result, Activity):
                    raise TypeError(
                        f"a before_publish hook returned {type(result).__name__}, no Activity"
                    )
                activity = result
        return activity

    async def _run_timer(self, host: PluginHost, timer: TimerSpec) -> None:
        while True:
            await asyncio.sleep(timer.seconds)
            with containment.logged(
                log, "a plugin's timer failed at %s", timer.source, plugin=host.name
            ):
                result = timer.function(host)
                if inspect.isawaitable(result):
                    await result


def _lifespan_failed(found: Found, function: Callable[..., Any], failure: Exception) -> PluginError:
    """Return what a lifespan raised, with the innermost place in the plugin's file."""
    if isinstance(failure, StopAsyncIteration):
        return PluginError(source_of(function), "the lifespan ended before its `yield`")
    place = blame(failure, [Path(found.module.__file__ or "")]).source
    source = place if place.line else source_of(function)
    return PluginError(source, f"the lifespan failed: {failure!r}")


def _check_answer(answer: object) -> Allowed | None:
    if answer is None or isinstance(answer, Allowed):
        return answer
    raise TypeError(f"an authorise hook returned {type(answer).__name__}, no Allowed")


def _stop_order(registry: Registry) -> list[str]:
    """Return the plugins' names, the last started first, but who hears after who announces."""
    plugins = [found.plugin for found in reversed(registry.found)]
    sources = {
        plugin.name: {
            spec.event.__struct_config__.tag.partition(".")[0] for spec in plugin.listeners
        }
        - {plugin.name}
        for plugin in plugins
    }
    left, order = [plugin.name for plugin in plugins], list[str]()
    while left:
        # Of those that hear each other, the first.
        free = next((name for name in left if not sources[name] & {*left}), left[0])
        left.remove(free)
        order.append(free)
    return order

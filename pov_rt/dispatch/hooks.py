"""The plugins of a running server: their hosts, lifespans, timers and hooks.

A callback that fails is one line in the log and costs nobody anything.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pov_rt.connections.connection import Connection
from pov_rt.dispatch.conduct import Conduct
from pov_rt.dispatch.followers import Follower
from pov_rt.dispatch.handlers.context import ConnectionContext
from pov_rt.dispatch.host import PluginHost, Services
from pov_rt.dispatch.timers import Timers
from pov_rt.engine.base import Lease
from pov_rt.plugin.declare import HOOKS, ListenerSpec, Plugin, source_of
from pov_rt.plugin.interfaces import Access, Allowed
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import ClientError
from pov_rt.protocol.messages import Activity, Event
from pov_rt.protocol.tenants import restore
from pov_rt.registry.build import Registry
from pov_rt.registry.discovery import Found, PluginError, blame
from pov_rt.runtime import containment, turns

log = logging.getLogger(__name__)

STOP_S = 5.0
"""How long a plugin's lifespan may take to shut down."""

BEGIN_S = 5.0
"""How long the start waits for followers to find out where they are."""
PEOPLE_S = 60.0
"""How long a plugin may take to erase what it keeps of a user, and to find each value of it."""
EXPIRE_S = 0.5
RENEW_S = 10.0
"""How often the node's lease is renewed: a third of the time it lasts."""


class Hook(NamedTuple):
    """A plugin's function, and the host that it is called with."""

    host: PluginHost
    function: Callable[..., Any]


class Exported(NamedTuple):
    """A value that a plugin keeps of a user, as JSON; None: it failed, and what follows is lost."""

    plugin: str
    value: bytes | None


class Hooks:
    """Starts, calls and stops the plugins. Owner: the server."""

    def __init__(self, services: Services) -> None:
        self._registry = registry = services.registry
        limits = services.settings.limits
        self.conduct = Conduct(registry, services.clock, limits.plugin_failures)
        self.conduct.take_off = self._take_off
        self.switched: Callable[[], None] = _nothing
        """Called when a plugin went off (`conduct.off`), or came back: the dispatcher's."""
        self.hosts = {
            plugin.name: PluginHost(plugin.name, services, self, plugin.announces)
            for plugin in (found.plugin for found in registry.found)
        }
        self._hooks: dict[str, list[Hook]] = {}
        self._listeners: dict[Any, list[tuple[PluginHost, ListenerSpec]]] = {}
        self._connect()
        self.authorise = self._ask_whether if "authorise" in self._hooks else None
        self.before_publish = self._ask_before if "before_publish" in self._hooks else None
        self.published = partial(self.tell, "published") if "published" in self._hooks else None
        self._services = services
        self._lifespans: list[tuple[PluginHost, AsyncIterator[Any]]] = []
        self.timers = Timers(services.clock, self.conduct)
        self.followers = [
            Follower(services, self.hosts[found.plugin.name], spec, self.conduct)
            for found in registry.found
            for spec in found.plugin.followers
        ]
        self.appended = self._wake if self.followers else None
        self._leases: asyncio.Task[None] | None = None
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
        self._leases = asyncio.get_running_loop().create_task(self._watch_leases())
        for found in self._registry.found:
            self._set_off(found.plugin)
        # Nothing is published before they know where they are, unless the log cannot be read.
        with suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_S):
                for follower in self.followers:
                    await follower.has_begun.wait()

    async def stop(self) -> None:
        """Stop the timers, then run the lifespans to their end, the last started first.

        But who hears ends after who announces, which may be at its end.
        """
        await self.timers.end()
        await asyncio.gather(*(follower.end() for follower in self.followers))
        if self._leases is not None:
            await containment.end({self._leases}, "leases")
        self._ended.finish()
        await asyncio.gather(*(host.tasks.end() for host in self.hosts.values()))
        lifespans, self._lifespans = self._lifespans, []
        place = {name: place for place, name in enumerate(_stop_order(self._registry))}
        for host, lifespan in sorted(lifespans, key=lambda each: place[each[0].name]):
            with containment.logged(log, "a plugin failed to shut down", plugin=host.name):
                async with asyncio.timeout(STOP_S):
                    await anext(lifespan, None)

    def _wake(self, topic: str) -> None:
        """Tell the followers that a log has something new."""
        for follower in self.followers:
            follower.wake(topic)

    def release(self) -> list[str]:
        """Bring back the plugins that are off for what they did wrong; return their names."""
        released = self.conduct.release()
        if released:
            self._connect()
            self.switched()
            for found in self._registry.found:
                if found.plugin.name in released:
                    self._set_off(found.plugin)
        return released

    def _set_off(self, plugin: Plugin[Any]) -> None:
        """Start what a plugin does by itself."""
        for follower in self.followers:
            if follower.host.name == plugin.name:
                follower.start()
        for timer in plugin.timers:
            self.timers.start(self.hosts[plugin.name], timer)

    def _take_off(self, name: str) -> None:
        """Call a plugin no more, whatever happens, and end what it does by itself."""
        self._connect()
        self.switched()
        self.timers.cancel(name)
        for follower in self.followers:
            if follower.host.name == name:
                follower.cancel()
        self.hosts[name].tasks.cancel()

    def _connect(self) -> None:
        """Find out who is called for what. Whom a plugin that is off may have refused, is."""
        self._hooks.clear()
        self._listeners.clear()
        for found in self._registry.found:
            host = self.hosts[found.plugin.name]
            is_off = host.name in self.conduct.off
            for name, function, _ in found.plugin.hooks:
                if not is_off:
                    self._hooks.setdefault(name, []).append(Hook(host, function))
                elif HOOKS[name].is_waited_for:
                    refuse = Hook(host, partial(_refuse, self.conduct, host.name))
                    self._hooks.setdefault(name, []).append(refuse)
            for spec in found.plugin.listeners:
                if not is_off:
                    tag = spec.event.__struct_config__.tag
                    self._listeners.setdefault(tag, []).append((host, spec))

    def tell(
        self,
        hook: str,
        *arguments: Any,
        connection: Connection | None = None,
        plugin: str | None = None,
    ) -> None:
        """Call the hooks of this name, or one plugin's of them.

        After the arguments each gets its plugin's host, or the connection as that plugin sees it.
        Of connections whose users do not count as being there nobody is told.
        """
        if connection is not None and not connection.is_present:
            return
        conduct = self.conduct
        for host, function in self._hooks.get(hook, ()):
            if plugin not in (None, host.name):
                continue
            # Not in a context manager, which is dearer (docs/measurements.md, hooks).
            try:
                last = host if connection is None else ConnectionContext(host, connection)
                function(*arguments, last)
            except BaseException as error:
                failure = containment.contain(error)
                user = None if connection is None else connection.identity.user_id
                if user is None and arguments:
                    user = getattr(arguments[0], "user_id", None)  # an activity's
                conduct.failed(host.name, function, "hook", failure, user=user)
            else:
                if conduct.streaks:
                    conduct.succeeded(function)

    def announce(self, event: Event) -> None:
        """Call those who hear an event, each with the class that it declared."""
        for host, spec in self._listeners.get(event.__struct_config__.tag, ()):
            try:
                heard = event
                if type(event) is not spec.event:
                    heard = msgspec.convert(event, spec.event, from_attributes=True)
                spec.function(heard, host)
            except BaseException as error:
                failure = containment.contain(error)
                user = getattr(event, "user_id", None)
                self.conduct.failed(host.name, spec.function, "hook", failure, user=user)
            else:
                if self.conduct.streaks:
                    self.conduct.succeeded(spec.function)

    async def erase(self, user_id: str) -> list[str]:
        """Have the plugins remove what they keep of a user; return the names of those that failed.

        Those that are off have not done it either.
        """
        failed: list[str] = []
        for host, function in self._hooks.get("erased", ()):
            try:
                await containment.call(function, user_id, host, deadline_s=PEOPLE_S)
            except Exception as error:
                failed.append(host.name)
                self._note_failure(host, function, error)
        return failed

    async def export(self, user_id: str, plugin: str | None = None) -> AsyncIterator[Exported]:
        """Yield what the plugins, or this one, keep of a user in places of their own."""
        for host, function in self._hooks.get("exported", ()):
            if plugin not in (None, host.name):
                continue
            try:
                values = function(user_id, host)
                while True:
                    following = partial(anext, values, values)
                    value = await containment.call(following, deadline_s=PEOPLE_S)
                    if value is values:
                        break
                    yield Exported(host.name, encode(value))
            except Exception as error:
                self._note_failure(host, function, error)
                yield Exported(host.name, None)

    def _note_failure(
        self, host: PluginHost, function: Callable[..., Any], error: Exception
    ) -> None:
        """Log what a hook raised, unless the plugin is off, which the log has said already."""
        if host.name not in self.conduct.off:
            self.conduct.failed(host.name, function, "hook", error, counts=False)

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
                    was_alive = await leases.renew()
                    renewed_at = now
                    if not was_alive:
                        log.warning("the lease of this node ran out; plugins enter theirs again")
                        self.tell("lapsed")
                while ended := await leases.expire():
                    for each in ended:
                        self._ended.add(each)
                    while self._ended:  # noqa: ASYNC110  (before more are asked for)
                        await asyncio.sleep(0)

    def _tell_ended(self, ended: tuple[str, Lease]) -> None:
        name, lease = ended
        plugin, _, pov_id = name.partition("/")
        self.tell("expired", restore(pov_id), restore(lease.member), plugin=plugin)

    def left(self, name: str, leases: Sequence[Lease]) -> None:
        """Tell a plugin of leases that have ended, now: before what other nodes send after it."""
        plugin, _, pov_id = name.partition("/")
        members = [restore(lease.member) for lease in leases]
        self.tell("gone", restore(pov_id), members, plugin=plugin)

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
                raise self.conduct.failed(
                    host.name, function, "hook", error, user=access.user_id
                ) from error
            if self.conduct.streaks:
                self.conduct.succeeded(function)
            if allowed is not None and (shortest is None or allowed.for_s < shortest.for_s):
                shortest = allowed
        return shortest

    async def _ask_before(self, activity: Activity) -> Activity:
        """Call the `before_publish` hooks in turn; what one changed the next one sees."""
        for host, function in self._hooks["before_publish"]:
            try:
                result = function(activity, host)
                if inspect.isawaitable(result):
                    result = await result
                changed = _check_change(result)
            except ClientError:
                raise
            except Exception as error:
                raise self.conduct.failed(
                    host.name, function, "hook", error, user=activity.user_id
                ) from error
            if self.conduct.streaks:
                self.conduct.succeeded(function)
            activity = changed or activity
        return activity


def _nothing() -> None:
    """Do nothing."""


def _refuse(conduct: Conduct, plugin: str, *_: Any) -> None:
    conduct.require(plugin)


def _lifespan_failed(found: Found, function: Callable[..., Any], failure: Exception) -> PluginError:
    """Return what a lifespan raised, with the innermost place in the plugin's file."""
    if isinstance(failure, StopAsyncIteration):
        return PluginError(source_of(function), "the lifespan ended before its `yield`")
    place = blame(failure, [Path(getattr(found.module, "__file__", None) or "")]).source
    source = place if place.line else source_of(function)
    return PluginError(source, f"the lifespan failed: {failure!r}")


def _check_change(answer: object) -> Activity | None:
    if answer is None or isinstance(answer, Activity):
        return answer
    raise TypeError(f"a before_publish hook returned {type(answer).__name__}, no Activity")


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

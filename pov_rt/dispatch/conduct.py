"""What plugins do wrong: logged, but not again and again; counted; and who is off for it.

A function of a plugin that fails `limits.plugin_failures` times in a row has its plugin taken off
(quarantine), and so has one that blocks the event loop as often within `BLOCKS_S`. Of what users
cause half may be one user's, or that one could take a plugin from all others. The built-in plugins
stay: without them this is no server.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import product
from typing import Any

from pov_rt.plugin.declare import source_of
from pov_rt.protocol.errors import Internal, Unavailable
from pov_rt.registry.build import Registry
from pov_rt.registry.discovery import BUILT_IN
from pov_rt.runtime import containment
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.limits import Bucket, Rate
from pov_rt.runtime.measure.tally import OTHER, Tally

log = logging.getLogger(__name__)

FULL_AT_ONCE, FULL_S = 5.0, 60.0
"""Failures of a kind that are logged with their traceback: so many, then one in so many seconds."""
MAX_KINDS = 500
"""Of failures, by place and error."""
BLOCKS_S = 600.0
USERS = 2

KINDS = ("handler", "route", "hook", "timer", "task", "follower", "block")
"""What can fail of a plugin."""

Function = Callable[..., object] | Coroutine[Any, Any, None]


class _Kind:
    """Failures that look alike: `incident` is that of the last one that was logged."""

    def __init__(self, rate: Rate, now: float) -> None:
        self.bucket = Bucket(rate, now)
        self.suppressed = 0
        self.incident = ""


class _Streak:
    """Failures in a row of one function; `calls` is how often it had been called at the last."""

    def __init__(self) -> None:
        self.failures = 0
        self.calls = 0
        self.of_user: dict[str, int] = {}


class Conduct:
    """What each plugin did wrong. Owner: the hooks, which set `take_off`."""

    def __init__(self, registry: Registry, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = most
        self._rate = Rate(1 / FULL_S, burst=FULL_AT_ONCE)
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._blocks: dict[str, deque[float]] = {}
        self._plugins = {
            getattr(found.module, "__file__", ""): found.plugin.name for found in registry.found
        }
        self._staying = {found.plugin.name for found in registry.found if found.origin == BUILT_IN}
        self.streaks: dict[Function, _Streak] = {}
        """By function; one that has not failed since it last went well is not in it."""
        self.counts = Tally(
            product((found.plugin.name for found in registry.found), KINDS), (OTHER, OTHER)
        )
        """Failures by plugin and kind."""
        self.off: dict[str, str] = {}
        """The plugins that are off, and why."""
        self.take_off: Callable[[str], object] = self.off.__contains__

    def failed(
        self,
        plugin: str,
        function: Function,
        what: str,
        error: BaseException,
        *,
        user: str | None = None,
        calls: int | None = None,
        counts: bool = True,
        **fields: object,
    ) -> Internal:
        """Take note that a function of a plugin failed; return what its caller is told.

        `what` is its kind. `user` caused it; None: nobody did. `calls` is how often the function
        was called, where it is not told what goes well (`succeeded`). Without `counts` it can fail
        for ever. `fields` go to the log alone. That nobody can do it now (`Unavailable`) is no
        fault of the plugin's, and logged without a traceback.
        """
        place = source_of(function)
        fields = {"plugin": plugin, **fields} | ({} if user is None else {"user": user})
        told = self._log((place, type(error), _line_of(error)), what, str(place), error, fields)
        if not isinstance(error, Unavailable):
            self.counts.add((plugin, what))
            if counts:
                self._note(plugin, function, f"its {what} at {place} fails", user, calls)
        return told

    def succeeded(self, function: Function) -> None:
        """Take note that a function went well, if it is one of the `streaks`."""
        self.streaks.pop(function, None)

    def blocked(self, file: str, line: int) -> None:
        """Take note that a file's code blocked the event loop."""
        plugin = self._plugins.get(file)
        if plugin is None:
            return
        self.counts[plugin, "block"] += 1
        now = self._clock.monotonic()
        blocks = self._blocks.setdefault(plugin, deque(maxlen=max(1, self._most)))
        blocks.append(now)
        if len(blocks) >= self._most and now - blocks[0] <= BLOCKS_S:
            self._quarantine(plugin, f"it blocks the event loop at {file}:{line}")

    def release(self) -> list[str]:
        """Forget what was done; return the plugins that were off, and are not any more."""
        released = sorted(self.off)
        self.off.clear()
        self.streaks.clear()
        self._blocks.clear()
        return released

    def require(self, plugin: str) -> None:
        """Raise `Unavailable` if a plugin is off."""
        if plugin in self.off:
            raise Unavailable(f"The plugin {plugin} is off, for it failed again and again")

    def _log(
        self,
        kind: tuple[object, ...],
        what: str,
        place: str,
        error: BaseException,
        fields: dict[str, object],
    ) -> Internal:
        now = self._clock.monotonic()
        found = self._kinds.get(kind)
        if found is None:
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            found = self._kinds[kind] = _Kind(self._rate, now)
        if found.bucket.take(self._rate, now):
            found.suppressed += 1
            return Internal(incident=found.incident)  # the log has one that is like it
        if found.suppressed:
            fields["suppressed"] = found.suppressed
        found.suppressed = 0
        words = "a handler failed at %s" if what == "handler" else f"a plugin's {what} failed at %s"
        if isinstance(error, Unavailable):
            log.warning(f"{words}: %s", place, error.message, extra=fields)  # noqa: G004  (constants)
            return Internal(incident=found.incident)
        told = containment.internal(self._clock, log, words, place, error=error, **fields)
        found.incident = str(told.extra["incident"])
        return told

    def _note(
        self, plugin: str, function: Function, why: str, user: str | None, calls: int | None
    ) -> None:
        streak = self.streaks.get(function)
        if streak is None or (calls is not None and calls - streak.calls > 1):
            streak = self.streaks[function] = _Streak()
        streak.calls = calls or 0
        if user is not None:
            if user not in streak.of_user and len(streak.of_user) >= self._most:
                return
            mine = streak.of_user[user] = streak.of_user.get(user, 0) + 1
            if mine > -(-self._most // USERS):  # one user's are not all that counts
                return
        streak.failures += 1
        if streak.failures >= self._most:
            self._quarantine(plugin, f"{why}, {streak.failures} times in a row")

    def _quarantine(self, plugin: str, why: str) -> None:
        if not self._most or plugin in self._staying or plugin in self.off:
            return
        self.off[plugin] = why
        log.error(
            "the plugin %s is off: %s; a reload (SIGHUP) or a restart brings it back", plugin, why,
            extra={"plugin": plugin},
        )  # fmt: skip
        self.take_off(plugin)


def _line_of(error: BaseException) -> int:
    """Return the line that raised it, so that two mistakes of one function are told apart."""
    line = 0
    step = error.__traceback__
    while step is not None:
        line = step.tb_lineno
        step = step.tb_next
    return line

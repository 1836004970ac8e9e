"""The timers of plugins. Tests let time pass for them (`advance`)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

from pov_rt.dispatch.conduct import Conduct
from pov_rt.dispatch.host import PluginHost
from pov_rt.plugin.declare import TimerSpec
from pov_rt.runtime import containment
from pov_rt.runtime.clock import Clock

RUN_S = 5.0
"""How long a function may take while a test waits for it."""


class _Timer:
    """One timer; `wake` is there while it waits for `due` (`Clock.monotonic`)."""

    def __init__(self, host: PluginHost, spec: TimerSpec) -> None:
        self.host = host
        self.spec = spec
        self.due = 0.0
        self.wake: asyncio.Future[None] | None = None
        self.waits = asyncio.Event()


class Timers:
    """Calls functions every so many seconds, each never two at once. Owner: the hooks."""

    def __init__(self, clock: Clock, conduct: Conduct) -> None:
        self._clock = clock
        self._conduct = conduct
        self._tasks: dict[_Timer, asyncio.Task[None]] = {}

    def start(self, host: PluginHost, spec: TimerSpec) -> None:
        """Call a plugin's function from now on."""
        timer = _Timer(host, spec)
        self._tasks[timer] = asyncio.get_running_loop().create_task(self._run(timer))

    def cancel(self, plugin: str) -> None:
        """Stop those of one plugin, without waiting for it."""
        for timer in [each for each in self._tasks if each.host.name == plugin]:
            self._tasks.pop(timer).cancel()

    async def end(self) -> None:
        """Stop all of them."""
        await containment.end(set(self._tasks.values()), "timers")
        self._tasks.clear()

    async def advance(self, seconds: float, move: Callable[[float], None]) -> None:
        """Let time pass, for a test, with what is due in it in its order, each to its end.

        `move` puts the clock forward. Raises TimeoutError naming a function that does not end.
        """
        until = self._clock.monotonic() + seconds
        while True:
            waiting = [each for each in self._tasks if each.wake and not each.wake.done()]
            timer = min(waiting, key=lambda each: each.due, default=None)
            if timer is None or timer.due > until or timer.wake is None:
                break
            move(max(0.0, timer.due - self._clock.monotonic()))
            timer.waits.clear()
            timer.wake.set_result(None)
            try:
                async with asyncio.timeout(RUN_S):
                    await timer.waits.wait()
            except TimeoutError:
                raise TimeoutError(
                    f"the timer at {timer.spec.source} takes more than {RUN_S:g} s"
                ) from None
        move(max(0.0, until - self._clock.monotonic()))

    async def _run(self, timer: _Timer) -> None:
        try:
            await self._call(timer)
        finally:
            timer.waits.set()

    async def _call(self, timer: _Timer) -> None:
        host, spec = timer.host, timer.spec
        while True:
            await self._wait(timer, spec.seconds)
            try:
                result = spec.function(host)
                if inspect.isawaitable(result):
                    await result
            except BaseException as error:
                failure = containment.contain(error)
                self._conduct.failed(host.name, spec.function, "timer", failure)
            else:
                if self._conduct.streaks:
                    self._conduct.succeeded(spec.function)

    async def _wait(self, timer: _Timer, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        timer.due = self._clock.monotonic() + seconds
        timer.wake = wake = loop.create_future()
        handle = loop.call_later(seconds, _wake, wake)
        timer.waits.set()
        try:
            await wake
        finally:
            handle.cancel()


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)

"""Runs a node as a process: signals, systemd, the log, reload without restart, its successor."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pov_rt.cli.node import succession
from pov_rt.cli.node.manager import ADMIN_PORT, RELEASE_S, Manager
from pov_rt.cli.node.restart import Watch, find_problem
from pov_rt.cli.node.stacks import answer_signals
from pov_rt.cli.node.succession import Successor, predecessor
from pov_rt.cli.options import SettingsOptions
from pov_rt.config import load as config
from pov_rt.config.load import Loaded
from pov_rt.config.settings import Settings, SettingsError, describe_access
from pov_rt.registry.activities import declare
from pov_rt.registry.build import Registry, check_roles
from pov_rt.runtime import containment
from pov_rt.runtime.process import logs
from pov_rt.web.app import WebServer
from pov_rt.web.routes.dev.console import Trouble

log = logging.getLogger(__name__)

GC_THRESHOLDS = (100_000, 50, 100)
"""For a process of many objects that live long: with Python's own thresholds the collector takes
more CPU for each handshake and publication, and its longest pause is no shorter
(docs/measurements.md, collector). Nothing on the way of either leaves a cycle behind
(tests/test_garbage.py), so that little waits for it."""


class Process:
    """One node for as long as the process lives. `announce` is called once it listens.

    `manager` is who started the process and is told how it is.
    """

    def __init__(
        self,
        options: SettingsOptions,
        loaded: Loaded,
        registry: Registry,
        *,
        manager: Manager,
        stream: Any,
        announce: Callable[[WebServer], None],
    ) -> None:
        self._manager = manager
        self._settings = config.dev_secret(loaded.settings)
        self._registry = registry
        self._options = options
        self._stream = stream
        self._announce = announce
        self._stop = asyncio.Event()
        self._restart: asyncio.Task[None] | None = None
        self._handover: asyncio.Task[None] | None = None
        self._successor: Successor | None = None
        """Who goes on when this process ends, once it is ready to."""
        self.changed: list[Path] = []
        """The files for whose sake the process ended, to be started anew."""

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Raises `SettingsError` or `PluginError`."""
        loop = asyncio.get_running_loop()
        web, notify = WebServer(self._settings, self._registry), self._manager.notify
        sockets = await self._sockets()
        await web.start(sockets)
        self._manager.on_replaced(self._stop.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload, web)
        loop.add_signal_handler(succession.SIGNAL, self._hand_over, sockets)
        answer_signals(loop, self._stream)
        watchdog = loop.create_task(self._feed_watchdog(web))
        # What was made so far stays, but for a little that is not worth the time to find it: no
        # collection need look at it again.
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.enable()
        notify(f"READY=1\n{_status(web)}\n{ADMIN_PORT}={web.admin_port}")
        self._announce(web)
        try:
            await self._stop.wait()
        finally:
            patience_s = self._settings.server.drain_s + RELEASE_S
            successor = self._successor
            state = "STOPPING=1\nSTATUS=Draining" if successor is None else "STATUS=Handing over"
            notify(f"{state}\nEXTEND_TIMEOUT_USEC={patience_s * 1e6:.0f}")
            await _end(self._restart, self._handover)
            if successor is not None:
                loop.call_later(patience_s, self._give_up, watchdog, patience_s)
            web.port_stays, web.is_succeeded = self._manager.port_stays, successor is not None
            await web.stop()
            await _end(watchdog)
            if successor is not None:
                notify(f"MAINPID={successor.pid}")
                successor.go_on()
            log.info("stopped")
            await containment.end_all()
            # Or Python looks at all there is once more at its end, while the next start waits for
            # that (docs/measurements.md, hand-overs).
            gc.freeze()

    def restart_on_change(self, watch: Watch, trouble: Trouble) -> None:
        """End, as for SIGTERM, when one of the files changes; call it on the loop.

        `trouble` is told of a change with which it could not start: until there is another one it
        goes on as it was.
        """
        self._restart = asyncio.get_running_loop().create_task(
            self._wait_for_change(watch, trouble)
        )

    def restart(self, why: str) -> None:
        """End, as for SIGTERM, to be started anew; `why` is what the log says of it then."""
        self.changed = [Path(why)]
        self._stop.set()

    async def _wait_for_change(self, watch: Watch, trouble: Trouble) -> None:
        changed: dict[Path, None] = {}
        while True:
            for path in await watch.changed():
                changed[path] = None
            trouble.problem = await find_problem()
            if trouble.problem is None:
                break
            log.error("the server goes on as it was: %s", trouble.problem)
        self.changed = list(changed)
        self._stop.set()

    async def _sockets(self) -> Sequence[socket.socket]:
        """Return what the manager gave to this process, or to the one whose successor it is."""
        before = predecessor()
        if before is None:
            return self._manager.sockets()
        await before.leave()
        self._manager.port_stays = True
        return before.sockets

    def _hand_over(self, sockets: Sequence[socket.socket]) -> None:
        """Have a successor made ready, and end once it is; until then all goes on as it was."""
        if not self._manager.takes_another():
            log.error(succession.REFUSAL)
        elif self._stop.is_set() or (self._handover is not None and not self._handover.done()):
            log.warning("SIGUSR2 changes nothing: this process hands over, or ends, already")
        else:
            loop = asyncio.get_running_loop()
            self._handover = loop.create_task(self._wait_for_successor(sockets))

    async def _wait_for_successor(self, sockets: Sequence[socket.socket]) -> None:
        try:
            successor = Successor(sockets)
        except OSError as error:
            log.error(  # noqa: TRY400  (the text says it all)
                "nothing was handed over: no process could be started: %s", error
            )
            return
        log.info("process %d is made ready to take over", successor.pid)
        try:
            if not await successor.is_ready():
                log.error("nothing was handed over: process %d could not start", successor.pid)
            elif not self._stop.is_set():  # else this one was asked to end, and not to be followed
                self._successor = successor
                self._stop.set()
        except TimeoutError:
            log.error(  # noqa: TRY400  (the text says it all)
                "nothing was handed over: process %d has not loaded all within %g s, and is "
                "ended. Look at what plugins do while they are imported",
                successor.pid,
                succession.LOAD_S,
            )
        finally:
            if self._successor is not successor:
                successor.end()

    def _give_up(self, watchdog: asyncio.Task[None], patience_s: float) -> None:
        """Feed the watchdog no longer, for nobody serves: the manager, told of no end, has none."""
        log.error("the hand-over has not ended within %g s; the watchdog ends it", patience_s)
        watchdog.cancel()

    async def _feed_watchdog(self, web: WebServer) -> None:
        interval = self._manager.watchdog_interval_s()
        # A restart mends a loop that hangs, and perhaps a node that alone hears nothing; no disk
        # that is full, and no Redis that is away.
        while interval is not None:
            if not web.server.is_lost:
                self._manager.notify("WATCHDOG=1")
            await asyncio.sleep(interval)

    def _reload(self, web: WebServer) -> None:
        """Take over what SIGHUP can change; on a mistake everything stays as it was."""
        self._manager.notify("RELOADING=1")
        status = _status(web)
        keyring = web.server.keyring
        version = keyring.version
        try:
            loaded = self._options.load()
            config.check(loaded)
            check_roles(loaded.settings.auth, self._registry)
            new = config.dev_secret(loaded.settings)
            activities = declare(self._registry.found, new.activities)
            applied, restart = config.reloadable(self._settings, new)
            # Also where only a schema's file changed.
            schemas = activities.changed_from(web.server.registry.activities)
            web.server.reload(new.auth, activities)
        except SettingsError as error:
            log.error("nothing was reloaded: %s", error)  # noqa: TRY400  (the text says it all)
            status += f"; nothing was reloaded: {str(error).splitlines()[0]}"
        else:
            access = describe_access(self._settings.auth), describe_access(new.auth)
            web.apply(merged(self._settings, new))
            self._settings = web.settings
            logs.configure(web.settings.log.format, web.settings.log.level, stream=self._stream)
            if keyring.version != version:  # also if only a file's contents changed
                applied.append("keys")
            applied += [f"the details of {key}" for key in schemas]
            # A plugin that was taken off may have failed for another server's sake.
            applied += [f"the plugin {name}" for name in web.server.hooks.release()]
            log.info("reloaded: %s", ", ".join(applied) or "nothing changed")
            if access[0] != access[1]:
                log.info("%s", access[1])
            if restart:
                log.warning("needs a restart: %s", ", ".join(restart))
        self._manager.notify(f"READY=1\n{status}")


async def _end(*tasks: asyncio.Task[None] | None) -> None:
    for task in tasks:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


def _status(web: WebServer) -> str:
    return f"STATUS=Listening on port {web.port}"


def merged(old: Settings, new: Settings) -> Settings:
    """Return the old settings with what may change while running."""
    server = replace(
        old.server,
        allowed_origins=new.server.allowed_origins,
        allowed_hosts=new.server.allowed_hosts,
    )
    return replace(
        old,
        server=server,
        auth=new.auth,
        activities=new.activities,
        log=replace(old.log, level=new.log.level),
    )

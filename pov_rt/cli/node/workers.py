"""Several workers on one port, and the process that starts them and sees to it that they live.

Each worker is a whole node, as one that systemd runs: it is handed its sockets, says when it is
ready, feeds a watchdog. Together they are one service for systemd.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from pov_rt.cli.node import succession
from pov_rt.cli.node.manager import RELEASE_S, Manager
from pov_rt.cli.node.restart import find_problem
from pov_rt.cli.node.stacks import answer_signals
from pov_rt.cli.node.worker import ABORT_S, NotReadyError, Worker
from pov_rt.cli.options import SettingsOptions
from pov_rt.config.load import reloadable
from pov_rt.config.settings import Settings, SettingsError
from pov_rt.runtime.process import logs
from pov_rt.web.sockets import WorkerSockets

log = logging.getLogger(__name__)

WATCHDOG_S = 30.0
"""How long a worker may be silent, where systemd does not say."""
OWN = frozenset(f"server.{name}" for name in ("host", "port", "unix", "workers"))
"""The settings that workers have in common, and that a new one cannot change."""


class Workers:
    """All workers. `announce` is called once each of them has become ready."""

    def __init__(
        self, options: SettingsOptions, settings: Settings, announce: Callable[[Workers], None]
    ) -> None:
        self.settings = settings
        self._options = options
        self._announce = announce
        self._manager = manager = Manager()
        inherited = manager.sockets()
        self._sockets = WorkerSockets(settings.server, inherited)
        interval_s = manager.watchdog_interval_s()
        self._watchdog_s = WATCHDOG_S if interval_s is None else 2 * interval_s
        self._patience_s = settings.server.drain_s + RELEASE_S
        self._workers = [
            Worker(
                number,
                self._sockets,
                settings.server,
                watchdog_s=self._watchdog_s,
                port_stays=manager.port_stays,
            )
            for number in range(1, settings.server.workers + 1)
        ]
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()

    @property
    def port(self) -> int:
        """The port that clients connect to; 0 on a Unix socket."""
        return self._sockets.port

    @property
    def admin_ports(self) -> list[int]:
        """The port of health and metrics of each worker."""
        return [each.admin_port for each in self._workers]

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then have all drain.

        Raises `SettingsError` if the port cannot be had, or a worker cannot start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        loop.add_signal_handler(succession.SIGNAL, log.error, succession.REFUSAL)
        answer_signals(loop, sys.stderr)
        kept = [loop.create_task(each.keep()) for each in self._workers]
        tasks: list[Coroutine[Any, Any, object]]
        tasks = [self._stop.wait(), self._look_after(), self._feed_watchdog()]
        others = [loop.create_task(each) for each in tasks]
        ended: set[asyncio.Task[Any]] = set()
        try:
            ended, _ = await asyncio.wait(
                [*kept, others[0], others[1]], return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            # One that hangs is ended by its own watchdog first.
            patience_s = self._patience_s + self._watchdog_s + 2 * ABORT_S
            self._manager.notify(
                f"STOPPING=1\nSTATUS=Draining\nEXTEND_TIMEOUT_USEC={patience_s * 1e6:.0f}"
            )
            for task in others:
                task.cancel()
            for each in self._workers:
                each.stop()
            await asyncio.wait([*kept, *others])
            self._sockets.close()
            log.info("all workers have stopped")
        for task in (*kept, *ended):
            if not task.cancelled():
                task.result()

    async def _look_after(self) -> None:
        """Say that all are ready, and replace them whenever that is wanted."""
        for each in self._workers:
            await each.ready.wait()
        self._announce(self)
        self._say_ready()
        while True:
            await self._reload.wait()
            self._reload.clear()
            self._manager.notify("RELOADING=1")
            self._say_ready(await self._replace_all())

    def _say_ready(self, trouble: str = "") -> None:
        status = f"Listening on port {self.port}, {len(self._workers)} workers"
        self._manager.notify(f"READY=1\nSTATUS={status}{trouble and f'; {trouble}'}")

    async def _replace_all(self) -> str:
        """Have each worker replaced, one after the other; return what went wrong, if anything."""
        problem: object
        try:
            problem = await find_problem()
        except OSError as error:
            problem = error
        if problem is not None:
            log.error("nothing was restarted: %s", problem)
            return "nothing was restarted"
        self._take_over()
        for each in self._workers:
            log.info("restarting worker %d of %d", each.number, len(self._workers))
            self._manager.notify(f"STATUS=Restarting worker {each.number}")
            try:
                await each.replace(self._patience_s)
            except NotReadyError as error:
                words = f"worker {each.number} does not become ready"
                log.error("%s (%s); those after it go on as they were", words, error)  # noqa: TRY400
                return words
        log.info("all workers were restarted")
        return ""

    def _take_over(self) -> None:
        """Take over what this process needs of settings that may have changed."""
        try:
            new = self._options.load().settings
        except SettingsError as error:  # since they were looked at
            log.error("the settings stay as they were: %s", error)  # noqa: TRY400
            return
        logs.configure(new.log.format, new.log.level, stream=sys.stderr)
        _, restart = reloadable(self.settings, new)
        if own := sorted(OWN.intersection(restart)):
            log.warning("needs a restart: %s", ", ".join(own))

    async def _feed_watchdog(self) -> None:
        interval_s = self._manager.watchdog_interval_s()
        # Each worker that hangs is ended for itself.
        while interval_s is not None:
            self._manager.notify("WATCHDOG=1")
            await asyncio.sleep(interval_s)

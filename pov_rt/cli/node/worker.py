"""One of several workers, as its supervisor sees it: started, watched, started anew."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Final

import msgspec
from msgspec.structs import replace

from pov_rt.cli.node.manager import ADMIN_PORT, REPLACED, WORKER, HandOver
from pov_rt.cli.remote import find_admin_address
from pov_rt.config.settings import ServerSettings, SettingsError
from pov_rt.remote.http import Http
from pov_rt.web.sockets import WorkerSockets

log = logging.getLogger(__name__)

BACKOFF_S = (0.5, 30.0)
"""How long the first start after an end waits, and the longest: each waits twice as long."""
STEADY_S = 60.0
"""Who has lived for so long did not end because it was started."""
ABORT_S = 5.0
"""How long a worker that hangs has to write its stacks."""
READY_S = 60.0
"""How long a new process has until `/readyz` says that clients are welcome."""
LOOK_S = 0.1
ASK_S = 5.0


class NotReadyError(Exception):
    """A worker has not become ready in time; the text says why."""


class Worker:
    """One of the processes that share a port. `number` counts from 1."""

    def __init__(
        self,
        number: int,
        sockets: WorkerSockets,
        settings: ServerSettings,
        *,
        watchdog_s: float,
        port_stays: bool,
    ) -> None:
        self.number: Final = number
        self.admin_port = 0
        self.ready = asyncio.Event()
        """Whether it listens, or has before it ends."""
        self._sockets = sockets
        self._settings = settings
        self._watchdog_s = watchdog_s
        self._port_stays = port_stays
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None
        self._was_ready = self._is_replaced = False
        self._stopped = asyncio.Event()
        self._hurry = asyncio.Event()
        """Set where nobody should wait any longer before a start."""

    async def keep(self) -> None:
        """Run it, and start it anew when it ends, until it is stopped.

        Raises `SettingsError` if it ends before it has ever been ready.
        """
        loop, wait_s = asyncio.get_running_loop(), 0.0
        while not self._stopped.is_set():
            began = loop.time()
            try:
                end = describe_end(await self._run())
            except OSError as error:  # there are too many processes, or too little memory, for now
                end = f"could not be started ({error.strerror})"
            except SettingsError as error:  # its port was taken since it had it
                if not self._was_ready:
                    raise
                end = f"could not be started ({error})"
            self.ready.clear()
            if self._stopped.is_set():
                return
            if self._is_replaced:
                self._is_replaced, wait_s = False, 0.0
                continue
            # Who connects comes to the others at once, and who waits for this one is sent there.
            self._sockets.leave(self.number)
            if not self._was_ready:
                raise SettingsError(
                    f"worker {self.number} {end} before it was ready; the lines above say why"
                )
            least_s, most_s = BACKOFF_S
            lived_s = loop.time() - began
            wait_s = least_s if lived_s > STEADY_S else min(max(least_s, 2 * wait_s), most_s)
            log.error(
                "worker %d %s after %.1f s; it is started anew in %.1f s",
                self.number,
                end,
                lived_s,
                wait_s,
            )
            self._hurry.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), wait_s)

    def stop(self) -> None:
        """Have it drain and end, for good."""
        self._stopped.set()
        self._hurry.set()
        self._send(signal.SIGTERM)

    async def replace(self, patience_s: float) -> None:
        """Have a new process in its place once it has drained; return when that one is ready.

        Raises `NotReadyError` if that takes longer; it is tried again until it succeeds.
        """
        if self.ready.is_set() and self._channel is not None:
            self._is_replaced = True
            self.ready.clear()
            with suppress(OSError):  # it has just ended by itself
                self._channel.send(REPLACED)
        self._hurry.set()  # what it failed of may be mended
        why = "it has not started"
        try:
            async with asyncio.timeout(patience_s + READY_S):
                await self.ready.wait()
                while (found := await self._not_welcome()) is not None:
                    why = found
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise NotReadyError(why) from None

    async def _not_welcome(self) -> str | None:
        """Return None once `/readyz` says that clients are welcome, else what it says."""
        address = find_admin_address(replace(self._settings, admin_port=self.admin_port))
        http = Http(address, timeout_s=ASK_S)
        try:
            answer = await http.fetch("GET", "/readyz", "-")  # which asks nobody for a token
        except OSError as error:
            return str(error)
        finally:
            http.close()
        return None if answer.status == 200 else answer.body.decode("utf-8", "replace")

    async def _run(self) -> int:
        """Run it to its end; return its status as `asyncio.subprocess` has it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.setblocking(False)
            with theirs:
                sockets = [each.fileno() for each in self._sockets.of(self.number)]
                given = HandOver(
                    number=self.number,
                    channel=theirs.fileno(),
                    sockets=sockets,
                    admin_port=self.admin_port,
                    watchdog_s=self._watchdog_s,
                    port_stays=self._port_stays,
                )
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *sys.orig_argv[1:],
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, WORKER: msgspec.json.encode(given).decode()},
                    pass_fds=[theirs.fileno(), *sockets],
                )
            log.info("worker %d is process %d", self.number, self._process.pid)
            if self._stopped.is_set():  # meanwhile
                self._send(signal.SIGTERM)
            self._channel = ours
            try:
                await self._hear(ours)
            finally:
                self._channel = None
        return await self._process.wait()

    async def _hear(self, channel: socket.socket) -> None:
        """Take what the worker tells, until it ends; see to it that it does if it hangs."""
        loop = asyncio.get_running_loop()
        due: float | None = None  # a start takes what it takes
        late = f"has not been heard of for {self._watchdog_s:g} s"
        is_ending = False  # then nothing that it tells moves the instant by which it has to end
        remedies = iter((signal.SIGABRT, signal.SIGKILL))
        while True:
            try:
                async with asyncio.timeout_at(due):
                    said = await loop.sock_recv(channel, 4096)
            except TimeoutError:
                log.error("worker %d %s, and is ended", self.number, late)  # noqa: TRY400
                self._send(next(remedies, signal.SIGKILL))
                is_ending, due = True, loop.time() + ABORT_S
                late = f"is there {ABORT_S:g} s later"
                continue
            except ConnectionResetError:  # it ended before it read what it was told
                return
            if not said:
                return
            told = dict(line.partition("=")[::2] for line in said.decode().splitlines())
            if "READY" in told:
                self.admin_port = int(told.get(ADMIN_PORT, self.admin_port))
                self._was_ready = True
                if not self._is_replaced:
                    self.ready.set()
            if is_ending:
                continue
            patience_s = self._watchdog_s
            if "STOPPING" in told:
                patience_s = int(told["EXTEND_TIMEOUT_USEC"]) / 1e6
                is_ending, late = True, f"has not drained within {patience_s:g} s"
            due = loop.time() + patience_s

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def describe_end(status: int) -> str:
    """Say how a process ended."""
    if status >= 0:
        return f"ended with status {status}"
    return f"was ended by {signal.Signals(-status).name}"

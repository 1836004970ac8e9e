"""A node hands over to its successor: a process of the same command that has loaded all by then.

A restart stops publishing for as long as a process takes to load (docs/measurements.md,
hand-overs). Here the old one serves on meanwhile. Then it leaves, and who comes waits at the port,
which both have from the socket unit, while the log changes hands. A successor that cannot start
changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack, suppress

SIGNAL = signal.SIGUSR2
VARIABLE = "_POV_RT_PREDECESSOR"
"""The variable in which a successor finds the numbers of the line to who was before it, of that
process (pidfd_open(2)), and of the sockets. Whoever has them mean something else gives it another
name: the successor of another version is then an ordinary start, which finds all taken and ends."""
REFUSAL = (
    "nothing was handed over: that needs a single node with a socket unit, which has the port, and "
    "a service manager that can be told of another main process (systemd, Type=notify)"
)
OURS = ("LISTEN_PID", "LISTEN_FDS", "WATCHDOG_PID")
"""What the service manager said to this process alone."""
READY = RELEASED = b"."
LOAD_S = 90.0
"""How long a successor may take to load."""


class Successor:
    """A process that goes on in the place of this one, once it may. Owner: the node's process.

    Raises `OSError` if none can be started.
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        with ExitStack() as undo, theirs:
            undo.callback(self._line.close)
            with os.fdopen(os.pidfd_open(os.getpid())) as own:
                numbers = [theirs.fileno(), own.fileno(), *(each.fileno() for each in sockets)]
                kept = {name: value for name, value in os.environ.items() if name not in OURS}
                self._process = subprocess.Popen(  # noqa: S603  (what was started)
                    [sys.executable, *sys.orig_argv[1:]],
                    env={**kept, VARIABLE: " ".join(map(str, numbers))},
                    pass_fds=numbers,
                )
            undo.pop_all()
        self.pid = self._process.pid

    async def is_ready(self) -> bool:
        """Wait until it has loaded all there is; False: it could not, and has said why.

        Raises `TimeoutError` after `LOAD_S`.
        """
        async with asyncio.timeout(LOAD_S):
            return await asyncio.get_running_loop().sock_recv(self._line, 1) == READY

    def go_on(self) -> None:
        """Let it open the log and listen. The owner has released both."""
        with self._line, suppress(ConnectionError):  # it was killed meanwhile
            self._line.send(RELEASED)

    def end(self) -> None:
        """End it: this process stays."""
        self._process.kill()
        self._process.wait()
        self._line.close()


class Predecessor:
    """The process whose successor this one is."""

    def __init__(self, line: socket.socket, process: int, sockets: Sequence[socket.socket]) -> None:
        self._line = line
        self._process = process
        self.sockets = sockets
        """What it listens on."""

    async def leave(self) -> None:
        """Say that all is loaded, and wait until it has released the log, or has ended."""
        if not await self._is_released():
            # It was killed: its line has an end before its lock on the log has.
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(self._process, ended.set)
            await ended.wait()
            loop.remove_reader(self._process)
        os.close(self._process)

    async def _is_released(self) -> bool:
        loop = asyncio.get_running_loop()
        with self._line as line:
            try:
                await loop.sock_sendall(line, READY)
                return await loop.sock_recv(line, 1) == RELEASED
            except ConnectionError:  # it hears nothing, or has left unread what it was told
                return False


def predecessor(environ: MutableMapping[str, str] = os.environ) -> Predecessor | None:
    """Return whose successor this process is; None: it is nobody's, or that was asked before."""
    given = environ.pop(VARIABLE, None)
    if given is None:
        return None
    first, process, *others = map(int, given.split())
    os.set_inheritable(process, False)
    line, *sockets = (socket.socket(fileno=number) for number in (first, *others))
    for each in (line, *sockets):
        each.set_inheritable(False)
        each.setblocking(False)
    return Predecessor(line, process, sockets)

"""Who started this process, gives it its sockets and is told how it is.

That is systemd, or a supervisor that has several workers (`workers`), which is told the same.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from pov_rt.cli.options import SettingsOptions
from pov_rt.config.settings import SettingsError
from pov_rt.runtime.process import logs
from pov_rt.runtime.process.systemd import listen_sockets, notify, watchdog_interval_s

WORKER = "_POV_RT_WORKER"
"""The variable in which a worker finds its `HandOver`."""
ADMIN_PORT = "X_ADMIN_PORT"
"""What a node says beside READY=1; systemd has no use for it."""
RELEASE_S = 20.0
"""How long a node may take to end after the drain, before its manager kills the process."""
REPLACED = b"replaced"
"""What a worker is told that is to end for another one, which has its port."""


class Manager:
    """systemd, if it is there: sd_notify(3), sd_listen_fds(3)."""

    port_stays = False
    """Whether the port is open when this process has ended, for the next one."""

    def sockets(self) -> list[socket.socket]:
        """Return the listening sockets that were handed over, non-blocking; call it once."""
        found = listen_sockets()
        self.port_stays = bool(found)
        return found

    def notify(self, state: str) -> None:
        """Tell how this process is, such as `READY=1`."""
        notify(state)

    def takes_another(self) -> bool:
        """Tell whether another process can go on in the place of this one, on the same port."""
        return self.port_stays and "NOTIFY_SOCKET" in os.environ

    def watchdog_interval_s(self) -> float | None:
        """Return how often to tell `WATCHDOG=1`; None if nobody waits for it."""
        return watchdog_interval_s()

    def on_replaced(self, end: Callable[[], None]) -> None:
        """Have `end` called on the running loop when a manager says so that sends no signal."""


class HandOver(msgspec.Struct):
    """What a supervisor hands over to a worker: its number from 1 on, descriptors, and terms."""

    number: int
    channel: int
    """A socket that takes what is told, and has an end when the supervisor is gone."""
    sockets: list[int]
    admin_port: int
    """The one that it had before; 0 at its first start."""
    watchdog_s: float
    port_stays: bool
    """Whether the port is open when the supervisor has ended, too."""


class Supervisor(Manager):
    """The supervisor, as its worker sees it."""

    def __init__(self, given: HandOver) -> None:
        self.port_stays = given.port_stays
        self._channel = _taken(given.channel)
        self._sockets = given.sockets
        self._watchdog_s = given.watchdog_s

    def sockets(self) -> list[socket.socket]:
        return [socket.socket(fileno=_taken(number)) for number in self._sockets]

    def notify(self, state: str) -> None:
        with suppress(OSError):  # it is gone, which `on_replaced` sees
            os.write(self._channel, state.encode())

    def takes_another(self) -> bool:
        return False  # it replaces its workers itself

    def watchdog_interval_s(self) -> float | None:
        return self._watchdog_s / 2

    def on_replaced(self, end: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def hear() -> None:
            loop.remove_reader(self._channel)
            # Its end is that of the supervisor, which may have left something unread: nobody would
            # start this process anew.
            with suppress(ConnectionResetError):
                self.port_stays |= os.read(self._channel, 64) == REPLACED
            end()

        loop.add_reader(self._channel, hear)


def find_manager(options: SettingsOptions) -> tuple[Manager, SettingsOptions]:
    """Return who started this process, and the options that are its own then.

    A worker is a node like any other one: it has an admin port and a folder of its own. Raises
    `SettingsError`.
    """
    given = os.environ.pop(WORKER, None)
    if given is None:
        return Manager(), options
    worker = msgspec.json.decode(given, type=HandOver)
    logs.name_worker(worker.number)
    server = options.load().settings.server
    # Where any port will do it keeps the one that it had: whoever asks there knows no other.
    first = server.admin_port
    admin_port = first + worker.number - 1 if first else worker.admin_port
    own: dict[str, object] = {"server.workers": 1, "server.admin_port": admin_port}
    if server.data:
        folder = Path(server.data, f"worker-{worker.number}")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"server.data: cannot make {folder}: {error.strerror}") from error
        own["server.data"] = str(folder)
    return Supervisor(worker), options.with_flags(own)


def _taken(descriptor: int) -> int:
    """Return an inherited descriptor, non-blocking; what this process starts does not have it."""
    os.set_inheritable(descriptor, False)
    os.set_blocking(descriptor, False)
    return descriptor

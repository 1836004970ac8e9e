"""The sockets that a node listens on, and the file that a Unix socket is."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress

from pov_rt.config.networks import read_address
from pov_rt.config.settings import ServerSettings, SettingsError
from pov_rt.web.addresses import is_loopback

BACKLOG = 4096
"""Connections that the kernel keeps for us; it takes no more than net.core.somaxconn."""
CHOOSE_PORT = "choose another port with --port (server.port)"
CHOOSE_ADMIN_PORT = "choose another port with --admin-port (server.admin_port)"


class OwnSockets:
    """The sockets that a node made, and did not inherit. Owner: the web server."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._files: dict[str, tuple[int, int]] = {}
        """Device and inode of our Unix sockets, which another server may have replaced since."""

    def listen(
        self,
        host: str,
        port: int,
        unix: str | None = None,
        remedy: str = CHOOSE_PORT,
        *,
        reuse_port: bool = False,
    ) -> list[socket.socket]:
        """Listen on an address, or on a Unix socket. Raises `SettingsError`.

        `remedy` says what to do if another program has it; with `reuse_port` others that ask for
        the same may have it, too.
        """
        try:
            if unix is not None:
                sock = _listen_unix(unix)
                self._files[unix] = _file_id(unix)
            else:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                # All addresses are those of both kinds, whatever net.ipv6.bindv6only says.
                both = read_address(host) == "::" and socket.has_dualstack_ipv6()
                sock = socket.create_server(
                    (host, port),
                    family=family,
                    backlog=BACKLOG,
                    dualstack_ipv6=both,
                    reuse_port=reuse_port,
                )
                sock.setblocking(False)
        except (OSError, ValueError, OverflowError) as error:
            place = f"[{host}]" if ":" in host else host
            where = unix if unix is not None else f"{place}:{port}"
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise SettingsError(
                    f"cannot listen on {where}: another program does already; {remedy}"
                ) from error
            raise SettingsError(f"cannot listen on {where}: {error}") from error
        self._sockets.append(sock)
        return [sock]

    def close(self) -> None:
        """Close them, and remove the files that are still ours."""
        for sock in self._sockets:
            sock.close()
        for path, own in self._files.items():
            with suppress(OSError):
                if _file_id(path) == own:
                    os.unlink(path)
        self._sockets.clear()
        self._files.clear()


class WorkerSockets:
    """What the workers of one address listen on. Owner: their supervisor.

    On a port each has a socket of its own (SO_REUSEPORT), and the kernel spreads who connects. It
    stays while a worker is replaced: who connects meanwhile waits for the next one. A Unix socket,
    and what was inherited, is one for all, and whoever has time accepts.
    """

    def __init__(self, settings: ServerSettings, inherited: Sequence[socket.socket]) -> None:
        """Take the address. Raises `SettingsError` if it cannot be had."""
        self._host = settings.host
        self._shared = OwnSockets()
        self._each: dict[int, tuple[OwnSockets, list[socket.socket]]] = {}
        self._for_all = list(inherited)
        if not inherited:
            # Also where each has its own: beside another server's it would be without a word.
            self._for_all = self._shared.listen(settings.host, settings.port, settings.unix)
        self.port = port_of(self._for_all[0])
        """0 of a Unix socket."""
        if not inherited and settings.unix is None:
            self._for_all = []
            self._shared.close()

    def of(self, number: int) -> list[socket.socket]:
        """Return a worker's sockets, made when they are asked for. Raises `SettingsError`."""
        if self._for_all:
            return self._for_all
        if number not in self._each:
            own = OwnSockets()
            self._each[number] = own, own.listen(self._host, self.port, reuse_port=True)
        return self._each[number][1]

    def leave(self, number: int) -> None:
        """Close a worker's own sockets: who connects comes to the others."""
        if number in self._each:
            self._each.pop(number)[0].close()

    def close(self) -> None:
        """Close all but those that were inherited."""
        for number in list(self._each):
            self.leave(number)
        self._shared.close()


def port_of(sock: socket.socket) -> int:
    """Return the port; 0 of a Unix socket."""
    name = sock.getsockname()
    return int(name[1]) if isinstance(name, tuple) else 0


def is_local(sock: socket.socket) -> bool:
    """Tell whether only this machine gets here; before a Unix socket there is a proxy."""
    name = sock.getsockname()
    return isinstance(name, tuple) and is_loopback(name[0])


def _file_id(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _listen_unix(path: str) -> socket.socket:
    """Listen on a Unix socket that the group may write to; one that was left behind is replaced.

    Not so one that somebody listens on (Tornado's `bind_unix_socket` would replace it): that server
    would never hear of a client again.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError("there is a file of that name")
        if _is_listened_on(path):
            raise OSError("another server listens there")
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        sock.bind(path)
        os.chmod(path, 0o660)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_listened_on(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # it is too busy to accept
            return True
        except ConnectionRefusedError:
            return False
    return True

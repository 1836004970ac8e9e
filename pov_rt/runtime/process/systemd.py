"""What systemd expects of a service: sd_notify(3) and sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

FIRST_FD = 3
"""SD_LISTEN_FDS_START."""


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell the service manager, e.g. `READY=1`; return whether there is one to tell.

    A manager that does not listen is no reason to fail.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(address)
            sock.sendall(state.encode())
        except OSError:
            return False
    return True


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how often to send `WATCHDOG=1`: half of WatchdogSec; None if nobody waits for it."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(environ["WATCHDOG_USEC"]) / 2e6
    except (KeyError, ValueError):
        return None


def listen_sockets(environ: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """Return the listening sockets that systemd handed over, non-blocking."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    try:
        count = int(environ.get("LISTEN_FDS", "0"))
    except ValueError:
        return []
    sockets = []
    for fd in range(FIRST_FD, FIRST_FD + count):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        sockets.append(sock)
    return sockets

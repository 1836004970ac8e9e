"""Tells from outside how it stands with a socket that is not read at the moment."""

from __future__ import annotations

import fcntl
import select
import termios


def has_hung_up(fd: int) -> bool:
    """Tell whether the peer ended or reset the connection, whatever is unread."""
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


def unread_bytes(fd: int) -> int:
    """Return how many bytes have arrived that nobody has read."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), "little")

"""A connection from its acceptance to its first request, and through that if it is an upgrade."""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Any, Protocol

from pov_rt.config.networks import read_address
from pov_rt.protocol.errors import ClientError
from pov_rt.runtime import turns
from pov_rt.transport.loop import watch
from pov_rt.web.publication.head import LINE
from pov_rt.web.publication.intake import Intake
from pov_rt.web.stream import HEAD_CHUNK_BYTES, Verdict
from pov_rt.web.upgrade.entry import Admitted, Entry
from pov_rt.web.upgrade.head import NO_IP, Head, read_head

log = logging.getLogger(__name__)


class Host(Protocol):
    """Who has accepted it: a `Listener`."""

    handshakes: turns.Slots
    """Which upgrades may begin in this turn."""

    def enters(self, caller: Accepted) -> bool:
        """Enter who is not let in at once; close it, and return False, if there is no room."""

    def waits(self, caller: Accepted) -> None:
        """Learn that the request is waited for."""

    def asks(self, caller: Accepted) -> None:
        """Learn that the request has come, and waits for its turn."""

    def keeps(self, caller: Accepted, intake: Intake, received: bytes) -> None:
        """Have it kept without HTTP: it begins with a publication."""

    def speaks(self, caller: Accepted, received: bytes, *, verdict: Verdict | None = None) -> None:
        """Have HTTP spoken: it is neither, or an upgrade that is refused by a verdict."""

    def ended(self, caller: Accepted) -> None:
        """Learn that it has ended, or is a wire's."""


class Accepted:
    """A connection whose first request is not answered. Owner: the listener, by its `key`.

    It reads once: what is neither a whole upgrade then, nor begins with a publication, is left to
    HTTP.
    """

    __slots__ = (
        "_closed",
        "_entry",
        "_host",
        "_intake",
        "_watched",
        "address",
        "at",
        "key",
        "peer",
    )

    has_asked = waits_for_news = False

    _entry: Entry
    _intake: Intake

    def __init__(self, key: socket.socket, address: Any, at: float, host: Host) -> None:
        self.key = key
        self.address = address
        self.at = at
        self.peer: str | None = None
        self._host = host
        self._watched = self._closed = False

    @property
    def ip(self) -> str:
        """The address as text; of a Unix socket nothing."""
        return self.address[0] if isinstance(self.address, tuple) else ""

    def begin(self, entry: Entry, intake: Intake) -> None:
        """Read what has come with the connection, or wait for it.

        An upgrade goes to the entry, and who begins with a publication is kept for the intake.
        """
        self._entry, self._intake = entry, intake
        data = self._receive()
        if data is not None:
            self._take(data)
        elif self._host.enters(self):
            self._host.waits(self)
            self._watched = True
            watch(asyncio.get_running_loop(), self.key.fileno(), self)

    def is_overdue(self, now: float, request_s: float, idle_s: float) -> bool:
        """Tell whether the request has been waited for for too long."""
        return self._watched and now - self.at >= request_s

    def close(self) -> None:
        """End it."""
        self._closed = True
        self._unwatch()
        self.key.close()
        self._host.ended(self)

    def readable(self) -> None:
        """Read what there is; the loop's part."""
        data = self._receive()
        if data is not None:
            self._take(data)

    def _receive(self) -> bytes | None:
        """Return what has come; None if nothing has, and nothing at the end."""
        try:
            return self.key.recv(HEAD_CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def _take(self, data: bytes) -> None:
        if not data:
            self.close()
            return
        ip = self.ip
        found = read_head(data, read_address(ip) or NO_IP, is_unix=not ip)
        if found is None and data.startswith(LINE):
            self._unwatch()
            self._host.keeps(self, self._intake, data)
        elif found is None:
            self._speak(data)
        elif self._host.handshakes.take_now():
            self._come_in(data, *found)
        elif self._host.enters(self):
            self._unwatch()
            self._host.asks(self)
            self._host.handshakes.wait(partial(self._come_in_later, data, *found))

    def _come_in_later(self, data: bytes, head: Head, behind: bytes) -> bool:
        if not self._closed:
            self._come_in(data, head, behind)
        return not self._closed

    def _come_in(self, data: bytes, head: Head, behind: bytes) -> None:
        judged: Admitted | Verdict | None = None
        try:
            judged = self._judge(head)
            if isinstance(judged, Admitted):
                # First: who is told of the upgrade finds no request any more.
                self._host.ended(self)
                self._watched = False  # who reads from here on is the wire
                self._entry.open(self.key, behind, judged)
            else:
                self._speak(data, judged)
        except Exception:  # a bug of ours; it must end this client only
            log.exception("an upgrade failed")
            self.close()
        finally:
            judged = None  # its error knows this frame: together they would wait for the collector

    def _judge(self, head: Head) -> Admitted | Verdict | None:
        """Return who may come in, or why nobody may; None: HTTP has to say what is wrong."""
        try:
            return self._entry.judge(head)
        except ClientError:
            return None

    def _speak(self, data: bytes, verdict: Verdict | None = None) -> None:
        self._unwatch()
        self._host.speaks(self, data, verdict=verdict)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            asyncio.get_running_loop().remove_reader(self.key.fileno())

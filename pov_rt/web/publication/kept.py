"""A connection whose requests are publications, each answered where its bytes are read."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any, Protocol

from pov_rt.auth.tokens import Identity
from pov_rt.config.networks import read_address
from pov_rt.protocol.errors import ClientError
from pov_rt.runtime import turns
from pov_rt.runtime.bounds import payer
from pov_rt.transport.loop import watch
from pov_rt.web.bodies import BODY_S
from pov_rt.web.publication.head import END, MOST_BYTES, Framed, Shape, frame, may_become
from pov_rt.web.publication.intake import Intake, Sender
from pov_rt.web.routes.activities import Answer
from pov_rt.web.upgrade.head import NO_IP

Done = Answer | BaseException | None
"""What became of a publication: its answer, what it was refused with, or nothing yet."""


class Host(Protocol):
    """Who has accepted it: a `Listener`."""

    requests: turns.Slots
    """Which requests may begin in this turn."""

    def waits(self, caller: Kept) -> None:
        """Learn that a request is waited for."""

    def asks(self, caller: Kept) -> None:
        """Learn that the head of a request has come."""

    def speaks(
        self,
        caller: Kept,
        received: bytes,
        *,
        outcome: Answer | BaseException | None,
        unsent: bytes,
    ) -> None:
        """Have HTTP spoken, once `unsent` is sent; `outcome` is that of the first request."""

    def ended(self, caller: Kept) -> None:
        """Learn that it has ended."""

    def read_away(self, sock: socket.socket) -> None:
        """Take a socket over on which nothing will be sent any more."""


class Kept:
    """A connection as long as it asks for nothing but publications. Owner: the listener.

    Requests are answered one after the other. While one is, the next may come, and then no more is
    read. Whatever is no publication as most are, or does not come to a good end, is left to HTTP
    with what came behind it.
    """

    __slots__ = (
        "_data", "_has_turn", "_host", "_intake", "_is_busy", "_is_closed",
        "_is_watched", "_limit_s", "_loop", "_remote_ip", "_sender", "_shape", "_since", "address",
        "at", "has_asked", "ip", "key", "peer",
    )  # fmt: skip

    waits_for_news = False

    def __init__(
        self,
        key: socket.socket,
        address: Any,
        ip: str,
        peer: str | None,
        host: Host,
        intake: Intake,
    ) -> None:
        self.key = key
        self.address = address
        self.ip = ip
        self.peer = peer
        self.has_asked = False
        """The head of a request has come."""
        self._host = host
        self._intake = intake
        self._remote_ip = read_address(ip) or NO_IP
        self._loop = asyncio.get_running_loop()
        self.at = self._loop.time()
        """When it began, or ended, to be this."""
        self._data = b""
        self._shape: Shape | None = None
        self._sender: Sender | None = None
        self._since = self._limit_s = 0.0
        self._has_turn = self._is_busy = self._is_closed = self._is_watched = False

    def begin(self, data: bytes) -> None:
        """Take what has come already, and what comes from here on."""
        self._data = data
        self._advance()

    def is_overdue(self, now: float, request_s: float, idle_s: float) -> bool:
        """Tell whether a request has been on its way for too long, or none has come for too long.

        Ask about once a second.
        """
        limit_s = idle_s if not self._data else BODY_S if END in self._data else request_s
        if self._is_busy or limit_s != self._limit_s:
            self._since = now
        self._limit_s = 0.0 if self._is_busy else limit_s
        return now - self._since >= limit_s

    def close(self) -> None:
        """End it."""
        if not self._is_closed:
            self._leave()
            self.key.close()
            self._host.ended(self)

    def _leave(self) -> None:
        self._is_closed = True
        self._unwatch()

    def _watch(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            watch(self._loop, self.key.fileno(), self)

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self.key.fileno())

    def readable(self) -> None:
        """Read what there is; the loop's part."""
        try:
            data = self.key.recv(MOST_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._data = self._data + data if self._data else data
        if self._is_busy:
            self._unwatch()  # its end, if this is it, is seen again
        elif data:
            self._advance()
        else:
            self.close()

    def _advance(self) -> None:
        """Look at what has come: a request is answered, waited for, or left to HTTP."""
        if self._is_closed:
            return
        self._is_busy = False
        framed = frame(self._data, self._shape, self._remote_ip, is_unix=not self.ip)
        if framed is None:
            if may_become(self._data):
                self._wait()
            else:
                self._speak()
            return
        self.has_asked = True
        self._host.asks(self)
        # Before its body is there: who may not publish is told so without it.
        identity = self._judge(framed)
        if identity is None:
            self._speak()
        elif len(self._data) < framed.end:
            self._watch()
        elif self._has_turn or self._host.requests.take_now():
            self._has_turn = False
            self._publish(framed, identity)
        else:
            self._is_busy = True
            self._host.requests.wait(self._take_turn)

    def _wait(self) -> None:
        """Wait for a request, or for the rest of its head."""
        self._is_busy = False
        self._watch()
        self._host.waits(self)

    def _take_turn(self) -> bool:
        self._has_turn = True
        self._advance()
        return not self._has_turn

    def _judge(self, framed: Framed) -> Identity | None:
        """Return who publishes; None where HTTP has to say what is wrong, or to look again."""
        try:
            if self._sender is None or framed.shape is not self._shape:
                self._sender = self._intake.read_sender(framed.shape.head)
                self._shape = framed.shape
            return self._intake.identify(self._sender)
        except ClientError:
            return None

    def _publish(self, framed: Framed, identity: Identity) -> None:
        body, owner = self._data[framed.start : framed.end], identity.owner
        if self._sender is None or not self._intake.bodies.take_whole(owner, len(body)):
            self._speak()
            return
        self._is_busy, began = True, self._loop.time()
        # For that alone: what is asked next on the connection may be another's.
        before = payer.set(owner)
        try:
            done = self._intake.publish(identity, self._sender, body)
        except Exception as error:  # there is no such body; or a bug, of which HTTP tells
            if isinstance(error, ClientError):
                error.__traceback__ = None  # its frames know it: they would wait for the collector
            done = self._loop.create_future()
            done.set_exception(error)
        finally:
            payer.reset(before)
        finish = partial(self._finish, framed, owner, self._sender, began)
        if done.done():
            finish(done)
        else:
            done.add_done_callback(finish)

    def _finish(
        self,
        framed: Framed,
        owner: str,
        sender: Sender,
        began: float,
        done: asyncio.Future[Answer],
    ) -> None:
        """Answer what has been published."""
        self._intake.bodies.shares.give(owner, framed.end - framed.start)
        if done.cancelled():
            self.close()
            return
        outcome = done.exception() or done.result()
        if self._is_closed:  # nobody is told
            return
        answer = None
        if isinstance(outcome, Answer):
            answer = self._intake.answer(outcome, sender, owner, self._loop.time() - began)
        if answer is None:
            self._speak(outcome)
            return
        self._data, self._limit_s = self._data[framed.end :], 0.0
        try:
            sent = self.key.send(answer)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:  # it has gone
            self.close()
            return
        if sent < len(answer):
            self._speak(unsent=answer[sent:])
        elif self._intake.server.draining:  # as it was told
            self._leave()
            self._host.ended(self)
            self._host.read_away(self.key)
        elif self._data:
            self._loop.call_soon(self._advance)
        else:
            self._wait()

    def _speak(self, outcome: Done = None, *, unsent: bytes = b"") -> None:
        """Leave the connection, and what has come on it, to HTTP."""
        self._leave()
        self.at = self._loop.time()
        self._host.speaks(self, self._data, outcome=outcome, unsent=unsent)

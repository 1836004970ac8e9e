"""One connection to Redis: commands go out in order, and replies come back in that order.

RESP2. A caller that is cancelled leaves the connection as it is: its reply is still read, and goes
to nobody. A connection that does not answer in time is ended, for nothing says what its next reply
would belong to.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from traceback import clear_frames
from typing import Any, Protocol, cast

import hiredis

from pov_rt.engine.redis.client.address import Address
from pov_rt.protocol.errors import Unavailable

CONNECT_S = 1.0
"""How long a connection may take to be there and to let us in."""

Reply = Any
"""Bytes, int, None or a list of these; `ServerError` where Redis refused."""

DENIED = "The user executing the script can't"
"""What Redis says, by another word, of a function that does what its caller may not."""
CLOSED = "Redis closed the connection"
PRIMARY = b"master"
"""What a primary calls itself."""

_NO_REPLY = object()


class Away(Unavailable):
    """Redis cannot be reached, or the connection ended before it answered."""


class ServerError(Exception):
    """Redis's own refusal, such as `OOM command not allowed`; `code` is its first word."""

    @property
    def code(self) -> str:
        """What kind of refusal it is: `ERR`, `OOM`, `NOPERM`, `READONLY`, `LOADING`, ..."""
        if DENIED in str(self):
            return "NOPERM"
        return str(self).partition(" ")[0]


def pack(*command: bytes | str | int) -> bytes:
    """Return a command as it goes out."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # of any length
    return packed


class Observer(Protocol):
    """Who is told how Redis answers."""

    def answered(self, seconds: float) -> None:
        """Take how long a pipeline took."""

    def refused(self, error: ServerError) -> None:
        """Take a refusal."""


class _Waiting:
    """A pipeline that was sent: its replies so far, and who is given them all."""

    __slots__ = ("count", "future", "replies", "sent_at")

    def __init__(self, count: int, future: asyncio.Future[list[Reply]], sent_at: float) -> None:
        self.count = count
        self.future = future
        self.replies: list[Reply] = []
        self.sent_at = sent_at


class Connection(asyncio.Protocol):
    """A connection; `connect` opens one."""

    def __init__(self, deadline_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline_s = deadline_s
        self._reader = hiredis.Reader(
            protocolError=ConnectionError, replyError=ServerError, notEnoughData=_NO_REPLY
        )
        self._waiting: deque[_Waiting] = deque()
        self.heard_at = 0.0
        """When Redis said something last, by the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._reason = CLOSED
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self.on_message: Callable[[Sequence[Reply]], None] | None = None
        """Who is given all that was read at once, instead of those who wait: for pub/sub."""
        self.observer: Observer | None = None

    @property
    def is_open(self) -> bool:
        """Whether commands may still be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def buffered(self) -> int:
        """Bytes that were sent and that the system has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, packed: bytes, count: int) -> asyncio.Future[list[Reply]]:
        """Send `count` commands at once; return what will have their replies, refusals among them.

        Fails with `Away` when the connection ends before all are there.
        """
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self._transport is None or self._transport.is_closing():
            future.set_exception(Away(self._reason))
            return future
        now = self._loop.time()
        self._waiting.append(_Waiting(count, future, now))
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._deadline_s, self._check)
        self._transport.write(packed)
        return future

    def write(self, packed: bytes) -> None:
        """Send commands whose replies come as messages. Ignored when the connection has ended."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(packed)

    async def call(self, *command: bytes | str | int) -> Reply:
        """Send one command; return its reply. Raises `ServerError`, `Away`."""
        (reply,) = await self.send(pack(*command), 1)
        if isinstance(reply, ServerError):
            raise reply
        return reply

    def abort(self, reason: str) -> None:
        """End the connection at once; those who wait fail with the reason."""
        if self._transport is not None and not self._lost.done():
            self._reason = reason
            self._transport.abort()

    async def close(self) -> None:
        """End the connection, and wait until it has. May be called twice."""
        self.abort("we closed the connection")
        if self._transport is not None:
            await self.ended()

    async def ended(self) -> str:
        """Return when the connection has ended, with the reason."""
        await asyncio.wait([self._lost])  # a caller that is cancelled does not cancel it
        return self._lost.result()

    # What the loop calls:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what Redis says."""
        self.heard_at = self._loop.time()
        reader = self._reader
        try:
            reader.feed(data)
            replies = []
            while (reply := reader.gets()) is not _NO_REPLY:
                replies.append(reply)
        except ConnectionError as error:
            self.abort(f"what answers is no Redis: {error}")
            return
        if self.on_message is not None:
            self.on_message(replies)
        else:
            for reply in replies:
                self._take(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell all who wait."""
        if error is not None:
            self._reason = str(error) or type(error).__name__
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if not each.future.done():
                each.future.set_exception(Away(self._reason))
        self._lost.set_result(self._reason)

    def _take(self, reply: Reply) -> None:
        if not self._waiting:
            self.abort("Redis said what nobody had asked")
            return
        first = self._waiting[0]
        first.replies.append(reply)
        if self.observer is not None and isinstance(reply, ServerError):
            self.observer.refused(reply)
        if len(first.replies) == first.count:
            self._waiting.popleft()
            if self.observer is not None:
                self.observer.answered(self.heard_at - first.sent_at)
            if not first.future.done():  # else its caller was cancelled
                first.future.set_result(first.replies)

    def _check(self) -> None:
        """End the connection if Redis owes a reply for too long and says nothing at all."""
        self._timer = None
        if not self._waiting:
            return
        due = max(self._waiting[0].sent_at, self.heard_at) + self._deadline_s
        if due <= self._loop.time():
            self.abort(f"Redis did not answer for {self._deadline_s:g} s")
        else:
            self._timer = self._loop.call_at(due, self._check)


async def connect(
    address: Address, deadline_s: float, name: str, timeout_s: float = CONNECT_S
) -> Connection:
    """Return a connection that is let in, with its name. Raises `Away`, `ServerError`."""
    loop = asyncio.get_running_loop()
    connection: Connection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            _, connection = await loop.create_connection(
                lambda: Connection(deadline_s), address.host, address.port, ssl=address.tls()
            )
            await _enter(connection, address, name)
    except TimeoutError:
        if connection is not None:
            await connection.close()
        raise Away(f"Redis at {address} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        # A handshake that fails is in a circle with its frames, and each has a TLS context of its
        # own: a Redis that is away would fill the memory (docs/measurements.md, failed handshakes).
        clear_frames(error.__traceback__)
        raise Away(f"Redis at {address} cannot be reached: {error}") from error
    except BaseException:
        if connection is not None:
            await connection.close()
        raise
    return connection


async def _enter(connection: Connection, address: Address, name: str) -> None:
    commands: list[bytes] = []
    if address.password:
        who = (address.user, address.password) if address.user else (address.password,)
        commands.append(pack("AUTH", *who))
    if address.database:
        commands.append(pack("SELECT", address.database))
    if address.must_lead:
        commands.append(pack("ROLE"))
    commands.append(pack("CLIENT", "SETNAME", name))
    replies = await connection.send(b"".join(commands), len(commands))
    # Without a name nothing is wrong, where the right to CLIENT is not ours.
    for reply in replies[:-1]:
        if isinstance(reply, ServerError):
            raise reply
    if address.must_lead and (role := replies[-2][0]) != PRIMARY:
        raise Away(f"Redis at {address} ought to be the primary, and is a {role.decode()} still")
    if isinstance(replies[-1], ServerError) and replies[-1].code != "NOPERM":
        raise replies[-1]

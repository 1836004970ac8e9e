"""A connection that comes back: when it is lost it is opened again, and prepared anew."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence

from pov_rt.engine.redis.client.address import Place
from pov_rt.engine.redis.client.connection import Away, Connection, Reply, ServerError, connect
from pov_rt.protocol.errors import Unavailable

FIRST_S, LONGEST_S = 0.1, 2.0
"""The most that is waited before the first try to come back, and before any later one."""
REFUSED = frozenset({"WRONGPASS", "NOAUTH", "NOPERM"})
"""Refusals that somebody has to mend: those are not tried again in quick succession."""
TURNED_AWAY = frozenset({"READONLY", "LOADING", "MASTERDOWN", "NOAUTH"})
"""Refusals that are about this server, or what it takes us for, and not about the command."""
TEMPORARY = TURNED_AWAY | {"OOM", "BUSY", "NOPERM", "MISCONF", "NOREPLICAS", "CLUSTERDOWN"}
"""Refusals of commands that are right, by a server that cannot or may not."""
MOST_WAITING = 20_000
"""Commands whose replies are waited for at a time."""


class Unfit(Unavailable):
    """A server that will not do; the text says what is to be mended."""


class Link:
    """Keeps one connection, to where `address` says each time anew.

    `prepare` is called with each new one before anybody may use it. Whatever it raises of `Away`,
    `ServerError` and `Unavailable` is why there is none as yet.
    """

    def __init__(
        self,
        address: Place,
        name: str,
        deadline_s: float,
        prepare: Callable[[Connection], Awaitable[None]],
    ) -> None:
        self.address = address
        self.name = name
        self.connection: Connection | None = None
        self.problem = f"Redis at {address} was not asked yet"
        """Why there is no connection; empty when there is."""
        self.is_refused = False
        """Whether that is something that somebody has to mend."""
        self.losses = 0
        """How often a connection that was in use has ended."""
        self.on_lost: Callable[[str], None] | None = None
        self.on_turned_away: Callable[[str], None] = self.leave
        """Who is told that the server says that it is not the one to talk to."""
        self._deadline_s = deadline_s
        self._prepare = prepare
        self._up = asyncio.Event()
        self._tried = asyncio.Event()
        self._at_once = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waiting = 0
        self._newest: Connection | None = None
        """The connection in use, or the one that is being prepared."""

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return self.connection is not None and self.connection.is_open

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._run(), name=f"redis {self.name}")

    async def tried(self) -> None:
        """Return after the first try, whatever came of it."""
        await self._tried.wait()

    async def close(self) -> None:
        """End the connection; it does not come back. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        connection, self.connection = self.connection, None
        self._up.clear()
        self.problem = "the engine is closed"
        if connection is not None:
            await connection.close()

    async def ready(self, timeout_s: float) -> Connection:
        """Return the connection, if there is one within so many seconds. Raises `Away`."""
        if not self.is_up and self._task is not None:
            self._up.clear()  # it may have ended a moment ago, which the task has not seen yet
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._up.wait()
        if self.connection is None or not self.connection.is_open:
            raise Away(self.problem or f"Redis at {self.address}: the connection has ended")
        return self.connection

    async def send(self, packed: bytes, count: int, *, repeats: bool = True) -> list[Reply]:
        """Send commands, and return their replies, refusals among them. Raises `Away`.

        A connection that ends before all are there is waited for, and the commands are sent once
        more: not with `repeats` false, for those that would do something twice.
        """
        if self._waiting + count > MOST_WAITING:
            raise Unavailable(f"Redis owes {self._waiting} answers, which is as many as may wait")
        self._waiting += count
        try:
            connection = await self.ready(self._deadline_s)
            try:
                replies = await connection.send(packed, count)
            except Away:
                if not repeats:
                    raise
                connection = await self.ready(self._deadline_s)
                replies = await connection.send(packed, count)
        finally:
            self._waiting -= count
        self.check(connection, replies)
        return replies

    def check(self, connection: Connection, replies: Sequence[Reply]) -> None:
        """Leave a server that says it is not, or not yet, the one to talk to."""
        for reply in replies:
            if isinstance(reply, ServerError) and reply.code in TURNED_AWAY and connection.is_open:
                self.on_turned_away(str(reply))

    def leave(self, reason: str) -> None:
        """End the connection that is in use, or is being prepared, and try anew at once."""
        self._at_once.set()
        if self._newest is not None:
            self._newest.abort(reason)

    async def _run(self) -> None:
        tries = 0
        while True:
            self._at_once.clear()
            try:
                connection = await self._open()
            except (Away, ServerError, Unavailable) as error:
                self._note(error)
                self._tried.set()
                least, most = 0.0, min(LONGEST_S, FIRST_S * 2**tries)
                if self.is_refused:
                    least, most = LONGEST_S / 2, LONGEST_S
                tries = min(tries + 1, 10)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(random.uniform(least, most)):  # noqa: S311  (jitter)
                        await self._at_once.wait()
                        tries = 0
                continue
            tries = 0
            self.connection, self.problem, self.is_refused = connection, "", False
            self._up.set()
            self._tried.set()
            reason = await connection.ended()
            self.connection, self.problem = None, f"Redis at {self.address}: {reason}"
            self._up.clear()
            self.losses += 1
            if self.on_lost is not None:
                self.on_lost(reason)

    def _note(self, error: Exception) -> None:
        """Say why there is no connection."""
        self.problem = str(error)
        self.is_refused = isinstance(error, Unfit)
        if isinstance(error, ServerError):
            self.problem = f"Redis at {self.address} refuses us: {error}"
            self.is_refused = error.code in REFUSED

    async def _open(self) -> Connection:
        address = await self.address.find()
        connection = await connect(address, self._deadline_s, self.name)
        self._newest = connection
        try:
            if self.address.is_now(address):
                await self._prepare(connection)
            else:
                connection.abort("it has moved while it was dialled")
        except BaseException:
            await connection.close()
            raise
        if not connection.is_open:
            raise Away(f"Redis at {address}: {await connection.ended()}")
        return connection


def refusal(error: ServerError) -> Exception:
    """Return what a refusal is to who asked: `Unavailable` if it may work later, else itself."""
    if error.code in TEMPORARY:
        return Unavailable(f"Redis refuses: {error}")
    return error

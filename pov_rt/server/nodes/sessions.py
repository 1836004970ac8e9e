"""Sessions without a WebSocket, whose requests may come to any node.

The id of a session has the run of its node behind the last dot. A request that comes to another
one is checked there, token and sizes, and handed to the node that has the session: what that one
says is the answer. So the session's own budgets and order hold, whichever way its requests take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from pov_rt.auth.tokens import Identity
from pov_rt.connections.budgets import BYTE
from pov_rt.dispatch.host import Services
from pov_rt.engine.base import Peer
from pov_rt.protocol.errors import NotFound, RateLimited, Unavailable
from pov_rt.server.nodes.asking import WAIT_S, Asking, Question, Silent
from pov_rt.transport.polled import POLLED_FRAMING, PolledSession
from pov_rt.transport.stream import MESSAGE_FRAMING, EventWire

GONE = "There is no such session, or its node has ended: open one anew"
SILENT = "The node that has the session does not answer; try again"
SESSIONS = (MESSAGE_FRAMING, POLLED_FRAMING)
"""What the transport of a session writes by, and no other's."""
PRICE = 1.0
"""Of handing on what a request brings, besides its bytes."""
BUSY_S = 0.2
"""When a session may have done what came for it."""


class Sent(msgspec.Struct):
    """What a user sent for a session."""

    session: str
    user: str
    messages: list[bytes]


class Wanted(msgspec.Struct):
    """What is fetched of a session; see `Sessions.fetch`."""

    session: str
    user: str
    after: int
    wait_s: float


RECEIVE = Question("receive", Sent, type(None))
FETCH = Question("fetch", Wanted, tuple[bytes, int])

BodyT = TypeVar("BodyT")
AnswerT = TypeVar("AnswerT")


class Sessions:
    """Finds sessions wherever they are. Owner: the server.

    `polled` has those of this node that are fetched, by user and the connection's id.
    """

    def __init__(self, services: Services, asking: Asking) -> None:
        self._directory = services.directory
        self._budgets = services.budgets
        self._run = services.run
        self._asking = asking
        self._asked: set[asyncio.Future[tuple[bytes, int]]] = set()
        self.polled: dict[tuple[str, str], PolledSession] = {}
        asking.on(RECEIVE, self._receive)
        asking.on(FETCH, self._fetch)

    async def receive(self, session: str, user: Identity, messages: Sequence[bytes]) -> None:
        """Have a user's session handle messages, in order; UTF-8.

        Raises `NotFound` if there is none, and `RateLimited` while it has not done what came
        before. For one of another node also `RateLimited` for a debt, `TooLarge`, and `Unavailable`
        if that does not answer: then nobody knows whether they are handled.
        """
        sent = Sent(session, user.user_id, list(messages))
        if (peer := self._peer(session)) is None:
            await self._receive(sent)
        else:
            # Here, before others wait for it; the session pays for what it handles.
            self._budgets.pay(user.owner, PRICE + sum(map(len, messages)) * BYTE)
            await self._ask(peer, RECEIVE, sent)

    async def fetch(
        self, session: str, user_id: str, after: int, wait_s: float, gone: asyncio.Future[None]
    ) -> tuple[bytes, int]:
        """Return what a user's session has behind a place; see `PolledSession.fetch`.

        Raises `NotFound` if there is no such session or place, and `Unavailable` if another node
        has it that does not answer: what was not answered is there still.
        """
        wanted = Wanted(session, user_id, after, wait_s)
        if (peer := self._peer(session)) is None:
            return await self._fetch(wanted, gone)
        asked = asyncio.ensure_future(self._ask(peer, FETCH, wanted, wait_s + WAIT_S))
        self._asked.add(asked)
        try:
            either: list[asyncio.Future[Any]] = [asked, gone]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._asked.discard(asked)
            asked.cancel()
        return (b"", after) if not asked.done() or asked.cancelled() else asked.result()

    @property
    def waiting(self) -> int:
        """How many requests wait here for what sessions of other nodes are sent."""
        return len(self._asked)

    def release(self) -> None:
        """Answer those at once that nothing came: this node is about to stop."""
        for each in self._asked:
            each.cancel()

    def _peer(self, session: str) -> Peer | None:
        """Return the node that has a session; None: this one. Raises `NotFound`."""
        run = session.rpartition(".")[2]
        if run == self._run:
            return None
        for peer in self._asking.peers:
            if peer.run == run:
                return peer
        raise NotFound(GONE)

    async def _ask(
        self,
        peer: Peer,
        question: Question[BodyT, AnswerT],
        body: BodyT,
        wait_s: float = WAIT_S,
    ) -> AnswerT:
        """Ask the node that has a session, whose name is nothing for clients."""
        try:
            return await self._asking.ask(peer, question, body, wait_s)
        except Silent as error:
            raise Unavailable(SILENT) from error

    async def _receive(self, sent: Sent) -> None:
        connection = self._directory.get(sent.session)
        if connection is None or connection.identity.user_id != sent.user:
            raise NotFound(GONE)
        wire = connection.transport
        if not isinstance(wire, EventWire | PolledSession) or wire.framing not in SESSIONS:
            raise NotFound(GONE)
        if not wire.receive(sent.messages):
            raise RateLimited("Wait for what you sent before", retry_after_s=BUSY_S)

    async def _fetch(
        self, wanted: Wanted, gone: asyncio.Future[None] | None = None
    ) -> tuple[bytes, int]:
        # A client that has gone leaves the other node waiting: for no longer than `wait_s`.
        gone = gone or asyncio.get_running_loop().create_future()
        try:
            session = self.polled[wanted.user, wanted.session]
            return await session.fetch(wanted.after, wanted.wait_s, gone)
        except LookupError:
            raise NotFound(GONE) from None

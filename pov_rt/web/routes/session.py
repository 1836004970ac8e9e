"""A session without a WebSocket: all its messages come as events, and requests bring the client's.

A session is a connection as any other, with another transport. What a request brings for one is
handled as if its socket had brought it, and answered among its events: there an answer has its
place before and behind activities. A request for none is one message, and answered by itself.

Where a network shows nothing of an answer before its end, the events are fetched: each answer has
what came since the one before, and ends (`transport/polled`).

Requests for a session may come to any node (`server/nodes/sessions`).
"""

from __future__ import annotations

import asyncio

from pov_rt.connections.connection import Connection
from pov_rt.dispatch.request import Content
from pov_rt.protocol.errors import InvalidRequest, TooLarge
from pov_rt.transport.polled import PolledSession
from pov_rt.transport.stream import MESSAGE_FRAMING, read_token, write_token
from pov_rt.web.hosts import one_header
from pov_rt.web.http import parse_query
from pov_rt.web.routes.activities import split_batch
from pov_rt.web.routes.stream import MODES, EventsHandler
from pov_rt.web.upgrade.entry import SOCKET

HEADER = "Pov-Rt-Connection"
"""Says whose messages these are: `connectionId` of a session's `welcome`."""


class SessionHandler(EventsHandler):
    """`GET /api/session`."""

    CORS_METHODS = "GET"
    CORS_HEADERS = "Authorization, Content-Type, Last-Event-ID"

    gone: asyncio.Future[None] | None = None
    """Done when the client does not wait for the answer any more."""

    def authorize(self) -> None:
        """Ask for a token as a WebSocket does."""
        self.query = parse_query(self.request.query)
        self.verify(*self.token_of(SOCKET, in_url=True))

    async def get(self) -> None:
        """Open a connection, in the turn in which it is admitted, or fetch what it was sent."""
        live = self.one("live")
        if live not in MODES:
            raise InvalidRequest("live is 'long-poll' or 'sse'", field="live")
        if live == "long-poll":
            await self._fetch()
            return
        client = self.client()
        self.server.admit(self.identity, client["device"])
        wire = self.hand_over(MESSAGE_FRAMING)
        if wire is not None:
            open_ = self.server.arrivals.open
            wire.start(open_(wire, self.identity, kind=Connection, v1=True, **client), b"")

    def on_connection_close(self) -> None:
        """Wait for nothing more."""
        super().on_connection_close()
        if self.gone is not None and not self.gone.done():
            self.gone.set_result(None)

    async def _fetch(self) -> None:
        self.server.streams.admit(self.identity)
        self.gone = asyncio.get_running_loop().create_future()
        self._stream.watch_end()
        last = one_header(self.request, "Last-Event-ID")
        session_id, after = (self._open(), 0) if last is None else self._place(last)
        poll_s = self.server.settings.streams.poll_s
        fetch = self.server.sessions.fetch
        data, place = await fetch(session_id, self.identity.user_id, after, poll_s, self.gone)
        self.set_header("Content-Type", "text/event-stream")
        self.finish(b"%bid:%b\n\n" % (data, write_token(session_id, place).encode()))

    def _open(self) -> str:
        """Open a connection; return its id."""
        client, sessions, user_id = self.client(), self.server.sessions, self.identity.user_id
        self.server.admit(self.identity, client["device"])

        def ended(_: PolledSession) -> None:
            del sessions.polled[user_id, connection.id]

        session = PolledSession(self.bounds, asyncio.get_running_loop(), ended)
        open_ = self.server.arrivals.open
        connection = open_(session, self.identity, kind=Connection, v1=True, **client)
        sessions.polled[user_id, connection.id] = session
        session.start(connection)
        return connection.id

    def _place(self, last: str) -> tuple[str, int]:
        place = read_token(last)
        if place is None:
            raise InvalidRequest(
                "Last-Event-ID is the id of the answer before", field="Last-Event-ID"
            )
        return place


class MessagesHandler(EventsHandler):
    """`POST /api/messages`."""

    CORS_METHODS = "POST"
    CORS_HEADERS = f"Authorization, Content-Type, {HEADER}"
    BODIES = frozenset({"POST"})

    def authorize(self) -> None:
        """Ask for a token as a WebSocket does, but never for a cookie, nor in the URL."""
        self.query = parse_query(self.request.query)
        self.verify(*self.token_of(SOCKET, in_url=False))

    async def post(self) -> None:
        """Answer one message, or have a session take some."""
        content = self.content
        if not _is_text(content):
            raise InvalidRequest("The body is not UTF-8")
        session_id = one_header(self.request, HEADER)
        if session_id is not None:
            await self._receive(session_id, content)
            return
        if not content.lstrip().startswith(b"{"):
            raise InvalidRequest("The body is a message, which is a JSON object")
        self._check_size(content)
        requests = self.server.requests
        answers = await requests.handle(self.identity, bytes(content), **self.client())
        self.answer_bytes(b"[%b]" % b",".join(answers))

    async def _receive(self, session_id: str, content: Content) -> None:
        """Have a session handle one message or several, in order."""
        items = split_batch(content, lines=False)
        messages = [bytes(each) for each in ([content] if items is None else items)]
        most = self.server.settings.limits.inbox_messages
        if len(messages) > most:
            raise TooLarge(f"A request has at most {most} messages")
        for message in messages:
            self._check_size(message)
        await self.server.sessions.receive(session_id, self.identity, messages)
        self.set_status(204)
        self.finish()

    def _check_size(self, message: Content) -> None:
        most = self.server.settings.limits.message_bytes
        if len(message) > most:
            raise TooLarge(f"A message has at most {most} bytes")


def _is_text(content: Content) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True

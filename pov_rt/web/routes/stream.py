"""Logs over HTTP: what is there, and what comes, for whoever has no WebSocket.

It is the read side of Durable Streams, with its names for parameters, headers and events; what it
answers is plain JSON and plain server-sent events, too. All that is of that protocol is here and in
`transport/stream`. docs/streams.md says what a client gets, docs/protocol.md the whole contract.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate

from pov_rt.auth.grants import Kind
from pov_rt.delivery.filters import Only
from pov_rt.dispatch.request import decode_body
from pov_rt.engine.base import Position, Top
from pov_rt.plugin.interfaces import Allowed
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import InvalidRequest, TokenError
from pov_rt.server.streams import Log, LogKind, LogPage, locate
from pov_rt.transport.bounds import Bounds, Framing
from pov_rt.transport.stream import (
    ANSWERED,
    POSITION,
    UNANSWERED,
    EventWire,
    PollTransport,
    epoch_of,
    offset_of,
    read_token,
    write_token,
)
from pov_rt.transport.wire import WENT_AWAY, Wire
from pov_rt.web.hosts import one_header
from pov_rt.web.http import API_KINDS, JsonHandler, bearer, parse_query
from pov_rt.web.upgrade.entry import SOCKET, read_device

MEMBERS = frozenset({Kind.SOCKET, Kind.ACCESS})
"""Who has an inbox."""
START, NOW = "-1", "now"
"""The offsets that are no tokens: before all that is kept, and behind it."""
MODES = (None, "long-poll", "sse")
FILTERS = frozenset({"types", "actions", "users", "notUsers"})
MAX_CURSOR_DIGITS = 15
POLL_GRACE_S = 30.0
"""How much longer than its answer may take the connection of a request may last."""
FOR_ALL = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "cross-origin"}
"""What every answer says to browsers."""
EVENT_HEADERS = FOR_ALL | {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-store",
    "X-Accel-Buffering": "no",  # or nginx holds it back
    "Connection": "close",
}


class EventsHandler(JsonHandler):
    """Answers with events; the socket is then a wire's, and this is gone."""

    started: Callable[[Wire], None]
    ended: Callable[[Wire], None]
    bounds: Bounds
    query: Sequence[tuple[str, str]] = ()

    def set_default_headers(self) -> None:
        """Say what holds for every answer."""
        super().set_default_headers()
        for name, value in FOR_ALL.items():
            self.set_header(name, value)

    def one(self, wanted: str) -> str | None:
        """Return a parameter of the query that may be there once. Raises `InvalidRequest`."""
        found = [value for name, value in self.query if name == wanted]
        if len(found) > 1:
            raise InvalidRequest(f"There is more than one {wanted}", field=wanted)
        return found[0] if found else None

    def client(self) -> Mapping[str, str]:
        """Return what connections want to know of a client. Raises as `read_device`."""
        agent = self.request.headers.get("User-Agent", "")[:200]
        return {"device": read_device(self.query), "remote_ip": self.ip, "user_agent": agent}

    def token_of(self, kinds: frozenset[Kind], *, in_url: bool) -> tuple[str, frozenset[Kind]]:
        """Return the token, and which kinds may come where it is. Raises `TokenError`.

        A bearer's; or `in_url`, for what cannot send one, a socket's.
        """
        sent = bearer(self.request)
        given = [value for name, value in self.query if name == "token"]
        if given:
            if sent is not None or len(given) > 1:
                raise TokenError from ValueError("more than one token")
            if not in_url:
                raise TokenError("In the URL a token is for events alone") from ValueError("no")
            return given[0], SOCKET & kinds
        if sent is None:
            raise TokenError("Send a token: Authorization: Bearer ...") from ValueError("no token")
        return sent, kinds

    def hand_over(self, framing: Framing) -> EventWire | None:
        """Send the head of an answer that ends with its connection, and has no length.

        Returns what sends the events, to be started; None if the client has gone.
        """
        headers = {**EVENT_HEADERS, **self.page_headers(), "Date": formatdate(usegmt=True)}
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        stream = self._stream
        self.detach()
        if stream.closed():
            return None
        sock, _ = stream.release()
        wire = EventWire(sock, self.bounds, asyncio.get_running_loop(), self.ended, framing)
        self.started(wire)
        wire.send(f"HTTP/1.1 200 OK\r\n{''.join(lines)}\r\n".encode())
        # As after a handshake; what is left takes little
        # (docs/measurements.md, followers over HTTP).
        self.ui = None  # type: ignore[assignment]
        return wire


class StreamHandler(EventsHandler):
    """`GET /api/povs/{povId}/stream`, and `HEAD` of its end."""

    CORS_METHODS = "GET, HEAD"
    CORS_HEADERS = "Authorization, Content-Type, If-None-Match, Last-Event-ID"
    CORS_EXPOSED = (
        "ETag, Retry-After, Stream-Closed, Stream-Cursor, Stream-Next-Offset, Stream-Up-To-Date"
    )
    KINDS = API_KINDS
    kind: LogKind = "pov"

    log: Log
    allowed: Allowed | None = None
    """For how long the answer of plugins stands."""
    poll: PollTransport | None = None

    async def authorize(self, pov_id: str = "") -> None:
        """Ask for a token whose bearer may see the log."""
        self.query = parse_query(self.request.query)
        self.verify(*self.token_of(self.KINDS, in_url=self.one("live") == "sse"))
        self.server.streams.admit(self.identity)
        self.log = Log.of(self.identity, self.kind, pov_id)
        self.allowed = await self.server.streams.authorise(self.identity, self.log)

    async def head(self, *_: str, **__: str) -> None:
        """Answer where the log ends."""
        top = await self.server.streams.top(self.log)
        self.set_header("Content-Type", "application/json")
        self._say(top.epoch, top.offset)
        self.finish()

    async def get(self, *_: str) -> None:
        """Answer a page, what comes next, or events until the connection ends."""
        live = self.one("live")
        if live not in MODES:
            raise InvalidRequest("live is 'long-poll' or 'sse'", field="live")
        wanted, only = self._wanted(live), self._only()
        streams = self.server.streams
        top = await streams.top(self.log)
        place = Position(top.epoch, top.offset if wanted == NOW else top.oldest - 1)
        if isinstance(wanted, Position):
            place = await streams.placed(self.log, top, wanted)
            self.server.hub.others.look(self.identity.owner, place.epoch, top.epoch)
            locate(top, place)
        if live == "sse":
            await self._events(top, place, only, is_new=wanted == NOW)
        elif live == "long-poll" and place.offset >= top.offset:
            await self._wait(place, only, is_new=wanted == NOW)
        elif wanted == NOW:
            self._answer([], place.epoch, place.offset, is_last=True)
        else:
            self._page(place, await streams.read(self.log, place, only), is_live=live is not None)

    def on_connection_close(self) -> None:
        """End what waits for a client that is gone."""
        super().on_connection_close()
        if self.poll is not None:
            self.poll.end(WENT_AWAY)

    # What is asked for:

    def _wanted(self, live: str | None) -> str | Position:
        """Return `START`, `NOW` or behind what the client is. A browser's own word is the newer."""
        last = one_header(self.request, "Last-Event-ID") if live == "sse" else None
        name, text = ("Last-Event-ID", last) if last else ("offset", self.one("offset"))
        if text is None:
            if live is not None:
                raise InvalidRequest(f"live={live} needs an offset", field="offset")
            return START
        if text in (START, NOW):
            return text
        place = read_token(text)
        if place is None:
            raise InvalidRequest(f"{name} is -1, now, or what Stream-Next-Offset said", field=name)
        return Position(*place)

    def _only(self) -> Only:
        given: dict[str, list[str]] = {}
        for name, value in self.query:
            if name in FILTERS:
                given.setdefault(name, []).append(value)
        if given and self.log.pov_id is None:
            raise InvalidRequest("An inbox has no filters", field=min(given))
        return decode_body(encode(given), Only, self.server.settings.limits.details_depth)

    # What is answered:

    def _say(self, epoch: str, offset: int, *, is_last: bool = False) -> None:
        self.set_header("Stream-Next-Offset", write_token(epoch, offset))
        if is_last:
            self.set_header("Stream-Up-To-Date", "true")

    def _answer(self, items: Sequence[bytes], epoch: str, offset: int, *, is_last: bool) -> None:
        self._say(epoch, offset, is_last=is_last)
        self.answer_bytes(b"[%b]" % b",".join(items))

    def _page(self, place: Position, page: LogPage, *, is_live: bool) -> None:
        """Answer a page that may be kept, if it is asked for again each time it is used."""
        if is_live:
            self._say_cursor()
        else:
            # With a sum, for the same offsets need not be the same bytes for ever.
            total = 0
            for item in page.items:
                total = zlib.crc32(item, total)
            self.set_header("Cache-Control", "private, no-cache")
            self.set_header("Etag", f'"{place.offset}:{page.offset}:{total:08x}"')
            if self.check_etag_header():
                self._say(page.top.epoch, page.offset, is_last=page.is_last)
                self.set_status(304)
                self.finish()
                return
        self._answer(page.items, page.top.epoch, page.offset, is_last=page.is_last)

    def _say_cursor(self) -> None:
        given = self.one("cursor") or ""
        is_number = given.isascii() and given.isdigit() and len(given) <= MAX_CURSOR_DIGITS
        cursor = self.server.streams.cursor(int(given) if is_number else 0)
        self.set_header("Stream-Cursor", str(cursor))

    async def _wait(self, place: Position, only: Only, *, is_new: bool) -> None:
        """Answer what comes next, or that nothing did."""
        client, streams = self.client(), self.server.streams
        self.server.admit(self.identity, client["device"])
        poll_s = self.server.settings.streams.poll_s
        poll = self.poll = PollTransport()
        connection = streams.open(
            poll,
            self.identity,
            lasts_s=poll_s + POLL_GRACE_S,
            is_present=self._is_present,
            **client,
        )
        poll.start(connection)
        self._stream.watch_end()
        after = None if is_new else place
        try:
            found = await streams.follow(connection, self.log, after, only, self.allowed)
            await asyncio.wait([poll.woken], timeout=poll_s)
            lines = poll.take()
        finally:
            poll.end(ANSWERED if poll.woken.done() else UNANSWERED)
        epoch, offset = found or place
        items: list[bytes] = []
        for line in lines:
            offset = offset_of(line)
            if line.startswith(POSITION):
                epoch = epoch_of(line) or epoch
            else:
                items.append(line)
        self._say_cursor()
        if items:
            self._answer(items, epoch, offset, is_last=True)
            return
        # Also if its token has ended meanwhile, or its user may not see the log any more: clients
        # that have a new one for the next request would give up at a refusal of this one.
        self._say(epoch, offset, is_last=True)
        self.set_status(204)
        self.finish()

    async def _events(self, top: Top, place: Position, only: Only, *, is_new: bool) -> None:
        """Hand the socket to what sends events, and let go of all else."""
        client, streams = self.client(), self.server.streams
        is_present = self._is_present
        self.server.admit(self.identity, client["device"])
        wire = self.hand_over(streams.framing(self.log, top))
        if wire is None:
            return
        connection = streams.open(
            wire,
            self.identity,
            lasts_s=self.server.settings.streams.sse_s,
            is_present=is_present,
            **client,
        )
        wire.start(connection, b"")
        after = None if is_new else place
        await streams.follow(connection, self.log, after, only, self.allowed)

    @property
    def _is_present(self) -> bool:
        return self.log.kind == "pov" and self.one("presence") == "1"


class FeedStreamHandler(StreamHandler):
    """`GET /api/activities/stream`: all that happens in a team."""

    kind = "team"


class InboxStreamHandler(StreamHandler):
    """`GET /api/inbox/stream`: the user's own notifications."""

    KINDS = MEMBERS
    kind = "user"

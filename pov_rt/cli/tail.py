"""`pov-rt tail`: follows a PoV over a socket, over restarts of the server, without a gap.

Its position is the one rule of recovery: who comes back subscribes from there. What the server does
not send again by itself, as it was too much, is read from the history up to a place from which it
does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, Literal, NamedTuple

import click
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from pov_rt.cli.options import say
from pov_rt.cli.remote import PASSING, Address, RemoteError, explain
from pov_rt.protocol.characters import escape, escape_json
from pov_rt.runtime.clock import SystemClock, full_jitter

Style = Literal["json", "plain", "coloured"]

GOODBYE_S = 1.0
PING_S = 20.0
"""How often the server is asked whether it is still there, so that one that vanished is noticed."""
RETRY_S = (0.5, 8.0)
PAGE = 500
FEED = "*"
FINAL = frozenset({1000, 1002, 1007, 1009})
"""Close codes below 4500 after which nobody need come back."""


class Since(NamedTuple):
    """From where to begin: the last `last`, all after an `offset`, or all from an instant on."""

    last: int | None = None
    offset: int | None = None
    at: float | None = None


class _Lost(Exception):
    """The connection is gone, and may be had again."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class Tail:
    """Prints the activities of a PoV as they come. `token` is asked for one at each connection.

    `count` ends it after as many; `once` ends it with the connection.
    """

    def __init__(
        self,
        address: Address,
        token: Callable[[], str],
        pov: str,
        *,
        count: int | None = None,
        since: Since | None = None,
        once: bool = False,
        style: Style = "json",
    ) -> None:
        self._address = address
        self._shown = address.shown or address.socket
        self._token = token
        self._pov = pov
        self._left = count
        self._since = since
        self._once = once
        self._style = style
        self._position: dict[str, Any] | None = None
        self._after_s: float | None = None

    async def run(self) -> None:
        """Follow until enough was printed. Raises `RemoteError`."""
        clock, failures = SystemClock(), 0
        while self._left is None or self._left > 0:
            before = self._position
            try:
                async with self._connected(is_first=before is None) as socket:
                    failures = 0
                    await self._follow(socket)
            except _Lost as lost:
                if self._once or self._position is None:
                    raise RemoteError(f"the server closed the connection: {lost}") from lost
                if failures == 0:
                    say(f"the connection is gone ({lost}); trying again", err=True)
                failures += 1
                wait_s = full_jitter(failures, *RETRY_S, clock.random())
                await asyncio.sleep(wait_s if lost.after_s is None else lost.after_s)

    @asynccontextmanager
    async def _connected(self, *, is_first: bool) -> AsyncIterator[WebSocketClientConnection]:
        address, token = self._address, self._token()
        request = HTTPRequest(address.socket, connect_timeout=PING_S)
        try:
            connecting = websocket_connect(
                request,
                subprotocols=["pov-rt.v1", f"bearer.{token}"],
                ping_interval=PING_S,
                resolver=address.resolver,
            )
            socket = await connecting
        except (OSError, HTTPClientError, WebSocketError, ValueError) as error:
            why = explain(self._shown, error)
            may_pass = isinstance(error, OSError) or (
                isinstance(error, HTTPClientError) and error.code in (*PASSING, 599)
            )
            if is_first or not may_pass:
                raise RemoteError(why) from error
            raise _Lost(why) from error
        try:
            yield socket
        finally:
            socket.close(1000)
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    while await socket.read_message() is not None:
                        pass

    async def _follow(self, socket: WebSocketClientConnection) -> None:
        is_again = self._position is not None
        if self._position is None and self._since is not None and self._since.last is None:
            await self._find_start(socket, self._since)
        answer = await self._subscribe(socket)
        if self._position is not None and not answer["recovered"]:
            if await self._catch_up(socket, answer):
                answer = await self._subscribe(socket)
            else:
                say(
                    f"{self._pov}: some activities may be missing, for {self._reason(answer)}",
                    err=True,
                )
        self._position = {"epoch": answer["epoch"], "offset": answer.get("after", answer["offset"])}
        again = " again" if is_again else ""
        say(f"following {self._pov}{again}, {answer['offset']} activities so far", err=True)
        while self._left is None or self._left > 0:
            message = await self._read(socket)
            if message["type"] == "activity":
                self._show(message)
            elif message["type"] == "unsubscribed":
                raise RemoteError(
                    f"the server ends it: {message.get('message', 'no reason given')}"
                )

    async def _subscribe(self, socket: WebSocketClientConnection) -> dict[str, Any]:
        asked: dict[str, Any] = {"type": "subscribe", "povId": self._pov}
        if self._position is not None:
            asked["since"] = self._position
        elif self._since is not None and self._since.last is not None:
            asked["since"] = {"last": self._since.last}
        return await self._ask(socket, asked, "subscribed")

    async def _find_start(self, socket: WebSocketClientConnection, since: Since) -> None:
        """Find the place after which activities are wanted."""
        if self._pov == FEED:
            raise RemoteError("the feed of all PoVs has no history: --since needs a PoV, or --last")
        page = await self._page(socket, before=0)
        if since.offset is not None:
            start = max(since.offset, page["oldestOffset"] - 1)
            self._position = {"epoch": page["epoch"], "offset": min(start, page["offset"])}
            return
        start, at = page["offset"], since.at or 0.0
        while True:
            for each in page["activities"]:
                if _instant(each["data"]["at"]) < at:
                    break
                start = each["offset"] - 1
            else:
                if "next" in page:
                    page = await self._page(socket, before=page["next"])
                    continue
            break
        self._position = {"epoch": page["epoch"], "offset": start}

    async def _catch_up(self, socket: WebSocketClientConnection, answer: dict[str, Any]) -> bool:
        """Print what is not sent by itself. Return False if some of that is there no more."""
        position = self._position
        if position is None or self._pov == FEED or answer["epoch"] != position["epoch"]:
            return False
        if position["offset"] + 1 < answer["oldestOffset"] or position["offset"] > answer["offset"]:
            return False
        await self._ask(socket, {"type": "unsubscribe", "povId": self._pov}, "unsubscribed")
        while self._left is None or self._left > 0:
            page = await self._page(socket, after=position["offset"])
            for each in page["activities"]:
                if self._left == 0:
                    break
                self._show(each)
            if "next" not in page:
                break
            position["offset"] = page["next"]
        return True

    async def _page(self, socket: WebSocketClientConnection, **where: int) -> dict[str, Any]:
        asked = {"type": "history", "povId": self._pov, "limit": PAGE, **where}
        return await self._ask(socket, asked, "history_page")

    async def _ask(
        self, socket: WebSocketClientConnection, asked: dict[str, Any], wanted: str
    ) -> dict[str, Any]:
        """Return the answer; what was pushed before it is not for us yet."""
        while True:
            await socket.write_message(json.dumps({**asked, "id": 1}))
            while True:
                message = await self._read(socket)
                if message.get("id") == 1:
                    break
            if message["type"] == wanted:
                return message
            if message.get("code") != "rate_limited":
                detail = f": {message['detail']}" if "detail" in message else ""
                about = f"{message['code']} {message.get('field', '')}".strip()
                raise RemoteError(f"the server refuses: {message['message']}{detail} ({about})")
            await asyncio.sleep(message.get("retryAfter", 1.0))

    async def _read(self, socket: WebSocketClientConnection) -> dict[str, Any]:
        while True:
            text = await socket.read_message()
            if text is None:
                code, reason = socket.close_code, socket.close_reason
                why = f"{code} {reason or ''}".strip() if code else "without a word"
                if code is not None and (code >= 4500 or code in FINAL):
                    raise RemoteError(f"the server closed the connection: {why}")
                raise _Lost(why, self._after_s)
            try:
                message: dict[str, Any] = json.loads(text)
            except (ValueError, RecursionError) as error:  # of a server that is damaged, or none
                say(f"left out a message that cannot be read: {error}", err=True)
                continue
            if message["type"] == "closing":
                self._after_s = message.get("retryAfter")
            elif message["type"] == "error" and "id" not in message:
                raise RemoteError(f"the server refuses: {message['message']}")
            else:
                return message

    def _reason(self, answer: dict[str, Any]) -> str:
        if self._position is not None and answer["epoch"] != self._position["epoch"]:
            return "the log is another one"
        missed = answer.get("missed")
        return "they are too many or too old" if missed is None else f"{missed} were missed"

    def _show(self, message: dict[str, Any]) -> None:
        click.echo(format_activity(message, self._style))
        if self._position is not None:
            self._position["offset"] = message["offset"]
        self._left = None if self._left is None else self._left - 1


def format_activity(message: dict[str, Any], style: Style) -> str:
    """Return a line for people on a terminal, else the activity as JSON."""
    data = message["data"]
    if style == "json":
        return escape_json(json.dumps({**data, "offset": message["offset"]}, ensure_ascii=False))
    details = data.get("details")
    what = escape_json(json.dumps(details, ensure_ascii=False)) if details else ""
    # Others' words on a terminal: no character may move the cursor or change colours.
    words = (data["povId"], data["userId"], f"{data['type']}.{data['action']}")
    pov, user, happened = (escape(word) for word in words)
    time = _local_time(data.get("at", ""))
    if style == "coloured":
        time, pov, happened = _paint(time, "2"), _paint(pov, "36"), _paint(happened, "1")
    return f"{time} {pov} {user} {happened} {what}".rstrip()


def _instant(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _local_time(at: str) -> str:
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return "-"


def _paint(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m"

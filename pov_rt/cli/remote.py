"""The commands' way to a running server: publish over HTTP, follow a PoV over a socket."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from http.client import responses
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import click
import msgspec
from msgspec import UNSET
from tornado.httpclient import HTTPClientError
from tornado.websocket import WebSocketError, websocket_connect

from pov_rt.cli.options import say
from pov_rt.protocol.characters import escape, escape_json, escape_lines
from pov_rt.protocol.encoding import BYTE_ORDER_MARK
from pov_rt.protocol.errors import TokenError
from pov_rt.protocol.redaction import redact
from pov_rt.runtime.clock import SystemClock, new_id
from pov_rt.runtime.sender import Attempt, Batch, BatchSender
from pov_rt.tracker.core import HttpAnswer, read_refusal, read_results
from pov_rt.tracker.tornado import TornadoSender

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())  # what a user is to read is printed

BATCH = 500
BATCH_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
CHUNKS_AHEAD = 4
GATHER_S = 0.1
"""How long a line waits for others to travel with it."""
RETRY_S = 30.0
"""How long a batch is tried again."""
PASSING = frozenset({429, 500, 502, 503, 504})
"""Statuses that may be another one next time."""
GOODBYE_S = 1.0

Style = Literal["json", "plain", "coloured"]


class RemoteError(click.ClickException):
    """The server cannot be reached or refuses; the text says what to do."""

    def __init__(self, words: str) -> None:
        super().__init__(escape_lines(redact(words)))


class Address(NamedTuple):
    """Where a server is: for HTTP, without a '/' at the end, and for sockets."""

    http: str
    socket: str


class Line(NamedTuple):
    """A line of what is published, with its number."""

    number: int
    text: bytes


class Tally(NamedTuple):
    """What became of the lines."""

    published: int = 0
    duplicates: int = 0
    refused: int = 0


def parse_url(url: str) -> Address:
    """Return where the server is: `HOST:PORT`, or a URL of its HTTP side or of its socket.

    Raises `RemoteError` for anything else.
    """
    wrong = f"{url!r} is no address; write it like http://127.0.0.1:8765"
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RemoteError(wrong) from error
    secure = {"http": "", "ws": "", "https": "s", "wss": "s"}.get(parts.scheme)
    if secure is None or not host or port == 0:
        raise RemoteError(wrong)
    found = re.fullmatch(r"(.*?)(/ws(?:/.*)?)?/?", parts.path)
    base, socket = found.groups() if found else (parts.path, None)
    query = f"?{parts.query}" if parts.query else ""
    socket = "/ws/" if socket in (None, "/ws") else socket
    return Address(
        f"http{secure}://{parts.netloc}{base}", f"ws{secure}://{parts.netloc}{base}{socket}{query}"
    )


async def publish(url: str, token: str, descriptor: int) -> Tally:
    """Publish the JSON lines of an open file; name those that are refused.

    A line does not wait for the end of the file. What has no id gets one, so that nothing is there
    twice when a batch has to be sent again.
    """
    loop = asyncio.get_running_loop()
    sender, reader = _Publisher(parse_url(url).http, token), _Reader(descriptor)
    number, due, rest, ended = 0, 0.0, b"", False
    while not ended:
        try:
            async with asyncio.timeout_at(due if sender.queued else None):
                chunk = await reader.read()
        except TimeoutError:
            await sender.deliver()
            continue
        ended = not chunk
        *lines, rest = (rest + (chunk or b"\n")).split(b"\n")
        if not sender.queued:
            due = loop.time() + GATHER_S
        for line in lines:
            number += 1
            if text := line.removeprefix(BYTE_ORDER_MARK).strip():
                sender.put(Line(number, text))
        if ended or sender.queued >= BATCH:
            await sender.deliver()
    return Tally(sender.sent - sender.duplicates, sender.duplicates, sender.rejected)


class _Head(msgspec.Struct):
    id: Any = UNSET


_head = msgspec.json.Decoder(_Head)


def with_id(line: bytes) -> bytes:
    """Return the line with an id. What is no JSON object stays as it is, for the server to name."""
    line = line.strip()
    try:
        head = _head.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return line
    if head.id is not UNSET or not line[1:-1].strip():
        return line
    return b'%b,"id":"%b"}' % (line[:-1], new_id().encode())


async def tail(url: str, token: str, pov: str, *, count: int | None, style: Style) -> None:
    """Print the activities of a PoV, the first `count` of them or until the socket ends."""
    address = parse_url(url).socket
    try:
        socket = await websocket_connect(address, subprotocols=["pov-rt.v1", f"bearer.{token}"])
    except (OSError, HTTPClientError, WebSocketError, ValueError) as error:
        raise RemoteError(_explain(address, error)) from error
    try:
        await socket.write_message(json.dumps({"type": "subscribe", "povId": pov}))
        left = count
        while left is None or left > 0:
            text = await socket.read_message()
            if text is None:
                code, reason = socket.close_code, socket.close_reason
                why = f"{code} {reason or ''}".strip() if code else "without a word"
                raise RemoteError(f"the server closed the connection: {why}")
            try:
                message = json.loads(text)
            except (ValueError, RecursionError) as error:  # of a server that is damaged, or none
                say(f"left out a message that cannot be read: {error}", err=True)
                continue
            kind = message["type"]
            if kind == "error":
                detail = f": {message['detail']}" if "detail" in message else ""
                about = f"{message['code']} {message.get('field', '')}".strip()
                raise RemoteError(f"the server refuses: {message['message']}{detail} ({about})")
            if kind == "subscribed":
                say(f"following {pov}, {message['offset']} activities so far", err=True)
            elif kind == "activity":
                click.echo(format_activity(message, style))
                left = None if left is None else left - 1
    finally:
        socket.close(1000)
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                while await socket.read_message() is not None:
                    pass


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


def _local_time(at: str) -> str:
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return "-"


def _paint(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m"


class _Publisher(BatchSender[Line]):
    """Publishes lines. Raises `RemoteError` for what will not pass, or not in time."""

    capacity, batch_items, batch_bytes = sys.maxsize, BATCH, BATCH_BYTES
    retry_s, retry_for_s = (0.5, 8.0), RETRY_S

    def __init__(self, address: str, token: str) -> None:
        super().__init__(SystemClock(), log)
        self.duplicates = 0
        self._address = address
        self._token = token
        self._http = TornadoSender(timeout_s=20.0)

    def encode(self, lines: Sequence[Line]) -> bytes:
        return b"\n".join(with_id(line.text) for line in lines)

    async def attempt(self, batch: Batch[Line]) -> Attempt:
        address = self._address
        try:
            answer = await self._http.post(f"{address}/api/activities", self._token, batch.body)
        except (OSError, ValueError) as error:
            why = _explain(address, error)
            # A server that never was there is none.
            was_there = self.sent + self.rejected > 0
            if isinstance(error, ValueError if was_there else (ValueError, ConnectionRefusedError)):
                raise RemoteError(why) from error
            return Attempt("failed", why)
        if answer.status in PASSING:
            return Attempt("failed", _refusal(address, answer), answer.retry_after_s)
        if answer.status != 200:
            raise RemoteError(_refusal(address, answer))
        results = read_results(answer, len(batch.items))
        if results is None:
            raise RemoteError(f"{address} is no pov-rt server: it answers something else")
        refused = 0
        for line, result in zip(batch.items, results, strict=True):
            self.duplicates += result.duplicate
            if refusal := result.error:
                refused += 1
                say(f"line {line.number}: {refusal.message} ({refusal.code})", err=True)
        return Attempt("done", rejected=refused)

    def on_dropped(self, lines: Sequence[Line], why: str) -> None:
        raise RemoteError(why)


def _refusal(address: str, answer: HttpAnswer) -> str:
    refusal = read_refusal(answer)
    if answer.status == 401:
        if refusal is None or refusal.code == TokenError.code:
            return _explain(address, HTTPClientError(401))
        return f"{address} refuses the token (401): {refusal.message}"
    message = refusal.message if refusal else responses.get(answer.status, "an error")
    return f"{address} answers {answer.status}: {message}"


class _Reader:
    """Reads a file of any kind without holding up the loop, a few chunks ahead.

    With a thread of its own: asyncio reads no plain files, and its executor would wait at the end
    for a terminal's next line. Not through `sys.stdin`, which a thread that waits keeps locked.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(CHUNKS_AHEAD)
        threading.Thread(target=self._work, name="reader", daemon=True).start()

    async def read(self) -> bytes:
        """Return the next chunk, b'' at the end."""
        chunk = await self._chunks.get()
        self._room.release()
        return chunk

    def _work(self) -> None:
        chunk = b"?"
        while chunk:
            self._room.acquire()
            try:
                chunk = os.read(self._descriptor, CHUNK_BYTES)
            except OSError:
                chunk = b""
            with suppress(RuntimeError):  # the loop has ended, and so will the process
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)


def _explain(address: str, error: Exception) -> str:
    where = address.partition("?")[0]
    if isinstance(error, HTTPClientError) and error.code == 401:
        return (
            f"{where} refuses the token (401): it has expired, or is signed with another secret "
            "than the server's; give the server's --data or --config, or another --token"
        )
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens at {where}; start the server with: pov-rt serve --dev"
    if isinstance(error, WebSocketError):
        return f"{where} is no pov-rt server: it has no WebSocket"
    return f"cannot connect to {where}: {error}"

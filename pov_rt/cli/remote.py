"""The commands' way to a running server: publish over HTTP, follow a PoV over a socket."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.websocket import WebSocketError, websocket_connect

from pov_rt.runtime.clock import new_id

BATCH = 500
BATCH_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
CHUNKS_AHEAD = 4
GATHER_S = 0.1
"""How long a line waits for others to travel with it."""
ATTEMPTS = 6
FIRST_RETRY_S = 0.25
PASSING = frozenset({429, 500, 502, 503, 504})
"""Statuses that may be another one next time."""
GOODBYE_S = 1.0

Style = Literal["json", "plain", "coloured"]


class RemoteError(Exception):
    """The server cannot be reached or refuses; the text says what to do."""


class Address(NamedTuple):
    """Where a server is: for HTTP, without a '/' at the end, and for sockets."""

    http: str
    socket: str


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
    address = parse_url(url).http
    tally = Tally()
    async for batch in _batches(descriptor):
        body = b"\n".join(with_id(line) for _, line in batch)
        results = await _post(address, token, body, is_first=tally == Tally())
        published, duplicates, refused = tally
        for (number, _), result in zip(batch, results, strict=True):
            if error := result.get("error"):
                refused += 1
                print(f"line {number}: {error['message']} ({error['code']})", file=sys.stderr)
            elif result.get("duplicate"):
                duplicates += 1
            else:
                published += 1
        tally = Tally(published, duplicates, refused)
    return tally


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
            message = json.loads(text)
            kind = message["type"]
            if kind == "error":
                detail = f": {message['detail']}" if "detail" in message else ""
                about = f"{message['code']} {message.get('field', '')}".strip()
                raise RemoteError(f"the server refuses: {message['message']}{detail} ({about})")
            if kind == "subscribed":
                print(f"following {pov}, {message['offset']} activities so far", file=sys.stderr)
            elif kind == "activity":
                print(format_activity(message, style), flush=True)
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
        return json.dumps({**data, "offset": message["offset"]}, ensure_ascii=False)
    # Others' words on a terminal: no character may move the cursor or change colours.
    details = json.dumps(data["details"], ensure_ascii=False) if data.get("details") else ""
    parts = [_local_time(data.get("at", "")), data["povId"], data["userId"], details]
    time, pov, user, what = ("".join(filter(str.isprintable, part)) for part in parts)
    happened = f"{data['type']}.{data['action']}"
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


async def _post(address: str, token: str, body: bytes, *, is_first: bool) -> list[dict[str, Any]]:
    """Send a batch, again while what stops it may pass; a server that never was there is none."""
    request = HTTPRequest(
        f"{address}/api/activities",
        method="POST",
        body=body,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"},
    )
    for attempt in range(1, ATTEMPTS + 1):
        is_last = attempt == ATTEMPTS
        wait_s = FIRST_RETRY_S * 2**attempt
        try:
            answer = await AsyncHTTPClient().fetch(request, raise_error=False)
        except ValueError as error:
            raise RemoteError(_explain(address, error)) from error
        except (OSError, HTTPClientError) as error:
            if is_last or (is_first and isinstance(error, ConnectionRefusedError)):
                raise RemoteError(_explain(address, error)) from error
        else:
            if answer.code == 200:
                return _read_results(address, answer)
            if is_last or answer.code not in PASSING:
                raise RemoteError(_refusal(address, answer))
            after = answer.headers.get("Retry-After", "")
            wait_s = float(after) if after.isdigit() else wait_s
        await asyncio.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def _read_results(address: str, answer: HTTPResponse) -> list[dict[str, Any]]:
    try:
        results: list[dict[str, Any]] = json.loads(answer.body)["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise RemoteError(f"{address} is no pov-rt server: it answers something else") from error
    return results


def _refusal(address: str, answer: HTTPResponse) -> str:
    if answer.code == 401:
        return _explain(address, HTTPClientError(401))
    try:
        message = json.loads(answer.body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = str(answer.error)
    return f"{address} answers {answer.code}: {message}"


async def _batches(descriptor: int) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Yield the lines that are not blank, with their numbers, `GATHER_S` after the first came."""
    loop = asyncio.get_running_loop()
    reader = _Reader(descriptor)
    batch: list[tuple[int, bytes]] = []
    size, number, due, rest, ended = 0, 0, 0.0, b"", False
    while not ended:
        try:
            async with asyncio.timeout_at(due if batch else None):
                chunk = await reader.read()
        except TimeoutError:
            yield batch
            batch, size = [], 0
            continue
        ended = not chunk
        *lines, rest = (rest + (chunk or b"\n")).split(b"\n")
        for line in lines:
            number += 1
            if not line.strip():
                continue
            if not batch:
                due = loop.time() + GATHER_S
            batch.append((number, line))
            size += len(line)
            if len(batch) == BATCH or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


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

"""The commands' way to a running server: where it is, publish over HTTP, errors as words."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from http.client import responses
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
import msgspec
from msgspec import UNSET
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.netutil import Resolver
from tornado.websocket import WebSocketError

from pov_rt.cli.options import say
from pov_rt.config.settings import ServerSettings
from pov_rt.protocol.characters import escape_lines
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
NOBODY = (ValueError, ConnectionRefusedError, FileNotFoundError)
"""What is raised where no server is; for a Unix socket the last."""


class RemoteError(click.ClickException):
    """The server cannot be reached or refuses; the text says what to do."""

    def __init__(self, words: str) -> None:
        super().__init__(escape_lines(redact(words)))


class Address(NamedTuple):
    """Where a server is: for HTTP, without a '/' at the end, and for sockets.

    `resolver` says where these lead if not where their host is; `shown` is for people then.
    """

    http: str
    socket: str
    resolver: Resolver | None = None
    shown: str = ""


class _At(Resolver):
    """Leads every name to one place: a Unix socket, or a host and port."""

    def initialize(self, family: int, place: Any) -> None:
        self._found = [(family, place)]

    async def resolve(self, *_: Any, **__: Any) -> list[tuple[int, Any]]:
        """Return the place."""
        return self._found


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
    wrong = f"{url!r} is no address; write it like http://127.0.0.1:8765 or unix:/run/pov-rt.sock"
    if url.startswith("unix:/"):
        return _at_unix(url.removeprefix("unix:"), "localhost")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RemoteError(wrong) from error
    secure = {"http": "", "ws": "", "https": "s", "wss": "s"}.get(parts.scheme)
    if secure is None or not host or port == 0:
        raise RemoteError(wrong)
    found = re.fullmatch(r"(.*?)(/ws(?:/.*)?)?/?", parts.path)
    base, path = found.groups() if found else (parts.path, None)
    query = f"?{parts.query}" if parts.query else ""
    path = "/ws/" if path in (None, "/ws") else path
    return Address(
        f"http{secure}://{parts.netloc}{base}", f"ws{secure}://{parts.netloc}{base}{path}{query}"
    )


def find_address(server: ServerSettings) -> Address:
    """Return where a server with these settings is, for a command on its machine.

    Raises `RemoteError` if they do not say.
    """
    name = server.allowed_hosts[0] if server.allowed_hosts else None
    if server.unix is not None:
        return _at_unix(server.unix, name or "localhost")
    if server.port == 0:
        raise RemoteError(
            "server.port is 0, any port that is free: give the --url that the server printed"
        )
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(server.host, server.host)  # noqa: S104  (listened on, which is no address to connect to)
    where = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
    found = parse_url(where)
    if name is None:
        return found
    # The server answers for its own names alone: ask for one, at the place that is known.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    there = parse_url(f"{name}:{server.port}")
    return there._replace(resolver=_At(family, (host, server.port)), shown=found.http)


def _at_unix(path: str, name: str) -> Address:
    resolver = _At(socket.AF_UNIX, os.path.abspath(path))
    return parse_url(name)._replace(resolver=resolver, shown=f"unix:{path}")


async def publish(url: str | Address, token: str, descriptor: int) -> Tally:
    """Publish the JSON lines of an open file; name those that are refused.

    A line does not wait for the end of the file. What has no id gets one, so that nothing is there
    twice when a batch has to be sent again.
    """
    loop = asyncio.get_running_loop()
    sender, reader = _Publisher(_address(url), token), _Reader(descriptor)
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


class _Publisher(BatchSender[Line]):
    """Publishes lines. Raises `RemoteError` for what will not pass, or not in time."""

    capacity, batch_items, batch_bytes = sys.maxsize, BATCH, BATCH_BYTES
    retry_s, retry_for_s = (0.5, 8.0), RETRY_S

    def __init__(self, address: Address, token: str) -> None:
        super().__init__(SystemClock(), log)
        self.duplicates = 0
        self._url = f"{address.http}/api/activities"
        self._address = address.shown or address.http
        self._token = token
        if address.resolver is not None:  # for the client that the sender uses
            AsyncHTTPClient.configure(None, resolver=address.resolver)
        self._http = TornadoSender(timeout_s=20.0)

    def encode(self, lines: Sequence[Line]) -> bytes:
        return b"\n".join(with_id(line.text) for line in lines)

    async def attempt(self, batch: Batch[Line]) -> Attempt:
        address = self._address
        try:
            answer = await self._http.post(self._url, self._token, batch.body)
        except (OSError, ValueError) as error:
            why = explain(address, error)
            # A server that never was there is none.
            was_there = self.sent + self.rejected > 0
            if isinstance(error, ValueError if was_there else NOBODY):
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
            return explain(address, HTTPClientError(401))
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


def _address(url: str | Address) -> Address:
    return parse_url(url) if isinstance(url, str) else url


def explain(address: str, error: Exception) -> str:
    """Say in words why a server cannot be used, and what to do."""
    where = address.partition("?")[0]
    if isinstance(error, HTTPClientError) and error.code == 401:
        return (
            f"{where} refuses the token (401): it has expired, or is signed with another secret "
            "than the server's; give the server's --data or --config, or another --token"
        )
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return f"nobody listens at {where}; start the server with: pov-rt serve --dev"
    if isinstance(error, WebSocketError):
        return f"{where} is no pov-rt server: it has no WebSocket"
    return f"cannot connect to {where}: {error}"

"""The commands' way to a running server: where it is, publish over HTTP, errors as words."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import responses
from typing import Any, NamedTuple, TypeVar

import click
import msgspec
from msgspec import UNSET

from pov_rt.cli.options import say
from pov_rt.client.lines import PASSING, REFUSES, explain
from pov_rt.config.settings import ServerSettings
from pov_rt.protocol.characters import escape_lines
from pov_rt.protocol.encoding import BYTE_ORDER_MARK, DECODE_ERRORS
from pov_rt.protocol.errors import TokenError
from pov_rt.protocol.redaction import redact
from pov_rt.remote import addresses
from pov_rt.remote.addresses import Address
from pov_rt.remote.answers import LINES, PATH, HttpAnswer, read_refusal, read_results
from pov_rt.remote.http import Http
from pov_rt.runtime.clock import SystemClock, new_id
from pov_rt.runtime.sender import Attempt, Batch, BatchSender

AnswerT = TypeVar("AnswerT")

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
OPERATOR_S = 3600.0
"""How long what an operator asks for may be silent: a large database is written anew meanwhile."""
NOBODY = (ConnectionRefusedError, FileNotFoundError)
"""What is raised where no server is; for a Unix socket the last."""
NEXT_STEP = "; give the server's --data or --config, or another --token"


class RemoteError(click.ClickException):
    """The server cannot be reached or refuses; the text says what to do."""

    def __init__(self, words: str) -> None:
        super().__init__(escape_lines(redact(words)))


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
    """Return where the server is; see `addresses.parse_url`. Raises `RemoteError`."""
    try:
        return addresses.parse_url(url)
    except ValueError as error:
        raise RemoteError(str(error)) from error


def find_address(server: ServerSettings) -> Address:
    """Return where a server with these settings is, for a command on its machine.

    Raises `RemoteError` if they do not say.
    """
    name = server.allowed_hosts[0] if server.allowed_hosts else None
    if server.unix is not None:
        return addresses.at_unix(server.unix, name or "localhost")
    if server.port == 0:
        raise RemoteError(
            "server.port is 0, any port that is free: give the --url that the server printed"
        )
    host = _reachable(server.host)
    found = _at(host, server.port)
    if name is None:
        return found
    # The server answers for its own names alone: ask for one, at the place that is known.
    there = parse_url(f"{name}:{server.port}")
    return there._replace(place=(host, server.port), shown=found.http)


def find_admin_address(server: ServerSettings) -> Address:
    """Return where the admin port of a server with these settings is. Raises `RemoteError`."""
    if server.admin_port == 0:
        raise RemoteError(
            "server.admin_port is 0, any port that is free: give the --url of the admin port"
        )
    return _at(_reachable(server.admin_host), server.admin_port)


def _at(host: str, port: int) -> Address:
    return parse_url(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _reachable(host: str) -> str:
    """Return which host to connect to, for one that is listened on."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (listened on, which is no address to connect to)


async def publish(url: str | Address, token: str, descriptor: int) -> Tally:
    """Publish the JSON lines of an open file; name those that are refused.

    A line does not wait for the end of the file. What has no id gets one, so that nothing is there
    twice when a batch has to be sent again.
    """
    loop = asyncio.get_running_loop()
    sender, reader = _Publisher(_address(url), token), _Reader(descriptor)
    number, due, rest, ended = 0, 0.0, b"", False
    try:
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
    finally:
        sender.http.close()
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
        self._address = address
        self._token = token
        self.http = Http(address, timeout_s=20.0)

    def encode(self, lines: Sequence[Line]) -> bytes:
        return b"\n".join(with_id(line.text) for line in lines)

    async def attempt(self, batch: Batch[Line]) -> Attempt:
        address = self._address
        try:
            answer = await self.http.fetch("POST", PATH, self._token, batch.body, kind=LINES)
        except OSError as error:
            why = explain(address, error)
            # A server that never was there is none.
            if self.sent + self.rejected == 0 and isinstance(error, NOBODY):
                raise RemoteError(why) from error
            return Attempt("failed", why)
        if answer.status in PASSING:
            return Attempt("failed", _refusal(address, answer), answer.retry_after_s)
        if answer.status != 200:
            raise RemoteError(_refusal(address, answer))
        results = read_results(answer, len(batch.items))
        if results is None:
            raise RemoteError(f"{address.name} is no pov-rt server: it answers something else")
        refused = 0
        for line, result in zip(batch.items, results, strict=True):
            self.duplicates += result.duplicate
            if refusal := result.error:
                refused += 1
                say(f"line {line.number}: {refusal.message} ({refusal.code})", err=True)
        return Attempt("done", rejected=refused)

    def on_dropped(self, lines: Sequence[Line], why: str) -> None:
        raise RemoteError(why)


class Operator:
    """Asks a server for what only operators may, however long it takes. Raises `RemoteError`."""

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        self._token = token

    async def delete(self, path: str, kind: type[AnswerT]) -> AnswerT:
        """Delete what is at a path, and return what the server says of it."""
        return await self._call("DELETE", path, kind)

    async def get(self, path: str, kind: type[AnswerT]) -> AnswerT:
        """Return what is at a path."""
        return await self._call("GET", path, kind)

    async def post(self, path: str, body: object, kind: type[AnswerT]) -> AnswerT:
        """Send something to a path, and return what the server says to it."""
        return await self._call("POST", path, kind, msgspec.json.encode(body))

    async def _call(
        self, method: str, path: str, kind: type[AnswerT], body: bytes | None = None
    ) -> AnswerT:
        pieces = list[bytes]()
        await self._ask(method, path, pieces.append, body)
        try:
            return msgspec.json.decode(b"".join(pieces), type=kind)
        except DECODE_ERRORS as error:
            words = f"{self._address.name} is no pov-rt server: it answers something else"
            raise RemoteError(words) from error

    async def read(self, path: str, take: Callable[[bytes], None]) -> None:
        """Have `take` called with what is at a path, in pieces as they come.

        It is called in another thread, one piece after the other; what it raises ends the reading.
        """
        await self._ask("GET", path, take)

    async def _ask(
        self, method: str, path: str, take: Callable[[bytes], None], body: bytes | None = None
    ) -> None:
        http = Http(self._address, timeout_s=OPERATOR_S)
        own: OSError | None = None

        def taking(piece: bytes) -> None:
            nonlocal own
            try:
                take(piece)
            except OSError as error:
                own = error
                raise

        try:
            answer = await http.fetch(method, path, self._token, body, take=taking)
        except OSError as error:
            if error is own:
                raise
            raise RemoteError(explain(self._address, error)) from error
        finally:
            http.close()
        if answer.status != 200:
            raise RemoteError(_refusal(self._address, answer))


def _refusal(address: Address, answer: HttpAnswer) -> str:
    refusal = read_refusal(answer)
    if answer.status == 401:
        if refusal is None or refusal.code == TokenError.code:
            return f"{address.name} {REFUSES}{NEXT_STEP}"
        return f"{address.name} refuses the token (401): {refusal.message}"
    message = refusal.message if refusal else responses.get(answer.status, "an error")
    return f"{address.name} answers {answer.status}: {message}"


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

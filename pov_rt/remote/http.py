"""Requests to one server, for threads, over a connection that is kept."""

from __future__ import annotations

import asyncio
import codecs
import select
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import closing, suppress
from functools import partial
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
)
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from pov_rt.remote.addresses import Address
from pov_rt.remote.answers import (
    JSON,
    MAX_ANSWER_BYTES,
    NO_TOKEN,
    TOKEN,
    HttpAnswer,
    read_retry_after,
)

# The first connection would import it. A child of a process that is forked meanwhile inherits the
# module's lock, which nobody releases there.
codecs.lookup("idna")

PIECE_BYTES = 64 * 1024
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Http:
    """Makes requests, one after the other. Owner: one thread.

    `timeout_s` is how long it waits for the next bytes, and to connect. A connection that the
    server has closed meanwhile is opened anew once; so that what is sent may arrive twice, and has
    to have an id, or be sent `once`.
    """

    def __init__(
        self, address: Address, timeout_s: float = 10.0, threads: Executor | None = None
    ) -> None:
        self._address = address
        self._threads = threads
        """Where `fetch` makes its requests, if not where the loop does such things."""
        self._timeout_s = timeout_s
        self._base = urlsplit(address.http)
        self._connection: HTTPConnection | None = None
        self._sock: socket.socket | None = None
        """What a request is under way on; a connection that ends with its answer forgets it."""

    def request(
        self,
        method: str,
        path: str,
        token: str,
        body: bytes | None = None,
        *,
        kind: str = JSON,
        headers: Mapping[str, str] = NOTHING,
        once: bool = False,
        take: Callable[[bytes], None] | None = None,
        over: threading.Event | None = None,
    ) -> HttpAnswer:
        """Return the answer, whatever its status. Raises OSError if there was none.

        Of a body at most `MAX_ANSWER_BYTES` are read. That of a 200 is given to `take`, if there is
        one, in pieces as they come and whatever its size, once and from its begin; it is empty
        then. Once `over` is set nobody waits for it any more. What is sent `once` is never sent
        again: if the server closed the connection just then, nobody knows what became of it.
        """
        if not TOKEN.fullmatch(token):
            raise OSError(NO_TOKEN)
        sent = {"Authorization": f"Bearer {token}", **headers}
        if body is not None:
            sent["Content-Type"] = kind
        if once and self._connection is not None and _says_something(self._connection.sock):
            self.close()  # nothing was asked: that is its end
        may_repeat = self._connection is not None and take is None and not once
        try:
            return self._exchange(method, path, body, sent, take, over)
        except (OSError, HTTPException) as error:
            self.close()
            if not may_repeat or isinstance(error, TimeoutError) or (over and over.is_set()):
                raise _as_os_error(error) from error
        try:
            return self._exchange(method, path, body, sent, take, over)
        except (OSError, HTTPException) as error:
            self.close()
            raise _as_os_error(error) from error

    async def fetch(self, *request: Any, **options: Any) -> HttpAnswer:
        """Make a request in a thread; if this is cancelled, it ends at once."""
        over = threading.Event()
        try:
            make = partial(self.request, *request, over=over, **options)
            return await asyncio.get_running_loop().run_in_executor(self._threads, make)
        except asyncio.CancelledError:
            over.set()
            for sock in (self._sock, self._connection.sock if self._connection else None):
                if sock is not None:
                    with suppress(OSError):  # it has ended meanwhile
                        sock.shutdown(socket.SHUT_RDWR)
            raise

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        take: Callable[[bytes], None] | None,
        over: threading.Event | None,
    ) -> HttpAnswer:
        connection = self._connection = self._connection or self._open()
        if connection.sock is None:
            connection.connect()
        if over is not None and over.is_set():
            # There was no socket to end yet: what is asked now would be waited for in vain.
            raise ConnectionAbortedError("it was cancelled")
        connection.request(method, f"{self._base.path}{path}", body, headers)
        self._sock = connection.sock
        with closing(connection.getresponse()) as answer:  # whatever ends it
            if take is not None and answer.status == 200:
                while piece := _read_some(answer):
                    take(piece)
            content = _read(answer, MAX_ANSWER_BYTES)
            if answer.will_close or not answer.isclosed():  # the latter: there is more
                self.close()
        headers = {name.lower(): value for name, value in answer.headers.items()}
        wait_s = read_retry_after(headers.get("retry-after"))
        return HttpAnswer(answer.status, wait_s, content, headers)

    def _open(self) -> HTTPConnection:
        host, port, timeout = self._base.hostname or "", self._base.port, self._timeout_s
        address = self._address
        if self._base.scheme == "https":
            return HTTPSConnection(host, port, timeout=timeout)
        connection = HTTPConnection(host, port, timeout=timeout)
        if address.unix is not None:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(timeout)
            try:
                connection.sock.connect(address.unix)
            except BaseException:
                connection.close()
                raise
        elif address.place is not None:
            connection.sock = socket.create_connection(address.place, timeout)
        return connection


def _says_something(sock: socket.socket | None) -> bool:
    """Tell whether there is something to read; the end is something, too."""
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _read_some(answer: HTTPResponse) -> bytes:
    """Return the next bytes of a body as soon as there are any; none at its end."""
    content = answer.read1(PIECE_BYTES)
    if not content and answer.length:
        raise IncompleteRead(content, answer.length)
    return content


def _read(answer: HTTPResponse, most: int) -> bytes:
    """Return the next bytes of a body, as many as there are and may be."""
    content = answer.read(most)
    if answer.length and len(content) < most:  # http.client minds it only where all is read
        raise IncompleteRead(content, answer.length)
    return content


def _as_os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")

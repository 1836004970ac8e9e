"""A line over plain HTTP, where no WebSocket gets through: a session (docs/protocol.md).

All that the server says comes as events in one answer without an end, and requests bring what the
client says. So it can do what a WebSocket can, at the price of two connections. Where something on
the way holds an answer back until its end, the events are fetched: by requests whose answers end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from itertools import islice
from threading import Semaphore, Thread
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote, urlsplit

from pov_rt.client.errors import ConnectionLost, SessionEnded
from pov_rt.client.lines.base import PASSING, Line, TokenRefused, end_of, explain, refusal_of
from pov_rt.client.lines.socket import open_socket
from pov_rt.remote.addresses import Address
from pov_rt.remote.answers import MAX_ANSWER_BYTES, HttpAnswer, read_refusal
from pov_rt.remote.http import Http

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

OPEN_S = 20.0
HELD_S = 4.0
"""How long nothing may come of an answer that does not end: then something holds it back."""
REMEMBERED_S = 3600.0
"""How long that is remembered: programs live for months, and networks change."""
REQUEST_S = 20.0
EVENTS_S = 300.0
"""How long nothing may come, not even the comment that the server sends each `ping.interval_s`. It
does not have to be short: whether the server is there the client asks over the line itself."""
HEADER = "Pov-Rt-Connection"
WAITING = 64
"""Messages that wait, to be received and to be sent; of more the server keeps them, or the app."""
AT_ONCE = 32
"""Messages of one request; the server takes 64, unless its settings say otherwise."""
BUSY_S = 0.2
DATA, ID = b"data:", b"id:"
REFRESHED, CLOSING = b'{"type":"refreshed"', b'{"type":"closing"'


class Events:
    """Finds the messages in server-sent events, which are one line each. Pure."""

    def __init__(self) -> None:
        self.last_id = ""
        """The newest `id`, which only events that are fetched have."""
        self._rest = b""

    def feed(self, piece: bytes) -> Sequence[bytes]:
        """Return the messages that a piece completes. Raises OSError for one that is too long."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_ANSWER_BYTES:
            raise OSError(f"a message is above {MAX_ANSWER_BYTES} bytes")
        for line in lines:
            if line.startswith(ID):
                self.last_id = line.removeprefix(ID).strip().decode("latin-1")
        return [line.removeprefix(DATA).strip() for line in lines if line.startswith(DATA)]


class DaemonThreads(Executor):
    """Runs each call in a thread of its own, for which no process waits that ends.

    It would for those of a pool: as long as the server sends something, and that is for ever.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin a call."""
        future = Future[T]()
        future.set_running_or_notify_cancel()  # from now on nobody takes it back

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # whatever it is, somebody waits
                future.set_exception(error)

        Thread(target=work, name="pov-rt session", daemon=True).start()
        return future


class Session:
    """A line over HTTP; see `Line`. Begin with `open`.

    Two threads wait for the server. The one that reads stops as long as `WAITING` messages were not
    received, so that what is more stays with the server.
    """

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        self._token = token
        self._offered = ""
        """The token that a `refresh` brought: requests have it once the server has taken it."""
        self._loop = asyncio.get_running_loop()
        self._incoming = Http(address, EVENTS_S, DaemonThreads())
        self._outgoing = Http(address, REQUEST_S, DaemonThreads())
        self._events = Events()
        self._may_read = Semaphore(WAITING)
        self._received: deque[bytes] = deque()
        self._unsent: deque[str] = deque()
        self._at_once = AT_ONCE
        self._changed = asyncio.Event()
        """Something came, is to be sent, was sent, or has ended; whoever waits looks anew."""
        self._connection_id = ""
        self._last_word: Mapping[str, Any] = {}
        self._failure: Exception | None = None
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, device: str | None, *, is_held: bool = False) -> bool:
        """Wait for the server's first word; return whether answers without an end are held back.

        That is found out, unless it is known (`is_held`). Raises what `receive` does.
        """
        query = "" if device is None else f"&device={quote(device, safe='')}"
        self._start(self._write())
        if not is_held:
            reading = self._start(self._read(query, self._events))
            if await self._hears_within(HELD_S):
                return False
            reading.cancel()
            await asyncio.wait([reading])
            self._incoming.close()
            self._incoming, self._events = Http(self._address, EVENTS_S, DaemonThreads()), Events()
            log.info("no answer comes without an end, so the events are fetched")
        self._start(self._fetch(query))
        if not await self._hears_within(OPEN_S):
            raise ConnectionLost("no word came over HTTP, of events or of answers that end")
        return True

    async def send(self, text: str) -> None:
        """Have a message sent."""
        await self._wait_for(lambda: self._failure is None and len(self._unsent) < WAITING)
        self._offered = _token_in(text) or self._offered
        self._unsent.append(text)
        self._tell()

    async def receive(self) -> bytes:
        """Return the next message."""
        await self._wait_for(lambda: bool(self._received))
        self._may_read.release()
        return self._received.popleft()

    async def close(self) -> None:
        """End all that is asked."""
        self._is_over = True
        self._may_read.release()  # for the thread that waits there
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._incoming.close()
        self._outgoing.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(self._until_it_ends(work))
        self._tasks.append(task)
        return task

    async def _hears_within(self, seconds: float) -> bool:
        """Tell whether the server says something in time. Raises why it has ended."""
        try:
            async with asyncio.timeout(seconds):
                await self._wait_for(lambda: bool(self._received))
        except TimeoutError:
            return False
        return True

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_for(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so. Raises why it has ended, if that comes first."""
        while not is_so():
            if self._failure is not None:
                raise self._failure
            await self._changed.wait()

    async def _until_it_ends(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (ConnectionLost, SessionEnded, TokenRefused) as error:
            self._failure = self._failure or error
            self._tell()

    async def _read(self, query: str, events: Events) -> None:
        """Take the events of one answer until it ends."""
        take = partial(self._take, events)
        answer = await self._ask(self._incoming, "GET", f"/api/session?{query}", take=take)
        if answer.status != 200:
            raise refusal_of(self._address, answer)
        raise end_of(self._last_word.get("code"), None)

    def _take(self, events: Events, piece: bytes) -> None:
        """Hand over what came; called in a thread, which waits here while too much waits."""
        for message in events.feed(piece):
            self._may_read.acquire()
            if self._is_over:
                raise ConnectionAbortedError("the client has closed it")
            self._loop.call_soon_threadsafe(self._hear, events, message)

    async def _fetch(self, query: str) -> None:
        """Ask for what came, and for what comes next, until the server has the session no more."""
        events, path = self._events, f"/api/session?live=long-poll{query}"
        while True:
            headers = {"Last-Event-ID": events.last_id} if events.last_id else {}
            answer = await self._ask(self._incoming, "GET", path, headers=headers)
            if answer.status in PASSING and events.last_id:
                await asyncio.sleep(answer.retry_after_s or BUSY_S)
                continue
            if answer.status == 404 and events.last_id:
                raise end_of(self._last_word.get("code"), None)
            if answer.status != 200:
                raise refusal_of(self._address, answer)
            for message in events.feed(answer.body):
                self._hear(events, message)
            await self._wait_for(lambda: len(self._received) < WAITING)

    def _hear(self, events: Events, message: bytes) -> None:
        if events is not self._events:
            return  # it came after all, and is another session
        if not self._connection_id:
            self._connection_id = str(json.loads(message)["connectionId"])
        elif message.startswith(REFRESHED):
            self._token = self._offered or self._token
        elif message.startswith(CLOSING):
            self._last_word = json.loads(message)
        self._received.append(message)
        self._tell()

    async def _write(self) -> None:
        await self._wait_for(lambda: bool(self._connection_id))
        while True:
            await self._wait_for(lambda: bool(self._unsent))
            some = [*islice(self._unsent, self._at_once)]
            await self._post(some)

    async def _post(self, some: Sequence[str]) -> None:
        """Have the server take some messages, the first that wait, or fewer."""
        answer = await self._ask(
            self._outgoing,
            "POST",
            "/api/messages",
            body=f"[{','.join(some)}]".encode(),
            headers={HEADER: self._connection_id},
            once=True,
        )
        if answer.status == 204:
            for _ in some:
                self._unsent.popleft()
            self._tell()
        elif answer.status == 429:
            await asyncio.sleep(answer.retry_after_s or BUSY_S)
        elif answer.status == 413 and len(some) > 1:
            self._at_once = len(some) // 2
        elif answer.status == 404:
            raise ConnectionLost("the server knows this session no more")
        else:
            raise refusal_of(self._address, answer)

    async def _ask(self, http: Http, method: str, path: str, **options: Any) -> HttpAnswer:
        try:
            return await http.fetch(method, path, self._token, **options)
        except OSError as error:
            raise ConnectionLost(explain(self._address, error)) from error


def _token_in(text: str) -> str:
    """Return the token that a message brings, if it is a `refresh`."""
    if '"refresh"' not in text:
        return ""
    found = json.loads(text)
    return str(found["token"]) if found["type"] == "refresh" else ""


class OverHttp:
    """Opens lines over HTTP; see `Opener`.

    It remembers for a while that something on the way holds answers back. Owner: one client.
    """

    def __init__(self) -> None:
        self._held_until = -math.inf

    async def __call__(self, address: Address, token: str, device: str | None = None) -> Line:
        """Open a session."""
        session, now = Session(address, token), asyncio.get_running_loop().time()
        is_known = now < self._held_until
        try:
            is_held = await session.open(device, is_held=is_known)
        except BaseException:
            self._held_until = -math.inf
            await session.close()
            raise
        if is_held and not is_known:
            self._held_until = now + REMEMBERED_S
        return session


class AnyLine:
    """Opens a WebSocket, or a line over HTTP where something on the way stops WebSockets alone."""

    def __init__(self) -> None:
        self._over_http = OverHttp()

    async def __call__(self, address: Address, token: str, device: str | None = None) -> Line:
        """Open a line; see `Opener`."""
        from websockets.exceptions import InvalidStatus

        try:
            return await open_socket(address, token, device)
        except (SessionEnded, ConnectionLost) as error:
            cause = error.__cause__
            is_away = isinstance(cause, ConnectionRefusedError | FileNotFoundError)
            is_busy = isinstance(error, ConnectionLost) and isinstance(cause, InvalidStatus)
            if is_away or is_busy or not await _is_there(address, token):
                raise
            log.warning("no WebSocket gets through, so it goes over HTTP: %s", error)
        return await self._over_http(address, token, device)


async def _is_there(address: Address, token: str) -> bool:
    """Tell whether a server answers over HTTP, and misses nothing but the upgrade."""
    http = Http(address)
    path = urlsplit(address.socket).path.removeprefix(urlsplit(address.http).path)
    try:
        answer = await http.fetch("GET", path, token)
    except OSError:
        return False  # which the socket's own error says
    finally:
        http.close()
    refusal = read_refusal(answer)
    return answer.status == 426 and refusal is not None and refusal.code == "upgrade_required"

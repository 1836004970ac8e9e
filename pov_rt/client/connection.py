"""A connection that comes back: tokens, lines, backoff, and answers to what is asked on it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from pov_rt.client.errors import (
    Closed,
    ConnectionLost,
    PovError,
    Refused,
    RequestTimeout,
    SessionEnded,
)
from pov_rt.client.lines import Line, Opener, TokenRefused
from pov_rt.client.subscription import Room
from pov_rt.client.tokens import TokenSource
from pov_rt.protocol.encoding import DECODE_ERRORS, encode
from pov_rt.remote.addresses import Address
from pov_rt.runtime.clock import Clock, full_jitter

log = logging.getLogger(__name__)

RETRY_S = (0.5, 20.0)
STABLE_S = 5.0
"""A connection that lasted so long ends a row of failures."""
PING_S = 25.0
SILENCE_S = 10.0
"""How long a server that was asked whether it is there may take."""

Message = dict[str, Any]
OnAnswer = Callable[[Message], None]

_decode = msgspec.json.Decoder(Message).decode


class Status(NamedTuple):
    """What the client is doing, and why.

    `waiting` for `retry_in_s` after a failure, the `failures`-th in a row; `closed` for good, with
    an `error` unless that was asked for.
    """

    state: Literal["connecting", "open", "waiting", "closed"]
    error: PovError | None = None
    failures: int = 0
    retry_in_s: float | None = None


class Settings(NamedTuple):
    """Where to, as whom, and when to come back."""

    address: Address
    tokens: TokenSource
    device: str | None
    timeout_s: float
    opener: Opener
    retry: Callable[[ConnectionLost], bool]
    on_status: Callable[[Status], None]
    clock: Clock


class Listener(Protocol):
    """Who uses the connection."""

    async def opened(self) -> None:
        """Do what there is to do on a new line, until it breaks, which cancels this."""

    def received(self, message: Message) -> None:
        """Take what the server said without being asked."""

    def lost(self) -> None:
        """Take note that the line is gone; another one follows."""

    def refused(self, pov_id: str, error: Refused) -> None:
        """Take note that the token does not cover a PoV any more."""

    def ended(self, error: PovError) -> None:
        """Take note that no line follows."""


class Pending(NamedTuple):
    """A request under way; `on_answer` is called before anything that comes behind the answer."""

    answer: asyncio.Future[Message]
    on_answer: OnAnswer


class Connection:
    """Has a line as long as it can. Owner: the client, which runs `work` as a task."""

    def __init__(self, settings: Settings, room: Room, listener: Listener) -> None:
        self.status = Status("connecting")
        self.failure: PovError | None = None
        """Why it has ended."""
        self.line: Line | None = None
        self._settings = settings
        self._room = room
        self._listener = listener
        self._pending: dict[str, Pending] = {}
        self._numbers = itertools.count(1)
        self._tasks: asyncio.TaskGroup | None = None
        self._after_s: float | None = None

    @property
    def pending(self) -> int:
        """How many answers are waited for."""
        return len(self._pending)

    async def work(self) -> None:
        """Stay connected until that is over for good."""
        try:
            await self._run()
        except PovError as error:
            self.end(error)
        except Exception as error:  # a callback's, or ours: nobody must wait for ever
            log.exception("the client failed")
            self.end(SessionEnded(f"the client failed: {error!r}"))

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something as long as there is this line."""
        if self._tasks is None:
            work.close()
        else:
            self._tasks.create_task(work)

    def end(self, error: PovError) -> None:
        """End everything, for good."""
        if self.failure is None:
            self.failure = error
            self._fail_pending(error)
            self._listener.ended(error)
            self._say(Status("closed", None if isinstance(error, Closed) else error))

    async def send(self, fields: Message) -> None:
        """Send a message that has no answer. Raises `ConnectionLost`."""
        if self.line is None:
            raise ConnectionLost("there is no connection")
        await self.line.send(encode(fields).decode())

    async def exchange(
        self, line: Line | None, fields: Message, on_answer: OnAnswer = lambda _: None
    ) -> Message:
        """Send a message and return its answer. Raises `Refused`, or `ConnectionLost`."""
        if line is None:
            raise ConnectionLost("there is no connection")
        request_id = f"c{next(self._numbers)}"
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = Pending(answer, on_answer)
        self._room.look()
        try:
            await line.send(encode({**fields, "id": request_id}).decode())
            found = await answer
        finally:
            del self._pending[request_id]
            if answer.done() and not answer.cancelled():
                answer.exception()  # of a send that failed nobody asks for the answer
        if found["type"] == "error":
            raise Refused(found)
        return found

    async def ask(self, fields: Message, on_answer: OnAnswer = lambda _: None) -> Message:
        """Return the answer to a question of the client's own, on the line of the moment.

        One that comes too often waits for its turn. Raises as `exchange`, and `RequestTimeout`.
        """
        within_s = self._settings.timeout_s
        while True:
            try:
                async with asyncio.timeout(within_s):
                    return await self.exchange(self.line, fields, on_answer)
            except TimeoutError as error:
                raise self.late(fields, within_s) from error
            except Refused as error:
                if error.code != "rate_limited":
                    raise
                await asyncio.sleep(error.retry_after_s or 1.0)

    def late(self, fields: Message, within_s: float) -> RequestTimeout:
        """Return what to raise for a request without an answer."""
        why = f" ({self.status.error})" if self.line is None and self.status.error else ""
        return RequestTimeout(f"no answer to {fields.get('type')!r} within {within_s:g} s{why}")

    async def _run(self) -> None:
        settings, clock = self._settings, self._settings.clock
        failures, is_refused = 0, False
        while True:
            self._say(Status("connecting", self.status.error, failures))
            opened_at: float | None = None
            try:
                token = await self._token()
                line = await settings.opener(settings.address, token, settings.device)
                opened_at, is_refused = clock.monotonic(), False
                await self._use(line, failures)
            except TokenRefused as error:
                if settings.tokens.is_fixed or is_refused:
                    raise SessionEnded(str(error), 401) from error
                is_refused, lost = True, ConnectionLost(str(error))
            except ConnectionLost as error:
                lost = error
            if opened_at is not None and clock.monotonic() - opened_at >= STABLE_S:
                failures = 0
            failures += 1
            if not settings.retry(lost):
                was_open = "" if opened_at is None else "the server closed the connection: "
                raise SessionEnded(f"{was_open}{lost}") from lost
            wait_s = lost.retry_after_s
            if wait_s is None:
                wait_s = full_jitter(failures, *RETRY_S, clock.random())
            self._say(Status("waiting", lost, failures, wait_s))
            await asyncio.sleep(wait_s)

    async def _token(self) -> str:
        try:
            return await self._settings.tokens.get(self._settings.address)
        except SessionEnded:
            raise
        except Exception as error:  # the app's: anything
            raise ConnectionLost(f"there is no token: {error!r}") from error

    async def _use(self, line: Line, failures: int) -> None:
        """Use a line until it ends, which raises why."""
        self._after_s = None
        name = self._settings.address.name
        try:
            first = _read(await asyncio.wait_for(line.receive(), SILENCE_S))
            if first is None or first["type"] != "welcome":
                raise SessionEnded(f"{name} is no pov-rt server: it says no welcome")
            async with asyncio.TaskGroup() as tasks:
                self._tasks, self.line = tasks, line
                self._say(Status("open", None, failures))
                tasks.create_task(self._listen(line, float(first.get("pingInterval", PING_S))))
                tasks.create_task(self._listener.opened())
        except TimeoutError as error:
            raise ConnectionLost("the server says nothing") from error
        except ExceptionGroup as group:
            raise _main_reason(group) from group
        finally:
            self._tasks = self.line = None
            self._listener.lost()
            self._fail_pending(ConnectionLost("the connection broke"))
            await line.close()

    async def _listen(self, line: Line, ping_s: float) -> None:
        while True:
            await self._room.wait(lambda: bool(self._pending))
            try:
                self._handle(await self._hear(line, ping_s))
            except ConnectionLost as error:
                raise ConnectionLost(str(error), self._after_s) from error

    async def _hear(self, line: Line, ping_s: float) -> str | bytes:
        try:
            async with asyncio.timeout(ping_s):
                return await line.receive()
        except TimeoutError:
            await line.send('{"type":"ping"}')
        try:
            async with asyncio.timeout(SILENCE_S):
                return await line.receive()
        except TimeoutError as error:
            raise ConnectionLost("the server says nothing") from error

    def _handle(self, text: str | bytes) -> None:
        message = _read(text)
        if message is None:
            log.warning("left out a message that cannot be read")
            return
        asked = self._pending.get(message.get("id", ""))
        if asked is not None:
            if not asked.answer.done():
                # Before the next message is looked at, which may stand on it.
                asked.on_answer(message)
                asked.answer.set_result(message)
            return
        kind = message["type"]
        if kind == "closing":
            self._after_s = message.get("retryAfter")
        elif kind == "token_expiring":
            self.start(self._refresh())
        elif kind == "error":
            log.warning("the server refuses a message: %s", Refused(message))
        self._listener.received(message)

    async def _refresh(self) -> None:
        """Get another token for this connection."""
        if self._settings.tokens.is_fixed:
            log.warning("the token expires, and there is no other: give a function, or an Exchange")
            return
        for failures in itertools.count(1):
            try:
                found = await self.ask({"type": "refresh", "token": await self._token()})
            except (Refused, RequestTimeout, ConnectionLost) as error:
                log.warning("the token expires, and there is no other one yet: %s", error)
                wait_s = full_jitter(failures, 1.0, RETRY_S[1], self._settings.clock.random())
                await asyncio.sleep(wait_s)  # a line that broke cancels this
                continue
            for pov_id in found["lost"]:
                words = {"code": "forbidden", "message": "The new token does not cover this PoV"}
                self._listener.refused(pov_id, Refused(words))
            return

    def _fail_pending(self, error: PovError) -> None:
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(error)

    def _say(self, status: Status) -> None:
        self.status = status
        self._settings.on_status(status)


def _read(text: str | bytes) -> Message | None:
    """Return a message, None for what is none: of a server that is damaged."""
    try:
        message = _decode(text)
    except DECODE_ERRORS:
        return None
    return message if isinstance(message.get("type"), str) else None


def _main_reason(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return why a connection ended: what it ended with, not what that broke."""
    leaves = list(_leaves(group))
    for kind in (SessionEnded, TokenRefused, ConnectionLost):
        for each in leaves:
            if isinstance(each, kind):
                return each
    return leaves[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error

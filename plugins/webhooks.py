"""Webhooks: tells another server who comes and goes, in signed calls, and asks it who may."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

from pov_rt.plugin import (
    UNSET,
    Context,
    Forbidden,
    Host,
    Part,
    Plugin,
    Range,
    Unavailable,
    UnsetType,
    rfc3339,
)

log = logging.getLogger(__name__)

TICK_S = 0.2
"""How long the first event waits for others to travel with it."""
CALL_S = 5.0
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 30.0
"""Retries come after a random time up to a limit that doubles ("full jitter", AWS, 2015)."""
FLUSH_S = 3.0
"""How long the shut-down waits for the last calls."""
ASK_S = 2.0
DOWN_S = 1.0
"""For how long nobody asks an authoriser that did not answer: many PoVs are not to wait in turn."""
MAX_ANSWERS = 10_000
MAX_ASKING = 64
"""Questions to the authoriser at a time."""
MIN_SECRET_BYTES = 32

Name = Literal["joined", "left", "subscribed", "unsubscribed", "connected", "disconnected"]
Key = tuple[str, str]
"""A PoV and a user."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`url` is told, `authorize_url` asked; without either the plugin does nothing.

    `secret`, or the content of `secret_file`, signs. A call has up to `batch` events and is tried
    again for `retry_s`; `queue` events may wait. Whoever is back within `debounce_s` has not left.
    What the authoriser answered is good for `authorize_ttl_s`.
    """

    url: str = ""
    secret: str = ""
    secret_file: str = ""
    events: frozenset[Name] = frozenset({"joined", "left"})
    batch: Annotated[int, Range(1, 1000)] = 100
    debounce_s: Annotated[float, Range(0, 60)] = 1.0
    queue: Annotated[int, Range(1, 1_000_000)] = 10_000
    retry_s: Annotated[float, Range(0, 86400)] = 3600.0
    authorize_url: str = ""
    authorize_ttl_s: Annotated[float, Range(0, 86400)] = 60.0

    def __post_init__(self) -> None:
        """Refuse what cannot work; no text here may have the secret in it."""
        for url in filter(None, (self.url, self.authorize_url)):
            if not url.startswith(("https://", "http://")):
                raise ValueError("url and authorize_url must begin with https:// or http://")
        if (self.url or self.authorize_url) and not (self.secret or self.secret_file):
            raise ValueError("set secret or secret_file, which sign the calls")
        if self.secret and len(self.secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"secret needs at least {MIN_SECRET_BYTES} bytes")

    def key(self) -> bytes:
        """Return the secret. Raises OSError or ValueError if its file has none."""
        if self.secret or not self.secret_file:
            return self.secret.encode()
        key = Path(self.secret_file).read_bytes().strip()
        if len(key) < MIN_SECRET_BYTES:
            raise ValueError(f"{self.secret_file} needs at least {MIN_SECRET_BYTES} bytes")
        return key


class Event(Part):
    """What happened; `at` is RFC 3339. A connection's events say which one it was."""

    event: Name
    at: str
    user_id: str
    pov_id: str | UnsetType = UNSET
    device: str | UnsetType = UNSET
    connection_id: str | UnsetType = UNSET


class Call(Part):
    """The body of a call; a retry has the same `id` and the same events."""

    id: str
    node: str
    events: list[Event]


class Question(Part):
    """The body of what the authoriser is asked: whether this user may subscribe to this PoV."""

    user_id: str
    pov_id: str
    role: str | None
    team_id: str


class Signer:
    """Makes signed calls."""

    def __init__(self, host: Host, key: bytes) -> None:
        self._host = host
        self._key = key

    async def post(self, url: str, body: bytes, timeout_s: float) -> int:
        """Return the answer's status; 0 if there was none."""
        timestamp = str(int(self._host.clock.time()))
        signed = timestamp.encode() + b"." + body
        headers = {
            "Content-Type": "application/json",
            "Pov-Rt-Timestamp": timestamp,
            "Pov-Rt-Signature": hmac.new(self._key, signed, hashlib.sha256).hexdigest(),
        }
        try:
            answer = await self._host.fetch(
                url, method="POST", headers=headers, body=body, timeout_s=timeout_s
            )
        except Unavailable:
            return 0
        return answer.status


class Outbox:
    """Brings events to the receiver, in order and one call at a time. Owner: the lifespan."""

    def __init__(self, host: Host, options: Options, signer: Signer) -> None:
        self._host = host
        self._options = options
        self._signer = signer
        self._queue: deque[Event] = deque()
        self._call: tuple[bytes, int, float] | None = None
        """The body under way, how many events it has, until when it is tried again."""
        self._failures = 0
        self._is_dropping = self._is_gone = False
        self._there: dict[Key, set[str]] = {}
        self._leaving: dict[Key, tuple[Event, asyncio.TimerHandle]] = {}

    def note(self, name: Name, context: Context[State], pov_id: str | UnsetType = UNSET) -> None:
        """Take an event of a connection."""
        if name in self._options.events:
            event = self._event(name, context.user.user_id, pov_id)
            device, connection_id = context.device, context.connection_id
            self._put(msgspec.structs.replace(event, device=device, connection_id=connection_id))

    def enter(self, pov_id: str, context: Context[State]) -> None:
        """Take note of a connection on a PoV; a user's first one is an event."""
        key = (pov_id, context.user.user_id)
        connections = self._there.setdefault(key, set())
        if not connections and key in self._leaving:
            self._leaving.pop(key)[1].cancel()
        elif not connections:
            self._put(self._event("joined", key[1], pov_id))
        connections.add(context.connection_id)

    def leave(self, pov_id: str, context: Context[State]) -> None:
        """Take note that a connection left a PoV; a user's last one is an event, in a moment."""
        key = (pov_id, context.user.user_id)
        connections = self._there.get(key, set())
        connections.discard(context.connection_id)
        if connections or self._there.pop(key, None) is None:
            return
        if len(self._leaving) >= self._options.queue:
            self._left(next(iter(self._leaving)))
        event = self._event("left", key[1], pov_id)
        delay_s = self._options.debounce_s
        timer = asyncio.get_running_loop().call_later(delay_s, self._left, key)
        self._leaving[key] = (event, timer)

    async def deliver(self) -> None:
        """Send what waits. One that is cancelled leaves its call for the next."""
        while self._call is not None or self._queue:
            body, size, until = self._call = self._call or self._gather()
            status = await self._signer.post(self._options.url, body, CALL_S)
            if 200 <= status < 300:
                if self._failures:
                    log.info("the webhook's receiver answers again")
                self._host.count("events_sent", size)
                self._call, self._failures, self._is_dropping = None, 0, False
                continue
            self._host.count("calls_failed")
            self._failures += 1
            if self._failures == 1:
                log.warning("events wait: the webhook's receiver answered %s", status or "nothing")
            if status == 410:
                self._is_gone = True
                self.give_up("the webhook's receiver is gone (410); it is told no more")
            elif self._host.clock.monotonic() >= until:
                log.error("%d events are dropped: no call told the webhook's receiver", size)
                self._host.count("events_dropped", size)
                self._call = None
            else:
                most = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 10))
                await asyncio.sleep(self._host.clock.random() * most)

    async def close(self) -> None:
        """Send what waits, those included who have just left, but not for ever."""
        for key in list(self._leaving):
            self._left(key)
        try:
            async with asyncio.timeout(FLUSH_S):
                await self.deliver()
        except TimeoutError:
            self.give_up("the webhook's receiver does not answer before the end")

    def give_up(self, why: str) -> None:
        """Drop what waits."""
        size = len(self._queue) + (self._call[1] if self._call else 0)
        log.error("%d events are dropped: %s", size, why)
        self._host.count("events_dropped", size)
        self._queue.clear()
        self._call = None

    def _left(self, key: Key) -> None:
        event, timer = self._leaving.pop(key)
        timer.cancel()
        self._put(event)

    def _event(self, name: Name, user_id: str, pov_id: str | UnsetType) -> Event:
        at = rfc3339(self._host.clock.time())
        return Event(event=name, at=at, user_id=user_id, pov_id=pov_id)

    def _put(self, event: Event) -> None:
        if self._is_gone or event.event not in self._options.events:
            return
        if len(self._queue) >= self._options.queue:
            if not self._is_dropping:
                log.warning("the oldest events are dropped: %d wait already", len(self._queue))
                self._is_dropping = True
            self._queue.popleft()
            self._host.count("events_dropped")
        self._queue.append(event)
        self._host.count("events_queued")

    def _gather(self) -> tuple[bytes, int, float]:
        size = min(len(self._queue), self._options.batch)
        events = [self._queue.popleft() for _ in range(size)]
        call = Call(id=self._host.clock.new_id(), node=self._host.node, events=events)
        until = self._host.clock.monotonic() + self._options.retry_s
        return msgspec.json.encode(call), size, until


class Authoriser:
    """Asks another server who may subscribe, and remembers what it said. Owner: the lifespan."""

    def __init__(self, host: Host, options: Options, signer: Signer) -> None:
        self._host = host
        self._options = options
        self._signer = signer
        self._answers: dict[Question, tuple[int, float]] = {}
        self._asking: dict[Question, asyncio.Task[int]] = {}
        self._slots = asyncio.Semaphore(MAX_ASKING)
        self._down_until = 0.0
        self._is_failing = False

    async def check(self, question: Question) -> None:
        """Raise `Forbidden` if the answer is no, `Unavailable` if there is none."""
        status, until = self._answers.get(question, (0, 0.0))
        if self._host.clock.monotonic() >= until:
            status = await self._share(question)
        if status == 403:
            raise Forbidden("You may not subscribe to this PoV", field="povId")
        if not 200 <= status < 300:
            raise Unavailable("Nobody can say now whether you may subscribe", retry_after_s=DOWN_S)

    async def close(self) -> None:
        """Let go of what is still being asked."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _share(self, question: Question) -> int:
        """Ask, or wait for the answer to the same question; the asker may go away meanwhile."""
        if self._host.clock.monotonic() < self._down_until:
            return 0
        if question not in self._asking:
            self._asking[question] = asyncio.create_task(self._ask(question))
        try:
            async with asyncio.timeout(ASK_S):
                status = await asyncio.shield(self._asking[question])
        except TimeoutError:
            status = 0
        if status == 0:
            self._down_until = self._host.clock.monotonic() + DOWN_S
        return status

    async def _ask(self, question: Question) -> int:
        try:
            async with self._slots:
                if self._host.clock.monotonic() < self._down_until:
                    return 0
                body = msgspec.json.encode(question)
                status = await self._signer.post(self._options.authorize_url, body, ASK_S)
        finally:
            del self._asking[question]
        self._host.count("questions_asked")
        if 200 <= status < 300 or status == 403:
            self._is_failing = False
            self._answers.pop(question, None)
            if len(self._answers) >= MAX_ANSWERS:
                del self._answers[next(iter(self._answers))]
            until = self._host.clock.monotonic() + self._options.authorize_ttl_s
            self._answers[question] = (status, until)
            return status
        self._host.count("questions_failed")
        if not self._is_failing:
            log.warning("subscriptions are refused: authorize_url gave %s", status or "no answer")
            self._is_failing = True
        return status


class State(NamedTuple):
    """What the settings ask for."""

    outbox: Outbox | None
    authoriser: Authoriser | None


plugin = Plugin[State]("webhooks", options=Options)


@plugin.lifespan
async def run(host: Host) -> AsyncIterator[State]:
    """Read the secret; at the end tell what is left to tell."""
    options = host.options(Options)
    signer = Signer(host, options.key())
    outbox = Outbox(host, options, signer) if options.url else None
    authoriser = Authoriser(host, options, signer) if options.authorize_url else None
    yield State(outbox, authoriser)
    if authoriser is not None:
        await authoriser.close()
    if outbox is not None:
        await outbox.close()


@plugin.every(TICK_S)
async def deliver(host: Host[State]) -> None:
    """Send what waits; the next tick comes when that is done."""
    if host.state.outbox is not None:
        await host.state.outbox.deliver()


@plugin.connected
def connected(context: Context[State]) -> None:
    """Take note of a connection."""
    if context.state.outbox is not None:
        context.state.outbox.note("connected", context)


@plugin.disconnected
def disconnected(context: Context[State]) -> None:
    """Take note of its end."""
    if context.state.outbox is not None:
        context.state.outbox.note("disconnected", context)


@plugin.subscribed
def subscribed(pov_id: str, context: Context[State]) -> None:
    """Take note of a subscription; that to the team feed joins no PoV."""
    outbox = context.state.outbox
    if outbox is not None:
        outbox.note("subscribed", context, pov_id)
        if pov_id != "*":
            outbox.enter(pov_id, context)


@plugin.unsubscribed
def unsubscribed(pov_id: str, context: Context[State]) -> None:
    """Take note of its end."""
    outbox = context.state.outbox
    if outbox is not None:
        outbox.note("unsubscribed", context, pov_id)
        outbox.leave(pov_id, context)


@plugin.before_subscribe
async def authorise(pov_id: str, context: Context[State]) -> None:
    """Ask whether the user may; the token says so already."""
    authoriser = context.state.authoriser
    if authoriser is not None:
        user, team_id = context.user, context.grants.team_id
        await authoriser.check(
            Question(user_id=user.user_id, pov_id=pov_id, role=user.role, team_id=team_id)
        )

"""What plugins tell other servers: signed calls, and an outbox for a receiver that may be away."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from pov_rt.plugin.interfaces import Host
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.messages import Part, Range
from pov_rt.runtime.clock import full_jitter

log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

CALL_S = 5.0
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 30.0
FLUSH_S = 3.0
"""How long the shut-down waits for the last calls."""
MIN_SECRET_BYTES = 32


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of a plugin that calls another server, which its own inherit.

    `secret`, or the content of `secret_file`, signs what is sent to `url`.
    """

    url: str = ""
    secret: str = ""
    secret_file: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot work; no text here may have the secret in it."""
        if self.url and not self.url.startswith(("https://", "http://")):
            raise ValueError("url must begin with https:// or http://")
        if self.url and not (self.secret or self.secret_file):
            raise ValueError("set secret or secret_file, which sign the calls")
        if self.secret and len(self.secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"secret needs at least {MIN_SECRET_BYTES} bytes")

    def key(self) -> bytes:
        """Return the secret. Raises OSError or ValueError if its file has none."""
        if self.secret:
            return self.secret.encode()
        key = Path(self.secret_file).read_bytes().strip()
        if len(key) < MIN_SECRET_BYTES:
            raise ValueError(f"{self.secret_file} needs at least {MIN_SECRET_BYTES} bytes")
        return key


class SignedCalls:
    """Posts JSON to an endpoint, signed as docs/operations.md says.

    Reads the secret: raises OSError or ValueError if its file has none.
    """

    def __init__(self, host: Host[Any], endpoint: Endpoint) -> None:
        self._host = host
        self._url = endpoint.url
        self._key = endpoint.key()

    async def post(self, body: bytes, timeout_s: float = CALL_S) -> int:
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
                self._url, method="POST", headers=headers, body=body, timeout_s=timeout_s
            )
        except Unavailable:
            return 0
        return answer.status


class Receiver(Endpoint, frozen=True, forbid_unknown_fields=True):
    """Options of a plugin with an outbox. A call has up to `batch` events; `queue` may wait.

    It is tried again for `retry_s`.
    """

    batch: Annotated[int, Range(1, 1000)] = 100
    queue: Annotated[int, Range(1, 1_000_000)] = 10_000
    retry_s: Annotated[float, Range(0, 86400)] = 3600.0


class Call(Part, Generic[T]):
    """The body of a call; a retry has the same `id` and the same events."""

    id: str
    node: str
    events: Sequence[T]


class Outbox(Generic[T]):
    """Brings events to a receiver, in order and one call at a time. Owner: a plugin's lifespan.

    What is not answered 2xx is tried again, save 410, after which nothing is sent any more. Of too
    many events the oldest are dropped. It counts `events_queued`, `events_sent`, `events_dropped`
    and `calls_failed`. Reads the secret as `SignedCalls` does.
    """

    def __init__(self, host: Host[Any], receiver: Receiver) -> None:
        self._host = host
        self._receiver = receiver
        self._calls = SignedCalls(host, receiver)
        self._queue: deque[T] = deque()
        self._call: tuple[bytes, int, float] | None = None
        """The body under way, how many events it has, until when it is tried again."""
        self._failures = 0
        self._is_dropping = self._is_closed = False

    def put(self, event: T) -> None:
        """Take an event; it waits for the next `deliver`."""
        if self._is_closed:
            self._host.count("events_dropped")
            return
        if len(self._queue) >= self._receiver.queue:
            if not self._is_dropping:
                self._log(logging.WARNING, "the oldest events are dropped: too many wait")
                self._is_dropping = True
            self._queue.popleft()
            self._host.count("events_dropped")
        self._queue.append(event)
        self._host.count("events_queued")

    async def deliver(self) -> None:
        """Send what waits: for `@plugin.every`. If it is cancelled, the next takes up its call."""
        while self._call is not None or self._queue:
            body, size, until = self._call = self._call or self._gather()
            status = await self._calls.post(body)
            if 200 <= status < 300:
                if self._failures:
                    self._log(logging.INFO, "the receiver of events answers again")
                self._host.count("events_sent", size)
                self._call, self._failures, self._is_dropping = None, 0, False
                continue
            self._host.count("calls_failed")
            self._failures += 1
            if self._failures == 1:
                said = status or "nothing"
                self._log(logging.WARNING, f"events wait: their receiver answered {said}")
            if status == 410:
                self._give_up("their receiver is gone (410); it is told no more")
            elif self._host.clock.monotonic() >= until:
                self._drop(size, "no call of theirs arrived in time")
                self._call = None
            else:
                chance = self._host.clock.random()
                await asyncio.sleep(
                    full_jitter(self._failures, FIRST_RETRY_S, LAST_RETRY_S, chance)
                )

    async def close(self) -> None:
        """Send what waits, but not for ever: for the end of the lifespan."""
        try:
            async with asyncio.timeout(FLUSH_S):
                await self.deliver()
        except TimeoutError:
            self._give_up("their receiver does not answer before the end")
        self._is_closed = True

    def _gather(self) -> tuple[bytes, int, float]:
        size = min(len(self._queue), self._receiver.batch)
        events = [self._queue.popleft() for _ in range(size)]
        call = Call(id=self._host.clock.new_id(), node=self._host.node, events=events)
        until = self._host.clock.monotonic() + self._receiver.retry_s
        return msgspec.json.encode(call), size, until

    def _give_up(self, why: str) -> None:
        self._drop(len(self._queue) + (self._call[1] if self._call else 0), why)
        self._queue.clear()
        self._call = None
        self._is_closed = True

    def _drop(self, size: int, why: str) -> None:
        self._log(logging.ERROR, f"{size} events are dropped: {why}")
        self._host.count("events_dropped", size)

    def _log(self, level: int, text: str) -> None:
        log.log(level, text, extra={"plugin": self._host.name})

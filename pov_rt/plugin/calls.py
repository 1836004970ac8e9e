"""What plugins tell other servers: signed calls, and an outbox for a receiver that may be away."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from pov_rt.plugin.interfaces import Host
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.messages import Part, Range
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.sender import Attempt, Batch, BatchSender

log = logging.getLogger(__name__)

EventT = TypeVar("EventT", bound=msgspec.Struct)

CALL_S = 5.0
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


class WebhookOptions(Endpoint, frozen=True, forbid_unknown_fields=True):
    """Options of a plugin with an outbox. A call has up to `batch` events; `queue` may wait.

    It is tried again for `retry_s`.
    """

    batch: Annotated[int, Range(1, 1000)] = 100
    queue: Annotated[int, Range(1, 1_000_000)] = 10_000
    retry_s: Annotated[float, Range(0, 86400)] = 3600.0


class Call(Part, Generic[EventT]):
    """The body of a call; a retry has the same `id` and the same events."""

    id: str
    node: str
    run: str
    events: Sequence[EventT]


class Outbox(BatchSender[EventT]):
    """Brings events to a receiver, in order and one call at a time. Owner: a plugin's lifespan.

    Send with `deliver` in an `@plugin.every`; `close` it at the end of the lifespan. What is not
    answered 2xx is tried again, save 410, after which nothing is sent any more. Of too many events
    the oldest are dropped; with `owner_of`, which says whose an event is, the new ones of whoever
    has half of all that may wait. It counts `events_queued`, `events_sent`, `events_dropped` and
    `calls_failed`. Reads the secret as `SignedCalls` does.
    """

    what, drops_oldest, flush_s = "events", True, 3.0

    def __init__(
        self,
        host: Host[Any],
        receiver: WebhookOptions,
        owner_of: Callable[[EventT], str] | None = None,
    ) -> None:
        super().__init__(host.clock, logging.LoggerAdapter(log, {"plugin": host.name}))
        self.capacity, self.batch_items = receiver.queue, receiver.batch
        self.retry_for_s = receiver.retry_s
        self._host = host
        self._calls = SignedCalls(host, receiver)
        self._owner_of = owner_of
        self._held: Counter[str] = Counter()
        setting = f"plugins.{host.name}.queue"
        for name in ("events_queued", "events_sent", "events_dropped", "calls_failed"):
            host.count(name, 0)
        self._bound = Bound(f"{host.name}_queue", setting, receiver.queue, lambda: self.queued)
        host.bounds.add(self._bound)

    def put(self, event: EventT) -> bool:
        """Take an event, which waits for the next `deliver`; return whether it was taken."""
        if self._owner_of is not None:
            owner = self._owner_of(event)
            self._held[owner] += 1  # also of one that is dropped at once: then it is given back
            if self._held[owner] > max(1, self.capacity // 2):
                why = "one user has half of all that may wait"
                self._bound.refuse(owner, why)
                self.on_dropped([event], why)
                return False
        if is_taken := super().put(event):
            self._host.count("events_queued")
        return is_taken

    def on_left(self, events: Sequence[EventT]) -> None:
        """Give back their owners' part."""
        if self._owner_of is not None:
            for owner in map(self._owner_of, events):
                self._held[owner] -= 1
                if not self._held[owner]:
                    del self._held[owner]

    def on_dropped(self, events: Sequence[EventT], why: str) -> None:
        """Count them."""
        super().on_dropped(events, why)
        self._host.count("events_dropped", len(events))

    def on_discarded(self, events: Sequence[EventT]) -> None:
        """Count them."""
        super().on_discarded(events)
        self._host.count("events_dropped", len(events))

    def encode(self, events: Sequence[EventT]) -> bytes:
        """Return the body of a call."""
        host = self._host
        return encode(Call(id=host.clock.new_id(), node=host.node, run=host.run, events=events))

    async def attempt(self, batch: Batch[EventT]) -> Attempt:
        """Make a call."""
        status = await self._calls.post(batch.body)
        if 200 <= status < 300:
            self._host.count("events_sent", len(batch.items))
            return Attempt("done")
        self._host.count("calls_failed")
        if status == 410:
            return Attempt("over", "their receiver is gone (410); it is told no more")
        return Attempt("failed", f"their receiver answered {status or 'nothing'}")

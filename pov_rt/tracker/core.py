"""What every activity tracker shares: which requests count, and how activities get to the server.

An application's response is never delayed and never fails because of it: what cannot be sent waits
in a bounded queue, what does not fit is counted and dropped.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import re
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import UNSET

from pov_rt.messages import NewActivity

log = logging.getLogger(__name__)

BATCH = 500
GATHER_S = 0.2
"""How long the first activity waits for others to travel with it."""
FIRST_RETRY_S = 0.5
LAST_RETRY_S = 20.0
"""Retries come after a random time up to a limit that doubles ("full jitter", AWS, 2015)."""

EXCLUDED = (r"^/(healthz|readyz|health|metrics|static|favicon\.ico)(/|$)",)
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})

Token = str | Callable[[], str | Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a request once it is answered. No body, header, cookie or query value.

    `path_arguments` are the named parts of the matching rule; `user` is who the app says it was.
    """

    method: str
    path: str
    status: int
    duration_s: float
    path_arguments: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None


@dataclass(frozen=True)
class Track:
    """A rule: `Track("POST", "/povs/{pov_id}/tasks/{task_id}/done", type="task", action="done")`.

    `{pov_id}` is the PoV; the path's other parts become the activity's details.
    """

    method: str
    path: str
    type: str
    action: str

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """Return the path's named parts if the rule is for this request."""
        if method != self.method:
            return None
        pattern = re.sub(r"\\?\{(\w+)\\?\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        found = re.fullmatch(pattern, path)
        return None if found is None else found.groupdict()


Describe = Callable[[Facts], NewActivity | None]


class Answer(NamedTuple):
    """What the server answered: the status, Retry-After in seconds if given, the body."""

    status: int
    retry_after_s: float | None
    body: bytes


class Sender(Protocol):
    """Posts a body; one for each kind of application."""

    async def post(self, url: str, token: str, body: bytes) -> Answer:
        """Return the answer, whatever its status. Raises OSError if there was none."""


class Chooser:
    """Decides which requests become activities."""

    def __init__(
        self,
        rules: Sequence[Track],
        *,
        describe: Describe | None = None,
        exclude: Sequence[str] = EXCLUDED,
        methods: frozenset[str] = CHANGING,
        sample_rate: float = 1.0,
        before_send: Callable[[NewActivity], NewActivity | None] | None = None,
    ) -> None:
        self._rules = rules
        self._describe = describe
        self._exclude = [re.compile(each) for each in exclude]
        self._methods = methods
        self._sample_rate = sample_rate
        self._before_send = before_send

    def choose(
        self, method: str, path: str, status: int, duration_s: float, who: Callable[[], str | None]
    ) -> NewActivity | None:
        """Return the request's activity, or None; whatever the app's callables raise comes out."""
        if method not in self._methods or not 200 <= status < 300:
            return None
        if any(each.search(path) for each in self._exclude):
            return None
        activity = self._make(method, path, status, duration_s, who)
        # Sampled before before_send: what is not sent need not be prepared.
        if activity is None or random.random() >= self._sample_rate:  # noqa: S311
            return None
        return self._before_send(activity) if self._before_send else activity

    def _make(
        self, method: str, path: str, status: int, duration_s: float, who: Callable[[], str | None]
    ) -> NewActivity | None:
        for rule in self._rules:
            parts = rule.match(method, path)
            if parts is not None and "pov_id" in parts:
                user = who()
                pov_id = parts.pop("pov_id")
                return NewActivity(
                    type=rule.type,
                    action=rule.action,
                    pov_id=pov_id,
                    user_id=user or UNSET,
                    details=dict(parts) or UNSET,
                )
        if self._describe is None:
            return None
        return self._describe(Facts(method, path, status, duration_s, {}, who()))


class Outbox:
    """Brings activities to the server in the background. Owner: the tracker.

    Each has its id from the start, so that a retry is recognised and nothing arrives twice.
    """

    def __init__(self, url: str, token: Token, sender: Sender, *, capacity: int = 10_000) -> None:
        self._url = f"{url.rstrip('/')}/api/activities"
        self._token = token
        self._sender = sender
        self._capacity = capacity
        self._queue: deque[NewActivity] = deque()
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._closed = False
        self.sent = 0
        self.dropped = 0
        self.rejected = 0

    @property
    def queued(self) -> int:
        """Activities that wait to be sent."""
        return len(self._queue)

    def put(self, activity: NewActivity) -> None:
        """Take an activity; the newest is dropped when the queue is full."""
        if self._closed or len(self._queue) >= self._capacity:
            if self.dropped == 0:
                log.warning("activities are dropped: the queue of %d is full", self._capacity)
            self.dropped += 1
            return
        if activity.id is UNSET:
            activity = msgspec.structs.replace(activity, id=uuid.uuid4().hex)
        self._queue.append(activity)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def flush(self, timeout_s: float = 5.0) -> bool:
        """Send what waits; return whether all of it is gone."""
        self._hurry.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout_s)
        return not self._queue

    async def close(self, timeout_s: float = 5.0) -> None:
        """Flush, then stop; what is left is counted as dropped."""
        self._closed = True
        await self.flush(timeout_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.dropped += len(self._queue)
        self._queue.clear()

    async def _drain(self) -> None:
        await self._pause(GATHER_S)
        size, failures = BATCH, 0
        while self._queue:
            batch = [self._queue[index] for index in range(min(size, len(self._queue)))]
            try:
                token = self._token if isinstance(self._token, str) else self._token()
                if inspect.isawaitable(token):
                    token = await token
                answer = await self._sender.post(
                    self._url, token, b"\n".join(msgspec.json.encode(each) for each in batch)
                )
            except Exception as error:  # the token's callable is the application's: anything
                answer = Answer(0, None, repr(error).encode())
            if answer.status == 200:
                failures, size = 0, BATCH
                self._count(msgspec.json.decode(answer.body)["results"])
            elif answer.status == 413 and size > 1:
                size = max(1, len(batch) // 2)
                continue
            elif answer.status in (400, 413):
                log.warning("the server refuses %d activities (%d)", len(batch), answer.status)
                self.rejected += len(batch)
            else:
                failures += 1
                if failures == 1:
                    why = answer.status or answer.body.decode(errors="replace")
                    log.warning("activities wait: no success at %s (%s)", self._url, why)
                most = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures, 10))
                self._hurry.clear()
                await self._pause(answer.retry_after_s or random.random() * most)  # noqa: S311
                continue
            for _ in batch:
                self._queue.popleft()

    def _count(self, results: list[dict[str, Any]]) -> None:
        refused = [result["error"]["code"] for result in results if "error" in result]
        self.sent += len(results) - len(refused)
        self.rejected += len(refused)
        if refused:
            log.warning(
                "the server refuses %d activities: %s",
                len(refused),
                ", ".join(sorted(set(refused))),
            )

    async def _pause(self, seconds: float) -> None:
        """Wait, but not while somebody waits for us."""
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

"""Sends items to another server in batches, each until it is taken."""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pov_rt.runtime.clock import Clock, full_jitter

ItemT = TypeVar("ItemT")
MAX_REASONS = 8
"""Why items wait is logged once for each reason until a success, for as many reasons."""
Verdict = Literal["done", "failed", "too large", "over"]


class Attempt(NamedTuple):
    """How an attempt to send a batch ended.

    - `done`: the receiver took it, save `rejected` of its items, which it never will.
    - `failed`: it is tried again, after `retry_after_s` if the receiver asked for that.
    - `too large`: it is tried in halves; a single item is dropped.
    - `over`: the receiver takes nothing any more. All that waits is dropped.
    """

    verdict: Verdict
    why: str = ""
    retry_after_s: float | None = None
    rejected: int = 0


class Batch(NamedTuple, Generic[ItemT]):
    """Items that travel together. What fails after `until` (`Clock.monotonic`) is dropped."""

    items: Sequence[ItemT]
    body: bytes
    until: float


class Backlog(ABC, Generic[ItemT]):
    """Items that wait for a receiver, and what becomes of them: decisions, with no I/O or waiting.

    Who sends takes `next_batch`, tries once to send it, and tells `settle` how that ended, until
    there is no batch. A subclass says how a batch is written, and sets the bounds.

    - Order: batches leave in the order of `put`, one attempt at a time. One that fails holds up
      those behind it, for `retry_for_s` at most; then it is dropped.
    - Retries: the same items with the same body, so that the receiver can tell. The wait is what
      the receiver asked for, or a random part of a limit that doubles with each failure in a row,
      between the two of `retry_s`.
    - Memory: beside the batch under way at most `capacity` items wait. Of more the newest are
      dropped, or with `drops_oldest` the oldest. A batch has at most `batch_items`, and a body of
      at most `batch_bytes` unless it is of one item.
    - Counts: each item is in one of `queued`, `sent`, `rejected` (by the receiver), `dropped`.
    """

    what = "items"
    """What the log calls them."""
    capacity, drops_oldest = 10_000, False
    batch_items, batch_bytes = 500, math.inf
    retry_s, retry_for_s = (0.5, 30.0), math.inf

    def __init__(self, clock: Clock, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self.sent = self.rejected = self.dropped = 0
        self._clock = clock
        self._log = log
        self._queue: deque[ItemT] = deque()
        self._batch: Batch[ItemT] | None = None
        self._unwanted: list[Callable[[ItemT], bool]] = []
        """What is to be discarded of the batch."""
        self._failures = 0
        self._waits: set[str] = set()  # why what waits does, as far as the log has it
        self._said = self._closed = ""  # why something was dropped, why nothing is taken any more

    @abstractmethod
    def encode(self, items: Sequence[ItemT]) -> bytes:
        """Return the body of a batch. Must not raise: `put` is where to refuse an item."""

    @property
    def queued(self) -> int:
        """Items that wait, or are under way."""
        return len(self._queue) + (len(self._batch.items) if self._batch else 0)

    @property
    def failures(self) -> int:
        """Attempts that failed since the last one that did not."""
        return self._failures

    def put(self, item: ItemT) -> bool:
        """Take an item, without waiting; return whether it was taken."""
        is_full = len(self._queue) >= self.capacity
        is_taken = not self._closed and (self.drops_oldest or not is_full)
        if is_full or not is_taken:
            why = self._closed or f"the queue of {self.capacity} is full; more are only counted"
            self.on_dropped([self._queue.popleft() if is_taken else item], why)
        if is_taken:
            self._queue.append(item)
        return is_taken

    def discard(self, unwanted: Callable[[ItemT], bool]) -> None:
        """Forget the items that wait and are unwanted.

        Those of the batch under way are left out when it has to be sent again, as another batch.
        """
        gone = [item for item in self._queue if unwanted(item)]
        if gone:
            self._queue = deque(item for item in self._queue if not unwanted(item))
            self.on_discarded(gone)
        if self._batch is not None:
            self._unwanted.append(unwanted)

    def next_batch(self) -> Batch[ItemT] | None:
        """Return what is to be sent: the same until it is settled. None: nothing waits."""
        self._discard_of_batch()
        if self._batch is None and self._queue:
            self._batch = self._take(self.batch_items)
        return self._batch

    def settle(self, attempt: Attempt) -> float | None:
        """Take note of how an attempt ended; return how long to wait for the next one, if at all.

        What was dropped while it was under way stays dropped.
        """
        batch = self._batch
        if batch is None:
            return None
        if attempt.verdict == "done":
            self._batch, self._failures, self._said = None, 0, ""
            self._waits.clear()
            self.sent += len(batch.items) - attempt.rejected
            self.rejected += attempt.rejected
            self.on_left(batch.items)
        elif attempt.verdict == "too large" and len(batch.items) > 1:
            self._discard_of_batch()
            left = self._batch.items if self._batch else []
            self._queue.extendleft(reversed(left))
            self._batch = self._take(max(1, len(left) // 2)) if left else None
        elif attempt.verdict == "over":
            self.shut(attempt.why or "the receiver takes nothing any more")
            self.drop_all(self._closed)
        elif attempt.verdict == "failed" and self._clock.monotonic() < batch.until:
            self._failures += 1
            self.on_failed(attempt.why)
            wait_s = full_jitter(self._failures, *self.retry_s, self._clock.random())
            return attempt.retry_after_s or wait_s
        else:
            self._batch = None
            self.on_dropped(batch.items, attempt.why)
        return None

    def shut(self, why: str) -> None:
        """Take nothing any more."""
        self._closed = why

    def drop_all(self, why: str) -> None:
        """Drop what waits, and what is under way."""
        left = [*(self._batch.items if self._batch else ()), *self._queue]
        self._batch = None
        self._queue.clear()
        if left:
            self.on_dropped(left, why)

    def on_left(self, items: Sequence[ItemT]) -> None:
        """Learn, of each item once, that it was sent, rejected, dropped, or not taken."""

    def on_failed(self, why: str) -> None:
        """Learn why what waits still has to. It is logged, each reason once until a success."""
        if why not in self._waits and len(self._waits) < MAX_REASONS:
            self._waits.add(why)
            self._log.warning("%s wait: %s", self.what, why)

    def on_dropped(self, items: Sequence[ItemT], why: str) -> None:
        """Count items that are dropped. It is logged, for each reason once until a success."""
        self.dropped += len(items)
        self.on_left(items)
        if why != self._said:
            self._said = why
            self._log.error("%d %s are dropped: %s", len(items), self.what, why)

    def on_discarded(self, items: Sequence[ItemT]) -> None:
        """Count items that are not to be sent any more."""
        self.dropped += len(items)
        self.on_left(items)

    def _discard_of_batch(self) -> None:
        """Leave out of a batch that is sent again what is unwanted by now."""
        unwanted, self._unwanted = self._unwanted, []
        batch = self._batch
        if batch is None or not unwanted:
            return
        gone = [item for item in batch.items if any(each(item) for each in unwanted)]
        if gone:
            self.on_discarded(gone)
            left = [item for item in batch.items if not any(each(item) for each in unwanted)]
            self._batch = Batch(left, self.encode(left), batch.until) if left else None

    def _take(self, number: int) -> Batch[ItemT]:
        items = [self._queue.popleft() for _ in range(min(number, len(self._queue)))]
        body = self.encode(items)
        if len(body) > self.batch_bytes and len(items) > 1:
            self._queue.extendleft(reversed(items))
            return self._take(len(items) // 2)
        return Batch(items, body, self._clock.monotonic() + self.retry_for_s)


class BatchSender(Backlog[ItemT]):
    """Brings items to a receiver, on one event loop. A subclass says how to send a batch once.

    It sends in `deliver`, `flush` and `close`; these two take `flush_s` unless they are told
    otherwise. Owner: whoever made it, and closes it.
    """

    flush_s = 5.0

    def __init__(self, clock: Clock, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        super().__init__(clock, log)
        self._turn = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def attempt(self, batch: Batch[ItemT]) -> Attempt:
        """Send a batch, once. What it raises ends `deliver`, which keeps the batch."""

    async def deliver(self) -> None:
        """Send all that waits. If this is cancelled, the next call tries its batch at once."""
        async with self._turn:
            while batch := self.next_batch():
                wait_s = self.settle(await self.attempt(batch))
                if wait_s is not None:
                    await self._pause(wait_s)

    async def flush(self, timeout_s: float | None = None) -> bool:
        """Send what waits, without waiting for the next retry; return whether all is sent.

        What is not sent in time is still sent later.
        """
        if self.queued:
            if self._turn.locked():  # somebody delivers, and may wait for the next retry
                self._hurry.set()
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self.deliver())
            timeout_s = self.flush_s if timeout_s is None else timeout_s
            await asyncio.wait([self._task], timeout=timeout_s)
        return not self.queued

    async def close(self, timeout_s: float | None = None) -> None:
        """Flush, and drop what is left; nothing is taken any more."""
        self.shut("it is closed")
        try:
            await self.flush(timeout_s)
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            self.drop_all("their receiver does not answer before the end")

    async def _pause(self, seconds: float) -> None:
        """Wait, but not while `flush` does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self._hurry.clear()

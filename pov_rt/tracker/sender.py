"""Brings activities to the server in the background: one sender for every kind of application.

It is a thread, so that it serves applications with and without an event loop. It begins with the
first activity of a process and ends when nothing comes for a while. A process that was forked has
a sender of its own, which begins anew: what waits in the parent is the parent's.

Servers load an application and then fork it, some without a word to Python, and a thread that runs
at that moment may hold what its copy never gets. So a tracker's sender has no thread before its
process answers a request. What comes earlier waits for that, in every process that is forked
meanwhile: each sends it, and the server knows it by its id.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from functools import partial

import msgspec
from msgspec import UNSET

from pov_rt.protocol.messages import NewActivity
from pov_rt.protocol.redaction import redact
from pov_rt.remote.addresses import Address, parse_url
from pov_rt.remote.answers import (
    FIXED_TOKEN,
    LINES,
    PATH,
    ItemOutcome,
    Refusal,
    read_results,
    summarise,
)
from pov_rt.remote.http import Http
from pov_rt.runtime.clock import SystemClock, new_id
from pov_rt.runtime.sender import Attempt, Backlog, Batch

log = logging.getLogger(__name__)

Token = str | Callable[[], str | Awaitable[str]]

CAPACITY, CAPACITY_BYTES = 10_000, 16 * 1024 * 1024
GATHER_S = 0.2
"""How long the first activity waits for others to travel with it."""
TIMEOUT_S = 10.0
IDLE_S = 60.0
"""After so long without an activity the thread ends; the next one starts another."""
REPORT_S = 60.0
"""The log has a line about what went wrong at most so often."""
MAX_REASONS = 3
EXIT_S = 1.0
"""How long a process that ends sends what waits."""
KNOWN_S = 12 * 3600.0
"""What waited longer for a first request is dropped: others may have sent it, and the server knows
an id for a day."""

NO_THREADS = (
    "uWSGI runs no threads without enable-threads: activities are sent only while requests are "
    "answered; start it with --enable-threads"
)


class _Outbox(Backlog[bytes]):
    """What one process sends: lines of JSON. All that `_changed` guards is used under it alone."""

    what = "activities"
    batch_bytes = 1024 * 1024
    retry_s = (0.5, 20.0)

    def __init__(
        self,
        address: Address,
        token: Token,
        *,
        capacity: int,
        capacity_bytes: int,
        timeout_s: float,
        may_work: bool,
    ) -> None:
        super().__init__(SystemClock(), log)
        self._may_work = may_work
        self._serves = False
        self.capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._address = address
        self._token = token
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._bytes = 0
        self._failed = 0
        self._not_before = 0.0  # when the next batch is sent
        self._idle_until = 0.0
        self._reasons: list[str] = []  # what went wrong since the last line about it
        self._told = (0, 0, 0)
        self._tell_from = 0.0

    def encode(self, lines: Sequence[bytes]) -> bytes:
        return b"\n".join(lines)

    def add(self, line: bytes) -> bool:
        """Take a line, or drop and count it."""
        with self._changed:
            self._bytes += len(line)
            if not self.queued:
                self._not_before = time.monotonic() + GATHER_S
            if self._bytes > self._capacity_bytes:
                why = f"{self._capacity_bytes} bytes of them wait already; more are only counted"
                self.on_dropped([line], why)
                is_taken = False
            else:
                is_taken = self.put(line)
            # To ask whether a thread is alive takes a third of all else here.
            if self._thread is None or (is_taken and len(self._queue) % self.batch_items < 2):
                self._wake()
            return is_taken

    def refuse(self, why: str) -> None:
        """Count an activity that cannot be sent."""
        with self._changed:
            self.on_dropped([b""], why)
            self._wake()

    @property
    def works(self) -> bool:
        return self._thread is not None

    def inherit(self, other: _Outbox) -> None:
        """Take what waits in an ancestor that had no thread either.

        Without its lock, which may be held for ever. What another has had long is its own.
        """
        if not other._may_work and not other._is_late:
            self._queue.extend(other._queue)
            self._bytes, self._not_before = other._bytes, other._not_before

    @property
    def _is_late(self) -> bool:
        return time.monotonic() - self._not_before > KNOWN_S

    def serve(self) -> None:
        """Have a thread from now on, when there is something to do."""
        if self._serves:
            return
        with self._changed:
            self._serves = True
            self._allow()
            if self.queued or self._reasons:
                self._wake()

    def _allow(self) -> None:
        if not self._may_work:
            self._may_work = True
            if self._is_late:
                self.drop_all("no request came for too long")

    def flush(self, timeout_s: float) -> bool:
        """Send what waits now; return whether all is. One failure, or the time, ends it."""
        with self._changed:
            self._allow()
            failed = self._failed
            self._not_before = 0.0
            if self.queued:
                self._wake()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self.queued or self._failed > failed, timeout_s)
            return not self.queued

    def close(self, timeout_s: float) -> None:
        """Flush, and drop what is left; nothing is taken any more."""
        ends_at = time.monotonic() + timeout_s
        with self._changed:
            self.shut("it is closed")
        self.flush(timeout_s)
        with self._changed:
            self.drop_all("the server did not take them before the end")
            self._idle_until = 0.0
            line = self._take_line() if self._reasons else ""
            thread = self._thread
            self._changed.notify_all()
        if line:
            log.warning("%s", line)
        if thread is not None and thread is not threading.current_thread():
            # It may have taken a line that is not in the log yet.
            thread.join(max(0.0, ends_at - time.monotonic()))

    def on_left(self, lines: Sequence[bytes]) -> None:
        self._bytes -= sum(map(len, lines))

    def on_failed(self, why: str) -> None:
        self._failed += 1
        self._note(why)

    def on_dropped(self, lines: Sequence[bytes], why: str) -> None:
        self.dropped += len(lines)
        self.on_left(lines)
        self._note(why)

    def _note(self, why: str) -> None:
        """Have it in the next line of the log."""
        if why not in self._reasons and len(self._reasons) < MAX_REASONS:
            self._reasons.append(why)
            self._changed.notify_all()

    def _wake(self) -> None:
        """Have a thread that works, if there may be one."""
        if not self._may_work:
            return
        if self._thread is None or not self._thread.is_alive():
            self._idle_until = time.monotonic() + IDLE_S
            self._thread = threading.Thread(target=self._work, name="pov-rt tracker", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:  # too many threads, or the interpreter ends
                self._thread = None
                self._note(f"no thread can be started for them ({error})")
        elif len(self._queue) in (1, self.batch_items):
            self._changed.notify_all()

    def _work(self) -> None:
        _warn_of_uwsgi()
        with closing(Http(self._address, self._timeout_s)) as http:
            while (found := self._next()) is not None:
                batch, line = found
                if line:
                    log.warning("%s", line)  # here and not where it is noted: it may take a while
                if batch is not None:
                    attempt = self._attempt(http, batch)
                    with self._changed:
                        wait_s = self.settle(attempt)
                        now = time.monotonic()
                        self._not_before, self._idle_until = now + (wait_s or 0.0), now + IDLE_S
                        self._changed.notify_all()

    def _next(self) -> tuple[Batch[bytes] | None, str] | None:
        """Wait for a batch to send or a line to log; None: nothing comes, and the thread ends."""
        with self._changed:
            while True:
                now = time.monotonic()
                is_full = self._batch is None and len(self._queue) >= self.batch_items
                batch_at = now if is_full else self._not_before if self.queued else math.inf
                line_at = self._tell_from if self._reasons else math.inf
                due = min(batch_at, line_at)
                if batch_at <= now:
                    return self.next_batch(), ""
                if line_at <= now:
                    return None, self._take_line()
                if due == math.inf and self._idle_until <= now:
                    self._thread = None
                    return None
                self._changed.wait((self._idle_until if due == math.inf else due) - now)

    def _attempt(self, http: Http, batch: Batch[bytes]) -> Attempt:
        """Post a batch, with the token of the moment."""
        where = f"{self._address.name}{PATH}"
        try:
            answer = http.request("POST", PATH, self._ask_token(), batch.body, kind=LINES)
        except Exception as error:  # the token's callable is the application's: anything
            return Attempt("failed", f"no success at {where} ({error!r})")
        results = read_results(answer, len(batch.items))
        if results is None and answer.status == 413:
            if len(batch.items) > 1:
                return Attempt("too large")
            results = [ItemOutcome(Refusal("413", "it is too large"))]
        if results is None:
            why = f"no success at {where} ({summarise(answer)})"
            if answer.status == 401 and isinstance(self._token, str):
                why += FIXED_TOKEN
            return Attempt("failed", why, answer.retry_after_s)
        refused = [str(each.error) for each in results if each.error]
        with self._changed:
            for reason in sorted(set(refused)):
                self._note(f"the server refuses some: {reason}")
        return Attempt("done", rejected=len(refused))

    def _ask_token(self) -> str:
        token = self._token if isinstance(self._token, str) else self._token()
        if isinstance(token, str):
            return token
        if not inspect.isawaitable(token):
            raise TypeError(f"the token is a {type(token).__name__} and no str")
        return asyncio.run(_wait_for(token))

    def _take_line(self) -> str:
        """Return what the log is to say now."""
        counts = self.sent, self.rejected, self.dropped
        sent, rejected, dropped = (now - told for now, told in zip(counts, self._told, strict=True))
        why = redact("; ".join(self._reasons))
        self._reasons.clear()
        self._told = counts
        self._tell_from = time.monotonic() + REPORT_S
        return (
            f"activities since the last such line: {sent} sent, {rejected} refused, "
            f"{dropped} dropped; {self.queued} wait: {why}"
        )


async def _wait_for(token: Awaitable[str]) -> str:
    return await token


def _warn_of_uwsgi() -> None:
    """Say that the thread will not run as it should. Later versions have threads by default."""
    if getattr(sys.modules.get("uwsgi"), "has_threads", True) == 0:
        log.warning(NO_THREADS)


_encode = msgspec.json.Encoder().encode


class ActivitySender:
    """Takes activities, and brings them to the server. Nothing here waits but `flush` and `close`.

    - `token` is a service token, or what returns one: asked before each batch, in the sender's
      thread. One that is `async` runs there, in an event loop of its own.
    - Each activity has its id from the start, so that a retry is recognised and nothing arrives
      twice. They leave in order; what fails is tried again, after what the server asks for.
    - At most `capacity` activities of `capacity_bytes` wait; more are dropped and counted. What
      went wrong is one line of the log, at once and then once a minute, with numbers.
    - A process that ends sends what waits, for `EXIT_S` at most.
    - With `waits` there is no thread before `serve`, `flush` or `close`, or a fork of which Python
      is told.

    `sent`, `rejected` (by the server), `dropped` and `queued` count those of this process. Raises
    ValueError for a `url` that is none of a server.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        capacity: int = CAPACITY,
        capacity_bytes: int = CAPACITY_BYTES,
        timeout_s: float = TIMEOUT_S,
        waits: bool = False,
    ) -> None:
        self._may_work = not waits
        self._make = partial(
            _Outbox,
            parse_url(url),
            token,
            capacity=capacity,
            capacity_bytes=capacity_bytes,
            timeout_s=timeout_s,
        )
        self._outboxes: dict[int, _Outbox] = {}
        _senders.add(self)

    @property
    def sent(self) -> int:
        """Activities that the server took."""
        return self._here().sent

    @property
    def rejected(self) -> int:
        """Activities that it never will."""
        return self._here().rejected

    @property
    def dropped(self) -> int:
        """Activities that were not sent: for want of room or time, or JSON has no such thing."""
        return self._here().dropped

    @property
    def queued(self) -> int:
        """Activities that wait, or are under way."""
        return self._here().queued

    @property
    def works(self) -> bool:
        """Whether there is a thread now."""
        return self._here().works

    def put(self, activity: NewActivity) -> bool:
        """Take an activity, and give it an id if it has none; return whether it was taken."""
        try:
            line = _encode(activity)
        except Exception as error:  # the details are the application's: anything
            self.refuse(f"JSON cannot hold them ({error!r})")
            return False
        if activity.id is UNSET:
            line = b'{"id":"%b",%b' % (new_id().encode(), line[1:])
        return self._here().add(line)

    def serve(self) -> None:
        """Know that this process answers requests, and so that it forks no other that does."""
        self._here().serve()

    def refuse(self, why: str) -> None:
        """Count an activity that cannot be sent, and have the log say why."""
        self._here().refuse(why)

    def flush(self, timeout_s: float = EXIT_S) -> bool:
        """Send what waits now; return whether all is. A failure ends this, as the time does.

        What is not sent is still sent later.
        """
        return self._here().flush(timeout_s)

    def close(self, timeout_s: float = EXIT_S) -> None:
        """Flush, and drop what is left; nothing is taken any more."""
        self._here().close(timeout_s)

    def forget(self) -> None:
        """Begin anew: this process was forked, and what was here is its parent's."""
        before, self._outboxes, self._may_work = self._outboxes, {}, True
        if before:
            self._outboxes[os.getpid()] = self._begin(before)

    def _here(self) -> _Outbox:
        """Return this process's part.

        By its number, for uWSGI forks without a word to Python; without a lock, for one that was
        held when the process was forked is never released.
        """
        number = os.getpid()
        found = self._outboxes.get(number)
        if found is None:
            found = self._outboxes.setdefault(number, self._begin(self._outboxes.copy()))
            for other in [each for each in self._outboxes if each != number]:
                self._outboxes.pop(other, None)
        return found

    def _begin(self, before: Mapping[int, _Outbox]) -> _Outbox:
        made = self._make(may_work=self._may_work)
        for other in before.values():
            made.inherit(other)
        return made


_senders: weakref.WeakSet[ActivitySender] = weakref.WeakSet()


def _forget_all() -> None:
    for sender in list(_senders):
        sender.forget()


def _close_all() -> None:
    """Close all before the process ends, together in the time of one."""
    ends_at = time.monotonic() + EXIT_S
    for sender in list(_senders):
        sender.close(max(0.0, ends_at - time.monotonic()))


# The number of a process may be one of its ancestors' that is gone.
os.register_at_fork(after_in_child=_forget_all)
atexit.register(_close_all)

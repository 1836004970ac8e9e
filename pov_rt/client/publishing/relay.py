"""Brings what is in an outbox to the server, for as long as it takes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from pov_rt.client.lines import explain
from pov_rt.client.publishing.items import numbered
from pov_rt.client.publishing.outbox import Claim, Claimed, Counts, Table
from pov_rt.protocol.redaction import redact
from pov_rt.remote.addresses import Address, parse_url
from pov_rt.remote.answers import (
    FIXED_TOKEN,
    LINES,
    PATH,
    HttpAnswer,
    read_results,
    summarise,
)
from pov_rt.remote.http import Http
from pov_rt.runtime.clock import Clock, SystemClock, full_jitter

log = logging.getLogger(__name__)

BATCH, BATCH_BYTES = 500, 1024 * 1024
RETRY_S = (0.5, 30.0)
POLL_S = 0.5
PASSING = frozenset({"internal", "unavailable", "timeout", "rate_limited"})
"""Why the server refuses one that it may take later."""

MOST_HELD = 200
"""PoVs that wait for themselves; with more, all do."""

Token = str | Callable[[], str]


class Step(NamedTuple):
    """What one attempt came to: how many the server has now, or why there are more to send.

    Without `why` everything is sent that could be claimed; `full` says that there may be more.
    """

    sent: int = 0
    full: bool = False
    why: str = ""
    retry_after_s: float | None = None


class Relay:
    """Sends the rows of an outbox in batches, oldest first, and tries again until they are taken.

    `connect` returns a connection of the relay's own: to an app's database with `Outbox` tables.
    `token` is a service token, or what returns one. As many relays as wanted may run, also several
    in a process; each is for one thread. `turn` is held while the database is used.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        url: str | Address,
        token: Token,
        *,
        poll_s: float = POLL_S,
        timeout_s: float = 10.0,
        turn: AbstractContextManager[object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._connect = connect
        self._turn = turn
        self._address = parse_url(url) if isinstance(url, str) else url
        self._http = Http(self._address, timeout_s)
        self._token = token
        self._poll_s = poll_s
        self._clock = clock or SystemClock()
        self._table: Table | None = None
        self._most = BATCH
        self._failures = 0
        self._said = ""
        self._held: dict[str, tuple[int, float]] = {}
        """PoVs whose first row the server could not take: how often, and until when each waits."""

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def run(self, stop: threading.Event | None = None) -> None:
        """Send what comes, until `stop` is set."""
        stopped = stop or threading.Event()
        try:
            while not stopped.is_set():
                wait_s = self.work()
                if wait_s:
                    stopped.wait(wait_s)
        finally:
            self.close()

    def drain(self, timeout_s: float) -> bool:
        """Send what is there, for so long at most; return whether all of it is sent."""
        until = self._clock.monotonic() + timeout_s
        while True:
            wait_s = self.work()
            left_s = until - self._clock.monotonic()
            if wait_s == self._poll_s and self.counts().waiting == 0:
                return True
            if left_s <= 0:
                return False
            time.sleep(min(wait_s, left_s))

    def work(self) -> float:
        """Make one attempt; return how many seconds to wait until the next one."""
        try:
            step = self.step()
        except Exception as error:  # of whichever driver: the database is away
            self._forget()
            step = Step(why=f"the outbox cannot be read: {type(error).__name__}: {error}")
        if not step.why:
            if self._said:
                log.info("activities go to %s again", self._address.name)
            self._failures, self._said = 0, ""
            return 0.0 if step.full else self._poll_s
        if step.why != self._said:
            self._said = step.why
            log.warning("activities wait in the outbox: %s", redact(step.why))
        self._failures += 1
        wait_s = full_jitter(self._failures, *RETRY_S, self._clock.random())
        return max(0.01, wait_s if step.retry_after_s is None else step.retry_after_s)

    def step(self) -> Step:
        """Send some rows, once. What the database raises comes out, and nothing is lost by it."""
        now = self._clock.monotonic()
        without = [pov for pov, (_, until) in self._held.items() if until > now]
        with self._open().claim(self._most, without) as claim:
            if not claim.rows:
                return Step()
            return self._send(claim)

    def counts(self) -> Counts:
        """Count what waits, and what was refused."""
        return self._open().counts()

    def retry(self) -> int:
        """Have what the server refused sent again; return how many those are."""
        return self._open().retry()

    def refusals(self, most: int = 10) -> list[tuple[str, str]]:
        """Return some of what the server refused, as JSON, with the reasons."""
        return self._open().refusals(most)

    def close(self) -> None:
        """Close the connections; `run` does so itself."""
        self._http.close()
        self._forget()

    def _open(self) -> Table:
        if self._table is None:
            self._table = Table(self._connect, self._turn)
        return self._table

    def _forget(self) -> None:
        table, self._table = self._table, None
        if table is not None:
            try:
                table.close()
            except Exception:  # of whichever driver: it is broken, which is why
                log.debug("the outbox's connection was not closed", exc_info=True)

    def _send(self, claim: Claim) -> Step:
        rows, size, bodies = list[Claimed](), 0, list[bytes]()
        for row in claim.rows:
            body = numbered(row.body, claim.producer, row.seq)
            size += len(body) + 1
            if rows and size > BATCH_BYTES:
                break
            rows.append(row)
            bodies.append(body)
        is_full = len(rows) < len(claim.rows) or len(claim.rows) == self._most
        try:
            token = self._token if isinstance(self._token, str) else self._token()
        except Exception as error:  # the app's: anything
            return Step(why=f"there is no token: {error!r}")
        try:
            answer = self._http.request("POST", PATH, token, b"\n".join(bodies), kind=LINES)
        except OSError as error:
            return Step(why=explain(self._address, error))
        if answer.status == 413:
            return self._halve(claim, rows)
        results = read_results(answer, len(rows)) if answer.status == 200 else None
        if results is None:
            return Step(why=self._explain(answer), retry_after_s=answer.retry_after_s)
        self._most = BATCH
        stopped: dict[str, str] = {}
        for row, result in zip(rows, results, strict=True):
            if not result.error:
                claim.done.append(row.id)
                self._held.pop(row.pov, None)
            elif result.error.code in PASSING:
                stopped.setdefault(row.pov, str(result.error))
            else:
                self._refuse(claim, row, str(result.error))
        for pov, why in stopped.items():
            self._hold(pov, why)
        if len(self._held) > MOST_HELD:
            self._held.clear()
            return Step(len(claim.done), why=f"of many PoVs none is taken now: {why}")
        return Step(len(claim.done), is_full or bool(stopped))

    def _halve(self, claim: Claim, rows: list[Claimed]) -> Step:
        """Send fewer the next time; one alone that is too large is never taken."""
        if len(rows) == 1:
            self._refuse(claim, rows[0], "too_large")
        self._most = max(1, len(rows) // 2)
        return Step(full=True)

    def _hold(self, pov: str, why: str) -> None:
        """Leave a PoV for a while, so that the others do not wait for it."""
        failures = self._held.get(pov, (0, 0.0))[0] + 1
        if failures == 1:
            log.warning("activities of %r wait in the outbox: %s", pov, why)
        wait_s = full_jitter(failures, *RETRY_S, self._clock.random())
        self._held[pov] = failures, self._clock.monotonic() + wait_s

    def _refuse(self, claim: Claim, row: Claimed, why: str) -> None:
        claim.refused[row.id] = why
        log.error("the server refuses an activity of %r, which is kept: %s", row.pov, why)

    def _explain(self, answer: HttpAnswer) -> str:
        why = f"{self._address.name} answers {summarise(answer)}"
        return why + FIXED_TOKEN if answer.status == 401 and isinstance(self._token, str) else why

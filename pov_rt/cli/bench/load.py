"""The load: clients that follow, some of which read slowly, and one publisher that keeps its rate.

It is one process on one core, as the server is. Where it has no time left itself, it says so: what
it measures then is itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from msgspec import UNSET

from pov_rt.cli.bench.ledger import Ledger
from pov_rt.client import Gap, PovClient, PovError, Status, Subscription
from pov_rt.client.lines import PASSING, explain
from pov_rt.protocol.encoding import encode
from pov_rt.remote.addresses import Address
from pov_rt.remote.answers import LINES, PATH, read_results, summarise
from pov_rt.remote.http import Http
from pov_rt.runtime.clock import new_id

JOIN_AT_ONCE = 50
BATCH, BATCH_BYTES = 500, 256 * 1024
PAUSE_S = 2.0
"""How long a slow client reads, and then does not."""
MOST_WAITING, SLOW_WAITING = 1000, 10
"""So many activities wait in a client, and in a slow one: what comes then stays on the server."""
JOIN_S = 15.0
"""How long no client may get in until the run is given up."""
ENVELOPE_BYTES = 200
"""About so many bytes of an activity are not what it says."""
RETRY_S = 0.2
GIVE_UP_S = 30.0
"""How long a batch is tried again while the server is away or full."""
SETTLE_STEP_S = 0.05


class Load(NamedTuple):
    """What is to be done. `tokens` are the clients', in turn; `publish_token` is a service's."""

    address: Address
    tokens: Sequence[str]
    publish_token: str
    clients: int
    slow: int
    povs: int
    rate: float
    seconds: float
    size: int
    late_s: float
    settle_s: float
    pov: str
    type: str
    action: str


class Run(NamedTuple):
    """What came of it: `busy` is the part of its core that the load took, `rate` what was sent."""

    ledger: Ledger
    joined_s: float
    published_s: float
    reconnects: int
    busy: float


class BenchError(Exception):
    """The run could not begin, or not go on."""


class Bench:
    """One run. Owner: the command."""

    def __init__(self, load: Load) -> None:
        self.ledger = Ledger(load.clients, load.slow, load.povs, load.late_s)
        self._load = load
        self._run = new_id()[-12:]
        self._joining = asyncio.Semaphore(JOIN_AT_ONCE)
        self._joined = 0
        self._decided = asyncio.Event()
        """All clients are there, or the first that was heard of cannot be."""
        self._over = asyncio.Event()
        self._reconnects = 0
        self._trouble: PovError | None = None

    async def run(self) -> Run:
        """Do it all. Raises `BenchError`."""
        load, loop = self._load, asyncio.get_running_loop()
        followers = [loop.create_task(self._follow(each)) for each in range(load.clients)]
        try:
            began = loop.time()
            await self._until_all_joined(followers)
            joined, cpu_s = loop.time(), time.process_time()
            publishing = loop.create_task(self._publish())
            await self._watch(publishing, followers)
            published = loop.time()
            self._over.set()
            await self._settle(followers)
            busy = (time.process_time() - cpu_s) / max(loop.time() - joined, 1e-6)
        finally:
            for each in followers:
                each.cancel()
            await asyncio.gather(*followers, return_exceptions=True)
        return Run(self.ledger, joined - began, published - joined, self._reconnects, busy)

    def _pov(self, number: int) -> str:
        return f"{self._load.pov}-{self._run}-{number % self._load.povs}"

    # Clients:

    async def _follow(self, number: int) -> None:
        """Follow a PoV for as long as the run takes. Raises what ends that before."""
        load, is_first = self._load, True
        await self._joining.acquire()

        def on_joined(_: object) -> None:
            nonlocal is_first
            if is_first:
                self._joining.release()
                self._joined += 1
                if self._joined == load.clients:
                    self._decided.set()
            else:
                self._reconnects += 1
            is_first = False

        client = PovClient(
            load.address,
            load.tokens[number % len(load.tokens)],
            device="bench",
            max_waiting=SLOW_WAITING if self.ledger.is_slow[number] else MOST_WAITING,
            on_status=self._on_status,
        )
        async with client:
            subscription = client.subscribe(
                self._pov(number), on_gap=self._on_gap, on_joined=on_joined
            )
            try:
                async with subscription:
                    await self._read(subscription, number)
            finally:  # the client gives none of them twice
                self.ledger.repeated += subscription.repeated

    async def _read(self, subscription: Subscription, number: int) -> None:
        ledger, now = self.ledger, asyncio.get_running_loop().time
        is_slow, reads_until = ledger.is_slow[number], now() + PAUSE_S
        async for activity in subscription:
            if activity.details is not UNSET:
                ledger.receive(number, activity.details["n"], now())
            if is_slow and now() >= reads_until:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), PAUSE_S)
                reads_until = now() + PAUSE_S

    def _on_gap(self, _: Gap) -> None:
        self.ledger.gaps += 1

    def _on_status(self, status: Status) -> None:
        if status.error is not None:
            self._trouble = status.error
            if status.state == "waiting" and not self._joined:
                self._decided.set()  # a server that never was there is none

    async def _until_all_joined(self, followers: Sequence[asyncio.Task[None]]) -> None:
        """Wait until all clients are there, or somebody does not get in for a while."""
        waiting = asyncio.ensure_future(self._decided.wait())
        before = -1
        try:
            while self._joined < self._load.clients:
                if self._joined == before or self._decided.is_set():
                    raise BenchError(
                        f"{self._joined} of {self._load.clients} clients could connect: "
                        f"{self._trouble or f'the others wait for more than {JOIN_S:g} s'}"
                    )
                before = self._joined
                await asyncio.wait(
                    (waiting, *followers), timeout=JOIN_S, return_when=asyncio.FIRST_COMPLETED
                )
                _raise_first(followers)
        finally:
            waiting.cancel()

    async def _watch(
        self, work: asyncio.Task[None], followers: Sequence[asyncio.Task[None]]
    ) -> None:
        """Wait for some work, unless a client ends first."""
        try:
            await asyncio.wait((work, *followers), return_when=asyncio.FIRST_COMPLETED)
            _raise_first(followers)
            await work
        finally:
            work.cancel()

    async def _settle(self, followers: Sequence[asyncio.Task[None]]) -> None:
        """Wait until everybody has all, or nothing has come for a while."""
        ledger, now = self.ledger, asyncio.get_running_loop().time
        begun = now()
        while not ledger.is_complete():
            _raise_first(followers)
            if now() - max(ledger.changed_at, begun) > self._load.settle_s:
                return
            await asyncio.sleep(SETTLE_STEP_S)

    # The publisher:

    async def _publish(self) -> None:
        """Publish at the rate; what is due while a batch is under way makes the next one."""
        load, ledger, now = self._load, self.ledger, asyncio.get_running_loop().time
        most = max(1, min(BATCH, BATCH_BYTES // (load.size + ENVELOPE_BYTES)))
        total, began, http = max(1, round(load.rate * load.seconds)), now(), Http(load.address)
        try:
            while ledger.sent < total:
                due = min(total, int((now() - began) * load.rate) + 1, ledger.sent + most)
                if due <= ledger.sent:
                    await asyncio.sleep(began + ledger.sent / load.rate - now())
                    continue
                batch = range(ledger.sent, due)
                for number in batch:
                    ledger.send(began + number / load.rate)
                await self._publish_batch(http, batch)
        finally:
            http.close()

    async def _publish_batch(self, http: Http, batch: range) -> None:
        """Publish once, however often that has to be tried: each message has its id."""
        ledger, now = self.ledger, asyncio.get_running_loop().time
        body = b"\n".join(map(self._message, batch))
        until, why, wait_s = now() + GIVE_UP_S, "", RETRY_S
        while now() < until:
            try:
                answer = await http.fetch("POST", PATH, self._load.publish_token, body, kind=LINES)
            except OSError as error:
                why = explain(self._load.address, error)
            else:
                if answer.status not in PASSING:
                    results = read_results(answer, len(batch))
                    if results is None:
                        raise BenchError(f"nothing can be published: {summarise(answer)}")
                    for number, result in zip(batch, results, strict=True):
                        if result.error:
                            ledger.refuse(str(result.error))
                        else:
                            ledger.accept(number, now())
                    return
                why, wait_s = summarise(answer), answer.retry_after_s or RETRY_S
            await asyncio.sleep(wait_s)
        for _ in batch:
            ledger.refuse(f"not answered within {GIVE_UP_S:g} s: {why}")

    def _message(self, number: int) -> bytes:
        load = self._load
        return encode(
            {
                "id": f"{self._run}-{number}",
                "type": load.type,
                "action": load.action,
                "povId": self._pov(number),
                "userId": "bench",
                "details": {"n": number, "text": "x" * load.size},
            }
        )


def _raise_first(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Raise `BenchError` if a client's task has ended: none does so by itself."""
    for task in tasks:
        if task.done():
            raise BenchError(f"a client was refused: {task.exception() or 'it has ended'}")

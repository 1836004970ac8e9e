"""One run of the checker: clients, faults, a quiet end, and the verdict."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import NamedTuple
from zlib import crc32

import msgspec

from tests.checker.activities import MAIN, POVS, QUIET, Push, checksum, decode_activity
from tests.checker.clients import PATIENCE_S, Http, connect, make_token
from tests.checker.consumers import Consumer
from tests.checker.history import Verdict, check, find_idleness
from tests.checker.inbox import Device, Inbox, Notifier
from tests.checker.nemesis import WEIGHTS, Nemesis, Victim
from tests.checker.producers import HttpProducer, Producer, SocketProducer
from tests.checker.proxy import Proxy
from tests.checker.records import History, Violation
from tests.checker.servers import Disk, Server, ServerError
from tests.processes import COMMAND

PROGRESS_S = 3.0
PAGE = 1000
Say = Callable[[str], None]


class Plan(NamedTuple):
    """What to do. It ends after so many kills, or seconds."""

    folder: Path
    seed: int
    kills: int | None = None
    seconds: float | None = None
    engine: str = "sqlite"
    rate: float = 8000.0
    """Activities published in a second, while the server serves."""
    patience_s: float = 60.0
    """How long clients may take to finish once there are no more faults."""
    faults: Sequence[str] = tuple(WEIGHTS)
    command: Sequence[str] = COMMAND


class Report(NamedTuple):
    """What came of it."""

    violations: Sequence[Violation]
    verdict: Verdict
    faults: Mapping[str, int]
    counts: Mapping[str, int]
    received: Mapping[str, int]
    """Deliveries, by consumer."""
    closes: Mapping[str, int]
    starts_s: Sequence[float]
    seconds: float
    has_small_disk: bool


class Page(msgspec.Struct, rename="camel"):
    """A page of a PoV's history."""

    epoch: str
    oldest_offset: int
    activities: list[Push]


async def run(plan: Plan, say: Say) -> Report:
    """Do it."""
    with Disk(plan.folder / "data") as disk:
        server = Server(plan.folder, plan.engine, plan.command)
        try:
            await asyncio.to_thread(server.start)
            return await Run(plan, server, disk, say).run()
        finally:
            server.kill()


class Run:
    """The parts of a run."""

    def __init__(self, plan: Plan, server: Server, disk: Disk, say: Say) -> None:
        self._plan = plan
        self._server = server
        self._disk = disk
        self._say = say
        self._history = History(durable=plan.engine == "sqlite")
        self._proxy = Proxy(server.port)
        self._consumers: list[Consumer] = []
        self._producers: list[Producer] = []
        self._inbox = Inbox(self._history.notes)
        self._devices: list[Device] = []
        self._faults: Mapping[str, int] = {}

    async def run(self) -> Report:
        """Publish and read under faults, then check."""
        begun = time.monotonic()
        await self._proxy.start()
        self._make_clients()
        async with asyncio.TaskGroup() as tasks:
            readers: Sequence[Consumer | Device] = [*self._consumers, *self._devices]
            reading = [tasks.create_task(each.run()) for each in readers]
            for consumer in self._consumers:
                await consumer.joined.wait()
            writing = [tasks.create_task(each.run()) for each in self._producers]
            progress = tasks.create_task(self._tell(begun))
            await self._disturb()
            seconds = time.monotonic() - begun
            progress.cancel()
            await self._finish(writing)
            for task in (*reading, *writing):
                task.cancel()
        for client in self._clients:
            client.reset()
        self._proxy.close()
        await asyncio.to_thread(self._stop)
        history = self._history
        if history.durable:
            self._inbox.check()
        verdict = check(history)
        idle = find_idleness(history, sum(self._faults.values()), verdict)
        return Report(
            [*verdict.violations, *idle],
            verdict,
            self._faults,
            {"sent": len(history.numbers), **history.counts},
            {each.name: each.received for each in readers},
            Counter(str(code or "lost") for each in self._consumers for code in each.closes),
            self._server.starts,
            seconds,
            self._disk.there,
        )

    @property
    def _clients(self) -> Sequence[Victim]:
        return [*self._consumers, *self._devices, *self._producers]

    def _make_clients(self) -> None:
        history, near, far = self._history, self._server.port, self._proxy.port
        main, quiet = POVS[MAIN], POVS[QUIET]
        self._consumers = [
            Consumer(history, far, "position-a", MAIN, main[:6], "position"),
            Consumer(history, near, "position-b", MAIN, main[3:9], "position"),
            Consumer(history, near, "position-c", MAIN, main[6:], "position"),
            Consumer(history, near, "restless", MAIN, main[2:5], "restless"),
            Consumer(history, near, "cursor-a", MAIN, main[:4], "cursor"),
            Consumer(history, far, "cursor-b", QUIET, quiet, "cursor"),
            Consumer(history, near, "resume", MAIN, main[8:], "resume"),
            Consumer(history, near, "slow", MAIN, main[4:6], "position", slow=True),
            Consumer(history, near, "slow-cursor", MAIN, main[9:], "cursor", slow=True),
            Consumer(history, near, "feed", MAIN, ["*"], "position"),
            Consumer(history, far, "quiet-feed-a", QUIET, ["*"], "position"),
            Consumer(history, near, "quiet-feed-b", QUIET, ["*", *quiet], "position"),
        ]
        seed, rate = self._plan.seed, self._plan.rate
        self._producers = [
            HttpProducer(history, near, "http-a", MAIN, rate * 0.3, seed),
            HttpProducer(history, near, "http-b", MAIN, rate * 0.3, seed),
            HttpProducer(history, far, "http-c", MAIN, rate * 0.3, seed),
            HttpProducer(history, near, "http-quiet", QUIET, rate * 0.04, seed),
            SocketProducer(history, near, "socket-a", MAIN, rate * 0.03, seed),
            SocketProducer(history, far, "socket-quiet", QUIET, rate * 0.02, seed),
        ]
        if history.durable:  # in memory no promise about an inbox outlasts a kill
            self._devices = [Device(history, far, self._inbox)]
            self._producers.append(Notifier(history, near, rate * 0.02, seed, self._inbox))

    async def _disturb(self) -> None:
        """Let the nemesis work to its end."""
        plan, refused = self._plan, Event()
        for producer in self._producers:
            producer.refused = refused
        nemesis = Nemesis(
            self._server,
            self._disk,
            self._proxy,
            self._clients,
            refused,
            seed=plan.seed,
            faults=plan.faults,
            kills=plan.kills,
            seconds=plan.seconds,
        )
        self._faults = nemesis.counts
        nemesis.start()
        try:
            await asyncio.to_thread(nemesis.join)
        finally:
            nemesis.stop()
        if nemesis.error is not None:
            self._history.notes.add("server", str(nemesis.error))

    async def _finish(self, writing: Sequence[asyncio.Task[None]]) -> None:
        """Have everything published and read, and the history read as well."""
        for producer in self._producers:
            producer.stopped = True
        await self._expect(writing, [each.name for each in self._producers])
        try:
            ends = {team: await self._read_ends(team) for team in (MAIN, QUIET)}
        except (OSError, EOFError) as error:
            self._history.notes.add("stuck", f"no position was to be had: {error!r}")
            return
        catching_up = [
            asyncio.ensure_future(each.catch_up(ends[each.team])) for each in self._consumers
        ]
        await self._expect(catching_up, [each.name for each in self._consumers])
        last = [asyncio.ensure_future(each.catch_up()) for each in self._devices]
        if last:
            await self._expect(last, [each.name for each in self._devices])
        await self._read_history()

    async def _expect(self, work: Sequence[asyncio.Task[None]], names: Sequence[str]) -> None:
        patience_s = self._plan.patience_s
        _, late = await asyncio.wait(work, timeout=patience_s)
        for task, name in zip(work, names, strict=True):
            if task in late:
                text = f"{name} is not done {patience_s:g} s after the last fault"
                self._history.notes.add("stuck", text)
                task.cancel()

    async def _read_ends(self, team: str) -> Mapping[str, int]:
        """Return the newest offset of each topic of a team."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def receive(payload: bytes) -> None:
            if b'"subscribed"' in payload and not answer.done():
                answer.set_result(payload)

        client = await connect(self._server.port, make_token("end", team), receive)
        client.send({"type": "subscribe", "povIds": ["*", *POVS[team]]})
        async with asyncio.timeout(PATIENCE_S):
            results = json.loads(await answer)["results"]
        client.reset()
        return {each["povId"]: each["offset"] for each in results}

    async def _read_history(self) -> None:
        """Page through what is kept, as one more reader."""
        for team, povs in POVS.items():
            http = Http(self._server.port, make_token("history", team, service=True))
            for pov in povs:
                await self._page(http, pov)
            http.reset()

    async def _page(self, http: Http, pov: str) -> None:
        stream, after = self._history.stream("history", pov), 0
        while True:
            target = f"/api/povs/{pov}/activities?after={after}&limit={PAGE}"
            status, body = await http.request(target)
            if status != 200:
                self._history.notes.add("refused", f"{target} answered {body[:200]!r}")
                return
            page = msgspec.json.decode(body, type=Page)
            if not after:
                stream.join(page.epoch, page.oldest_offset - 1)
            for push in page.activities:
                data = decode_activity(push.data)
                stream.receive(push.offset, data.id, checksum(data), crc32(push.data))
                after = push.offset
            if len(page.activities) < PAGE:
                return

    async def _tell(self, begun: float) -> None:
        """Say now and then how far it is."""
        while True:
            await asyncio.sleep(PROGRESS_S)
            received = sum(consumer.received for consumer in self._consumers)
            acked, kills = self._history.counts["acked"], self._faults.get("kill -9", 0)
            self._say(
                f"{time.monotonic() - begun:5.0f} s  {acked:9,} acknowledged"
                f"  {received:10,} received  {kills:4} kills"
                f"  {sum(self._faults.values()) - kills:4} other faults"
            )

    def _stop(self) -> None:
        """Stop the server; there must be nothing in its log that nobody expects."""
        try:
            self._server.stop()
        except ServerError as error:
            self._history.notes.add("server", str(error))
        log = self._server.log.read_text(errors="replace")
        if "Traceback" in log:
            text = log[log.index("Traceback") :][:2000]
            self._history.notes.add("traceback", f"the server's log has a traceback: {text}")

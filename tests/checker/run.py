"""One run of the checker: clients, faults, a quiet end, and the verdict."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from tests.checker.activities import POVS, WIDE, Push, checksum, decode_activity
from tests.checker.clients import PATIENCE_S, Http, connect, make_token
from tests.checker.crowd import Crowd, Named
from tests.checker.habits import PLAYED
from tests.checker.history import Verdict, check, find_idleness
from tests.checker.launcher import LAUNCHER
from tests.checker.nemesis import WEIGHTS, Nemesis
from tests.checker.proxy import Proxy
from tests.checker.records import History, Violation
from tests.checker.servers import Disk, Server, ServerError

PROGRESS_S = 3.0
PAGE = 1000
Say = Callable[[str], None]
EVERYBODY = ("",)
WHOLE_S = 60.0
"""In a run of this length everything happens that clients do."""
SLOW_CONSUMER = 4002
PULSE_S = 0.1
STILL_S = 2.0
"""Past this the clients themselves were slow: the machine is too busy to tell."""


class Pulse:
    """Notes for how long this process's loop stood still, so that its clients did not read."""

    def __init__(self) -> None:
        self.late_s = 0.0

    async def run(self) -> None:
        """Go on until it is cancelled."""
        while True:
            begun = time.monotonic()
            await asyncio.sleep(PULSE_S)
            self.late_s = max(self.late_s, time.monotonic() - begun - PULSE_S)


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
    command: Sequence[str] = LAUNCHER
    max_entries: int = 2000
    """Kept of each topic: few, so that retention is at work behind the readers."""
    clients: Sequence[str] = EVERYBODY
    """Those whose names begin so take part."""


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
        server = Server(plan.folder, f"{plan.engine}://", plan.command, plan.max_entries)
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
        self._faults: Mapping[str, int] = {}

    async def run(self) -> Report:
        """Publish and read under faults, then check."""
        begun = time.monotonic()
        await self._proxy.start()
        plan = self._plan
        crowd = self._crowd = Crowd(
            self._history,
            (self._server.port, self._proxy.port),
            (plan.seed, plan.rate, plan.max_entries),
        )
        crowd.keep(plan.clients)
        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(each.run()) for each in crowd.readers]
            await self._wait_for(
                "subscribe", crowd.subscribers, [each.joined.wait() for each in crowd.subscribers]
            )
            writing = [tasks.create_task(each.run()) for each in crowd.producers]
            reading += [tasks.create_task(each.run()) for each in crowd.revokers]
            pulse = Pulse()
            reading.append(tasks.create_task(pulse.run()))
            progress = tasks.create_task(self._tell(begun))
            await self._disturb()
            seconds = time.monotonic() - begun
            progress.cancel()
            await self._finish(writing)
            for task in (*reading, *writing):
                task.cancel()
        for client in crowd.all:
            client.reset()
        self._proxy.close()
        await asyncio.to_thread(self._stop)
        history = self._history
        if history.durable:
            for inbox in crowd.inboxes:
                inbox.check()
            self._check_closes(pulse)
        verdict = check(history)
        whole = history.durable and plan.clients == EVERYBODY and seconds >= WHOLE_S
        idle = find_idleness(history, sum(self._faults.values()), verdict, PLAYED if whole else ())
        return Report(
            [*verdict.violations, *idle],
            verdict,
            self._faults,
            {"sent": len(history.numbers), **history.counts},
            {each.name: each.received for each in crowd.readers},
            Counter(str(code or "lost") for each in crowd.subscribers for code in each.closes),
            self._server.starts,
            seconds,
            self._disk.there,
        )

    async def _disturb(self) -> None:
        """Let the nemesis work to its end."""
        plan, refused = self._plan, Event()
        for producer in self._crowd.producers:
            producer.refused = refused
        nemesis = Nemesis(
            self._server,
            self._disk,
            self._proxy,
            self._crowd.all,
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
        crowd = self._crowd
        for producer in crowd.producers:
            producer.stopped = True
        for member in crowd.members:
            member.stopped = True
        await self._expect(writing, [each.name for each in crowd.producers])
        await self._wait_for("settle", crowd.members, [each.settle() for each in crowd.members])
        try:
            ends = {team: await self._read_ends(team) for team in POVS}
        except (OSError, EOFError) as error:
            self._history.notes.add("stuck", f"no position was to be had: {error!r}")
            return
        readers = crowd.subscribers
        await self._wait_for(
            "catch up", readers, [each.catch_up(ends[each.team]) for each in readers]
        )
        devices = crowd.devices
        await self._wait_for("catch up", devices, [each.catch_up() for each in devices])
        for member in crowd.members:
            member.check_end()
        for revoker in crowd.revokers:
            await revoker.check_end()
        await self._read_history()

    async def _wait_for(
        self, what: str, clients: Sequence[Named], work: Sequence[Coroutine[Any, Any, object]]
    ) -> None:
        if work:
            tasks = [asyncio.ensure_future(each) for each in work]
            await self._expect(tasks, [f"to {what}, {each.name}" for each in clients])

    def _check_closes(self, pulse: Pulse) -> None:
        """Whoever reads at full speed is no slow consumer, unless this process stood still."""
        if pulse.late_s > STILL_S:
            return
        for client in self._crowd.quick:
            if count := client.closes.count(SLOW_CONSUMER):
                text = f"{client.name} reads at full speed and was closed as slow {count} times"
                self._history.notes.add("thrown out", text)

    async def _expect(self, work: Sequence[asyncio.Task[Any]], names: Sequence[str]) -> None:
        patience_s = self._plan.patience_s
        _, late = await asyncio.wait(work, timeout=patience_s)
        for task, name in zip(work, names, strict=True):
            if task in late:
                text = f"{name} is not done within {patience_s:g} s after the last fault"
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
            if team == WIDE:
                continue  # many, and read by two already
            http = Http(self._server.port, make_token("history", team, service=True))
            for pov in povs:
                await self._page(http, pov)
            http.reset()

    async def _page(self, http: Http, pov: str) -> None:
        stream, after = self._history.stream("history", pov), 0
        while True:
            target = f"/api/povs/{pov}/activities?after={after}&limit={PAGE}"
            status, body, _ = await http.request(target)
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
            received = sum(reader.received for reader in self._crowd.readers)
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

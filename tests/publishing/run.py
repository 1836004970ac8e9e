"""One run: apps publish while they, their relays and the server are killed; then the verdict."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.checker.clients import make_token
from tests.checker.records import Notes
from tests.checker.servers import ROOT, Server
from tests.client.publishing.databases import postgresql as postgresql_server
from tests.publishing import databases, ledger
from tests.publishing.activities import povs
from tests.publishing.apps import WAYS
from tests.publishing.databases import AppDatabase
from tests.publishing.launcher import LAUNCHER
from tests.publishing.programs import PATIENCE_S, Program, ServerVictim, Victim
from tests.publishing.reading import Logs
from tests.publishing.verdict import check

APPS = {"spool": 2, "sqlite": 1, "postgresql": 1}
RELAYS = {"spool": 0, "sqlite": 1, "postgresql": 2}
"""Of each way. Those that publish by a spool send for themselves, one of them at a time."""
LOOK_S = 0.05
PROGRESS_S = 5.0
TOGETHER = 0.25
"""How often two are killed at the same time."""
SERVER_WEIGHT = 3
"""How often the server is killed, where each other program is once."""
MOST_ENTRIES = 100_000_000
Say = Callable[[str], None]


class Plan(NamedTuple):
    """What to do: until so many kills were done and so many activities published."""

    folder: Path
    seed: int
    kills: int
    activities: int
    ways: Sequence[str] = tuple(WAYS)
    bug: str = ""
    """One of `planted`, which all programs have."""
    patience_s: float = PATIENCE_S
    """How long what waits may take to be sent, once nobody is killed any more."""


class Report(NamedTuple):
    """What came of it."""

    notes: Notes
    kills: Mapping[str, int]
    """By program."""
    counts: Mapping[str, int]
    published: Mapping[str, int]
    """By way."""
    seconds: float


def run(plan: Plan, say: Say) -> Report:
    """Do it. Raises `ServerError` if the server does not come back."""
    with ExitStack() as stack:
        return Run(plan, say, stack).run()


class Run:
    """The parts of a run, which end with `stack`."""

    def __init__(self, plan: Plan, say: Say, stack: ExitStack) -> None:
        self._plan = plan
        self._say = say
        self._stack = stack
        self._random = Random(plan.seed)
        self._notes = Notes()
        self._kills: Counter[str] = Counter()
        self._launcher = [*LAUNCHER, *([f"bug={plan.bug}"] if plan.bug else [])]
        self._spool = plan.folder / "spool"
        self._ledger = plan.folder / "ledger"
        self._ledger.mkdir()
        self._databases = dict(self._make_databases())
        server = Server(plan.folder, "sqlite://", self._launcher, MOST_ENTRIES)
        stack.callback(server.kill)
        server.start()
        self._server = server
        self._url = f"http://127.0.0.1:{server.port}"
        self._token = make_token("app", "main", service=True)
        self._apps = [self._start(*each) for way in plan.ways for each in self._app_commands(way)]
        self._relays = [
            self._start(*each) for way in plan.ways for each in self._relay_commands(way)
        ]

    def run(self) -> Report:
        """Kill while the apps publish, have them end, and look at what there is."""
        begun = time.monotonic()
        self._disturb()
        self._end()
        logs = self._logs()
        logs.read()
        kept: dict[str, set[int]] = {}
        for database in self._databases.values():
            kept |= database.kept()
        told = {name: ledger.read(self._ledger, name) for name in ledger.names(self._ledger)}
        # Where an app was killed before its first commit there is no row.
        for lane in told:
            if lane.partition("-")[0] in self._databases:
                kept.setdefault(lane, set())
        check(self._notes, told, kept, {log.pov: log.seen for log in logs.logs})
        safe = sum(len(each.safe) for each in told.values())
        void = sum(len(each.void) for each in told.values())
        begun_count = sum(each.begun for each in told.values())
        return Report(
            self._notes,
            self._kills,
            {
                "begun": begun_count,
                "said to be safe, or committed": safe,
                "rolled back, or refused by a full spool": void,
                "cut off by a kill": begun_count - safe - void,
                "published": logs.count(),
            },
            {way: logs.count(way) for way in self._plan.ways},
            time.monotonic() - begun,
        )

    def _make_databases(self) -> Iterator[tuple[str, AppDatabase]]:
        for way in self._plan.ways:
            if way == "sqlite":
                yield way, databases.sqlite(self._plan.folder)
            if way == "postgresql":
                where = self._stack.enter_context(postgresql_server())
                yield way, databases.postgresql(where)

    def _app_commands(self, way: str) -> Iterator[tuple[str, list[str]]]:
        place = self._databases[way].place.name if way in self._databases else str(self._spool)
        for name in "ab"[: APPS[way]]:
            yield (
                f"app-{way}-{name}",
                ["app", way, name, str(self._plan.folder), place, self._url, self._token],
            )

    def _relay_commands(self, way: str) -> Iterator[tuple[str, list[str]]]:
        for index in range(RELAYS[way]):
            given = ["relay", "--database", self._databases[way].url]
            yield (
                f"relay-{way}-{index}",
                [*given, "--url", self._url, "--token", self._token],
            )

    def _start(self, name: str, given: Sequence[str]) -> Program:
        program = Program(name, [*self._launcher, *given], self._plan.folder)
        self._stack.callback(program.kill)
        return program

    def _logs(self) -> Logs:
        names = [pov for way in self._plan.ways for pov in povs(way)]
        logs = Logs(self._url, names)
        self._stack.callback(logs.close)
        return logs

    def _disturb(self) -> None:
        """Kill at instants that the seed says: after so many activities of all were published."""
        plan, logs = self._plan, self._logs()
        instants = [
            int(plan.activities * (index + self._random.random()) / (plan.kills + 1))
            for index in range(plan.kills)
        ]
        said = time.monotonic()
        while instants or logs.count() < plan.activities or not all(map(logs.count, plan.ways)):
            time.sleep(LOOK_S)
            with suppress(OSError):  # the server is killed meanwhile, or stands still
                logs.read()
            if time.monotonic() > said + PROGRESS_S:
                said = time.monotonic()
                self._tell(logs)
            if ended := [each for each in self._programs if each.has_ended()]:
                self._note_ends(ended)
                return
            if instants and logs.count() >= instants[0] and all(map(logs.count, plan.ways)):
                killed = self._kill(len(instants))
                del instants[:killed]

    @property
    def _programs(self) -> list[Program]:
        return [*self._apps, *self._relays]

    def _kill(self, most: int) -> int:
        """Kill one or two at a time, start them anew, and return how many."""
        server = ServerVictim(self._server)
        everybody: list[Victim] = [*self._programs, *[server] * SERVER_WEIGHT]
        together = min(most, 2 if self._random.random() < TOGETHER else 1)
        victims = list(dict.fromkeys(self._random.sample(everybody, together)))
        for victim in victims:
            victim.kill()
            self._kills[victim.name] += 1
        for victim in victims:
            victim.revive()
        return len(victims)

    def _note_ends(self, ended: Sequence[Program]) -> None:
        for each in ended:
            self._notes.add("ended", f"{each.name} ended by itself: {each.last_words()}")

    def _tell(self, logs: Logs) -> None:
        counts = ", ".join(f"{way} {logs.count(way):,}" for way in self._plan.ways)
        self._say(f"{sum(self._kills.values())} kills; published: {counts}")

    def _end(self) -> None:
        """Have apps end, and all be sent that waits."""
        for program in self._apps:
            self._stop(program)
        deadline = time.monotonic() + self._plan.patience_s
        for way, database in self._databases.items():
            while left := database.left():
                if time.monotonic() > deadline:
                    self._notes.add("stuck", f"{left} rows of {way} are not sent")
                    break
                time.sleep(LOOK_S)
        for program in self._relays:
            self._stop(program)
        if self._spool.exists():
            self._drain()

    def _stop(self, program: Program) -> None:
        status = program.stop()
        if status not in (0, -signal.SIGTERM):  # the latter while it starts
            text = f"{program.name} ended with {status}: {program.last_words()}"
            self._notes.add("ended", text)

    def _drain(self) -> None:
        """Send what is left in the spool, as who looks after it would."""
        given = ["spool", "drain", str(self._spool), "--url", self._url, "--token", self._token]
        done = subprocess.run(
            [*self._launcher, *given, "--timeout", f"{self._plan.patience_s:.0f}s"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or "0 waiting, 0 refused" not in done.stderr:
            self._notes.add("stuck", f"the spool is not sent: {done.stderr[-500:]}")

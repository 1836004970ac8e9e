"""One run: cycles of a fault, what has to be so meanwhile, and what has to be so after it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.checker.records import Violation
from tests.checker.servers import Server, ServerError
from tests.faults.clients import BUSY, QUIET, TOPICS, Publisher, Subscriber, make_activity
from tests.faults.ledger import Ledger
from tests.faults.planted import LAUNCHER
from tests.faults.table import ALL, FAULTS, Fault
from tests.faults.truth import read_ids, read_tops
from tests.faults.world import KEPT, World

Say = Callable[[str], None]
CALM_S = (0.2, 0.6)
GOES_ON_S = (0.3, 1.5)
"""For how long busy PoVs are published to after it, in every other cycle: so that a log may come to
where it was before it lost its end."""
TWO = 0.25
"""How often two things are broken at once."""
SAID_S = 20.0
"""How long a node may take to say what is wrong while it is."""
POLL_S = 0.05
TOLD_S, ANSWERED_S = 5.0, 2.5
"""What is promised: see `Plan`."""
SPOKEN_S = 0.15
"""How often something is published to the quiet PoVs during a fault."""
RETRIED = 5
"""Activities that are published once more after each cycle: known, and lost ones."""
GROWN_BYTES = 64 * 1024 * 1024
"""How much more memory a node may have in the end than after its first cycles."""
WARM = 10
"""Cycles after which a node's memory is looked at for the first time."""


class Plan(NamedTuple):
    """What to do."""

    folder: Path
    seed: int
    cycles: int
    faults: Sequence[str] = tuple(FAULTS)
    told_s: float = TOLD_S
    """After what time all who are connected have to be where the log is, or told of a gap."""
    answered_s: float = ANSWERED_S
    """How long a publisher may wait for an answer."""
    patience_s: float = 30.0
    """How long what is late is waited for."""
    command: Sequence[str] = LAUNCHER
    netns: bool = False
    first: int = 1
    """The cycle to begin with: each is chosen by the seed and its number."""
    until: frozenset[str] = frozenset()
    """Kinds of violations of which one is enough."""
    in_turn: bool = False
    """Whether each fault is there once, one after the other, and not what the seed says."""


class Report(NamedTuple):
    """What came of it."""

    violations: Sequence[Violation]
    kinds: Mapping[str, int]
    faults: Mapping[str, int]
    counts: Mapping[str, int]
    told: int
    """Gaps that subscribers were told of."""
    moves: int
    """How often one was told of a new epoch and lost nothing."""
    received: int
    recovery_s: Sequence[float]
    """Of each cycle: after what time all were where the log is."""
    slowest_s: float
    memory: Sequence[tuple[int, int]]
    """Of each node: bytes after the first cycles, and in the end."""
    left_out: Sequence[str]


async def run(plan: Plan, say: Say) -> Report:
    """Do it. Raises `ServerError`, `SpaceError`."""
    with World(plan.folder, plan.seed, plan.command, netns=plan.netns) as world:
        try:
            await world.start()
            return await Run(plan, world, say).run()
        finally:
            world.close()


class Run:
    """The parts of a run."""

    def __init__(self, plan: Plan, world: World, say: Say) -> None:
        self._plan = plan
        self._world = world
        self._say = say
        self._ledger = Ledger()
        self._faults: Counter[str] = Counter()
        self._recovery_s: list[float] = []
        self._slowest_s = 0.0
        self._memory: list[tuple[int, int]] = []
        nodes = [(world.nodes[0], world.nodes[1]), (world.nodes[1], world.nodes[0])]
        self._publishers = [
            Publisher(self._ledger, f"p{at}", both, Random(f"{plan.seed} p{at}"))
            for at, both in enumerate(nodes)
        ]
        self._subscribers = [
            Subscriber(self._ledger, f"s{at}", both) for at, both in enumerate(nodes)
        ]
        here = {
            "out of disk": world.disk.there,
            "certificate expired": world.has_tls,
        }
        self._left_out = [name for name in plan.faults if not here.get(name, True)]
        self._names = [name for name in plan.faults if name not in self._left_out]

    async def run(self) -> Report:
        """Do all cycles."""
        plan, ledger = self._plan, self._ledger
        async with asyncio.TaskGroup() as tasks:
            work = [tasks.create_task(each.run()) for each in self._subscribers]
            work += [tasks.create_task(each.run()) for each in self._publishers]
            await self._settle(may_lose=False)
            for number in range(plan.first, plan.first + plan.cycles):
                try:
                    if not await self._cycle(number) or not plan.until.isdisjoint(
                        ledger.notes.counts
                    ):
                        break
                except ServerError as error:
                    self._say(f"      server: {error}")
                    ledger.notes.add("server", str(error))
                    break
            else:
                self._look_at_memory()
            for task in work:
                task.cancel()
        for subscriber in self._subscribers:
            subscriber.reset()
        for publisher in self._publishers:
            publisher.reset()
        self._look_at_logs()
        notes = ledger.notes
        if not ledger.counts["acknowledged"]:
            notes.add("idle", "nothing was acknowledged")
        return Report(
            notes.violations, notes.counts, self._faults, ledger.counts, len(ledger.told),
            ledger.moves, ledger.received, self._recovery_s, self._slowest_s, self._memory,
            self._left_out,
        )  # fmt: skip

    async def _cycle(self, number: int) -> bool:
        """Break something and mend it; return whether it is worth to go on."""
        plan, ledger = self._plan, self._ledger
        chance = Random(f"{plan.seed} {number}")
        names = self._choose(number, chance)
        faults = [FAULTS[name] for name in names]
        self._faults.update(names)
        ledger.slowest_s = 0.0
        told, known = len(ledger.told), len(ledger.notes.violations)
        for subscriber in self._subscribers:
            subscriber.come_home()
        for publisher in self._publishers:
            publisher.patient = "node stopped" in names
            publisher.is_on.set()
        await asyncio.sleep(chance.uniform(*CALM_S))
        for subscriber in self._subscribers:
            subscriber.codes.clear()
        self._is_broken = asyncio.Event()
        speaking = [asyncio.create_task(self._speak(each)) for each in self._publishers]
        goes_on_s = chance.choice((0.0, chance.uniform(*GOES_ON_S)))
        hold_s = max(chance.uniform(*fault.hold_s) for fault in faults)
        async with AsyncExitStack() as stack:
            nodes = [await stack.enter_async_context(each.block(self._world, chance))
                     for each in faults]  # fmt: skip
            begun = time.monotonic()
            if len(faults) == 1:
                await self._hear(names[0], faults[0], nodes[0])
            await asyncio.sleep(max(0.0, begun + hold_s - time.monotonic()))
            if not any(each.hits == "node" or each.may_lose for each in faults):
                self._check_closes(names)
            self._is_broken.set()
            if not goes_on_s:
                self._rest()
        for node in self._world.nodes:
            await asyncio.to_thread(node.wait)
        mended = time.monotonic()
        await asyncio.sleep(goes_on_s)
        self._rest()
        await asyncio.gather(*speaking)
        may_lose = any(each.may_lose for each in faults)
        is_well = await self._settle(mended, may_lose=may_lose, what=" + ".join(names))
        lost = await self._compare(may_lose=may_lose) if is_well else 0
        if is_well:
            self._check_gaps(told, may_lose=may_lose)
            await self._publish_again(chance)
            await self._get_well()
        self._slowest_s = max(self._slowest_s, ledger.slowest_s)
        if ledger.slowest_s > plan.answered_s:
            text = f"a publisher waited {ledger.slowest_s:.1f} s for an answer"
            ledger.notes.add("unanswered", text)
        if number - plan.first == WARM:
            self._look_at_memory()
        self._say(
            f"{number:4}  {' + '.join(names):42}  well after {self._recovery_s[-1]:4.1f} s"
            f"  {lost:4} lost  {len(ledger.told) - told:3} told of a gap"
        )
        for violation in ledger.notes.violations[known:]:
            self._say(f"      {violation.kind}: {violation.text}")
        return is_well

    def _choose(self, number: int, chance: Random) -> Sequence[str]:
        """Return what to break: one thing, or two."""
        names = self._names
        if self._plan.in_turn:
            return (names[(number - 1) % len(names)],)
        (name,) = chance.choices(names, [FAULTS[each].weight for each in names])
        others = [each for each in names if FAULTS[each].hits != FAULTS[name].hits]
        if others and chance.random() < TWO:
            return name, chance.choice(others)
        return (name,)

    def _rest(self) -> None:
        """Publish nothing more that is new."""
        for publisher in self._publishers:
            publisher.is_on.clear()

    # While something is broken:

    async def _speak(self, publisher: Publisher) -> None:
        """Publish to quiet PoVs as long as something is broken."""
        at = 0
        while not self._is_broken.is_set():
            await publisher.speak(QUIET[at % len(QUIET)])
            at += 1
            await asyncio.sleep(SPOKEN_S)

    async def _hear(self, name: str, fault: Fault, nodes: Sequence[int]) -> None:
        """Wait until the nodes that it hits say so and since when, and publishers are refused."""
        deadline = time.monotonic() + SAID_S
        counts, refused = self._ledger.counts, self._ledger.counts["refused"]
        for node in nodes if fault.words else ():
            state = await self._world.state(node) or {}
            while fault.words not in str(state.get("reason")) or not state.get("since"):
                if time.monotonic() > deadline:
                    text = f"node {node + 1} said in {name}: {state}"
                    self._ledger.notes.add("health", text)
                    return
                await asyncio.sleep(POLL_S)
                state = await self._world.state(node) or {}
        while fault.refuses and counts["refused"] == refused:
            if time.monotonic() > deadline:
                self._ledger.notes.add("health", f"no publisher was refused in {name}")
                return
            await asyncio.sleep(POLL_S)

    def _check_closes(self, names: Sequence[str]) -> None:
        """Nobody's socket ends because something is wrong with Redis."""
        for subscriber in self._subscribers:
            if subscriber.codes:
                text = f"{subscriber.name} was closed with {subscriber.codes} in {names}"
                self._ledger.notes.add("closed", text)

    # After it:

    async def _settle(self, since: float = 0.0, *, may_lose: bool, what: str = "") -> bool:
        """Wait until all publishers have their answers and all views are where the logs are."""
        since = since or time.monotonic()
        behind: list[str] = []
        while time.monotonic() < since + self._plan.patience_s:
            idle = [each for each in self._publishers if not each.is_idle.is_set()]
            behind = [f"{each.name} has no answer" for each in idle]
            if not idle:
                tops = await asyncio.to_thread(read_tops, self._world.redis, TOPICS)
                behind = [
                    f"{each.name} is at {view.place} of {view.topic}, that at {tops[view.topic]}"
                    for each in self._subscribers
                    for view in each.behind(tops)
                ]
            if not behind:
                took_s = time.monotonic() - since
                self._recovery_s.append(took_s)
                if took_s > self._plan.told_s and what:
                    text = f"after {what} all were where the logs are after {took_s:.1f} s"
                    self._ledger.notes.add("late", text)
                return True
            await asyncio.sleep(POLL_S)
        self._recovery_s.append(time.monotonic() - since)
        self._ledger.notes.add("stuck", f"after {what}: {'; '.join(behind[:3])}")
        return False

    async def _compare(self, *, may_lose: bool) -> int:
        """Compare everything with what Redis has; return how much is lost."""
        lost = 0
        redis = self._world.redis
        tops = await asyncio.to_thread(read_tops, redis, TOPICS)
        for topic in TOPICS:
            top = tops[topic]
            assert top is not None
            kept = await asyncio.to_thread(read_ids, redis, topic)
            lost += self._ledger.compare(topic, top, kept, may_lose=may_lose)
        self._ledger.counts["lost, and told"] += lost
        return lost

    def _check_gaps(self, first: int, *, may_lose: bool) -> None:
        """Nobody is told of a gap where nothing is lost."""
        for told in self._ledger.told[first:]:
            if not may_lose and (told.missed is None or told.missed <= KEPT):
                text = f"{told.subscriber} was told of a gap after {told.since} of {told.topic}"
                self._ledger.notes.add("flag", f"{text}, and nothing is lost")

    async def _publish_again(self, chance: Random) -> None:
        """Send some of what was acknowledged once more, and of what was lost."""
        ledger = self._ledger
        busy = {f"pov/{pov}" for pov in BUSY}
        known = [name for name, topic in ledger.topics.items() if topic in busy]
        kept = [name for name in known if name in ledger.acked][-50:]
        names = chance.sample(kept, min(RETRIED, len(kept)))
        names += list(ledger.lost)[-RETRIED:]
        for name in names:
            pov = ledger.topics[name].removeprefix("pov/")
            publisher = self._publishers[int(name[1])]
            await publisher.repeat(make_activity(name, pov), chance.randrange(2))
        ledger.lost.clear()

    async def _get_well(self) -> None:
        """Wait until both nodes say that all is well, and have nothing that waits."""
        deadline = time.monotonic() + self._plan.patience_s
        for node in ALL:
            state, waiting = await self._world.state(node), await self._world.waiting_bytes(node)
            while not state or "engine" in state or waiting:
                if time.monotonic() > deadline:
                    text = f"node {node + 1} still says {state}, and {waiting} bytes wait"
                    self._ledger.notes.add("health", text)
                    return
                await asyncio.sleep(POLL_S)
                state = await self._world.state(node)
                waiting = await self._world.waiting_bytes(node)

    # In the end:

    def _look_at_memory(self) -> None:
        """Note how much memory the nodes have, or compare it with what they had."""
        now = [resident_bytes(node) for node in self._world.nodes]
        if not self._memory:
            self._memory = [(each, each) for each in now]
            return
        self._memory = [(first, each) for (first, _), each in zip(self._memory, now, strict=True)]
        for number, (first, last) in enumerate(self._memory, 1):
            if last - first > GROWN_BYTES:
                self._ledger.notes.add("memory", f"node {number} has grown from {first} to {last}")

    def _look_at_logs(self) -> None:
        """There must be nothing in the nodes' logs that nobody expects."""
        for node in self._world.nodes:
            log = node.log.read_text(errors="replace")
            if "Traceback" in log:
                text = log[log.index("Traceback") :][:2000]
                self._ledger.notes.add("traceback", f"the log of a node has a traceback: {text}")


def resident_bytes(node: Server) -> int:
    """Return how much memory a node has."""
    pages = int(Path(f"/proc/{node.pid}/statm").read_text().split()[1])
    return pages * 4096

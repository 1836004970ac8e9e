"""A whole server under seeded interleavings, its clients checked by the rules with each message.

What runs is all of it but the sockets: messages in, the built-in plugins, an engine whose answers
take a random number of turns and fail now and then, and transports of a small size. Time is the
loop's own: it goes on when nobody has anything to do.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pov_rt.activities.publishing import Publisher
from pov_rt.auth.grants import DEFAULT_TEAM, Kind
from pov_rt.config.settings import EngineSettings, LimitSettings
from pov_rt.connections.connection import Connection
from pov_rt.delivery import pieces, replay
from pov_rt.engine.base import Entry, Follower, Page, Position, Top
from pov_rt.engine.memory import MemoryEngine, MemoryLog
from pov_rt.protocol.errors import CloseCode, Unavailable
from pov_rt.protocol.messages import NewActivity
from pov_rt.registry.build import build_registry
from pov_rt.runtime import turns
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.server import Server
from pov_rt.testing import EVERYTHING, make_settings
from tests.delivery.model import QUEUE_BYTES, SLOW_BYTES, Model, Trickle, Truth

POVS = ("a", "b", "c")
SEEDS = 30
PLUGIN = '''
"""Counts who is there by what it is told."""
from collections import Counter
from collections.abc import AsyncIterator
from pov_rt.plugin import Context, Host, Plugin

plugin = Plugin[Counter]("count")

@plugin.lifespan
async def count(host: Host) -> AsyncIterator[Counter]:
    yield Counter()

@plugin.subscribed
def came(pov_id: str, context: Context[Counter]) -> None:
    context.state[context.connection_id, pov_id] += 1

@plugin.unsubscribed
def went(pov_id: str, context: Context[Counter]) -> None:
    context.state[context.connection_id, pov_id] -= 1
'''


class Hurry(selectors.DefaultSelector):
    """Waits for nothing: what would be waited for is over at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everybody waits for somebody else")
        self.now += max(timeout, 0)
        return super().select(0)


class HurryLoop(asyncio.SelectorEventLoop):
    """A loop whose time goes on when nobody has anything to do."""

    def __init__(self) -> None:
        self.hurry = Hurry()
        super().__init__(self.hurry)

    def time(self) -> float:
        return self.hurry.now


class LoopClock(ManualClock):
    """A clock that goes with the loop's."""

    def monotonic(self) -> float:
        return self.now + asyncio.get_running_loop().time()

    time = monotonic


class Slow:
    """A part of an engine whose answers take some turns, and fail now and then."""

    def __init__(self, part: Any, world: World) -> None:
        self._part = part
        self._world = world

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **more: Any) -> Any:
            await self._world.wait()
            if self._world.chance.random() < self._world.failures:
                raise Unavailable("away")
            result = await getattr(self._part, name)(*arguments, **more)
            if name == "advance":
                self._world.has_advanced(*arguments)
            await self._world.wait()
            return result

        return call


class SlowLog(MemoryLog):
    """A log of which the same is true; appends do not fail, and reads only where that is asked."""

    world: World

    async def append(self, batch: Sequence[Any]) -> Any:
        await self.world.wait()
        result = await super().append(batch)
        await self.world.wait()
        return result

    async def read(
        self,
        topic: str,
        after: int,
        limit: int,
        *,
        reverse: bool = False,
        max_bytes: int | None = None,
    ) -> Page:
        await self.world.wait()
        if self.world.may_gap and self.world.chance.random() < self.world.failures:
            raise Unavailable("away")
        page = await super().read(topic, after, min(limit, 10), reverse=reverse)
        await self.world.wait()
        return page

    async def top(self, topic: str) -> Top:
        await self.world.wait()
        if self.world.chance.random() < self.world.failures:
            raise Unavailable("away")
        top = await super().top(topic)
        await self.world.wait()
        return top


class Witness:
    """Hears what an engine tells before the hub does."""

    def __init__(self, follower: Follower, truth: Truth) -> None:
        self._follower = follower
        self._truth = truth
        self.signal = follower.signal
        self.uncertain = follower.uncertain
        self.left = follower.left
        self.rewritten = follower.rewritten

    def entries(self, topic: str, epoch: str, entries: Sequence[Entry]) -> None:
        kind, _, name = topic.partition("/")
        if kind in ("pov", "team"):
            for entry in entries:
                self._truth.add("*" if kind == "team" else name, json.loads(entry.body))
        self._follower.entries(topic, epoch, entries)


class SlowEngine(MemoryEngine):
    """An engine that is slow, and tells of all topics from the start."""

    def __init__(self, settings: EngineSettings, clock: ManualClock, world: World) -> None:
        super().__init__(settings, clock, "node")
        self._truth = world.truth
        self.log = SlowLog(settings, clock)
        self.log.world = world
        self.marks: Any = Slow(self.marks, world)
        self.sets: Any = Slow(self.sets, world)

    async def start(self, follower: Follower, name: str = "") -> None:
        await super().start(Witness(follower, self._truth))
        for topic in (*(f"pov/{pov}" for pov in POVS), f"team/{DEFAULT_TEAM}"):
            await self.watch(topic)

    async def unwatch(self, topic: str) -> None:
        await asyncio.sleep(0)


async def fetch(*_: object, **__: object) -> Any:
    raise Unavailable("nobody is there")


class World:
    """A server with some clients, and what may happen to them."""

    def __init__(self, seed: int, plugins: Path) -> None:
        self.chance = random.Random(seed)
        self.truth = Truth()
        self.failures = 0.0
        self.may_gap = seed % 5 in (1, 2)
        clock = LoopClock()
        most = 40 if seed % 5 == 1 else 10_000
        settings = make_settings(
            engine=EngineSettings(url="memory://", max_entries=most),
            limits=LimitSettings(message_rate="100000/s", cost_rate="1000000/s"),
        )
        self.server = Server(
            settings,
            build_registry(settings.plugins, plugins),
            fetch=fetch,
            clock=clock,
            engine=SlowEngine(settings.engine, clock, self),
        )
        self.clients: list[tuple[Connection, Trickle, Model]] = []
        self.number = 0
        self.read_to: dict[tuple[str, str], int] = {}

    async def wait(self) -> None:
        for _ in range(self.chance.choice((0, 0, 1, 3, 9))):
            await asyncio.sleep(0)

    def token(self, user: str, **claims: Any) -> str:
        claims = {"can": EVERYTHING, "povs": "*"} | claims
        return self.server.tokens.issue(Kind.SOCKET, user, ttl_s=3600, **claims)

    def connect(self, *, v1: bool) -> None:
        user = f"u{len(self.clients)}"
        model = Model(user, self.truth, plain=not v1)
        transport = Trickle(model.hear)
        identity = self.server.tokens.verify(self.token(user), frozenset({Kind.SOCKET}))
        connection = self.server.arrivals.open(
            transport,
            identity,
            kind=Connection,
            v1=v1,
            device="d",
            remote_ip="",
            user_agent="",
        )
        transport.connection = connection
        self.clients.append((connection, transport, model))

    def has_advanced(self, topic: str, user: str, name: str, position: Position) -> None:
        """Expect all to be told who are subscribed, if somebody has read on."""
        pov = topic.removeprefix("pov/")
        if name == "read" and self.read_to.get((user, pov), 0) < position.offset:
            self.read_to[user, pov] = position.offset
            for _, _, model in self.clients:
                if not model.plain and pov in model.places:
                    model.places[pov].marks[user] = position.offset

    def send(self, client: tuple[Connection, Trickle, Model], **message: Any) -> None:
        connection, _, model = client
        if connection.closed or connection.close_reason is not None:
            return
        self.number += 1
        message["id"] = self.number
        model.ask(message)
        connection.receive(json.dumps(message).encode(), True)

    def act(self) -> None:
        chance = self.chance
        client = chance.choice(self.clients)
        model = client[2]
        ways = [self.subscribe] * 4 + [self.burst] * 2 + [self.unsubscribe, self.stall]
        if not model.plain:
            ways += [self.publish] * 6 + [self.ack, self.read, self.refresh, self.resume]
        chance.choice(ways)(client)

    def topic(self) -> str:
        return self.chance.choice((*POVS, *POVS, "*"))

    def subscribe(self, client: Any) -> None:
        chance, model = self.chance, client[2]
        message: dict[str, Any] = {}
        since: Any
        if chance.random() < 0.3:
            message["povIds"] = chance.sample((*POVS, "*"), chance.randrange(1, 4))
            since = chance.choice((None, "cursor", {"last": chance.randrange(1, 50)}))
        else:
            topic = message["povId"] = self.topic()
            top, epoch = self.truth.top(topic), self.truth.epochs.get(topic, "unknown")
            back = {"epoch": epoch, "offset": chance.randrange(top + 1)}
            other = {"epoch": "other", "offset": 1}
            last = {"last": chance.randrange(1, 50)}
            since = chance.choice((None, None, None, "cursor", back, back, other, last))
        if since is not None:
            message["since"] = since
        if chance.random() < 0.4:
            message["only"] = {"types": ["a"]}
        if not model.plain and chance.random() < 0.2:
            message["durable"] = True
        self.send(client, type="subscribe", **message)

    def unsubscribe(self, client: Any) -> None:
        self.send(client, type="unsubscribe", povId=self.topic())

    def resume(self, client: Any) -> None:
        self.send(client, type="resume")

    def publish(self, client: Any) -> None:
        for _ in range(self.chance.choice((1, 1, 4))):
            name = f"{client[2].name}-{self.number}"
            if self.chance.random() < 0.2 and self.number:
                name = f"{client[2].name}-{self.chance.randrange(self.number)}"
            pov, kind = POVS[sum(name.encode()) % 3], "ab"[sum(name.encode()) % 2]
            data = {"id": name, "type": kind, "action": "x", "povId": pov}
            self.send(client, type="publish", data=data, echo=self.chance.random() < 0.4)

    def burst(self, _: Any) -> None:
        pov, size = self.chance.choice(POVS), self.chance.choice((5, 300, 700))
        publisher = Publisher("app", "app", DEFAULT_TEAM)
        new: list[Any] = [
            NewActivity(
                type=self.chance.choice("ab"), action="x", pov_id=pov, details={"x": "x" * size}
            )
            for _ in range(self.chance.randrange(1, 16))
        ]
        self.tasks.append(asyncio.ensure_future(self.server.publishing.publish(new, publisher)))

    def stall(self, client: Any) -> None:
        transport = client[1]
        transport.reads = not transport.reads
        if transport.reads:
            transport.read(transport.unsent_bytes)

    def ack(self, client: Any) -> None:
        for topic, place in client[2].places.items():
            if topic not in client[2].busy() and "all" not in client[2].busy():
                self.send(client, type="ack", povId=topic, offset=place.had)

    def read(self, client: Any) -> None:
        for topic, place in client[2].places.items():
            if topic != "*" and place.had:
                offset = self.chance.randrange(place.had + 1)
                self.send(client, type="read", povId=topic, offset=offset)

    def refresh(self, client: Any) -> None:
        povs: Any = self.chance.choice(("*", "*", ["a"], ["b", "c"]))
        self.send(client, type="refresh", token=self.token(client[2].name, povs=povs))

    async def run(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        await self.server.start()
        for v1 in (True, True, True, False):
            self.connect(v1=v1)
        await asyncio.sleep(1)  # who cannot be told of notifications is closed
        self.failures = self.chance.choice((0.0, 0.05))
        for _ in range(150):
            self.act()
            await self.wait()
            if self.chance.random() < 0.1:
                await asyncio.sleep(self.chance.random())
                self.server.sweep()
            for _, transport, _ in self.clients:
                if not transport.reads and self.chance.random() < 0.3:
                    transport.read(self.chance.randrange(2 * SLOW_BYTES))
        self.failures = 0.0
        for client in self.clients:
            client[1].reads = True
            client[1].read(client[1].unsent_bytes)
        for _ in range(12):
            await asyncio.sleep(1)
            self.server.sweep()
        await asyncio.gather(*self.tasks)
        self.check()
        self.server.arrivals.stop()
        await self.server.stop()

    def check(self) -> None:
        expected: set[tuple[str, str]] = set()
        for connection, transport, model in self.clients:
            for failure in transport.failures:
                raise failure
            assert transport.peak <= QUEUE_BYTES
            if transport.closed_with is not None:
                assert self.may_gap
                assert transport.closed_with is CloseCode.GAP
                continue
            model.check_end()
            expected |= {(connection.id, topic) for topic in model.places}
        hub = self.server.hub
        assert hub.subscriptions == len(expected)
        assert hub.expected == 0
        counted = self.server.hooks.hosts["count"].state
        assert {key for key, count in counted.items() if count} == expected
        assert {*counted.values()} <= {0, 1}


@contextmanager
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make everything small that is bounded, so that it is met often."""
    monkeypatch.setattr(pieces, "JOIN_BYTES", SLOW_BYTES // 4)
    monkeypatch.setattr(turns, "SENT_BYTES", SLOW_BYTES)
    for where in ("pov_rt.delivery.replay", "pov_rt.delivery.hub"):
        monkeypatch.setattr(f"{where}.POSITION_ENTRIES", 8)
    monkeypatch.setattr(replay, "MAX_REPLAY", 100)
    yield


def play(seed: int, plugins: Path) -> World:
    """Run one seed; raise what it finds."""

    async def run() -> World:
        world = World(seed, plugins)
        await world.run()
        return world

    with asyncio.Runner(loop_factory=HurryLoop) as runner:
        return runner.run(run())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_message_is_true_when_it_is_sent_and_nothing_is_left_out(
    seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "count.py").write_text(PLUGIN)
    with small(monkeypatch):
        play(seed, tmp_path)


def test_what_was_missed_is_sent_both_with_the_answer_and_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "count.py").write_text(PLUGIN)
    told, at_once = 0, 0
    replay_now = replay.Replay._replay_now  # noqa: SLF001

    def counted(*arguments: Any) -> bool:
        nonlocal told, at_once
        is_done = replay_now(*arguments)
        told, at_once = told + 1, at_once + is_done
        return is_done

    monkeypatch.setattr(replay.Replay, "_replay_now", counted)
    with small(monkeypatch):
        for seed in range(SEEDS, SEEDS + 5):
            play(seed, tmp_path)
    assert 0 < at_once < told

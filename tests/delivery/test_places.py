"""Whatever a log loses, nobody has a hole that they are not told of, and nothing twice.

A whole server, over an engine that loses the end of its logs now and then, and says so at once,
later, or not at all. Its clients keep their places as clients do; what each has is compared with
the log, entry by entry.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from pov_rt.activities.publishing import Publisher
from pov_rt.auth.grants import DEFAULT_TEAM, Kind
from pov_rt.config.settings import EngineSettings, LimitSettings
from pov_rt.connections.connection import Connection
from pov_rt.delivery import pieces, replay
from pov_rt.delivery.places import placed
from pov_rt.engine.base import NewEntry, Page, Position, Top
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.memory import MemoryEngine
from pov_rt.protocol.errors import CloseCode
from pov_rt.protocol.messages import NewActivity
from pov_rt.registry.build import build_registry
from pov_rt.runtime import turns
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.server import Server
from pov_rt.testing import EVERYTHING, make_settings
from tests.delivery.model import SLOW_BYTES, Trickle
from tests.delivery.test_hub_model import HurryLoop, LoopClock, fetch
from tests.engine.losing import LosingEngine, LosingLog

POVS = ("a", "b", "*")
SEEDS = 16
STEPS = 100
TOPICS = {"a": "pov/a", "b": "pov/b", "*": f"team/{DEFAULT_TEAM}"}

Wait = Callable[[], Awaitable[None]]


class SlowLog(LosingLog):
    """A log whose answers take some turns: what is lost may be so while somebody asks."""

    wait: Wait

    async def append(self, batch: Sequence[NewEntry]) -> Any:
        await self.wait()
        result = await super().append(batch)
        await self.wait()
        return result

    async def read(self, topic: str, after: int, limit: int, **more: Any) -> Page:
        await self.wait()
        page = await super().read(topic, after, min(limit, 10), **more)
        await self.wait()
        return page

    async def top(self, topic: str) -> Top:
        await self.wait()
        top = await super().top(topic)
        await self.wait()
        return top

    async def holds(self, topic: str, position: Position) -> bool:
        await self.wait()
        found = await super().holds(topic, position)
        await self.wait()
        return found


class SlowEngine(LosingEngine):
    """An engine with such a log."""

    LOG = SlowLog


class Place:
    """A subscription as its client knows it: all it was sent behind `start`, by offset."""

    def __init__(self, epoch: str, start: int) -> None:
        self.epoch = epoch
        self.start = self.at = start
        self.had: dict[int, str] = {}
        self.acked = -1


class Client:
    """Keeps its places through every drop. An old one does not know that an epoch may change."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.is_old = number % 3 == 0
        self.only = {"types": ["x"]} if number % 4 == 1 else None
        self.user = f"u{number}"
        self.places: dict[str, Place] = {}
        self.asked: dict[int, dict[str, Any]] = {}
        self.gaps = self.adopted = self.recovered = 0
        self.connect()

    def connect(self) -> None:
        self.asked.clear()
        server = self.world.server
        token = server.tokens.issue(Kind.SOCKET, self.user, ttl_s=3600, can=EVERYTHING, povs="*")
        identity = server.tokens.verify(token, frozenset({Kind.SOCKET}))
        self.transport = Trickle(self.hear)
        self.transport.connection = self.connection = server.arrivals.open(
            self.transport,
            identity,
            kind=Connection,
            v1=True,
            device="d",
            remote_ip="",
            user_agent="",
        )

    @property
    def is_gone(self) -> bool:
        return self.connection.closed or self.connection.close_reason is not None

    def drop(self) -> None:
        self.transport.close(CloseCode.NORMAL)

    def send(self, **message: Any) -> None:
        self.world.number += 1
        self.asked[self.world.number] = message
        message["id"] = self.world.number
        self.connection.receive(json.dumps(message).encode(), True)

    def subscribe(self, pov: str, *, by_cursor: bool = False) -> None:
        place = self.places.get(pov)
        more: dict[str, Any] = {"only": self.only} if self.only else {}
        if place is not None and by_cursor and 0 <= place.acked:
            more["since"] = "cursor"
        elif place is not None:
            more["since"] = {"epoch": place.epoch, "offset": place.at}
        self.send(type="subscribe", povId=pov, **more)

    def ack(self, pov: str) -> None:
        if place := self.places.get(pov):
            self.send(type="ack", povId=pov, epoch=place.epoch, offset=place.at)

    def is_asking(self, pov: str) -> bool:
        """Tell whether what comes is from before a question that is on its way."""
        return any(
            each["type"] == "subscribe" and each["povId"] == pov for each in self.asked.values()
        )

    def hear(self, message: dict[str, Any]) -> None:
        asked = self.asked.pop(message["id"], None) if "id" in message else None
        match message["type"]:
            case "subscribed":
                assert asked is not None
                self.answered(message, asked)
            case "acked":
                if place := self.places.get(message["povId"]):
                    place.acked = message["offset"]
            case "activity":
                pov = message.get("feed", message["data"]["povId"])
                self.received(pov, message["offset"], message["data"])
            case "position" if not self.is_asking(message["povId"]):
                self.moved(message)
            case "error":
                assert message["code"] in ("epoch_changed", "invalid_message"), message

    def answered(self, message: dict[str, Any], asked: dict[str, Any]) -> None:
        pov, epoch = message["povId"], message["epoch"]
        place = self.places.get(pov)
        if place is None or not message.get("recovered"):
            self.gaps += place is not None
            self.places[pov] = Place(epoch, message["offset"])
            return
        self.recovered += 1
        after = message["after"]
        if asked["since"] == "cursor":
            assert after <= place.at, f"{pov} goes on at {after}, and it was at {place.at}"
            if after < place.start:  # what was acknowledged before the gap
                self.places[pov] = Place(epoch, after)
                return
            place.had = {offset: each for offset, each in place.had.items() if offset <= after}
            place.at = after
        else:
            assert after == asked["since"]["offset"]
            if after < place.start:  # asked before the answer to another question told of a gap
                self.places[pov] = Place(epoch, after)
                return
            assert after == place.at
        place.epoch = epoch

    def received(self, pov: str, offset: int, data: dict[str, Any]) -> None:
        place = self.places.get(pov)
        if place is None or self.is_asking(pov):
            return
        assert offset > place.at, f"{offset} of {pov} comes after {place.at}"
        assert self.only or offset == place.at + 1, f"{place.at} of {pov} is followed by {offset}"
        place.had[offset] = data["id"]
        place.at = offset

    def moved(self, message: dict[str, Any]) -> None:
        place = self.places[message["povId"]]
        assert message["offset"] >= place.at
        assert self.only or message["offset"] == place.at
        place.at = message["offset"]
        if "epoch" in message and not self.is_old:
            assert place.epoch != message["epoch"]
            place.epoch = message["epoch"]
            self.adopted += 1


class World:
    """A server whose logs lose their ends, and who is connected to it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.number = 0
        clock = LoopClock()
        settings = make_settings(
            engine=EngineSettings(url="memory://"),
            limits=LimitSettings(message_rate="100000/s", cost_rate="1000000/s"),
        )
        self.engine = SlowEngine(settings.engine, clock, "node", Keeping(settings.engine))
        log = self.engine.log
        assert isinstance(log, SlowLog)
        log.wait = self.wait
        self.server = Server(
            settings,
            build_registry(settings.plugins, None),
            fetch=fetch,
            clock=clock,
            engine=self.engine,
        )
        self.clients: list[Client] = []
        self.tasks: list[asyncio.Future[Any]] = []
        self.lost = 0

    async def wait(self) -> None:
        for _ in range(self.chance.choice((0, 0, 1, 3, 9))):
            await asyncio.sleep(0)

    def act(self) -> None:
        chance = self.chance
        client = chance.choice(self.clients)
        if client.is_gone:
            self.come_back(client)
            return
        pov = chance.choice(POVS)
        ways: list[Callable[[], object]] = [
            *[self.publish] * 6,
            *[self.lose] * 2,
            *[lambda: client.subscribe(pov)] * 3,
            lambda: client.ack(pov),
            lambda: self.stall(client),
            client.drop,
        ]
        chance.choice(ways)()

    def come_back(self, client: Client) -> None:
        if not client.connection.closed:
            return
        client.connect()
        for pov in list(client.places):
            client.subscribe(pov, by_cursor=self.chance.random() < 0.2)

    def stall(self, client: Client) -> None:
        client.transport.reads = not client.transport.reads
        if client.transport.reads:
            client.transport.read(client.transport.unsent_bytes)

    def publish(self) -> None:
        new: list[NewActivity] = []
        for _ in range(self.chance.choice((1, 1, 3, 20))):
            self.number += 1
            kind, pov = self.chance.choice("xy"), self.chance.choice("ab")
            new.append(NewActivity(id=f"n{self.number}", type=kind, action="z", pov_id=pov))
        publisher = Publisher("app", "app", DEFAULT_TEAM)
        publish = self.server.publishing.publish(new, publisher)
        self.tasks.append(publish)

    def lose(self) -> None:
        self.lost += 1
        self.engine.lose(self.chance.choice((0, 0, 0, 1, 2, 5, 10_000)))
        if self.chance.random() < 0.6:
            self.engine.notice()

    async def run(self) -> None:
        await self.server.start()
        self.clients = [Client(self, number) for number in range(5)]
        for client in self.clients:
            for pov in POVS:
                client.subscribe(pov)
        for _ in range(STEPS):
            self.act()
            await self.wait()
            if self.chance.random() < 0.1:
                await asyncio.sleep(self.chance.random())
                self.server.sweep()
        self.engine.notice()
        await asyncio.gather(*self.tasks)
        for _ in range(8):
            for client in self.clients:
                client.transport.reads = True
                client.transport.read(client.transport.unsent_bytes)
                if client.is_gone:
                    self.come_back(client)
            await asyncio.sleep(2)
            self.server.sweep()
        await self.check()
        self.server.arrivals.stop()
        await self.server.stop()

    async def check(self) -> None:
        for client in self.clients:
            for failure in client.transport.failures:
                raise failure
            assert not client.is_gone
            assert not client.asked
            for pov, place in client.places.items():
                page = await MemoryEngine.watch(self.engine, TOPICS[pov])
                log = self.engine.log
                found: dict[int, str] = {}
                after = place.start
                while entries := (await log.read(TOPICS[pov], after, 100)).entries:
                    for entry in entries:
                        data = json.loads(entry.body)
                        if client.only is None or data["type"] == "x":
                            found[entry.offset] = data["id"]
                    after = entries[-1].offset
                assert place.had == found, f"{client.user} on {pov}, from {place.start}"
                assert client.is_old or place.epoch == page.epoch


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_is_lost_nobody_has_a_silent_hole_nor_anything_twice(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "JOIN_BYTES", SLOW_BYTES // 4)
    monkeypatch.setattr(turns, "SENT_BYTES", SLOW_BYTES)
    for where in ("pov_rt.delivery.replay", "pov_rt.delivery.hub"):
        monkeypatch.setattr(f"{where}.POSITION_ENTRIES", 8)
    monkeypatch.setattr(replay, "MAX_REPLAY", 200)

    async def run() -> None:
        world = World(seed)
        await world.run()
        assert world.lost
        if seed == 0:
            assert sum(each.adopted for each in world.clients)
            assert sum(each.recovered for each in world.clients)
            assert sum(each.gaps for each in world.clients)

    with asyncio.Runner(loop_factory=HurryLoop) as runner:
        runner.run(run())


def test_a_place_goes_over_to_a_log_that_holds_it_and_no_other_does() -> None:
    async def run() -> None:
        engine = LosingEngine(EngineSettings(), ManualClock(), "node")
        await engine.log.append([NewEntry("pov/a", "p", str(each), b"{}") for each in range(3)])
        old = (await engine.log.top("pov/a")).epoch
        engine.lose(1)
        new = (await engine.log.top("pov/a")).epoch
        for offset, epoch in ((0, new), (2, new), (3, old)):
            place = await placed(engine.log, "pov/a", new, Position(old, offset))
            assert place == (epoch, offset)
        assert await placed(engine.log, "pov/a", new, Position(new, 9)) == (new, 9)
        assert await placed(engine.log, "pov/a", new, Position("never", 0)) == ("never", 0)

    asyncio.run(run())

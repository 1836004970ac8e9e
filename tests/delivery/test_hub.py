"""Who gets what, under every interleaving: no gap, no duplicate, in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from pov_rt.config.settings import EngineSettings
from pov_rt.connections.connection import Connection
from pov_rt.delivery.filters import Only
from pov_rt.delivery.hub import LINGER_S, Hub
from pov_rt.delivery.replay import POSITION_ENTRIES
from pov_rt.engine.base import Appended, Conflict, Entry, NewEntry, Page, Position, Top
from pov_rt.engine.memory import MemoryEngine, MemoryLog
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode, Unavailable
from pov_rt.protocol.messages import Activity
from pov_rt.runtime import turns
from pov_rt.runtime.clock import ManualClock
from tests import transports
from tests.transports import Recorder

TOPIC = "pov/acme"


class SlowLog(MemoryLog):
    """A log whose answers take a random number of turns of the loop."""

    def __init__(self, chance: random.Random, clock: ManualClock) -> None:
        super().__init__(EngineSettings(), clock)
        self.chance = chance
        self.fails = 0

    async def wait(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)

    async def append(self, batch: Sequence[NewEntry]) -> list[Appended | Conflict]:
        await self.wait()
        return await super().append(batch)

    async def read(
        self,
        topic: str,
        after: int,
        limit: int,
        *,
        reverse: bool = False,
        max_bytes: int | None = None,
    ) -> Page:
        await self.wait()
        page = await super().read(topic, after, min(limit, 3), reverse=reverse)
        await self.wait()
        if self.fails:
            self.fails -= 1
            raise Unavailable("away")
        return page

    async def top(self, topic: str) -> Top:
        await self.wait()
        top = await super().top(topic)
        await self.wait()
        return top


class Bench:
    """A hub on a slow engine, and its clients."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        clock = ManualClock()
        self.engine = MemoryEngine(EngineSettings(), clock, "node")
        self.log = self.engine.log = SlowLog(self.chance, clock)
        self.clock = clock
        self.hub = Hub(self.engine, clock)
        self.published = 0

    def connect(self, *, plain: bool = True) -> tuple[Connection, Recorder]:
        name = f"c-{self.chance.random()}"
        made = transports.connection(name, "ana", self.clock, v1=not plain, deliveries=self.hub)
        return made, transports.recorder(made)

    async def publish(self, count: int = 1) -> None:
        batch = []
        for _ in range(count):
            self.published += 1
            activity = Activity(
                id=str(self.published), type="t", action="a", pov_id="acme", user_id="u"
            )
            batch.append(NewEntry(TOPIC, "p", activity.id, encode(activity)))
        await self.log.append(batch)

    async def subscribe(self, connection: Connection, topic: str) -> None:
        self.hub.confirm(await self.hub.join(connection, topic))

    async def settle(self) -> None:
        for _ in range(400):
            await asyncio.sleep(0)

    async def turns(self, below: int) -> None:
        for _ in range(self.chance.randrange(below)):
            await asyncio.sleep(0)

    async def interrupt(self, connection: Connection) -> None:
        """Now and then, have it get its share before the others, or read slowly."""
        if self.chance.random() < 0.4:
            await self.turns(30)
            (self.hub.settle if self.chance.random() < 0.5 else self.hub.hold)(connection)


def offsets(recorder: Recorder) -> list[int]:
    return [each["offset"] for each in recorder.messages if each["type"] == "activity"]


@pytest.mark.parametrize("seed", range(120))
def test_whatever_happens_meanwhile_nothing_is_missed_doubled_or_out_of_order(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SENDS", (1, 3, 256)[seed % 3])

    async def run() -> None:
        bench = Bench(seed)
        chance = bench.chance
        await bench.engine.start(bench.hub)
        stays: list[tuple[Recorder, int]] = []
        tasks: list[asyncio.Task[None]] = []

        async def visit() -> None:
            connection, recorder = bench.connect()
            joining = await bench.hub.join(connection, TOPIC)
            top = joining.start.top
            await bench.turns(6)
            assert offsets(recorder) == []
            bench.hub.confirm(joining)
            await bench.interrupt(connection)
            if chance.random() < 0.4:
                await bench.turns(30)
                bench.hub.leave(connection, TOPIC)
                got = offsets(recorder)
                assert got == list(range(top.offset + 1, top.offset + 1 + len(got)))
                for _ in range(10):
                    await asyncio.sleep(0)
                assert offsets(recorder) == got, "something came after it had left"
            else:
                stays.append((recorder, top.offset))

        for _ in range(40):
            if chance.random() < 0.5:
                tasks.append(asyncio.create_task(bench.publish(chance.randrange(1, 8))))
            else:
                tasks.append(asyncio.create_task(visit()))
            if chance.random() < 0.1:
                bench.hub.uncertain(TOPIC)
            await bench.turns(5)
        await asyncio.gather(*tasks)
        await bench.settle()
        assert stays
        for recorder, position in stays:
            assert offsets(recorder) == list(range(position + 1, bench.published + 1))
            assert recorder.closed_with is None
        await bench.hub.close()

    asyncio.run(run())


def test_a_turns_frames_leave_in_one_send_for_each_subscriber() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.engine.start(bench.hub)
        clients = [bench.connect(plain=bool(n % 2)) for n in range(4)]
        for connection, _ in clients:
            await bench.subscribe(connection, TOPIC)
        await bench.publish(20)
        await bench.settle()
        sends = {tuple(recorder.sends) for _, recorder in clients}
        assert len(sends) == 1, "each has the same bytes"
        assert len(next(iter(sends))) == 1, "in one piece"
        assert offsets(clients[0][1]) == list(range(1, 21))
        assert bench.hub.delivered["ws"] == 80
        await bench.hub.close()

    asyncio.run(run())


def test_what_goes_to_many_takes_turns_and_nobody_waits_for_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "SENDS", 2)

    async def run() -> None:
        bench = Bench()
        await bench.engine.start(bench.hub)
        many = [bench.connect(plain=False) for _ in range(5)]
        few, few_got = bench.connect(plain=False)
        for connection, _ in many:
            await bench.subscribe(connection, TOPIC)
        for connection in (few, many[4][0]):
            await bench.subscribe(connection, "pov/small")

        def got() -> list[str]:
            return ["".join(m["type"] for m in recorder.messages) for _, recorder in many]

        bench.hub.broadcast(TOPIC, b'{"type":"a"}')
        await asyncio.sleep(0)
        assert got() == ["a", "a", "", "", ""]
        bench.hub.broadcast(TOPIC, b'{"type":"b"}')
        bench.hub.broadcast("pov/small", b'{"type":"c"}')
        bench.hub.settle(many[3][0])
        assert got() == ["a", "a", "", "ab", ""]
        await asyncio.sleep(0)
        assert [m["type"] for m in few_got.messages] == ["c"], "few are served between the many"
        assert got() == ["a", "a", "a", "ab", "ac"], "what was to come first did"
        await asyncio.sleep(0)
        newcomer, newcomer_got = bench.connect(plain=False)
        await bench.subscribe(newcomer, TOPIC)
        bench.hub.broadcast(TOPIC, b'{"type":"d"}')
        bench.hub.leave(many[4][0], TOPIC)
        assert got()[4] == "acbd", "who leaves has everything until then"
        await bench.settle()
        assert got() == ["abd", "abd", "abd", "abd", "acbd"]
        assert [m["type"] for m in newcomer_got.messages] == ["d"]
        assert not bench.hub.unsettled
        await bench.hub.close()

    asyncio.run(run())


def test_what_waits_for_its_turn_is_sent_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SENDS", 1)

    async def run() -> None:
        bench = Bench()
        await bench.engine.start(bench.hub)
        clients = [bench.connect(plain=False) for _ in range(4)]
        for connection, _ in clients:
            await bench.subscribe(connection, TOPIC)
        bench.hub.broadcast(TOPIC, b'{"type":"a"}')
        await bench.hub.close()
        assert [len(recorder.messages) for _, recorder in clients] == [1, 1, 1, 1]

    asyncio.run(run())


def test_signals_reach_those_who_asked_for_more_and_spare_the_sender() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.engine.start(bench.hub)
        (plain, plain_got), (full, full_got), (sender, sender_got) = (
            bench.connect(),
            bench.connect(plain=False),
            bench.connect(plain=False),
        )
        for connection in (plain, full, sender):
            await bench.subscribe(connection, TOPIC)
        bench.hub.broadcast(TOPIC, b'{"type":"one"}', spare=sender)
        await bench.publish()
        bench.hub.broadcast(TOPIC, b'{"type":"two"}')
        await bench.settle()
        assert [m["type"] for m in full_got.messages] == ["one", "activity", "two"]
        assert [m["type"] for m in sender_got.messages] == ["activity", "two"]
        assert [m["type"] for m in plain_got.messages] == ["activity"]
        bench.hub.promote(plain)
        bench.hub.broadcast(TOPIC, b'{"type":"three"}')
        bench.hub.flush()
        assert plain_got.messages[-1] == {"type": "three"}
        await bench.hub.close()

    asyncio.run(run())


def test_a_settled_connection_gets_its_share_first_and_once() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.engine.start(bench.hub)
        (one, one_got), (two, two_got) = bench.connect(plain=False), bench.connect(plain=False)
        for connection in (one, two):
            await bench.subscribe(connection, TOPIC)
        bench.hub.broadcast(TOPIC, b'{"type":"a"}')
        bench.hub.settle(one)
        one.send(b'{"type":"reply"}')
        bench.hub.broadcast(TOPIC, b'{"type":"b"}')
        bench.hub.flush()
        assert [m["type"] for m in one_got.messages] == ["a", "reply", "b"]
        assert [m["type"] for m in two_got.messages] == ["a", "b"]
        await bench.hub.close()

    asyncio.run(run())


def test_a_new_epoch_or_a_hole_closes_the_clients_with_gap() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.engine.start(bench.hub)
        connection, recorder = bench.connect()
        await bench.subscribe(connection, TOPIC)
        bench.hub.entries(TOPIC, "another", [Entry(1, b"{}", 0.0)])
        bench.log.epoch = "another"
        await bench.settle()
        assert recorder.closed_with is CloseCode.GAP
        assert offsets(recorder) == []
        await bench.hub.close()

    asyncio.run(run())


def test_an_engine_that_fails_while_catching_up_closes_with_gap() -> None:
    async def run() -> None:
        bench = Bench(3)
        await bench.engine.start(bench.hub)
        connection, recorder = bench.connect()
        joining = await bench.hub.join(connection, TOPIC)
        await bench.publish(5)
        bench.log.fails = 2  # what fills the ring, and what then reads the log
        bench.hub.confirm(joining)
        await bench.settle()
        assert recorder.closed_with is CloseCode.GAP
        await bench.hub.close()

    asyncio.run(run())


def test_what_was_sent_of_a_replay_counts_as_delivered_while_the_rest_waits() -> None:
    class Slow(Recorder):
        read = asyncio.Event()

        async def drained(self) -> None:
            if self.sends:
                await self.read.wait()

    async def run() -> None:
        bench = Bench()
        await bench.engine.start(bench.hub)
        big = b'{"id":"1","type":"%b","action":"a","userId":"u"}' % (b"x" * 40_000)
        await bench.log.append([NewEntry(TOPIC, "p", str(n), big) for n in range(3)])
        connection, _ = bench.connect()
        connection.transport = recorder = Slow()
        start = Position(bench.log.epoch, 0)
        joining = await bench.hub.join(connection, TOPIC, start)
        assert joining.start.recovered
        bench.hub.confirm(joining)
        await bench.settle()
        assert offsets(recorder) == [1], "the others wait until it has read the first"
        assert bench.hub.delivered_to(connection, TOPIC) == Position(bench.log.epoch, 1)
        recorder.read.set()
        await bench.settle()
        assert offsets(recorder) == [1, 2, 3]
        assert bench.hub.delivered_to(connection, TOPIC) == Position(bench.log.epoch, 3)
        await bench.hub.close()

    asyncio.run(run())


def test_a_topic_without_subscribers_is_let_go_after_a_while() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.engine.start(bench.hub)
        connection, _ = bench.connect()
        await bench.subscribe(connection, TOPIC)
        assert bench.hub.leave(connection, TOPIC)
        assert not bench.hub.leave(connection, TOPIC)
        bench.hub.sweep(10.0)
        assert bench.hub.topics == 1
        bench.hub.sweep(10.0 + LINGER_S)
        assert bench.hub.topics == 0
        again, recorder = bench.connect()  # while the engine is still letting go
        await bench.subscribe(again, TOPIC)
        await bench.publish()
        await bench.settle()
        assert offsets(recorder) == [1]
        await bench.hub.close()

    asyncio.run(run())


def test_a_filtered_client_hears_how_far_it_is_before_it_could_not_recover() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.engine.start(bench.hub)
        (full, full_got), (plain, plain_got) = bench.connect(plain=False), bench.connect()
        (late, late_got) = bench.connect(plain=False)
        only, start = Only(types=frozenset({"other"})), Position(bench.log.epoch, 0)
        for connection in (full, plain):
            bench.hub.confirm(await bench.hub.join(connection, TOPIC, only=only))
        for _ in range(3):
            await bench.publish(POSITION_ENTRIES // 2)
        bench.hub.confirm(await bench.hub.join(late, TOPIC, start, only))
        await bench.settle()
        for recorder in (full_got, late_got):
            told = [each["offset"] for each in recorder.messages if each["type"] == "position"]
            assert told
            assert told[0] < POSITION_ENTRIES * 2
        assert plain_got.messages == []
        await bench.hub.close()

    asyncio.run(run())


def test_an_own_entry_is_replaced_while_a_topic_is_compared_with_its_log() -> None:
    async def run() -> None:
        bench = Bench(5)
        await bench.engine.start(bench.hub)
        connection, recorder = bench.connect(plain=False)
        await bench.subscribe(connection, TOPIC)
        bench.hub.uncertain(TOPIC)
        bench.hub.expect("origin", connection, lambda place: b'{"type":"mine","offset":1}')
        body = encode(Activity(id="1", type="t", action="a", pov_id="acme", user_id="u"))
        await bench.log.append([NewEntry(TOPIC, "p", "1", body, origin="origin")])
        await bench.hub.taken_over(connection, [TOPIC])
        assert bench.hub.withdraw("origin")
        await bench.settle()
        assert [each["type"] for each in recorder.messages] == ["mine"]
        await bench.hub.close()

    asyncio.run(run())


def test_two_answers_have_the_place_of_one_entry() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.engine.start(bench.hub)
        connection, recorder = bench.connect(plain=False)
        await bench.publish(3)
        start = Position(bench.log.epoch, 0)
        joining = await bench.hub.join(connection, TOPIC, start)
        bench.hub.confirm(joining)
        for name in (b"a", b"b"):
            assert bench.hub.answer_at(connection, TOPIC, 2, b'{"type":"%b"}' % name)
        assert not bench.hub.answer_at(connection, TOPIC, 4, b"")
        await bench.settle()
        assert [each["type"] for each in recorder.messages] == ["activity", "a", "b", "activity"]
        assert not bench.hub.answer_at(connection, TOPIC, 2, b"")
        await bench.hub.close()

    asyncio.run(run())

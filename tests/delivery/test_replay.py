"""A subscriber is served from where it was, or from the top with words; never from between."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.connections.connection import Connection
from pov_rt.delivery import pieces
from pov_rt.delivery.filters import Since
from pov_rt.delivery.replay import MAX_REPLAY, AfterMarks, Start, recover
from pov_rt.engine.base import NewEntry, Position, Top
from pov_rt.engine.memory import MemoryLog
from pov_rt.protocol.errors import CloseCode
from pov_rt.runtime import turns
from tests.delivery.model import SLOW_BYTES, Trickle
from tests.delivery.test_hub import TOPIC, Bench, offsets
from tests.transports import Recorder

TOP = Top("e", 2000, 501)
"""1,500 entries are kept, more than are replayed at once."""


@pytest.mark.parametrize(
    ("since", "start", "recovered", "missed"),
    [
        (None, 2000, None, None),
        (Position("e", 2000), 2000, True, 0),
        (Position("e", 2000 - MAX_REPLAY), 2000 - MAX_REPLAY, True, 0),
        (Position("e", 1999 - MAX_REPLAY), 2000, False, MAX_REPLAY + 1),
        (Position("e", 0), 2000, False, 2000),
        # Of another log, or ahead of this one: nobody knows how many those are.
        (Position("other", 1999), 2000, False, None),
        (Position("e", 2001), 2000, False, None),
        (1, 1999, True, 0),
        (MAX_REPLAY, 2000 - MAX_REPLAY, True, 0),
        (MAX_REPLAY + 500, 2000 - MAX_REPLAY, True, 0),
    ],
)
def test_a_place_is_gone_on_from_or_said_to_be_lost(
    since: Since | None, start: int, recovered: bool | None, missed: int | None
) -> None:
    assert recover(TOP, since) == Start(TOP, start, recovered, missed)


def test_what_retention_took_is_missed_even_if_it_is_little() -> None:
    top = Top("e", 10, 8)
    assert recover(top, Position("e", 7)) == Start(top, 7, recovered=True, missed=0)
    assert recover(top, Position("e", 6)) == Start(top, 10, recovered=False, missed=4)
    assert recover(top, 5) == Start(top, 7, recovered=True, missed=0)


@pytest.mark.parametrize(
    ("places", "start", "missed"),
    [
        ([], 500, 500),
        ([Position("e", 400)], 500, 100),
        ([Position("e", 500)], 500, 0),
        ([Position("e", 700), Position("e", 1200)], 1200, 0),
        ([Position("other", 1999), Position("e", 600)], 600, 0),
        # Further than this node has come yet: what it does not know comes once more.
        ([Position("e", 2005)], 2000, 0),
    ],
)
def test_all_that_is_unread_comes_however_much(
    places: list[Position], start: int, missed: int
) -> None:
    assert recover(TOP, AfterMarks(places)) == Start(
        TOP, start, recovered=not missed, missed=missed
    )


PIECE = b'{"id":"1","type":"t","action":"a","userId":"u","text":"%b"}' % (b"x" * 1000)
TOPICS = [f"pov/{number}" for number in range(200)]


def slow_bench() -> tuple[Bench, Connection, Trickle]:
    """Return a bench whose client reads nothing by itself."""
    bench = Bench()
    connection, _ = bench.connect()
    connection.transport = transport = Trickle(lambda _: None)
    transport.connection, transport.reads = connection, False
    return bench, connection, transport


async def fill(bench: Bench, count: int) -> None:
    for topic in TOPICS:
        new = [NewEntry(topic, "p", str(number), PIECE) for number in range(count)]
        await MemoryLog.append(bench.log, new)


async def read_all(bench: Bench, transport: Trickle) -> None:
    """Let the client read, a little at a time, until there is nothing more."""
    while True:
        for _ in range(50):
            await asyncio.sleep(0)
        if not transport.unsent_bytes:
            return
        transport.read(1000)


@pytest.mark.parametrize(
    ("way", "turn_bytes"),
    [("missed", 0), ("lagging", 0), ("burst", 0), ("burst", SLOW_BYTES), ("lagging", SLOW_BYTES)],
)
def test_however_many_topics_a_client_has_missed_little_waits_for_it(
    way: str, turn_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "JOIN_BYTES", SLOW_BYTES // 4)
    # With 0 nothing is sent live, of which as much as that comes on top.
    monkeypatch.setattr(turns, "SENT_BYTES", turn_bytes)

    async def run() -> None:
        bench, connection, transport = slow_bench()
        bench.log.wait = lambda: asyncio.sleep(0)  # type: ignore[method-assign]
        await bench.engine.start(bench.hub)
        if way == "missed":
            await fill(bench, 3)
        start = Position(bench.log.epoch, 0)
        for topic in TOPICS:
            joining = await bench.hub.join(connection, topic, start)
            bench.hub.confirm(joining)
        if way == "lagging":
            bench.hub.hold(connection)
        if way != "missed":
            await fill(bench, 3)
        await read_all(bench, transport)
        assert transport.heard_count == 600
        assert transport.peak <= SLOW_BYTES + 2 * turn_bytes
        assert transport.closed_with is None
        await bench.hub.close()

    asyncio.run(run())


def test_the_topics_of_a_connection_go_on_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "JOIN_BYTES", SLOW_BYTES // 4)

    async def run() -> None:
        bench = Bench()
        connection, recorder = bench.connect()
        bench.log.wait = lambda: asyncio.sleep(0)  # type: ignore[method-assign]
        await bench.engine.start(bench.hub)
        for topic in ("pov/a", "pov/b"):
            new = [NewEntry(topic, "p", str(number), PIECE) for number in range(20)]
            await MemoryLog.append(bench.log, new)
            joining = await bench.hub.join(connection, topic, Position(bench.log.epoch, 0))
            bench.hub.confirm(joining)
        await bench.settle()
        got = offsets(recorder)
        assert sorted(got) == sorted([*range(1, 21)] * 2)
        assert got != [*range(1, 21)] * 2, "the second does not wait for all of the first"
        await bench.hub.close()

    asyncio.run(run())


def wanted(bench: Bench, missed: int) -> Position:
    return Position(bench.log.epoch, bench.published - missed)


async def recovered(bench: Bench, count: int, missed: int = 3) -> list[Recorder]:
    """Have some come back who missed the same; return what they have been sent in that step."""
    come = [bench.connect() for _ in range(count)]
    joinings = [await bench.hub.join(each, TOPIC, wanted(bench, missed)) for each, _ in come]
    for joining in joinings:
        bench.hub.confirm(joining)
    return [recorder for _, recorder in come]


async def with_ring() -> Bench:
    """Return a bench with a topic that somebody has missed some of."""
    bench = Bench()
    await bench.engine.start(bench.hub)
    await bench.publish(20)
    await recovered(bench, 1)
    await bench.settle()
    return bench


def test_who_missed_the_same_is_sent_the_same_bytes_with_the_answer() -> None:
    async def run() -> None:
        bench = await with_ring()
        found = await recovered(bench, 3)
        assert [offsets(each) for each in found] == [[*range(18, 21)]] * 3
        assert len({id(each.sends[0]) for each in found}) == 1
        assert len(bench.hub.live(TOPIC)) == 4
        await bench.publish()
        await bench.settle()
        assert [offsets(each) for each in found] == [[*range(18, 22)]] * 3
        assert offsets((await recovered(bench, 1))[0]) == [*range(19, 22)]
        await bench.hub.close()

    asyncio.run(run())


def test_a_turn_brings_no_more_of_them_up_to_date_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "SENDS", 2)

    async def run() -> None:
        bench = await with_ring()
        found = await recovered(bench, 5)
        assert sum(bool(offsets(each)) for each in found) == 2
        await bench.settle()
        assert [offsets(each) for each in found] == [[*range(18, 21)]] * 5
        await bench.hub.close()

    asyncio.run(run())


def test_who_has_little_left_of_the_budget_waits_for_it() -> None:
    async def run() -> None:
        bench = await with_ring()
        connection, recorder = bench.connect()
        joining = await bench.hub.join(connection, TOPIC, wanted(bench, 3))
        now = bench.clock.monotonic()
        while connection.budget.has_spare(now):
            connection.budget.charge(1, now)
        bench.hub.confirm(joining)
        assert recorder.messages == []
        assert bench.hub.replay.is_behind(connection)
        await bench.hub.close()

    asyncio.run(run())


def test_what_was_missed_is_paid_for_though_it_comes_at_once() -> None:
    async def run() -> None:
        bench = await with_ring()
        connection, recorder = bench.connect()
        before = connection.budget.used(bench.clock.monotonic())
        bench.hub.confirm(await bench.hub.join(connection, TOPIC, wanted(bench, 3)))
        assert offsets(recorder) == [*range(18, 21)]
        assert connection.budget.used(bench.clock.monotonic()) > before
        await bench.hub.close()

    asyncio.run(run())


def test_who_is_being_closed_is_not_taken_for_up_to_date() -> None:
    async def run() -> None:
        bench = await with_ring()
        connection, recorder = bench.connect()
        joining = await bench.hub.join(connection, TOPIC, wanted(bench, 3))
        connection.close(CloseCode.RESTARTING)
        bench.hub.confirm(joining)
        assert offsets(recorder) == []
        assert connection not in bench.hub.live(TOPIC)
        await bench.hub.close()

    asyncio.run(run())

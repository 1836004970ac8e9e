"""Where a log can be followed from, and what becomes of those whose log has moved meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.delivery.filters import Only
from pov_rt.delivery.pieces import Spread
from pov_rt.delivery.topic import Topic
from pov_rt.engine.base import Health, NewEntry, Position, State, Top
from pov_rt.protocol.errors import CloseCode, PositionLost
from pov_rt.registry.build import build_registry
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.server import Server
from pov_rt.server.streams import Log, locate
from pov_rt.testing import make_settings
from pov_rt.transport.stream import EventFraming, PollTransport, epoch_of, offset_of
from pov_rt.web.fetch import fetch
from tests.engine.losing import LosingEngine

TOP = Top("e", 9, 4)


@pytest.mark.parametrize("offset", [3, 4, 9])
def test_a_log_is_followed_from_any_place_with_nothing_missing_behind(offset: int) -> None:
    locate(TOP, Position("e", offset))


@pytest.mark.parametrize(
    ("place", "missed"),
    [
        (Position("e", 2), 1),
        (Position("e", 0), 3),
        (Position("e", 10), None),
        (Position("f", 5), None),
    ],
)
def test_another_place_is_lost(place: Position, missed: int | None) -> None:
    with pytest.raises(PositionLost) as found:
        locate(TOP, place)
    assert found.value.extra.get("missed") == missed
    assert found.value.extra["oldestOffset"] == 4


@pytest.mark.parametrize(("epoch", "after"), [("another", 0), (None, 5)])
def test_who_would_skip_something_is_ended_and_not_served(epoch: str | None, after: int) -> None:
    async def run() -> None:
        server = Server(make_settings(), build_registry({}, None), fetch=fetch, clock=ManualClock())
        await server.start()
        token = server.tokens.issue(Kind.SOCKET, "ana", ttl_s=60, povs="*", can=["subscribe"])
        identity = server.tokens.verify(token, frozenset({Kind.SOCKET}))
        log = Log.of(identity, "pov", "acme")
        poll = PollTransport()
        connection = server.streams.open(
            poll, identity, lasts_s=60, is_present=False, device="d", remote_ip="", user_agent=""
        )
        poll.start(connection)
        there = Position(epoch or (await server.streams.top(log)).epoch, after)
        found = await server.streams.follow(connection, log, there, Only(), None)
        assert found is None
        assert connection.close_reason == CloseCode.GAP.reason
        assert server.hub.audience(log.name) == 0
        poll.end("over")
        await server.stop()

    asyncio.run(run())


def test_those_who_follow_one_log_share_how_events_are_written() -> None:
    async def run() -> None:
        server = Server(make_settings(), build_registry({}, None), fetch=fetch, clock=ManualClock())
        streams = server.streams
        acme, other = Log("pov/acme", "pov", "acme"), Log("pov/other", "pov", "other")
        one = streams.framing(acme, TOP)
        assert streams.framing(acme, TOP) is one
        assert streams.framing(other, TOP) is not one
        assert streams.cursor(5) > 5
        assert streams.cursor(10**15) == 10**15 + 1

    asyncio.run(run())


def test_who_waits_is_told_of_another_epoch_and_goes_on_from_the_same_place() -> None:
    async def run() -> None:
        settings = make_settings()
        engine = LosingEngine(settings.engine, ManualClock(), "node")
        registry = build_registry({}, None)
        server = Server(settings, registry, fetch=fetch, clock=ManualClock(), engine=engine)
        await server.start()
        streams = server.streams
        token = server.tokens.issue(Kind.SOCKET, "ana", ttl_s=60, povs="*", can=["subscribe"])
        identity = server.tokens.verify(token, frozenset({Kind.SOCKET}))
        log = Log.of(identity, "pov", "acme")
        await engine.log.append([NewEntry(log.name, "p", str(each), b"{}") for each in range(3)])
        place = Position((await streams.top(log)).epoch, 3)
        poll = PollTransport()
        connection = streams.open(
            poll, identity, lasts_s=60, is_present=False, device="d", remote_ip="", user_agent=""
        )
        poll.start(connection)
        assert await streams.follow(connection, log, place, Only(), None) == place
        engine.lose(0)
        engine.notice()
        await poll.woken
        (line,) = poll.take()
        top = await streams.top(log)
        assert (epoch_of(line), offset_of(line)) == (top.epoch, 3)
        assert await streams.placed(log, top, place) == (top.epoch, 3)
        assert (await streams.read(log, place, Only())).offset == 3
        engine.lose(1)
        with pytest.raises(PositionLost):
            await streams.read(log, place, Only())
        poll.end("over")
        await server.stop()

    asyncio.run(run())


def test_events_are_written_with_the_epoch_that_the_log_has_now() -> None:
    topic = Topic("pov/acme", Spread())
    topic.epoch = "e"
    framing = EventFraming(topic, lambda: 5)
    assert b'"streamNextOffset":"e_' in framing.frame(b'{"type":"activity","offset":1}')
    topic.adopt("f")
    assert b'"streamNextOffset":"f_' in framing.frame(b'{"type":"activity","offset":2}')
    assert [topic.holds(Position("e", offset)) for offset in (0, 1)] == [True, False]


def test_a_node_that_is_deaf_sends_clients_away_and_one_that_is_degraded_does_not() -> None:
    settings = make_settings()
    engine = LosingEngine(settings.engine, ManualClock(), "node")
    registry = build_registry({}, None)
    server = Server(settings, registry, fetch=fetch, clock=ManualClock(), engine=engine)
    server.started = True
    states: tuple[tuple[State, bool], ...] = (("degraded", True), ("deaf", False))
    for state, welcome in states:
        engine.state = Health(state, "it does not hear")
        assert (server.not_welcome() is None) is welcome
        assert server.not_publishing() == "it does not hear"
    engine.state = Health()
    assert server.not_welcome() is None is server.not_publishing()

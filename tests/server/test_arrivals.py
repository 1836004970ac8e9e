"""Connections from the handshake to their end."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest

from pov_rt.engine.base import Health
from pov_rt.registry.build import build_registry
from pov_rt.runtime import turns
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.arrivals import (
    ENDS_AT_ONCE,
    LEAST_SPREAD_S,
    LEAVING_S,
    NOTICE_S,
    PARTING_S,
    PARTINGS_PER_S,
    RETURNS_PER_S,
    START_S,
    WAVES,
)
from pov_rt.server.server import LOST_S, Server
from pov_rt.testing import make_settings
from tests.server.test_server import connect, nothing

REGISTRY = build_registry({})


def test_a_client_is_greeted_if_it_knows_greetings() -> None:
    async def run() -> None:
        server = Server(make_settings(), REGISTRY, fetch=nothing, clock=ManualClock())
        await server.start()
        (ana, to_ana), (_, to_plain) = connect(server, "ana"), connect(server, "ana", v1=False)
        (welcome,) = to_ana.messages
        assert (welcome["type"], welcome["connectionId"]) == ("welcome", ana.id)
        assert to_plain.messages == []
        assert (server.arrivals.opened, len(server.directory)) == (
            {"ws": 2, "sse": 0, "poll": 0},
            2,
        )
        await server.stop()

    asyncio.run(run())


def test_those_who_are_cut_off_together_are_let_go_in_turns_and_may_come_back_at_once() -> None:
    async def run() -> None:
        server = Server(make_settings(), REGISTRY, fetch=nothing, clock=ManualClock())
        await server.start()
        many = 3 * turns.DISCONNECTS
        gone = [connect(server, f"user-{n}")[0] for n in range(many)]
        for connection in gone:
            connection.lost("cut off")
        assert len(server.directory) == 0, "they count no more"
        await asyncio.sleep(0)
        assert sum(server.arrivals.closes.values()) == turns.DISCONNECTS
        for _ in range(3):
            await asyncio.sleep(0)
        assert sum(server.arrivals.closes.values()) == many
        connect(server, "last")[0].lost("cut off")
        await server.stop()
        assert sum(server.arrivals.closes.values()) == many + 1, "nobody is left at the end"

    asyncio.run(run())


def test_who_connects_and_goes_as_often_as_can_be_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        server = Server(make_settings(), REGISTRY, fetch=nothing, clock=ManualClock())
        await server.start()
        with caplog.at_level(logging.INFO):
            for _ in range(int(ENDS_AT_ONCE) + 100):
                ana, _ = connect(server, "ana")
                ana.lost("the client went away")
            await server.stop()

    asyncio.run(run())
    lines = [record for record in caplog.records if "connection closed" in record.getMessage()]
    assert len(lines) == ENDS_AT_ONCE


@pytest.mark.parametrize(
    ("port_stays", "is_succeeded"), [(True, False), (True, True), (False, False)]
)
@pytest.mark.parametrize("many", [3, 3000])
def test_all_are_sent_away_at_once_and_come_back_spread_by_their_number(
    many: int, port_stays: bool, is_succeeded: bool
) -> None:
    async def run() -> None:
        server = Server(make_settings(), REGISTRY, fetch=nothing)
        await server.start()
        recorders = [connect(server, f"user-{n}")[1] for n in range(many)]
        away_s = server.leave(port_stays=port_stays, is_succeeded=is_succeeded)
        drained = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        told = sum(each.closed_with is not None for each in recorders)
        assert told == min(many, turns.SENDS), "others have a turn meanwhile"
        await drained
        waits = [each.messages[-1]["retryAfter"] for each in recorders]
        spread = max(LEAST_SPREAD_S, many / RETURNS_PER_S)
        least = many / PARTINGS_PER_S + (LEAVING_S if is_succeeded else PARTING_S)
        least += 0 if port_stays else START_S
        assert away_s == least
        assert least - 0.001 <= min(waits) <= max(waits) <= least + spread + 0.001
        if many > 100:  # a tenth of them comes in each tenth of the time
            tenths = Counter(min(9, int((wait - least) / spread * 10)) for wait in waits)
            assert len(tenths) == 10
            assert max(tenths.values()) < many / 5
        await server.stop()

    asyncio.run(run())


def test_clients_of_a_deaf_node_are_moved_in_waves_until_it_hears_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        clock = ManualClock()
        server = Server(make_settings(), REGISTRY, fetch=nothing, clock=clock)
        await server.start()
        many = 2 * WAVES + 5
        recorders = [connect(server, f"user-{n}")[1] for n in range(many)]

        def closed() -> int:
            return sum(each.closed_with is not None for each in recorders)

        def stand(*health: Any) -> None:
            monkeypatch.setattr(server.engine, "health", lambda: Health(*health))

        server.sweep()
        assert (closed(), server.not_welcome()) == (0, None)
        stand("deaf", "it hears nothing", clock.time())
        assert server.not_welcome() == "it hears nothing"
        server.sweep()
        assert closed() == 0, "load balancers have to see it first"
        clock.advance(NOTICE_S)
        server.sweep()
        assert closed() == 3
        server.sweep()
        assert closed() == 6
        stand("degraded", "nobody hears", clock.time())
        server.sweep()
        assert (closed(), server.not_welcome()) == (6, None), "who is connected stays"
        stand("deaf", "it hears nothing", clock.time())
        server.sweep()
        clock.advance(NOTICE_S)
        for _ in range(WAVES):
            server.sweep()
        assert closed() == many
        assert server.arrivals.moving_s < LOST_S
        clock.advance(LOST_S)
        assert server.is_lost, "only a new process is left to try"
        stand()
        server.sweep()
        assert server.arrivals.moving_s == 0
        await server.stop()

    asyncio.run(run())

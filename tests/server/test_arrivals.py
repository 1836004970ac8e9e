"""Connections from the handshake to their end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pov_rt.registry.build import build_registry
from pov_rt.runtime import turns
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.arrivals import ENDS_AT_ONCE
from pov_rt.server.server import Server
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
        assert (server.arrivals.opened, len(server.directory)) == (2, 2)
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

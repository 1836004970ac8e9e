"""Who sends too much is told when there is room again, and in the end let go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pov_rt.connections.connection import Connection
from pov_rt.protocol.errors import CloseCode
from pov_rt.server.server import Server
from pov_rt.testing import Connect, RunningServer
from tests.dispatch.handlers.test_execution import PLUGIN, run, send
from tests.transports import Recorder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gate.py").write_text(PLUGIN)
    return tmp_path


def test_a_type_has_its_own_rate_and_says_when_there_is_room(folder: Path) -> None:
    async def test(server: Server, connection: Connection, out: Recorder, _: asyncio.Event) -> None:
        for n in range(8):
            send(server, connection, "gate.say", n)
        kinds = [each["type"] for each in out.messages]
        assert kinds == ["gate.said"] * 6 + ["error"] * 2
        assert out.messages[6]["code"] == "rate_limited"
        assert 0 < out.messages[6]["retryAfter"] <= 0.334

    run(folder, test)


def test_a_flood_is_closed_once_rejections_outnumber(folder: Path) -> None:
    async def test(server: Server, connection: Connection, out: Recorder, _: asyncio.Event) -> None:
        for n in range(16):
            send(server, connection, "ping", n)
        assert (out.closed_with, len(out.messages)) == (None, 16)
        send(server, connection, "ping", 16)
        assert out.closed_with is CloseCode.FLOODING
        assert [each["type"] for each in out.messages].count("pong") == 10

    run(folder, test, message_rate="5/s", rejected_messages=6)


def test_a_type_that_is_there_twice_is_named_unless_it_says_the_same(
    server: RunningServer, connect: Connect
) -> None:
    client = connect("ana")
    for text in (
        '{"type":"ping","type":"subscribe","povId":"z","id":7}',
        '{"type":"subscribe","povId":"z","type":"ping","id":7}',
    ):
        client.send(text)
        refused = client.receive()
        assert (refused["code"], refused["field"], refused["id"]) == ("invalid_message", "type", 7)
        assert "more than once" in refused["detail"]
    client.send('{"type":"ping","type":"ping"}')
    assert client.receive() == {"type": "pong"}

"""Connections by user, and their bounds."""

from __future__ import annotations

import pytest

from pov_rt.auth.revocations import Revocations
from pov_rt.config.settings import AuthSettings, EngineSettings, LimitSettings
from pov_rt.connections.directory import Directory
from pov_rt.engine.memory import MemoryEngine
from pov_rt.protocol.errors import CloseCode, LimitExceeded
from pov_rt.runtime.clock import ManualClock
from tests.transports import connection, recorder


def test_connections_are_found_by_id_and_user_and_bounded() -> None:
    clock, engine = ManualClock(), MemoryEngine(EngineSettings(), ManualClock(), "node")
    directory = Directory(
        engine.signals,
        Revocations(engine.sets, clock, AuthSettings()),
        LimitSettings(connections_per_user=3, devices_per_user=2),
        clock,
    )
    one, two = connection("1", "ana", clock), connection("2", "ana", clock)
    directory.add(one)
    directory.check_room(one.identity, "2")
    directory.add(two)
    directory.check_room(one.identity, "1")
    with pytest.raises(LimitExceeded, match="2 devices"):
        directory.check_room(one.identity, "3")
    three = connection("3", "ana", clock)
    directory.add(three)
    with pytest.raises(LimitExceeded, match="3 connections"):
        directory.check_room(one.identity, "1")
    assert (directory.get("1"), directory.get("9"), len(directory)) == (one, None, 3)
    directory.send_user("ana", b'{"type":"x"}')
    assert recorder(two).messages == [{"type": "x"}]
    directory.remove(one)
    directory.remove(one)
    directory.disconnect(user_id="ana", connection_id="1", code=CloseCode.TOKEN)
    assert [recorder(each).closed_with for each in (one, two)] == [None, None]
    directory.disconnect(user_id="ben", connection_id="2", code=CloseCode.TOKEN)
    assert recorder(two).closed_with is None
    directory.disconnect(user_id="ana", connection_id=None, code=CloseCode.TOKEN)
    closed = [recorder(each).closed_with for each in (one, two, three)]
    assert closed == [None, CloseCode.TOKEN, CloseCode.TOKEN]

"""Connections by user, and their bounds."""

from __future__ import annotations

import pytest

from pov_rt.config.settings import LimitSettings
from pov_rt.connections.directory import Register
from pov_rt.engine.memory import MemorySignals
from pov_rt.protocol.errors import CloseCode, LimitExceeded
from pov_rt.runtime.clock import ManualClock
from tests.transports import connection, recorder


def test_connections_are_found_by_id_and_user_and_bounded() -> None:
    clock, closed = ManualClock(), []
    register = Register(
        MemorySignals(),
        LimitSettings(connections_per_user=3, devices_per_user=2),
        settle=lambda _: None,
        close=lambda each, code: closed.append((each.id, code)),
        revoke=lambda _: None,
    )
    one, two = connection("1", "ana", clock), connection("2", "ana", clock)
    register.add(one)
    register.check_room(one.identity, "2")
    register.add(two)
    register.check_room(one.identity, "1")
    with pytest.raises(LimitExceeded, match="2 devices"):
        register.check_room(one.identity, "3")
    register.add(connection("3", "ana", clock))
    with pytest.raises(LimitExceeded, match="3 connections"):
        register.check_room(one.identity, "1")
    assert (register.get("1"), register.get("9"), len(register)) == (one, None, 3)
    register.send_user("ana", b'{"type":"x"}')
    assert recorder(two).messages == [{"type": "x"}]
    register.remove(one)
    register.remove(one)
    register.disconnect(user_id="ana", connection_id="1", code=CloseCode.TOKEN)
    assert closed == []
    register.disconnect(user_id="ben", connection_id="2", code=CloseCode.TOKEN)
    assert closed == []
    register.disconnect(user_id="ana", connection_id=None, code=CloseCode.TOKEN)
    assert closed == [("2", CloseCode.TOKEN), ("3", CloseCode.TOKEN)]

"""Connections by user, and their bounds."""

from __future__ import annotations

import pytest

from pov_rt.auth.revocations import Revocations
from pov_rt.config.settings import AuthSettings, EngineSettings, LimitSettings
from pov_rt.connections.directory import REMEMBERED, Command, Directory
from pov_rt.engine.memory import MemoryEngine
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode, LimitExceeded
from pov_rt.runtime.clock import ManualClock
from tests.transports import connection, recorder


def make(clock: ManualClock) -> Directory:
    engine = MemoryEngine(EngineSettings(), ManualClock(), "node")
    return Directory(
        engine.signals,
        Revocations(engine.sets, clock, AuthSettings()),
        LimitSettings(connections_per_user=3, devices_per_user=2),
        clock,
    )


def test_connections_are_found_by_id_and_user_and_bounded() -> None:
    clock = ManualClock()
    directory = make(clock)
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
    order = directory.disconnect(user_id="ana", connection_id=None, code=CloseCode.TOKEN)
    assert order.closed == 2
    closed = [recorder(each).closed_with for each in (one, two, three)]
    assert closed == [None, CloseCode.TOKEN, CloseCode.TOKEN]


def test_what_another_nodes_order_closed_is_known_for_a_while() -> None:
    clock = ManualClock()
    directory = make(clock)
    for name in ("1", "2"):
        directory.add(connection(name, "ana", clock))
    assert directory.closed_by("first") is None
    for user in ("ana", "ben"):  # the second part closes nobody
        directory.hear(encode(Command(user=user, close=CloseCode.TOKEN.name, order="first")))
    assert directory.closed_by("first") == 2
    for number in range(REMEMBERED):
        directory.hear(encode(Command(user="ben", close=CloseCode.TOKEN.name, order=str(number))))
    assert (directory.closed_by("first"), directory.closed_by("0")) == (None, 0)

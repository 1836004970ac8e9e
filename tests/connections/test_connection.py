"""What leaves by a connection comes after what was delivered before, whatever way it leaves by."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

import pytest

from pov_rt.config.settings import EngineSettings
from pov_rt.connections.connection import Connection
from pov_rt.delivery.hub import Hub
from pov_rt.engine.memory import MemoryEngine
from pov_rt.protocol.errors import CloseCode
from pov_rt.runtime.clock import ManualClock
from tests.transports import connection, recorder

TOPIC = "pov/acme"
LAST = b'{"type":"last"}'

WAYS: dict[str, Callable[[Connection], None]] = {
    "send": lambda each: each.send(LAST),
    "reply": lambda each: each.reply(LAST),
    "tell_position": lambda each: each.tell_position(LAST),
    "subscription_ended": lambda each: each.subscription_ended(LAST),
    "close": lambda each: each.close(CloseCode.RESTARTING),
}


async def subscribed(hub: Hub, clock: ManualClock, name: str, *, v1: bool = True) -> Connection:
    made = connection(name, name, clock, v1=v1, deliveries=hub)
    hub.confirm(await hub.join(made, TOPIC))
    return made


def types(made: Connection) -> list[str]:
    return [message["type"] for message in recorder(made).messages]


def test_every_public_way_out_is_in_this_table() -> None:
    functions = {name for name, each in vars(Connection).items() if inspect.isfunction(each)}
    others = {name for name in functions if not name.startswith("_")} - WAYS.keys()
    assert others == {"receive", "lagging", "lost"}, "a new way out keeps the order, too"


@pytest.mark.parametrize("way", WAYS)
def test_what_was_delivered_before_comes_first_and_once(way: str) -> None:
    async def run() -> None:
        clock = ManualClock()
        hub = Hub(MemoryEngine(EngineSettings(), clock, "node"), clock)
        one = await subscribed(hub, clock, "one")
        other = await subscribed(hub, clock, "other")
        hub.broadcast(TOPIC, b'{"type":"first"}')
        WAYS[way](one)
        last = "closing" if way == "close" else "last"
        assert types(one) == ["first", last]
        assert types(other) == [], "nobody else is hurried"
        hub.broadcast(TOPIC, b'{"type":"second"}')
        hub.flush()
        assert types(one) == ["first", last] + (["second"] if way != "close" else [])
        assert types(other) == ["first", "second"]
        await hub.close()

    asyncio.run(run())


def test_it_is_closed_once_and_says_when_to_come_back_to_those_who_know_that() -> None:
    clock = ManualClock()
    full, plain = connection("f", "u", clock), connection("p", "u", clock, v1=False)
    for each in (full, plain):
        each.close(CloseCode.RESTARTING)
        each.close(CloseCode.TOKEN)
        assert recorder(each).closed_with is CloseCode.RESTARTING
    (closing,) = recorder(full).messages
    assert (closing["code"], closing["retryAfter"]) == (4000, 1.0)
    assert recorder(plain).messages == []
    final = connection("d", "u", clock)
    final.close(CloseCode.DISCONNECTED)
    assert "retryAfter" not in recorder(final).messages[0]
    final.lost("gone")
    final.close(CloseCode.TOKEN)
    assert len(recorder(final).messages) == 1

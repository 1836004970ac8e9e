"""Who is typing: told in full, rarely, and only for as long as it is true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from pov_rt.plugins.typing import plugin, repeat, tick
from pov_rt.protocol.errors import Unavailable
from pov_rt.testing import Client, Connect, RunningServer
from tests.plugins.test_presence import join


def say(client: Client, active: bool = True, **fields: Any) -> None:
    client.send({"type": "typing", "povId": "acme", "active": active, **fields})


def told(client: Client) -> dict[str, str | None]:
    message = client.receive()
    assert (message["type"], message["povId"], message["more"]) == ("typing", "acme", 0)
    return {each["userId"]: each.get("where") for each in message["users"]}


def test_subscribers_are_told_who_types_where_and_when_it_ends(connect: Connect) -> None:
    ana, ben = join(connect("ana")), join(connect("ben"))
    plain = join(connect("cy", v1=False))
    say(ana, where="notes")
    assert told(ben) == {"ana": "notes"} == told(ana)
    say(ana, where="notes")
    say(ben)
    assert told(ben) == {"ana": "notes", "ben": None}
    say(ana, active=False)
    assert told(ben) == {"ben": None}
    late = join(connect("dan"))
    assert told(late) == {"ben": None} == told(ben)
    ben.request({"type": "unsubscribe", "povId": "acme"})
    assert told(late) == {}
    assert plain.request({"type": "ping"})["type"] == "pong"
    assert not plain.early


def test_silence_ends_it(server: RunningServer, connect: Connect) -> None:
    ana = join(connect("ana"))
    say(ana)
    assert told(ana) == {"ana": None}

    async def be_over() -> None:
        # The lease's own time is 6 s; that it ends then is the engine's suite's to test.
        await server.web.server.engine.leases.leave("typing/acme", "ana", 0.0)

    server.run(be_over)
    assert told(ana) == {}


@pytest.mark.own_clock
def test_a_clock_that_is_put_back_prolongs_it_by_nothing(
    server: RunningServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = join(connect("ana"))
    leases = server.web.server.engine.leases
    say(ana)
    assert told(ana) == {"ana": None}
    monkeypatch.setattr(server.web.server.clock, "time", lambda: time.time() - 3600.0)
    now = server.web.server.clock.monotonic()
    (lease,) = server.run(lambda: leases.members("typing/acme"))
    assert lease.leaving_at is not None
    assert lease.leaving_at <= now + 6.0
    monkeypatch.setattr(server.web.server.clock, "monotonic", lambda: time.monotonic() + 6.0)
    assert told(ana) == {}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "invalid_message"),
        ({"active": True, "where": "x" * 65}, "invalid_message"),
        ({"active": True, "povId": "other"}, "forbidden"),
    ],
)
def test_what_is_wrong_is_said(connect: Connect, fields: dict[str, Any], code: str) -> None:
    ana = join(connect("ana", povs=["acme"]))
    assert ana.request({"type": "typing", "povId": "acme", **fields})["code"] == code


def test_only_subscribers_type_and_not_without_the_right(connect: Connect) -> None:
    message = {"type": "typing", "povId": "acme", "active": True}
    assert connect("ana").request(message)["code"] == "forbidden"
    assert join(connect("ana", can=["subscribe"])).request(message)["code"] == "forbidden"


def test_a_crowd_is_named_in_part(server: RunningServer, connect: Connect) -> None:
    ana = join(connect("ana"))

    async def crowd() -> None:
        for number in range(25):
            await server.web.server.engine.leases.put("typing/acme", f"u{number}", b"")

    server.run(crowd)
    say(ana)
    message = ana.receive()
    assert (len(message["users"]), message["more"]) == (20, 6)


@pytest.fixture(autouse=True)
def stop_timers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server of a test that ticks itself do nothing on its own."""
    if "tick_now" in request.fixturenames:
        monkeypatch.setattr(plugin, "timers", [])


@pytest.fixture
def tick_now(server: RunningServer) -> Callable[[], None]:
    """Have nothing happen by itself, so that a test says what falls into the same tick."""
    plugins = server.web.server.hooks
    return lambda: server.run(lambda: tick(plugins.hosts["typing"]))


def quiet(*clients: Client) -> bool:
    """Tell whether nothing came before the answer to a ping."""
    return all(
        client.request({"type": "ping"})["type"] == "pong" and not client.early
        for client in clients
    )


def say_now(server: RunningServer, client: Client, active: bool = True, pov: str = "acme") -> None:
    """Say it, and return when it has been noted: an engine may take some turns for that."""
    client.send({"type": "typing", "povId": pov, "active": active})
    assert client.request({"type": "ping"})["type"] == "pong"
    connection = server.web.server.directory.get(client.connection_id)
    assert connection is not None
    while server.call(lambda: bool(connection.works)):
        pass


def test_the_end_is_told_though_somebody_comes_in_the_same_tick(
    server: RunningServer, connect: Connect, tick_now: Callable[[], None]
) -> None:
    ana, ben = join(connect("ana")), join(connect("ben"))
    say_now(server, ana)
    tick_now()
    assert told(ben) == {"ana": None}
    late = join(connect("cy"))
    say_now(server, ana, active=False)
    tick_now()
    assert told(ben) == {} == told(late)
    tick_now()
    assert quiet(ben, late)


def test_a_tab_that_closes_does_not_end_what_another_tab_types(
    server: RunningServer, connect: Connect, tick_now: Callable[[], None]
) -> None:
    ana, other, ben = join(connect("ana")), join(connect("ana")), join(connect("ben"))
    say_now(server, ana)
    tick_now()
    assert told(ben) == {"ana": None}
    other.request({"type": "unsubscribe", "povId": "acme"})
    tick_now()
    assert quiet(ben)
    ana.request({"type": "unsubscribe", "povId": "acme"})
    tick_now()
    assert told(ben) == {}


def test_who_is_typing_is_told_again_and_that_nobody_is_is_not(
    server: RunningServer, connect: Connect, tick_now: Callable[[], None]
) -> None:
    host = server.web.server.hooks.hosts["typing"]
    ana, ben = join(connect("ana")), join(connect("ben"))
    say_now(server, ana)
    tick_now()
    assert told(ben) == {"ana": None}
    server.call(lambda: repeat(host))
    tick_now()
    assert told(ben) == {"ana": None}
    say_now(server, ana, active=False)
    tick_now()
    assert told(ben) == {}
    server.call(lambda: repeat(host))
    tick_now()
    assert quiet(ben)


def test_what_could_not_be_told_is_told_later(
    server: RunningServer,
    connect: Connect,
    tick_now: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ana, ben = join(connect("ana")), join(connect("ben"))
    povs = [f"pov-{number}" for number in range(4)]
    for pov in povs:
        join(ana, pov)
        join(ben, pov)
        say_now(server, ana, pov=pov)
    tick_now()
    assert {ben.receive()["povId"] for _ in povs} == set(povs)
    for pov in povs[:2]:
        ana.request({"type": "unsubscribe", "povId": pov})
    for pov in povs[2:]:
        say_now(server, ana, active=False, pov=pov)

    async def fail(*_: object) -> None:
        raise Unavailable

    leases = server.web.server.engine.leases
    for method in ("remove", "members"):
        with monkeypatch.context() as patched:
            patched.setattr(leases, method, fail)
            with pytest.raises(Unavailable):
                tick_now()
    tick_now()
    assert {each["povId"]: each["users"] for each in (ben.receive() for _ in povs)} == {
        pov: [] for pov in povs
    }

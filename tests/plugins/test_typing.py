"""Who is typing: told in full, rarely, and only for as long as it is true."""

from __future__ import annotations

from typing import Any

import pytest

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
    assert not plain._early


def test_silence_ends_it(server: RunningServer, connect: Connect) -> None:
    ana = join(connect("ana"))
    say(ana)
    assert told(ana) == {"ana": None}

    async def be_over() -> None:
        # The lease's own time is 6 s; that it ends then is the engine's suite's to test.
        await server.web.server.engine.leases.leave("typing/acme", "ana", 0.0)

    server.run(be_over)
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

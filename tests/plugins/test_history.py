"""Pages of a PoV's past over the socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pov_rt.activities.publishing import Publisher
from pov_rt.engine.base import NewEntry
from pov_rt.protocol.messages import NewActivity
from pov_rt.testing import Client, Connect, RunningServer

APP = Publisher("service:app", "app", "main")


def publish(server: RunningServer, count: int, **fields: Any) -> None:
    given = {"type": "task", "action": "done", "pov_id": "acme", "user_id": "bo", **fields}
    batch = [NewActivity(**given) for _ in range(count)]
    server.run(lambda: server.web.server.publishing.publish(batch, APP))


def ask(client: Client, **fields: Any) -> dict[str, Any]:
    return client.request({"type": "history", "povId": "acme", **fields})


def offsets(page: dict[str, Any]) -> list[int]:
    return [each["offset"] for each in page["activities"]]


def test_pages_lead_through_all_of_it_both_ways(server: RunningServer, connect: Connect) -> None:
    publish(server, 7)
    ana = connect()
    newest = ask(ana, limit=3)
    assert (newest["type"], offsets(newest), newest["next"]) == ("history_page", [7, 6, 5], 5)
    assert (newest["offset"], newest["oldestOffset"]) == (7, 1)
    assert newest["activities"][0]["data"]["at"]
    older = ask(ana, limit=4, before=newest["next"])
    assert (offsets(older), "next" in older) == ([4, 3, 2, 1], False)
    first = ask(ana, after=0, limit=4)
    assert (offsets(first), first["next"]) == ([1, 2, 3, 4], 4)
    rest = ask(ana, after=4)
    assert (offsets(rest), "next" in rest) == ([5, 6, 7], False)
    assert ask(ana, after=7)["activities"] == []


def test_chosen_sorts_are_found_however_rare(server: RunningServer, connect: Connect) -> None:
    publish(server, 1, type="phase", action="changed", user_id="cy")
    for _ in range(8):
        publish(server, 900)
    publish(server, 1, type="phase", action="changed")
    ana = connect()
    found: list[int] = []
    answers, cursor = 0, dict[str, int]()
    while answers == 0 or cursor:
        page = ask(ana, types=["phase"], **cursor)
        found += offsets(page)
        answers += 1
        cursor = {"before": page["next"]} if "next" in page else {}
    assert found == [7202, 1]
    assert 1 < answers < 5, "each answer looks at a bounded number"
    assert offsets(ask(ana, users=["cy"], after=0, limit=1)) == [1]
    assert offsets(ask(ana, types=["phase"], users=["bo"])) == [7202]
    assert offsets(ask(ana, types=["phase"], actions=["done"], after=7200)) == []


def test_a_page_of_large_activities_ends_early_and_leads_on(
    server: RunningServer, connect: Connect
) -> None:
    for _ in range(4):
        publish(server, 10, details={"text": "x" * 15_000})
    ana = connect()
    for start, name in (({"after": 0}, "after"), ({}, "before")):
        found: list[int] = []
        cursor: dict[str, int] = dict(start)
        while not found or cursor:
            page = ask(ana, limit=1000, **cursor)
            assert len(json.dumps(page)) < 256 * 1024 + 16 * 1024
            found += offsets(page)
            cursor = {name: page["next"]} if "next" in page else {}
        assert found == (list(range(1, 41)) if start else list(range(40, 0, -1)))
    assert offsets(ask(ana, types=["task"], limit=1000))[-1] > 20


def test_more_than_was_asked_for_is_left_for_the_next_page(
    server: RunningServer, connect: Connect
) -> None:
    publish(server, 5)
    ana = connect()
    page = ask(ana, types=["task"], limit=3)
    assert (offsets(page), page["next"]) == ([5, 4, 3], 3)
    page = ask(ana, types=["task"], limit=2, before=3)
    assert (offsets(page), "next" in page) == ([2, 1], False)


def test_others_have_their_turn_while_what_is_rare_is_searched(
    server: RunningServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, turns = server.web.server.engine.log, [0]
    read, reads = log.read, list[int]()
    # To decode all of one would fail: what is not wanted is looked at in part.
    head = b'{"type":"task","action":"done","userId":"bo"}'
    batch = [NewEntry("pov/acme", "p", str(number), head) for number in range(5000)]
    server.run(lambda: log.append(batch))

    def tick() -> None:
        turns[0] += 1
        if len(reads) < 25:
            asyncio.get_running_loop().call_soon(tick)

    async def watch(*args: Any, **fields: Any) -> Any:
        if not reads:
            tick()
        reads.append(turns[0])
        return await read(*args, **fields)

    monkeypatch.setattr(log, "read", watch)
    page = ask(connect(), types=["rare"])
    assert (page["activities"], "next" in page) == ([], False)
    assert len(reads) == 25
    assert len(set(reads)) == 25


def test_who_asks_too_often_waits(connect: Connect) -> None:
    ana = connect()
    codes = [ask(ana).get("code") for _ in range(30)]
    assert codes[:20] == [None] * 20
    assert "rate_limited" in codes


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"after": 1, "before": 2}, "invalid_message", "before"),
        ({"after": -1}, "invalid_message", "after"),
        ({"limit": 1001}, "invalid_message", "limit"),
        ({"types": []}, "invalid_message", "types"),
        ({"povId": "other"}, "forbidden", "povId"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    connect: Connect, fields: dict[str, Any], code: str, field: str
) -> None:
    answer = ask(connect(povs=["acme"]), **fields)
    assert (answer["code"], answer["field"]) == (code, field)

"""Pages of a PoV's past over the socket."""

from __future__ import annotations

from typing import Any

import pytest

from pov_rt.messages import NewActivity
from pov_rt.publishing import Publisher
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

"""Amending and retracting, over sockets and HTTP: who may, who learns of it, what is left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import Settings
from pov_rt.testing import Client, Connect, Http, RunningServer
from tests.clients import ENGINES, offsets, settings_of, subscribe
from tests.engine.sqlite_parts import content

OPERATOR = ("subscribe", "publish", "operate")
SECRET = {"text": "SECRET-0123456789"}


@pytest.fixture(params=ENGINES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_of(request.param, tmp_path)


def activity(number: int, **details: Any) -> dict[str, Any]:
    return {
        "id": f"a{number}",
        "type": "comment",
        "action": "added",
        "povId": "acme",
        "details": details or {"text": f"{number}"},
    }


def post(client: Client, number: int, **details: Any) -> dict[str, Any]:
    """Publish over a socket."""
    answer = client.request({"type": "publish", "data": activity(number, **details)})
    assert answer["type"] == "published"
    return answer


def change(client: Client, kind: str, number: int, **more: Any) -> dict[str, Any]:
    more = {"povId": "acme", "activityId": f"a{number}", **more}
    return client.request({"type": kind, **more})


def history(client: Client) -> list[dict[str, Any]]:
    page = client.request({"type": "history", "povId": "acme", "after": 0})
    return [{**each["data"], "at": "", "offset": each["offset"]} for each in page["activities"]]


def without_time(message: dict[str, Any]) -> dict[str, Any]:
    assert message["data"].pop("at")
    return message


def test_an_amendment_is_told_in_its_place_and_history_has_the_activity_as_it_is_now(
    server: RunningServer, connect: Connect
) -> None:
    ana, ben, boss = connect("ana"), connect("ben"), connect("boss")
    subscribe(ben)
    subscribe(boss, "*")
    post(ana, 1, text="teh")
    post(ana, 2)
    answer = change(ana, "amend", 1, details={"text": "the"}, changeId="c1", reason="a typo")
    assert {**answer, "epoch": ""} == {
        "type": "changed",
        "povId": "acme",
        "activityId": "a1",
        "changeId": "c1",
        "epoch": "",
        "offset": 3,
        "duplicate": False,
        "id": answer["id"],
    }
    head = {"type": "comment", "action": "added", "povId": "acme", "userId": "ana"}
    told = {
        "id": "c1",
        **head,
        "details": {"text": "the"},
        "original": {"id": "a1", "offset": 1},
        "amended": True,
        "reason": "a typo",
    }
    assert offsets(ben, 2) == [1, 2]
    assert without_time(ben.receive()) == {"type": "activity", "data": told, "offset": 3}
    assert offsets(boss, 2) == [1, 2]
    in_feed = {"type": "activity", "data": told, "offset": 3, "feed": "*"}
    assert without_time(boss.receive()) == in_feed
    now = {"details": {"text": "the"}, "amended": True, "reason": "a typo", "at": ""}
    assert history(ben) == [
        {"id": "a1", **head, **now, "offset": 1},
        {"id": "a2", **head, "details": {"text": "2"}, "at": "", "offset": 2},
        {**told, "at": "", "offset": 3},
    ]


def test_who_comes_back_is_sent_the_activity_as_it_is_now_and_what_tells_of_it(
    server: RunningServer, connect: Connect
) -> None:
    ana, ben = connect("ana"), connect("ben")
    start = subscribe(ben)
    post(ana, 1, text="teh")
    before = subscribe(connect("cem"), since={"last": 1})  # it loads what others are sent, too
    assert before["recovered"]
    change(ana, "amend", 1, details={"text": "the"})
    change(ana, "retract", 1)
    for pov in ("acme", "*"):
        back = connect("dan")
        subscribe(back, pov, since={"last": 9})
        received = [back.receive() for _ in range(3)]
        assert [each["offset"] for each in received] == [1, 2, 3]
        first, amended, retracted = (each["data"] for each in received)
        assert (first["retracted"], "details" in first, "original" in first) == (True, False, False)
        assert (amended["amended"], "details" in amended) == (True, False)
        assert (retracted["retracted"], retracted["original"]["id"]) == (True, "a1")
    again = subscribe(connect("eve"), since={"epoch": start["epoch"], "offset": 2})
    assert again["recovered"]


def test_what_is_not_there_any_more_is_nowhere(
    server: RunningServer, connect: Connect, tmp_path: Path
) -> None:
    ana, ben = connect("ana"), connect("ben")
    subscribe(ben)
    post(ana, 1, **SECRET)
    change(ana, "amend", 1, details={**SECRET, "more": 1})
    change(ana, "amend", 1, details={"text": "nothing"})
    post(ana, 2, **SECRET)
    change(ana, "retract", 2, reason="not meant for here")
    shown = [each.get("details") for each in history(ben)]
    assert shown == [{"text": "nothing"}, None, {"text": "nothing"}, None, None]
    subscribe(back := connect("cem"), since={"last": 9})
    assert "SECRET" not in str([back.receive() for _ in range(5)])

    async def emptied() -> None:
        async with asyncio.timeout(10):
            while b"SECRET" in content(tmp_path / "log.db"):  # noqa: ASYNC110  (it tells nobody)
                await asyncio.sleep(0.01)

    server.run(emptied)


def test_who_published_it_may_change_it_and_who_operates_may_change_anybodys(
    server: RunningServer, connect: Connect, http: Http
) -> None:
    ana, ben, boss = connect("ana"), connect("ben"), connect("boss", can=OPERATOR)
    post(ana, 1)
    new = {"details": {"text": "mine"}}
    refused = change(ben, "amend", 1, **new)
    assert (refused["code"], refused["field"]) == ("forbidden", "activityId")
    assert change(ben, "retract", 1)["code"] == "forbidden"
    assert change(connect("eve", can=["subscribe"]), "retract", 1)["code"] == "forbidden"
    assert change(connect("eve", can=["operate"]), "retract", 1)["code"] == "forbidden"
    body = {"povId": "acme", **new, "userId": "ana"}
    path = "/api/activities/a1/amend"
    assert http.post(path, body, user="app", service=True).status == 403
    assert http.post(path, body, user="ben").status == 403
    assert http.post(path, body, user="ana").status == 200
    assert change(boss, "amend", 1, details={"text": "by the boss"})["type"] == "changed"
    subscribe(ben, since={"last": 9})
    first, mine, boss_told = (ben.receive()["data"] for _ in range(3))
    assert (first["userId"], first["by"], "by" in mine) == ("ana", "boss", False)
    assert boss_told["by"] == "boss"


def test_a_service_changes_what_it_published_and_says_who_did_it(
    server: RunningServer, connect: Connect, http: Http
) -> None:
    ana = connect("ana")
    subscribe(ana)
    sent = {**activity(1), "userId": "ben"}
    assert http.post("/api/activities", sent, user="app", service=True).status == 201
    retraction = {"povId": "acme", "changeId": "c1", "userId": "cem"}
    assert (
        http.post("/api/activities/a1/retract", retraction, user="other", service=True).status
        == 403
    )
    done = http.post("/api/activities/a1/retract", retraction, user="app", service=True)
    assert (done.status, done.body["id"], done.body["offset"]) == (200, "c1", 2)
    assert not done.body["duplicate"]
    again = http.post("/api/activities/a1/retract", retraction, user="app", service=True)
    assert again.body == {**done.body, "duplicate": True}
    ana.receive()
    told = ana.receive()["data"]
    assert (told["userId"], told["by"], told["retracted"]) == ("ben", "cem", True)
    assert ana.request({"type": "ping"})["type"] == "pong"
    assert ana.early == []


def test_a_change_is_made_once_and_its_id_is_its_own(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect("ana")
    post(ana, 1)
    new = {"details": {"text": "new", "n": 1}, "changeId": "c1"}
    first = change(ana, "amend", 1, **new)
    again = change(ana, "amend", 1, changeId="c1", details={"n": 1.0, "text": "new"})
    assert (again["offset"], again["duplicate"]) == (first["offset"], True)
    other = change(ana, "amend", 1, changeId="c1", details={"text": "else"})
    assert (other["code"], other["field"]) == ("id_conflict", "changeId")
    assert change(ana, "retract", 1, changeId="a1")["code"] == "id_conflict"
    assert change(ana, "retract", 1, changeId="c2")["offset"] == 3
    assert change(ana, "retract", 1, changeId="c2")["duplicate"] is True
    assert change(ana, "amend", 1, **new)["duplicate"] is True
    gone = change(ana, "amend", 1, changeId="c3", details={})
    assert (gone["code"], gone["field"]) == ("retracted", "activityId")
    assert change(ana, "retract", 1)["code"] == "retracted"
    retry = ana.request({"type": "publish", "data": activity(1)})
    assert (retry["type"], retry["offset"], retry["duplicate"]) == ("published", 1, True)
    assert len(history(ana)) == 3


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"activityId": "none", "details": {}}, "not_found", "activityId"),
        ({"povId": "other", "details": {}}, "not_found", "activityId"),
        ({"details": {"x": "y" * 17_000}}, "too_large", "details"),
        ({"details": {"x": 2**60}}, "invalid_activity", "details.x"),
        ({"activityId": "c1", "details": {}}, "invalid_activity", "activityId"),
        ({"details": {}, "changeId": "a\u0000"}, "invalid_id", "changeId"),
        ({}, "invalid_message", "details"),
        ({"details": {}, "reason": ""}, "invalid_message", "reason"),
    ],
)
def test_what_cannot_be_changed_is_refused_by_the_name_of_its_field(
    connect: Connect, fields: dict[str, Any], code: str, field: str
) -> None:
    ana = connect("ana")
    post(ana, 1)
    change(ana, "amend", 1, changeId="c1", details={"text": "1"})
    answer = change(ana, "amend", 1, **fields)
    assert (answer.get("code"), answer.get("field")) == (code, field)
    assert len(history(ana)) == 2


def test_a_change_is_nothing_new_to_read(server: RunningServer, connect: Connect) -> None:
    ana, ben, cem = connect("ana"), connect("ben"), connect("cem")
    for client in (ben, cem):
        subscribe(client)
    for number in (1, 2, 3):
        post(ana, number)
    for client, offset in ((ben, 3), (cem, 1)):
        assert offsets(client, 3) == [1, 2, 3]
        client.request({"type": "read", "povId": "acme", "offset": offset})
    change(ana, "amend", 1, details={"text": "new"})
    change(ana, "retract", 2)
    for user, read, unread in (("ben", 5, 0), ("cem", 1, 4)):
        answer = subscribe(connect(user, device="other"))
        assert (answer["readOffset"], answer["unread"]) == (read, unread)


def test_a_digest_counts_neither_changes_nor_what_was_retracted(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect("ana")
    start = subscribe(connect("ben"))
    for number in range(1100):
        post(ana, number, original={"id": number}, retracted=True)
    digest = server.run(lambda: server.web.server.digests.get("pov/acme", 0, 60))
    assert digest is not None
    assert digest.counted == 1100
    change(ana, "amend", 3, details={"original": {}})
    change(ana, "retract", 7)
    digest = server.run(lambda: server.web.server.digests.get("pov/acme", 0, 60))
    assert digest is not None
    assert digest.counted == 1099
    back = subscribe(connect("ben"), since={"epoch": start["epoch"], "offset": 0})
    assert (back["recovered"], back["missed"]) == (False, 1102)


def test_filters_let_a_change_through_with_what_it_changes(
    server: RunningServer, connect: Connect
) -> None:
    ana, ben, boss = connect("ana"), connect("ben"), connect("boss", can=OPERATOR)
    subscribe(ben, only={"users": ["ana"], "types": ["comment"]})
    subscribe(cem := connect("cem"), only={"notUsers": ["ana"]})
    post(ana, 1)
    change(boss, "retract", 1)
    assert offsets(ben, 2) == [1, 2]
    assert cem.request({"type": "ping"})["type"] == "pong"
    assert cem.early == []

"""What is kept about a user is all in the export, and nowhere after it was erased."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pov_rt.activities.publishing import Publisher
from pov_rt.engine.base import Rewrite
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.messages import NewActivity
from pov_rt.server.people import Name
from pov_rt.testing import Client, Http, MovableClock, RunningServer, make_settings
from tests.clients import notify, place, subscribe

MARK = "xyzzy"
"""Is in all that the user is called and has written."""
EVE = f"eve-{MARK}"
OPERATOR: dict[str, Any] = {"user": "app", "service": True, "can": ["operate"]}

PLUGIN = '''
"""Keeps what users like, in the store and elsewhere."""
from collections.abc import AsyncIterator
from pov_rt.plugin import Context, Host, Message, Plugin

class Like(Message, tag="likes.like"):
    what: str

plugin = Plugin[dict[str, str]]("likes")

@plugin.lifespan
async def likes(host: Host) -> AsyncIterator[dict[str, str]]:
    yield {}

@plugin.on(Like)
async def like(message: Like, context: Context[dict[str, str]]) -> None:
    user_id = context.user.user_id
    context.state[user_id] = message.what
    await context.host.store.put(f"of {user_id}", message.what, user_id=user_id)

@plugin.erased
def erased(user_id: str, host: Host[dict[str, str]]) -> None:
    if host.state.pop(user_id, "") == "stubborn":
        raise RuntimeError("not now")

@plugin.exported
async def exported(user_id: str, host: Host[dict[str, str]]) -> AsyncIterator[dict[str, str]]:
    if user_id in host.state:
        yield {"likes": host.state[user_id]}
    if host.state.get(user_id) == "stubborn":
        raise RuntimeError("not now")
'''


def files_of(folder: Path) -> bytes:
    """Return all bytes of a folder's files, the database's journal and free pages included."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


class Stage:
    """A server on a file, with things that users did."""

    def __init__(self, folder: Path, plugins: Path) -> None:
        self.folder = folder
        self.plugins = plugins
        self.settings = make_settings(
            server={"data": str(folder)}, engine={"url": "sqlite://"}, limits={"types": None}
        )

    def run(self) -> RunningServer:
        return RunningServer(self.settings, self.plugins)


def publish(server: RunningServer, user: str, pov: str, text: str) -> None:
    """Publish in a user's name, as the app does."""
    activity = NewActivity(
        type="task", action="done", pov_id=pov, user_id=user, details={"text": text}
    )
    app = Publisher("service:app", "app", "main")
    server.run(lambda: server.web.server.publishing.publish([activity], app))


def live(server: RunningServer) -> Client:
    """Have the user do everything that leaves something behind."""
    for number in range(3):
        publish(server, EVE, "acme", f"{MARK} {number}")
        publish(server, "ben", "acme", f"by ben {number}")
    publish(server, EVE, "other", MARK)
    eve = server.connect(EVE, device=f"phone-{MARK}", can=["subscribe", "publish", "collaborate"])
    data = {"type": "note", "action": "written", "povId": "acme", "details": {"text": MARK}}
    assert eve.request({"type": "publish", "data": data})["type"] == "published"
    assert subscribe(eve, "acme", durable=True)["type"] == "subscribed"
    eve.request({"type": "presence", "povId": "acme"})
    for kind in ("ack", "read"):
        eve.request({"type": kind, "povId": "acme", "offset": 2})
    eve.request({"type": "mute", "povId": "other", "level": "off"})
    eve.send({"type": "likes.like", "what": MARK})
    eve.request({"type": "ping"})
    for user, details in ((EVE, {"text": f"for {MARK}"}), ("ben", {"text": f"from {MARK}"})):
        status, _ = notify(server, user, details=details, userId=EVE if user == "ben" else "ben")
        assert status == 200
    return eve


def wait_for(client: Client, kind: str) -> dict[str, Any]:
    """Return the next message of a type."""
    while (message := client.receive())["type"] != kind:
        pass
    return message


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "likes.py").write_text(PLUGIN)
    return Stage(tmp_path / "data", plugins)


@pytest.fixture
def server(stage: Stage) -> Iterator[RunningServer]:
    with stage.run() as running:
        yield running


def export(server: RunningServer, user: str = EVE) -> list[dict[str, Any]]:
    answer = Http(server).get(f"/api/users/{user}/export", **OPERATOR)
    assert answer.status == 200
    return [json.loads(line) for line in answer.body.splitlines()]


def test_the_export_has_all_that_is_kept_about_a_user(server: RunningServer) -> None:
    live(server)
    lines = export(server)
    *lines, end = lines
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(line["kind"], []).append(line)
    assert end == {"kind": "end", "counts": {kind: len(of) for kind, of in by_kind.items()}}
    written = [(each["data"]["povId"], each["data"]["details"]) for each in by_kind["activity"]]
    assert len(written) == 5
    assert ("other", {"text": MARK}) in written
    (mine,) = by_kind["notification"]
    assert mine["data"]["details"] == {"text": f"for {MARK}"}
    (sent,) = by_kind["sent"]
    assert (sent["to"], sent["data"]["details"]) == ("ben", {"text": f"from {MARK}"})
    marks = {(each["povId"], each["name"]): each["offset"] for each in by_kind["mark"]}
    assert marks == {("acme", f"acked:phone-{MARK}"): 2, ("acme", "read"): 2}
    assert [each["device"] for each in by_kind["device"]] == [f"phone-{MARK}"]
    assert [each["povId"] for each in by_kind["subscription"]] == ["acme"]
    assert [(each["plugin"], each["value"]) for each in by_kind["value"]] == [("likes", MARK)]
    assert [each["connection"]["povs"] for each in by_kind["connection"]] == [["acme"]]
    assert [(each["plugin"], each["value"]) for each in by_kind["plugin"]] == [
        ("mute", {"povId": "other", "level": "off"}),
        ("likes", {"likes": MARK}),
    ]
    assert [line["kind"] for line in export(server, "nobody")] == ["end"]


def test_an_erased_user_is_in_no_file_and_the_others_go_on_without_a_gap(stage: Stage) -> None:
    with stage.run() as server:
        eve = live(server)
        ben = server.connect("ben")
        before = subscribe(ben, "acme")
        assert MARK.encode() in files_of(stage.folder)
        answer = Http(server).delete(f"/api/users/{EVE}", **OPERATOR)
        assert answer.status == 200
        assert answer.body == {
            "userId": EVE, "activities": 5, "changed": 0, "notifications": 1, "inbox": 1, "ids": 1,
            "marks": 2, "devices": 1, "subscriptions": 1, "values": 1, "connections": 1,
            "revocations": 0, "failed": [], "missing": [],
        }  # fmt: skip
        assert MARK.encode() not in files_of(stage.folder)
        assert wait_for(eve, "closing")["code"] == 4500
        # What is there keeps its place, and the one who was there misses nothing.
        publish(server, "ben", "acme", "later")
        assert wait_for(ben, "activity")["offset"] == before["offset"] + 1
        # Who missed all gets what is left of it, and is told of each place.
        for cem, kinds in (
            (server.connect("cem"), {"activity": [2, 4, 6, 8], "position": [1, 3, 5, 7]}),
            (server.connect("dan", v1=False), {"activity": [2, 4, 6, 8]}),
        ):
            assert subscribe(cem, "acme", since={"last": 100})["recovered"] is True
            number = sum(map(len, kinds.values()))
            got = [cem.receive() for _ in range(number)]
            assert [each["offset"] for each in got] == sorted(each["offset"] for each in got)
            for kind, offsets in kinds.items():
                assert [each["offset"] for each in got if each["type"] == kind] == offsets
        page = Http(server).get("/api/povs/acme/activities").body
        assert [each["offset"] for each in page["activities"]] == [2, 4, 6, 8]
        assert page["offset"] == 8
        # A second time there is nothing.
        again = Http(server).delete(f"/api/users/{EVE}", **OPERATOR)
        assert {key for key, number in again.body.items() if number} == {"userId"}
        assert [line["kind"] for line in export(server)] == ["end"]
    assert MARK.encode() not in files_of(stage.folder)
    with stage.run() as server:
        ben = server.connect("ben")
        back = subscribe(ben, "acme", since=place(before))
        assert (back["recovered"], back["epoch"]) == (True, before["epoch"])
        assert wait_for(ben, "activity")["data"]["details"] == {"text": "later"}
        assert MARK.encode() not in files_of(stage.folder)


def test_of_what_the_user_changed_of_others_the_change_stays_and_not_who_made_it() -> None:
    name = Name("eve")
    own, by = b'{"id":"1","userId":"eve"}', b'{"id":"1","userId":"ben","by":"eve","reason":"r"}'
    assert (name.is_theirs(own), name.without(own)) == (True, b"")
    assert (name.is_theirs(by), name.without(by)) == (False, b'{"id":"1","userId":"ben"}')
    for other in (
        b'{"id":"1","userId":"ben"}',
        b'{"id":"1","userId":"ben","details":{"userId":"eve"}}',
        b'{"id":"eve","userId":"ben"}',
        b'{"id":"1","userId":["eve"]}',
        b'"eve"',
        b"",
    ):
        assert not name.is_on(other)
    for user in ('e"v\\e', "\u00e9\U0001f600", "__proto", "constructor"):
        assert Name(user).is_on(encode({"id": "1", "userId": user}))


def test_with_teams_it_is_the_user_of_that_team_alone(stage: Stage) -> None:
    stage.settings = make_settings(
        server={"data": str(stage.folder)}, engine={"url": "sqlite://"}, auth={"tenants": True}
    )
    teams = ("blue", "red")
    with stage.run() as server:
        http = Http(server)
        for team in teams:
            client = server.connect("eve", team_id=team)
            subscribe(client, "acme", durable=True)
            text = {"text": f"{MARK} {team}"}
            data = {"type": "t", "action": "a", "povId": "acme", "details": text}
            assert client.request({"type": "publish", "data": data})["offset"] == 1
            client.request({"type": "read", "povId": "acme", "offset": 1})
        done = http.delete("/api/users/eve", team_id="blue", **OPERATOR).body
        assert (done["activities"], done["marks"], done["connections"]) == (1, 1, 1)
        left = {
            team: [
                kind
                for line in http.get(
                    "/api/users/eve/export", team_id=team, **OPERATOR
                ).body.splitlines()
                if (kind := json.loads(line)["kind"]) != "event"
            ]
            for team in teams
        }
        assert left["blue"] == ["end"]
        assert left["red"] == ["activity", "mark", "subscription", "connection", "end"]
        content = files_of(stage.folder)
        assert (f"{MARK} blue".encode() in content, f"{MARK} red".encode() in content) == (
            False,
            True,
        )


def test_a_pov_is_deleted_with_all_that_hangs_on_it_and_comes_back_as_another(
    stage: Stage,
) -> None:
    with stage.run() as server:
        live(server)
        ben, cem = server.connect("ben"), server.connect("cem", v1=False)
        feed = server.connect("dan")
        subscribe(feed, "*")
        before = subscribe(ben, "acme", durable=True)
        subscribe(cem, "acme")
        ben.request({"type": "read", "povId": "acme", "offset": 3})
        ben.request({"type": "presence", "povId": "acme"})
        answer = Http(server).delete("/api/povs/acme", **OPERATOR)
        assert answer.body == {"povId": "acme", "activities": 7, "subscriptions": 2, "ended": 3}
        for client in (ben, cem):
            told = wait_for(client, "unsubscribed")
            assert (told["povId"], told["code"]) == ("acme", "not_found")
        assert ben.request({"type": "ping"})["type"] == "pong"
        content = files_of(stage.folder)
        assert b"by ben" not in content
        # The rest is as it was, in the feed too.
        assert MARK.encode() in content
        publish(server, "ben", "acme", "anew")
        assert wait_for(feed, "activity")["data"]["details"] == {"text": "anew"}
        again = subscribe(ben, "acme", since=place(before))
        assert (again["recovered"], again["offset"]) == (False, 1)
        assert again["epoch"] != before["epoch"]
        assert again["readOffset"] == 0
        every = {"last": 1000}
        got = subscribe(feed, "*", since=every)
        kinds = [feed.receive()["type"] for _ in range(got["offset"])]
        assert Counter(kinds) == {"position": 7, "activity": 2}
        assert Http(server).delete("/api/povs/none", **OPERATOR).body["activities"] == 0


def test_it_is_done_once_however_often_it_is_asked_for_at_a_time(server: RunningServer) -> None:
    live(server)
    people = server.web.server.people

    async def erase() -> list[Any]:
        return await asyncio.gather(*(people.erase(EVE) for _ in range(3)))

    first, *others = server.run(erase)
    assert first.activities == 5
    assert all(each is first for each in others)


def test_what_is_too_old_for_its_pov_is_not_replayed_by_the_feed(tmp_path: Path) -> None:
    clock = MovableClock()
    settings = make_settings(pov={"short": {"max_age_s": 60}})
    with RunningServer(settings, None, clock) as server:
        for pov in ("short", "long"):
            publish(server, "ben", pov, pov)
        client = server.connect("ben")
        for passed, kinds in ((0, ["activity", "activity"]), (61, ["position", "activity"])):
            clock.ahead += passed
            subscribe(client, "*", since={"last": 10})
            assert [client.receive()["type"] for _ in kinds] == kinds


def test_what_the_user_amended_of_others_stays_and_nothing_says_by_whom(stage: Stage) -> None:
    with stage.run() as server:
        ben = server.connect("ben")
        data = {"id": "b1", "type": "t", "action": "a", "povId": "acme", "details": {"text": "1"}}
        ben.request({"type": "publish", "data": data})
        eve = server.connect(EVE, can=["subscribe", "publish", "operate"])
        eve.request({"type": "publish", "data": {**data, "id": "e1"}})
        amend = {"type": "amend", "povId": "acme", "details": {"text": "2"}, "reason": MARK}
        for activity_id in ("b1", "e1"):
            assert eve.request({**amend, "activityId": activity_id})["type"] == "changed"
        kinds = Counter(line["kind"] for line in export(server) if line["kind"] != "event")
        assert kinds == {"activity": 2, "changed": 2, "connection": 1, "end": 1}
        done = Http(server).delete(f"/api/users/{EVE}", **OPERATOR).body
        assert (done["activities"], done["changed"]) == (2, 2)
        assert MARK.encode() not in files_of(stage.folder)
        page = Http(server).get("/api/povs/acme/activities").body["activities"]
        assert [each["offset"] for each in page] == [1, 3]
        for each in page:
            assert each["data"]["userId"] == "ben"
            assert each["data"]["details"] == {"text": "2"}
            assert not {"by", "reason"} & each["data"].keys()
        # What was erased is not there to be changed, or to be brought back by it.
        app = server.connect("app", can=["subscribe", "publish", "operate"])
        retract = {"type": "retract", "povId": "acme"}
        for each in (amend, retract):
            answer = app.request({**each, "activityId": "e1", "offset": 2})
            assert answer["code"] == "not_found"


def test_no_digest_counts_what_was_erased_though_it_was_counted_before(
    server: RunningServer,
) -> None:
    for number in range(600):  # more than a block, which is remembered
        publish(server, EVE if number % 2 else "ben", "acme", "x")
    digests = server.web.server.digests

    async def users() -> dict[str, int]:
        digest = await digests.get("pov/acme", 0, within_s=60)
        assert digest is not None
        return {each.user_id: each.count for each in digest.users}

    assert server.run(users) == {"ben": 300, EVE: 300}
    Http(server).delete(f"/api/users/{EVE}", **OPERATOR)
    assert server.run(users) == {"ben": 300}


def test_what_is_changed_meanwhile_is_erased_all_the_same_or_said_not_to_be(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, EVE, "acme", MARK)
    log = server.web.server.engine.log
    edit, faster = log.edit, 3

    async def be_late(rewrites: Sequence[Rewrite]) -> Sequence[bool]:
        nonlocal faster
        if faster:
            faster -= 1
            changed = [each._replace(body=each.old[:-1] + b" }") for each in rewrites]
            assert all(await edit(changed))
        return await edit(rewrites)

    monkeypatch.setattr(log, "edit", be_late)
    http = Http(server)
    assert http.delete(f"/api/users/{EVE}", **OPERATOR).body["activities"] == 1
    publish(server, EVE, "acme", MARK)
    faster = 1000
    assert http.delete(f"/api/users/{EVE}", **OPERATOR).status == 503
    faster = 0
    assert http.delete(f"/api/users/{EVE}", **OPERATOR).body["activities"] == 1
    assert [line["kind"] for line in export(server)] == ["end"]


def test_nothing_is_left_of_the_numbers_that_the_user_published_with(stage: Stage) -> None:
    with stage.run() as server:
        http = Http(server)
        one = {"type": "t", "action": "a", "povId": "acme", "userId": "ben", "producer": "spool"}
        batch = [{**one, "seq": seq, "id": f"n{seq}"} for seq in (1, 2)]
        sent = http.post("/api/activities", batch, service=True, user=EVE)
        assert [each["offset"] for each in sent.body["results"]] == [1, 2]
        assert MARK.encode() in files_of(stage.folder)
        assert [line["kind"] for line in export(server)] == ["end"], "nothing of it is the user's"
        assert http.delete(f"/api/users/{EVE}", **OPERATOR).body["ids"] == 2
        assert MARK.encode() not in files_of(stage.folder)
        page = http.get("/api/povs/acme/activities").body
        assert [each["data"]["id"] for each in page["activities"]] == ["n1", "n2"]
    assert MARK.encode() not in files_of(stage.folder)


def test_a_pov_that_comes_back_knows_no_numbers_of_the_one_that_was_deleted(stage: Stage) -> None:
    with stage.run() as server:
        http = Http(server)
        one = {"type": "t", "action": "a", "povId": "acme", "userId": "ben", "producer": "spool"}
        for status in (201, 200):
            done = http.post("/api/activities", {**one, "seq": 7, "id": "n7"}, service=True)
            assert (done.status, done.body["offset"]) == (status, 1)
        http.delete("/api/povs/acme", **OPERATOR)
        done = http.post("/api/activities", {**one, "seq": 1, "id": "n7"}, service=True)
        assert (done.status, done.body["offset"]) == (201, 1)

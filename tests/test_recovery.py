"""Nothing is missed: recovery by position, cursors, durable subscriptions, notifications."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tornado.httpclient import HTTPClient

from pov_rt.activities.publishing import Publisher
from pov_rt.auth.grants import Kind
from pov_rt.config.settings import EngineSettings, LimitSettings, Settings
from pov_rt.engine.base import Position
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.messages import NewActivity, NewNotification
from pov_rt.testing import Client, Connect, RunningServer, make_settings

APP = Publisher("service:app", "app", "main")


@pytest.fixture(params=["memory", "sqlite"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = "memory://" if request.param == "memory" else f"sqlite://{tmp_path}/log.db"
    return make_settings(
        engine=EngineSettings(url=url, max_entries=1500),
        limits=LimitSettings(message_rate="500/s", devices_per_user=3),
    )


def publish(server: RunningServer, count: int, pov: str = "acme", user: str = "bo") -> None:
    batch = [NewActivity(type="t", action="a", pov_id=pov, user_id=user) for _ in range(count)]
    server.run(lambda: server.web.server.publishing.publish(batch, APP))


def subscribe(client: Client, pov: str = "acme", **more: Any) -> dict[str, Any]:
    return client.request({"type": "subscribe", "povId": pov, **more})


def offsets(client: Client, count: int, kind: str = "activity") -> list[int]:
    received = [client.receive() for _ in range(count)]
    assert {each["type"] for each in received} <= {kind}
    return [each["offset"] for each in received]


def place(answer: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": answer["epoch"], "offset": answer["offset"]}


def span(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


class TestSince:
    def test_what_was_missed_follows_the_answer_and_then_what_is_live(
        self, server: RunningServer, connect: Connect
    ) -> None:
        start = place(subscribe(connect()))
        assert start["offset"] == 0, "a position is given even where nothing was published yet"
        publish(server, 7)
        ana = connect()
        answer = subscribe(ana, since=start)
        assert (answer["recovered"], answer["offset"]) == (True, 7)
        assert "missed" not in answer
        publish(server, 3)
        assert offsets(ana, 10) == span(1, 10)

    def test_nothing_missed_is_recovered_too(self, server: RunningServer, connect: Connect) -> None:
        publish(server, 2)
        ana = connect()
        here = place(subscribe(ana))
        assert subscribe(connect(), since=here)["recovered"] is True
        publish(server, 1)
        assert offsets(ana, 1) == [3]

    def test_the_last_ones_are_replayed_or_all_there_are(
        self, server: RunningServer, connect: Connect
    ) -> None:
        publish(server, 5)
        ana, ben = connect(), connect("ben")
        assert subscribe(ana, since={"last": 3})["recovered"] is True
        assert offsets(ana, 3) == [3, 4, 5]
        subscribe(ben, since={"last": 1000})
        assert offsets(ben, 5) == span(1, 5)

    @pytest.mark.parametrize(
        ("since", "missed"),
        [
            ({"epoch": "another", "offset": 3}, None),
            ({"offset": 11}, None),
            ({"offset": 0}, 1201),
        ],
        ids=["another epoch", "ahead of the log", "too much"],
    )
    def test_what_cannot_be_recovered_is_said_and_nothing_of_it_sent(
        self, server: RunningServer, connect: Connect, since: dict[str, Any], missed: int | None
    ) -> None:
        top = 10 if missed is None else missed
        publish(server, top - 1)
        publish(server, 1, user="cy")
        ana = connect()
        epoch = subscribe(connect("ben"))["epoch"]
        answer = subscribe(ana, since={"epoch": epoch, **since})
        assert answer["recovered"] is False
        assert answer.get("missed") == missed
        if missed:
            assert answer["digest"] == {
                "counted": missed,
                "people": 2,
                "activities": [{"type": "t", "action": "a", "count": missed}],
                "users": [{"userId": "bo", "count": missed - 1}, {"userId": "cy", "count": 1}],
            }
        publish(server, 1)
        assert offsets(ana, 1) == [top + 1]

    def test_what_retention_took_is_a_gap_that_is_told(
        self, server: RunningServer, connect: Connect
    ) -> None:
        start = place(subscribe(connect()))
        publish(server, 900)
        publish(server, 900)
        answer = subscribe(connect(), since={**start, "offset": 299})
        assert (answer["recovered"], answer["missed"]) == (False, 1501)
        assert answer["oldestOffset"] == 301
        assert answer["digest"]["counted"] == 1500

    def test_the_edge_of_what_is_kept_and_of_what_is_replayed_is_recovered(
        self, server: RunningServer, connect: Connect
    ) -> None:
        start = place(subscribe(connect()))
        publish(server, 1000)
        ana = connect()
        assert subscribe(ana, since=start)["recovered"] is True
        assert offsets(ana, 1000) == span(1, 1000)

    def test_several_are_recovered_each_from_its_position(
        self, server: RunningServer, connect: Connect
    ) -> None:
        one, two = subscribe(connect(), "one"), subscribe(connect(), "two")
        publish(server, 3, "one")
        publish(server, 2, "two")
        ana = connect(povs=["one", "two"])
        answer = ana.request(
            {
                "type": "subscribe",
                "povIds": ["one", "two", "three"],
                "positions": {"one": {**place(one), "offset": 2}, "two": place(two)},
            }
        )
        first, second, third = answer["results"]
        assert (first["recovered"], second["recovered"]) == (True, True)
        assert (third["povId"], third["code"]) == ("three", "forbidden")
        received = [ana.receive() for _ in range(3)]
        # In order for each; between PoVs there is none.
        assert [each["offset"] for each in received if each["data"]["povId"] == "one"] == [3]
        assert [each["offset"] for each in received if each["data"]["povId"] == "two"] == [1, 2]

    def test_the_team_feed_is_recovered_too(self, server: RunningServer, connect: Connect) -> None:
        start = place(subscribe(connect(), "*"))
        publish(server, 2, "one")
        publish(server, 1, "two")
        ana = connect()
        assert subscribe(ana, "*", since=start)["recovered"] is True
        received = [ana.receive() for _ in range(3)]
        assert [(each["offset"], each["feed"]) for each in received] == [
            (n, "*") for n in (1, 2, 3)
        ]

    def test_subscribing_again_with_a_position_replays_from_there(
        self, server: RunningServer, connect: Connect
    ) -> None:
        ana = connect()
        start = place(subscribe(ana))
        publish(server, 3)
        assert offsets(ana, 3) == [1, 2, 3]
        subscribe(ana, since={**start, "offset": 1})
        assert offsets(ana, 2) == [2, 3]
        publish(server, 1)
        assert offsets(ana, 1) == [4]

    @pytest.mark.parametrize(
        "since",
        [{}, {"epoch": "e"}, {"offset": 1}, {"last": 0}, {"last": 1, "offset": 1}, "x", 7, None],
    )
    def test_a_since_that_says_nothing_is_refused(self, connect: Connect, since: Any) -> None:
        ana = connect()
        answer = subscribe(ana, since=since)
        assert (answer["code"], answer["field"].partition(".")[0]) == ("invalid_message", "since")
        assert ana.request({"type": "ping"})["type"] == "pong"

    def test_a_slow_reader_recovers_a_thousand_large_activities_while_others_publish(
        self, server: RunningServer, connect: Connect
    ) -> None:
        start = place(subscribe(connect()))
        big = [
            NewActivity(type="t", action="a", pov_id="acme", details={"x": "y" * 15_000})
            for _ in range(200)
        ]
        for _ in range(5):
            server.run(lambda: server.web.server.publishing.publish(big, APP))
        ana = connect()
        answer = subscribe(ana, since=start)
        assert answer["recovered"] is True
        most, got = 0, []
        for number in range(1020):
            if number % 50 == 0 and number < 1000:
                publish(server, 1)
                most = max(
                    most,
                    server.call(
                        lambda: max(
                            each.transport.unsent_bytes
                            for each in server.web.server.directory.all()
                        )
                    ),
                )
            got.append(ana.receive()["offset"])
        assert got == span(1, 1020)
        assert most <= 256 * 1024


class TestCursor:
    def test_a_device_goes_on_where_it_acknowledged(
        self, server: RunningServer, connect: Connect
    ) -> None:
        phone = connect("ana", device="phone")
        assert subscribe(phone, since="cursor")["recovered"] is False, "it has no cursor yet"
        publish(server, 5)
        assert offsets(phone, 5) == span(1, 5)
        acked = phone.request({"type": "ack", "povId": "acme", "offset": 3})
        assert (acked["type"], acked["offset"]) == ("acked", 3)
        assert phone.request({"type": "ack", "povId": "acme", "offset": 2})["offset"] == 3
        phone.socket.close()
        again = connect("ana", device="phone")
        assert subscribe(again, since="cursor")["recovered"] is True
        assert offsets(again, 2) == [4, 5]
        other = connect("ana", device="laptop")
        assert subscribe(other, since="cursor")["recovered"] is False

    @pytest.mark.parametrize(
        ("ack", "code", "field"),
        [
            ({"povId": "acme", "offset": 3}, "invalid_message", "offset"),
            ({"povId": "acme", "offset": -1}, "invalid_message", "offset"),
            ({"povId": "acme", "offset": 1.5}, "invalid_message", "offset"),
            ({"povId": "acme"}, "invalid_message", "offset"),
            ({"povId": "acme", "offset": 1, "epoch": "another"}, "epoch_changed", "epoch"),
            ({"povId": "other", "offset": 1}, "forbidden", "povId"),
            ({"offset": 1}, "invalid_message", "povId"),
            ({"inbox": True, "offset": 1}, "invalid_message", "offset"),
        ],
    )
    def test_what_cannot_be_acknowledged_is_refused(
        self, server: RunningServer, connect: Connect, ack: dict[str, Any], code: str, field: str
    ) -> None:
        ana = connect()
        subscribe(ana)
        publish(server, 2)
        assert offsets(ana, 2) == [1, 2]
        answer = ana.request({"type": "ack", **ack})
        assert (answer.get("code"), answer.get("field")) == (code, field)

    def test_a_user_has_so_many_devices_and_no_more(
        self, server: RunningServer, connect: Connect
    ) -> None:
        for device in ("a", "b", "c"):
            client = connect("ana", device=device)
            assert subscribe(client, since="cursor")["type"] == "subscribed"
            client.socket.close()
        while server.call(lambda: len(server.web.server.directory)):
            pass
        late = connect("ana", device="d")
        answer = subscribe(late, since="cursor")
        assert (answer["code"], answer["field"]) == ("limit_exceeded", "device")
        assert subscribe(late)["type"] == "subscribed", "without a cursor nothing is kept of it"

    def test_a_device_goes_on_while_nothing_can_be_written(
        self, server: RunningServer, connect: Connect
    ) -> None:
        engine = server.web.server.engine
        if not isinstance(engine, SqliteEngine):
            return  # only a disk can be full
        phone = connect("ana", device="phone")
        assert subscribe(phone, durable=True)["type"] == "subscribed"
        publish(server, 5)
        assert offsets(phone, 5) == span(1, 5)
        assert phone.request({"type": "ack", "povId": "acme", "offset": 3})["type"] == "acked"
        phone.socket.close()
        engine._connections[0].execute("PRAGMA query_only = 1")
        again = connect("ana", device="phone")
        assert subscribe(again, since="cursor")["recovered"] is True
        assert offsets(again, 2) == [4, 5]
        answer = again.request({"type": "ack", "povId": "acme", "offset": 4})
        assert answer["code"] == "unavailable"
        (result,) = again.request({"type": "resume"})["results"]
        assert result["recovered"] is True
        assert offsets(again, 2) == [4, 5], "what was not resent yet cannot be acknowledged"
        engine._connections[0].execute("PRAGMA query_only = 0")
        assert again.request({"type": "ack", "povId": "acme", "offset": 4})["type"] == "acked"


class TestDurable:
    def test_a_device_resumes_all_of_its_users_durable_subscriptions(
        self, server: RunningServer, connect: Connect
    ) -> None:
        phone = connect("ana", device="phone", povs=["one", "two", "three"])
        for pov in ("one", "two", "three"):
            subscribe(phone, pov, durable=True)
        subscribe(phone, "one")
        phone.request({"type": "unsubscribe", "povId": "three", "durable": True})
        publish(server, 1, "one")
        assert offsets(phone, 1) == [1]
        phone.request({"type": "ack", "povId": "one", "offset": 1})
        phone.socket.close()
        publish(server, 2, "one")
        again = connect("ana", device="phone", povs=["one"])
        answer = again.request({"type": "resume"})
        assert answer["type"] == "subscribed"
        assert answer["povIds"] == ["one", "two"]
        one, two = answer["results"]
        assert (one["recovered"], two["code"]) == (True, "forbidden")
        assert offsets(again, 2) == [2, 3]
        assert connect("ben").request({"type": "resume"})["results"] == []


class TestAFailingSubscribe:
    """After joining something fails: the client knows no position, so it is not subscribed."""

    @pytest.fixture
    def failing(
        self, server: RunningServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        part, name = request.param
        owner = getattr(server.web.server.engine, part)
        works = getattr(owner, name)

        async def fail(topic: str, *arguments: Any, **more: Any) -> Any:
            if topic.startswith("user/"):  # the inbox, which is followed from the start
                return await works(topic, *arguments, **more)
            raise Unavailable("broken")

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            yield

    def check_nothing_follows(self, server: RunningServer, ana: Client) -> None:
        (connection,) = (each for each in server.web.server.directory.all() if each.v1)
        assert "pov/acme" not in server.call(lambda: list(connection.topics))
        publish(server, 1)
        assert ana.request({"type": "ping"})["type"] == "pong"
        assert not ana._early

    @pytest.mark.parametrize(
        ("failing", "fields"),
        [
            (("sets", "add"), {"durable": True}),
            (("marks", "get"), {}),
            (("log", "read"), {"since": {"offset": 0}}),
        ],
        indirect=["failing"],
        ids=["durable", "mark", "digest"],
    )
    @pytest.mark.parametrize("many", [False, True])
    def test_leaves_the_connection_as_it_was(
        self,
        server: RunningServer,
        connect: Connect,
        failing: None,
        fields: dict[str, Any],
        many: bool,
    ) -> None:
        plain = connect("ben", v1=False)
        epoch = subscribe(plain)["epoch"]
        plain.socket.close()
        publish(server, 1200)
        if "since" in fields:
            fields = {"since": {**fields["since"], "epoch": epoch}}
        ana = connect()
        if many:
            request = {"type": "subscribe", "povIds": ["acme"], **fields}
            (answer,) = ana.request(request)["results"]
        else:
            answer = subscribe(ana, **fields)
        assert answer["code"] == "unavailable"
        while server.call(lambda: len(server.web.server.directory)) > 1:
            pass
        self.check_nothing_follows(server, ana)

    def test_on_a_disk_that_is_full_remembers_nothing_and_can_be_tried_again(
        self, server: RunningServer, connect: Connect
    ) -> None:
        engine = server.web.server.engine
        if not isinstance(engine, SqliteEngine):
            return  # only a disk can be full
        ana = connect()
        engine._connections[0].execute("PRAGMA query_only = 1")
        assert subscribe(ana, durable=True)["code"] == "unavailable"
        engine._connections[0].execute("PRAGMA query_only = 0")
        self.check_nothing_follows(server, ana)
        assert ana.request({"type": "resume"})["results"] == []
        assert subscribe(ana, durable=True)["offset"] == 1
        publish(server, 1)
        assert offsets(ana, 1) == [2]

    @pytest.mark.parametrize("failing", [("sets", "add")], indirect=True)
    def test_keeps_a_subscription_that_was_there(
        self, server: RunningServer, connect: Connect, failing: None
    ) -> None:
        ana = connect()
        assert subscribe(ana)["offset"] == 0
        assert subscribe(ana, durable=True)["code"] == "unavailable"
        publish(server, 1)
        assert offsets(ana, 1) == [1]


def notify(
    server: RunningServer, user: str = "ana", token: str | None = None, **fields: Any
) -> tuple[int, dict[str, Any]]:
    client = HTTPClient()
    try:
        answer = client.fetch(
            f"http://{server.address}/api/users/{user}/notifications",
            method="POST",
            headers={"Authorization": f"Bearer {token or server.token('app', Kind.SERVICE)}"},
            body=json.dumps({"type": "mention", **fields}),
            raise_error=False,
        )
    finally:
        client.close()
    return answer.code, json.loads(answer.body)


class TestInbox:
    def wait_for_inbox(self, server: RunningServer, count: int) -> None:
        def followers() -> int:
            register = server.web.server.directory
            return sum("user/ana" in each.topics for each in register.all())

        while server.call(followers) < count:
            pass

    def test_a_notification_reaches_all_devices_and_waits_for_those_away(
        self, server: RunningServer, connect: Connect
    ) -> None:
        phone = connect("ana", device="phone")
        self.wait_for_inbox(server, 1)
        code, place = notify(server, details={"text": "look"}, povId="acme", userId="ben")
        assert (code, place["offset"], place["duplicate"]) == (200, 1, False)
        pushed = phone.receive()
        assert pushed["type"] == "notification"
        assert pushed["offset"] == 1
        assert {**pushed["data"], "id": "", "at": ""} == {
            "id": "",
            "type": "mention",
            "povId": "acme",
            "userId": "ben",
            "details": {"text": "look"},
            "at": "",
        }
        phone.request({"type": "ack", "inbox": True, "offset": 1})
        phone.socket.close()
        notify(server)
        laptop, phone = connect("ana", device="laptop"), connect("ana", device="phone")
        assert offsets(laptop, 2, "notification") == [1, 2]
        assert offsets(phone, 1, "notification") == [2]

    def test_without_an_acknowledgement_it_comes_again(
        self, server: RunningServer, connect: Connect
    ) -> None:
        notify(server)
        for _ in range(2):
            phone = connect("ana", device="phone")
            assert offsets(phone, 1, "notification") == [1]
            phone.socket.close()

    def test_what_comes_while_the_marks_are_read_is_delivered_with_the_rest(
        self, server: RunningServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill_inbox(server, 3)
        phone = connect("ana", device="phone")
        assert offsets(phone, 3, "notification") == [1, 2, 3]
        phone.request({"type": "ack", "inbox": True, "offset": 1})
        phone.socket.close()
        host = server.web.server.hooks.hosts["inbox"]
        marks = host.marks
        get = marks.get

        async def slow(topic: str, user: str, name: str) -> Position | None:
            found = await get(topic, user, name)
            await host.notify("ana", NewNotification(type="mention"))
            return found

        with monkeypatch.context() as patch:
            patch.setattr(marks, "get", slow)
            again = connect("ana", device="phone")
            assert offsets(again, 4, "notification") == [2, 3, 4, 5]

    def test_however_many_are_unread_all_that_are_kept_come_and_then_what_is_live(
        self, server: RunningServer, connect: Connect
    ) -> None:
        fill_inbox(server, 1300)
        ana = connect("ana")
        assert offsets(ana, 1300, "notification") == span(1, 1300)
        fill_inbox(server, 1)
        assert offsets(ana, 1, "notification") == [1301]
        ana.request({"type": "ack", "inbox": True, "offset": 2})
        ana.socket.close()
        fill_inbox(server, 300)
        # Of 1,601 the newest 1,500 are kept; the offset tells how many are gone.
        assert offsets(connect("ana"), 1500, "notification") == span(102, 1601)

    def test_what_one_device_read_no_other_gets(
        self, server: RunningServer, connect: Connect
    ) -> None:
        notify(server)
        notify(server)
        phone, laptop = (connect("ana", device=device) for device in ("phone", "laptop"))
        for client in (phone, laptop):
            assert offsets(client, 2, "notification") == [1, 2]
        answer = phone.request({"type": "read", "inbox": True, "offset": 1})
        assert (answer["type"], answer["offset"]) == ("inbox_read", 1)
        told = laptop.receive()
        assert (told["type"], told["offset"]) == ("inbox_read", 1)
        assert offsets(connect("ana", device="tablet"), 1, "notification") == [2]

    def test_one_that_expired_is_not_delivered_and_leaves_no_gap(
        self, server: RunningServer, connect: Connect
    ) -> None:
        notify(server, expiresAt="2999-01-01T00:00:00Z")
        code, answer = notify(server, expiresAt="2001-01-01T00:00:00Z")
        assert (code, answer["error"]["field"]) == (400, "expiresAt")
        code, answer = notify(server, expiresAt="2999-01-01T00:00:00")
        assert (code, answer["error"]["field"]) == (400, "expiresAt"), "without a zone"
        server.run(lambda: expired(server))
        notify(server)
        ana = connect("ana")
        assert offsets(ana, 2, "notification") == [1, 3]
        assert ana.request({"type": "ack", "inbox": True, "offset": 3})["offset"] == 3

    def test_a_retry_is_no_second_one(self, server: RunningServer, connect: Connect) -> None:
        first, again = notify(server, id="n1")[1], notify(server, id="n1")[1]
        assert (first["offset"], again["offset"], again["duplicate"]) == (1, 1, True)
        assert notify(server, id="n1", details={})[1]["error"]["code"] == "id_conflict"

    @pytest.mark.parametrize(
        ("fields", "code", "field"),
        [
            ({"type": "no spaces"}, 400, "type"),
            ({"unknown": 1}, 400, "unknown"),
            ({"details": {"x": "y" * 17_000}}, 413, "details"),
            ({"povId": "a\u0000"}, 400, "povId"),
        ],
    )
    def test_a_bad_one_is_refused_by_the_name_of_its_field(
        self, server: RunningServer, fields: dict[str, Any], code: int, field: str
    ) -> None:
        status, answer = notify(server, **fields)
        assert (status, answer["error"]["field"]) == (code, field)

    def test_only_services_notify_and_only_about_what_they_see(self, server: RunningServer) -> None:
        assert notify(server, token=server.token("ana"))[0] == 401
        narrow = server.token("app", Kind.SERVICE, povs=["acme"])
        assert notify(server, token=narrow)[0] == 403
        assert notify(server, token=narrow, povId="other")[0] == 403
        assert notify(server, token=narrow, povId="acme")[0] == 200

    def test_a_client_of_the_first_block_gets_none(
        self, server: RunningServer, connect: Connect
    ) -> None:
        plain = connect("ana", v1=False)
        notify(server)
        assert plain.request({"type": "ping"})["type"] == "pong"
        assert not server.call(lambda: server.web.server.directory.all()[0].topics)


def fill_inbox(server: RunningServer, count: int) -> None:
    host = server.web.server.hooks.hosts["inbox"]

    async def work() -> None:
        # Together: a disk commits them in few transactions.
        new = [NewNotification(type="mention", id=f"{uuid4()}") for _ in range(count)]
        await asyncio.gather(*(host.notify("ana", each) for each in new))

    server.run(work)


async def expired(server: RunningServer) -> None:
    """Append a notification whose time is over, as if it had been sent long ago."""
    from pov_rt.engine.base import NewEntry

    body = b'{"id":"old","type":"mention","expiresAt":"2001-01-01T00:00:00Z"}'
    await server.web.server.engine.log.append([NewEntry("user/ana", "s", "old", body)])


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    settings = make_settings(engine=EngineSettings(url=f"sqlite://{tmp_path}/log.db"))
    with RunningServer(settings, None) as server:
        phone = server.connect("ana", device="phone")
        subscribe(phone, durable=True)
        publish(server, 3)
        assert offsets(phone, 3) == [1, 2, 3]
        phone.request({"type": "ack", "povId": "acme", "offset": 2})
        notify(server, id="n1")
        token = server.token("app", Kind.SERVICE)
        activity = {"id": "a1", "type": "t", "action": "a", "povId": "acme"}
        first = post(server, token, activity)
    with RunningServer(settings, None) as server:
        phone = server.connect("ana", device="phone")
        assert offsets(phone, 1, "notification") == [1]
        (result,) = phone.request({"type": "resume"})["results"]
        assert result["recovered"] is True
        assert offsets(phone, 2) == [3, 4]
        assert post(server, token, activity) == (200, first[1])
        assert first[0] == 201


def post(server: RunningServer, token: str, activity: dict[str, Any]) -> tuple[int, Any]:
    client = HTTPClient()
    try:
        answer = client.fetch(
            f"http://{server.address}/api/activities",
            method="POST",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            body=json.dumps(activity),
            raise_error=False,
        )
    finally:
        client.close()
    return answer.code, json.loads(answer.body)


def test_a_crowd_that_comes_back_is_served_from_one_reading_of_the_log(
    server: RunningServer, connect: Connect
) -> None:
    start = place(subscribe(connect()))
    publish(server, 50)
    replay = server.web.server.hub.replay
    before = replay.reads
    clients: Sequence[Client] = [connect(f"user-{n}") for n in range(30)]
    for client in clients:
        client.send({"type": "subscribe", "povId": "acme", "since": start})
    for client in clients:
        assert client.receive()["recovered"] is True
        assert offsets(client, 50) == span(1, 50)
    assert replay.reads - before == 1

"""Nothing is missed: recovery by position, durable subscriptions, a restart, a crowd."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClient
from websockets.sync.client import connect as websocket
from websockets.typing import Subprotocol

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import EngineSettings, Settings
from pov_rt.dispatch.handlers import context
from pov_rt.engine.base import Page
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.messages import NewActivity
from pov_rt.testing import Client, Connect, RunningServer, make_settings
from tests.clients import (
    APP,
    ENGINES,
    notify,
    offsets,
    place,
    publish,
    settings_of,
    span,
    subscribe,
)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have answers wait for their digests, however busy the machine is."""
    monkeypatch.setattr(context, "WITHIN_S", 60.0)


@pytest.fixture(params=ENGINES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_of(request.param, tmp_path)


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

        async def fail(topic: Any, *arguments: Any, **more: Any) -> Any:
            # The inbox, which is followed from the start, and a log's state.
            if str(topic).startswith("user/") or (part == "log" and arguments == (0, 1)):
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
        assert not ana.early

    @pytest.mark.parametrize(
        ("failing", "fields"),
        [
            (("sets", "update"), {"durable": True}),
            (("marks", "get"), {"since": "cursor"}),
        ],
        indirect=["failing"],
        ids=["durable", "mark"],
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
        subscribe(plain)
        plain.socket.close()
        publish(server, 1200)
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

    @pytest.mark.parametrize("failing", [("log", "tally")], indirect=True)
    def test_but_not_for_a_digest_which_is_left_out(
        self, server: RunningServer, connect: Connect, failing: None
    ) -> None:
        start = place(subscribe(connect("ben")))
        publish(server, 1200)
        ana = connect()
        answer = subscribe(ana, since=start)
        assert (answer["recovered"], answer["missed"], "digest" in answer) == (False, 1200, False)
        publish(server, 1)
        assert offsets(ana, 1) == [1201]

    def test_on_a_disk_that_is_full_remembers_nothing_and_can_be_tried_again(
        self, server: RunningServer, connect: Connect
    ) -> None:
        engine = server.web.server.engine
        if not isinstance(engine, SqliteEngine):
            return  # only a disk can be full
        ana = connect()
        engine.writer.connection.execute("PRAGMA query_only = 1")
        assert subscribe(ana, durable=True)["code"] == "unavailable"
        engine.writer.connection.execute("PRAGMA query_only = 0")
        self.check_nothing_follows(server, ana)
        assert ana.request({"type": "resume"})["results"] == []
        assert subscribe(ana, durable=True)["offset"] == 1
        publish(server, 1)
        assert offsets(ana, 1) == [2]

    @pytest.mark.parametrize("failing", [("sets", "update")], indirect=True)
    def test_keeps_a_subscription_that_was_there(
        self, server: RunningServer, connect: Connect, failing: None
    ) -> None:
        ana = connect()
        assert subscribe(ana)["offset"] == 0
        assert subscribe(ana, durable=True)["code"] == "unavailable"
        publish(server, 1)
        assert offsets(ana, 1) == [1]


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
        activity = {"id": "a1", "type": "t", "action": "a", "povId": "acme", "userId": "u"}
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
    server: RunningServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = place(subscribe(connect()))
    publish(server, 50)
    log, reads = server.web.server.engine.log, 0
    read = log.read

    async def count(*arguments: Any, **more: Any) -> Page:
        nonlocal reads
        reads += arguments[1:] != (0, 1)  # which is the log's state
        return await read(*arguments, **more)

    monkeypatch.setattr(log, "read", count)
    clients: Sequence[Client] = [connect(f"user-{n}") for n in range(30)]
    for client in clients:
        client.send({"type": "subscribe", "povId": "acme", "since": start})
    for client in clients:
        assert client.receive()["recovered"] is True
        assert offsets(client, 50) == span(1, 50)
    assert reads == 1


@pytest.mark.parametrize("buffer_bytes", [None, 64 * 1024])
def test_a_client_that_reads_comes_back_to_many_povs_at_the_first_try(
    server: RunningServer, connect: Connect, buffer_bytes: int | None
) -> None:
    count, povs = 40, [f"p{number}" for number in range(200)]
    epoch = place(subscribe(connect(), povs[0]))["epoch"]
    details = {"text": "x" * 1000}
    for pov in povs:
        batch = [NewActivity(type="t", action="a", pov_id=pov, details=details)] * count
        server.run(partial(server.web.server.publishing.publish, batch, APP))
    sock = socket.socket()
    if buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    sock.connect(("127.0.0.1", server.web.port))
    protocols = [Subprotocol("pov-rt.v1"), Subprotocol(f"bearer.{server.token('ana')}")]
    url = f"ws://{server.address}/ws/"
    with websocket(url, sock=sock, subprotocols=protocols, proxy=None, max_queue=None) as client:
        positions = {pov: {"epoch": epoch, "offset": 0} for pov in povs}
        client.send(json.dumps({"type": "subscribe", "povIds": povs, "positions": positions}))
        got = dict.fromkeys(povs, 0)
        while sum(got.values()) < count * len(povs):
            message = json.loads(client.recv(timeout=20))
            if message["type"] == "activity":
                pov = message["data"]["povId"]
                assert message["offset"] == got[pov] + 1
                got[pov] += 1

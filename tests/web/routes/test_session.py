"""A session without a WebSocket, and messages that come alone."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import Settings
from pov_rt.protocol.errors import CloseCode
from pov_rt.testing import Answer, Connect, Http, RunningServer, TestClock, make_settings
from tests.events import Event, Events, follow

ACTIVITY = {"type": "t", "action": "a", "povId": "acme"}


class Fetched:
    """The events of a session that are fetched: one answer after the other, each complete."""

    def __init__(self, server: RunningServer, path: str, token: str) -> None:
        self.server = server
        self.path = path
        self.token = token
        self.last: str | None = None
        self._waiting: deque[Event] = deque()
        self.answer = self.fetch()

    def fetch(self, last: str | None = None) -> HTTPResponse:
        """Ask for what follows a place, by default that of the answer before."""
        headers = {"Last-Event-ID": last or self.last} if last or self.last else {}
        named = {name.replace("-", "_"): str(value) for name, value in headers.items()}
        with follow(self.server, self.path, self.token, **named) as events:
            text = events.answer.read().decode() if events.answer.status == 200 else ""
        for line in text.splitlines():
            if line.startswith("id:"):
                self.last = line.removeprefix("id:")
            elif line.startswith("data:"):
                self._waiting.append(Event("message", json.loads(line[5:]), None))
        return events.answer

    def next(self) -> Event | None:
        while not self._waiting:
            if self.fetch().status == 404:
                return None
        return self._waiting.popleft()


class Session:
    """A client that has no WebSocket."""

    def __init__(self, http: Http, events: Events | Fetched, user: str) -> None:
        self._http = http
        self.events = events
        self._user = user
        self.welcome = self.receive()
        self.id = self.welcome["connectionId"]

    def post(self, body: object, **more: Any) -> Answer:
        """Send one message, or several."""
        return post(self._http, body, self.id, **{"user": self._user, **more})

    def receive(self) -> dict[str, Any]:
        event = self.events.next()
        assert event is not None, "it ended"
        assert (event.name, event.id) == ("message", None)
        found: dict[str, Any] = event.data
        return found

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.post({**message, "id": "q"}).status == 204
        return next(each for each in iter(self.receive, None) if each.get("id") == "q")


def post(http: Http, body: object, session: str | None = None, **options: Any) -> Answer:
    server: RunningServer = http._server  # noqa: SLF001  (it sends no headers of one's own)
    token = server.token(options.pop("user", "ana"), **options)
    connection = HTTPConnection(server.address, timeout=10)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    if session is not None:
        headers["Pov-Rt-Connection"] = session
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request("POST", "/api/messages", content, headers)
        answer = connection.getresponse()
        text = answer.read()
        return Answer(answer.status, json.loads(text) if text else None, dict(answer.headers))
    finally:
        connection.close()


@pytest.fixture(params=["events", "fetched"])
def more(request: pytest.FixtureRequest) -> str:
    """What the query of a session says: how its events come."""
    return "&live=long-poll" if request.param == "fetched" else ""


@contextmanager
def session(
    server: RunningServer, http: Http, user: str = "ana", more: str = ""
) -> Iterator[Session]:
    if "long-poll" in more:
        fetched = Fetched(server, f"/api/session?device=phone{more}", server.token(user))
        assert fetched.answer.status == 200
        yield Session(http, fetched, user)
        return
    with follow(server, f"/api/session?device=phone{more}", server.token(user)) as events:
        assert events.answer.status == 200
        yield Session(http, events, user)


def error_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.body["error"]["code"]


def wait_for(server: RunningServer, connections: int) -> None:
    for _ in range(10_000):
        if server.call(lambda: len(server.web.server.directory)) == connections:
            return
    pytest.fail("it did not come true")


def test_a_session_gets_every_message_of_a_socket_in_the_same_order(
    server: RunningServer, http: Http, connect: Connect, more: str
) -> None:
    ben = connect("ben")
    with session(server, http, more=more) as ana:
        assert ana.welcome["type"] == "welcome"
        assert (ana.welcome["userId"], ana.welcome["device"]) == ("ana", "phone")
        assert ana.events.answer.headers["Content-Type"] == "text/event-stream"
        ben.request({"type": "publish", "data": ACTIVITY})
        since = {"last": 1}
        sent = [
            {"type": "subscribe", "povId": "acme", "since": since, "id": 1},
            {"type": "presence", "povId": "acme", "id": 2},
            {"type": "ping", "id": 3},
            {"type": "nothing", "id": 4},
            {"type": "publish", "data": ACTIVITY, "id": 5},
        ]
        assert ana.post(sent).status == 204
        got = [ana.receive() for _ in range(7)]
        answers = [each["type"] for each in got if "id" in each and each["id"] != 3]
        assert answers == ["subscribed", "present", "error", "published"]
        assert [each["offset"] for each in got if each["type"] == "activity"] == [1, 2]
        types = [each["type"] for each in got]
        assert types.index("subscribed") < types.index("activity"), "its place is what it says"
        ben.request({"type": "subscribe", "povId": "acme"})
        ben.send({"type": "typing", "povId": "acme", "active": True})
        found = {ana.receive()["type"] for _ in range(2)}
        assert found == {"typing", "presence_diff"}
        http.post("/api/users/ana/notifications", {"type": "mention"}, service=True)
        assert ana.receive()["type"] == "notification"
        assert [each["devices"] for each in http.get("/api/povs/acme/presence").body["users"]] == [
            ["phone"],
            ["default"],
        ]


def test_its_token_is_replaced_and_it_ends_with_a_reason(
    server: RunningServer, http: Http, clock: TestClock, more: str
) -> None:
    with session(server, http, more=more) as ana:
        clock.advance(10)
        refreshed = ana.request({"type": "refresh", "token": server.token(ttl_s=7200)})
        assert refreshed["type"] == "refreshed"
        if not more:  # who fetches nothing for so long is gone
            clock.advance(3700)
            server.call(server.web.server.sweep)
        assert ana.request({"type": "ping"})["type"] == "pong"
        server.run(server.web.server.drain)
        closing = ana.receive()
        assert (closing["type"], closing["code"]) == ("closing", 4000)
        assert ana.events.next() is None
        with follow(server, "/api/session", server.token()) as refused:
            assert refused.answer.status == 503


def test_a_token_in_the_url_opens_a_session_but_sends_nothing(
    server: RunningServer, http: Http
) -> None:
    token = server.token()
    with follow(server, f"/api/session?token={token}") as events:
        found = events.next()
        assert found is not None
        assert found.data["type"] == "welcome"
    connection = HTTPConnection(server.address, timeout=10)
    for headers in ({}, {"Cookie": f"accessToken={token}"}):
        connection.request("POST", f"/api/messages?token={token}", b"{}", headers)
        assert connection.getresponse().status == 401
        connection.close()


def test_a_session_is_ones_own_and_has_to_be_there(
    server: RunningServer, http: Http, connect: Connect
) -> None:
    socket = connect()
    with session(server, http) as ana:
        for lent, user in ((ana.id, "ben"), ("none", "ana"), (socket.connection_id, "ana")):
            answer = post(http, {"type": "ping"}, lent, user=user)
            assert error_of(answer) == (404, "not_found")
    wait_for(server, 1)
    assert error_of(post(http, {"type": "ping"}, ana.id)) == (404, "not_found")


class TestWaiting:
    @pytest.fixture
    def plugins_dir(self, tmp_path: Path) -> Path:
        (tmp_path / "slow.py").write_text(
            '''"""Waits as long as it is told."""
import asyncio
from pov_rt.plugin import Context, Host, Message, Plugin

plugin = Plugin[asyncio.Event]("slow")

@plugin.lifespan
async def until(host: Host[asyncio.Event]):
    yield asyncio.Event()

class Wait(Message, tag="slow.wait"):
    """Wait."""

class Waited(Message, tag="slow.waited"):
    """It is over."""

@plugin.on(Wait)
async def wait(message: Wait, context: Context[asyncio.Event]) -> Waited:
    """Wait."""
    await context.state.wait()
    return Waited()
'''
        )
        return tmp_path

    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits={"inbox_messages": 4})

    def test_what_comes_while_much_waits_is_to_come_again(
        self, server: RunningServer, http: Http, more: str
    ) -> None:
        with session(server, http, more=more) as ana:
            four = [{"type": "slow.wait", "id": number} for number in range(4)]
            assert error_of(ana.post([*four, four[0]])) == (413, "too_large")
            taken = 0
            while (answer := ana.post(four)).status == 204:
                taken += 1
            assert error_of(answer) == (429, "rate_limited")
            assert answer.headers["Retry-After"] == "1"
            assert 1 <= taken <= 2
            until = server.web.server.hooks.hosts["slow"].state
            server.call(until.set)
            got = [ana.receive()["id"] for _ in range(4 * taken)]
            assert got == [0, 1, 2, 3] * taken
            assert ana.request({"type": "ping"})["type"] == "pong"


POLL = "&live=long-poll"


class TestFetched:
    """One whose events are fetched."""

    @pytest.fixture
    def settings(self) -> Settings:
        slow = {"queue_bytes": 65_536, "queue_slow_bytes": 32_768, "queue_slow_s": 60.0}
        return make_settings(limits=slow)

    def test_an_answer_that_was_lost_comes_again_and_one_that_arrived_does_not(
        self, server: RunningServer, http: Http
    ) -> None:
        with session(server, http, more=POLL) as ana:
            assert isinstance(ana.events, Fetched)
            before = ana.events.last
            ana.request({"type": "ping"})
            lost = ana.events.last
            assert ana.events.fetch(before).status == 200
            assert ana.receive()["type"] == "pong"
            assert ana.events.last == lost
            ana.request({"type": "ping"})
            assert ana.events.fetch(before).status == 404, "the client said that it had it"
            assert ana.events.fetch(f"{ana.id}_{9:016d}").status == 404, "nothing is there yet"
            assert ana.events.fetch("x").status == 400
            assert ana.request({"type": "ping"})["type"] == "pong", "all that changed nothing"

    def test_it_is_ones_own(self, server: RunningServer, http: Http) -> None:
        with session(server, http, more=POLL) as ana:
            assert isinstance(ana.events, Fetched)
            ana.events.token = server.token("ben")
            assert ana.events.fetch().status == 404
            assert error_of(post(http, {"type": "ping"}, ana.id, user="ben"))[0] == 404

    def test_who_fetches_no_more_is_gone_after_a_while(
        self, server: RunningServer, http: Http, clock: TestClock
    ) -> None:
        with session(server, http, more=POLL) as ana:
            for _ in range(3):
                clock.advance(30)
                server.call(server.web.server.sweep)
            wait_for(server, 0)
            closing = ana.receive()
            assert (closing["type"], closing["code"]) == ("closing", 4003)
            assert ana.events.next() is None

    def test_what_was_said_last_is_there_for_who_asks_a_little_later(
        self, server: RunningServer, http: Http
    ) -> None:
        with session(server, http, more=POLL) as ana:
            directory = server.web.server.directory
            server.call(
                lambda: directory.disconnect(
                    user_id="ana", connection_id=None, code=CloseCode.DISCONNECTED
                )
            )
            wait_for(server, 0)
            closing = ana.receive()
            assert (closing["type"], closing["code"]) == ("closing", 4500)
            assert ana.events.next() is None

    def test_more_than_may_wait_comes_as_it_is_fetched(
        self, server: RunningServer, http: Http, connect: Connect
    ) -> None:
        ben = connect("ben")
        with session(server, http, more=POLL) as ana:
            ana.request({"type": "subscribe", "povId": "acme"})
            details = {"text": "x" * 7000}
            for _ in range(40):
                ben.request({"type": "publish", "data": {**ACTIVITY, "details": details}})
            assert server.call(lambda: server.web.unsent_bytes) <= 65_536
            got = [ana.receive() for _ in range(40)]
            assert [each["offset"] for each in got] == list(range(1, 41))

    def test_a_browser_elsewhere_may_say_where_it_is(self, server: RunningServer) -> None:
        connection = HTTPConnection(server.address, timeout=10)
        connection.request(
            "OPTIONS", "/api/session", headers={"Origin": "http://" + server.address}
        )
        headers = connection.getresponse().headers
        assert "Last-Event-ID" in headers["Access-Control-Allow-Headers"]
        connection.close()


def test_what_is_no_message_is_refused(http: Http) -> None:
    for body in (b"[]", b"", b'"x"', b"\xff{}"):
        assert error_of(post(http, body)) == (400, "invalid_request")
    large = {"type": "ping", "x": "y" * 70_000}
    assert error_of(post(http, large)) == (413, "too_large")


def test_a_message_alone_is_answered_by_itself(
    server: RunningServer, http: Http, connect: Connect
) -> None:
    ben = connect("ben")
    ben.request({"type": "subscribe", "povId": "acme"})
    assert post(http, {"type": "ping", "id": 7}).body == [{"type": "pong", "id": 7}]
    assert post(http, {"type": "pong"}).body == []
    (published,) = post(http, {"type": "publish", "data": ACTIVITY}).body
    assert published["type"] == "published"
    assert ben.receive()["data"]["userId"] == "ana"
    (page,) = post(http, {"type": "history", "povId": "acme"}).body
    assert [each["offset"] for each in page["activities"]] == [1]
    (silent,) = post(http, {"type": "publish", "data": ACTIVITY, "echo": False}).body
    assert silent["offset"] == 2
    (refused,) = post(http, {"type": "publish", "data": ACTIVITY}, can=["subscribe"]).body
    assert refused["code"] == "forbidden"
    (wrong,) = post(http, {"type": "history"}).body
    assert (wrong["code"], wrong["field"]) == ("invalid_message", "povId")
    assert server.call(lambda: len(server.web.server.directory)) == 1


def test_a_message_alone_subscribes_nobody_and_ends_nothing(
    server: RunningServer, http: Http, connect: Connect
) -> None:
    ana = connect()
    ana.request({"type": "subscribe", "povId": "acme", "durable": True})
    (refused,) = post(http, {"type": "subscribe", "povId": "acme"}).body
    assert refused["code"] == "not_found"
    (resumed,) = post(http, {"type": "resume"}).body
    assert [each["code"] for each in resumed["results"]] == ["not_found"]
    for message in (
        {"type": "presence", "povId": "acme"},
        {"type": "typing", "povId": "acme", "active": True},
        {"type": "ack", "povId": "acme", "offset": 0},
    ):
        (refused,) = post(http, message).body
        assert (refused["code"], refused["message"]) == ("forbidden", "Subscribe first")
    (refused,) = post(http, {"type": "refresh", "token": server.token()}).body
    assert refused["code"] == "not_found"
    answer = ana.request({"type": "resume"})
    assert [each["povId"] for each in answer["results"]] == ["acme"], "it is still durable"


def test_who_follows_over_http_can_acknowledge_and_read(
    server: RunningServer, http: Http, connect: Connect
) -> None:
    ben = connect("ben")
    ben.request({"type": "subscribe", "povId": "acme"})
    for _ in range(3):
        post(http, {"type": "publish", "data": ACTIVITY})
    epoch = http.get("/api/povs/acme/activities").body["epoch"]
    position = {"povId": "acme", "epoch": epoch}
    (acked,) = post(http, {"type": "ack", **position, "offset": 2, "id": 1}).body
    assert (acked["type"], acked["offset"], acked["id"]) == ("acked", 2, 1)
    (read,) = post(http, {"type": "read", **position, "offset": 3}).body
    assert (read["type"], read["read"]) == ("receipts", {"ana": 3})
    while (told := ben.receive())["type"] != "receipts":
        assert told["type"] == "activity"
    assert told["read"] == {"ana": 3}
    (marks,) = post(http, {"type": "seen", **position, "offset": 3}).body
    assert (marks["readOffset"], marks["unread"]) == (3, 0)
    (ahead,) = post(http, {"type": "ack", **position, "offset": 4}).body
    assert (ahead["code"], ahead["field"]) == ("invalid_message", "offset")
    (old,) = post(http, {"type": "ack", "povId": "acme", "epoch": "x", "offset": 1}).body
    assert old["code"] == "epoch_changed"
    (hidden,) = post(http, {"type": "ack", **position, "offset": 1}, povs=["beta"]).body
    assert (hidden["code"], hidden["field"]) == ("forbidden", "povId")
    notified = http.post("/api/users/ana/notifications", {"type": "mention"}, service=True).body
    inbox = {"inbox": True, "epoch": notified["epoch"], "offset": 1}
    (acked,) = post(http, {"type": "ack", **inbox}).body
    assert (acked["inbox"], acked["offset"]) == (True, 1)
    assert server.call(lambda: server.web.server.hub.audience("pov/acme")) == 1
    # Where the device is now is where it goes on.
    again = connect()
    answer = again.request({"type": "subscribe", "povId": "acme", "since": "cursor"})
    assert answer["after"] == 2


class TestRate:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits={"message_rate": "3/h"})

    def test_all_requests_of_a_user_share_one_bucket(self, http: Http) -> None:
        with ThreadPoolExecutor(2) as threads:
            sent = [threads.submit(post, http, {"type": "ping"}) for _ in range(8)]
        types = sorted(each.result().body[0]["type"] for each in sent)
        assert types == ["error"] * 2 + ["pong"] * 6
        assert post(http, {"type": "ping"}, user="ben").body == [{"type": "pong"}]


class TestPages:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(server={"allowed_origins": ["https://app.example"]})

    def test_a_page_elsewhere_may_send_messages(self, server: RunningServer) -> None:
        connection = HTTPConnection(server.address, timeout=10)
        connection.request("OPTIONS", "/api/messages", headers={"Origin": "https://app.example"})
        headers = connection.getresponse().headers
        assert headers["Access-Control-Allow-Methods"] == "POST"
        assert "Pov-Rt-Connection" in headers["Access-Control-Allow-Headers"]
        connection.close()


def test_a_change_can_be_made_by_a_session_and_by_a_message_alone(
    server: RunningServer, http: Http, more: str
) -> None:
    with session(server, http, more=more) as ana:
        ana.request({"type": "subscribe", "povId": "acme"})
        data = {**ACTIVITY, "id": "a1", "details": {"n": 1}}
        ana.post({"type": "publish", "data": data})
        assert {ana.receive()["type"] for _ in range(2)} == {"published", "activity"}
        amend = {"type": "amend", "povId": "acme", "activityId": "a1", "details": {"n": 2}}
        ana.post(amend)
        changed, told = sorted((ana.receive(), ana.receive()), key=lambda each: "data" in each)
        assert (changed["type"], changed["offset"]) == ("changed", 2)
        assert told["data"]["original"] == {"id": "a1", "offset": 1}
        # Needs no place in the log, and is made once however often it is sent.
        retract = {"type": "retract", "povId": "acme", "activityId": "a1", "changeId": "c1"}
        for is_again in (False, True):
            (found,) = post(http, retract).body
            assert (found["type"], found["offset"]) == ("changed", 3)
            assert found["duplicate"] is is_again
        assert ana.receive()["data"]["retracted"] is True
        (refused,) = post(http, {**amend, "activityId": "none"}).body
        assert (refused["code"], refused["field"]) == ("not_found", "activityId")
        (refused,) = post(http, amend, user="ben").body
        assert refused["code"] == "forbidden"

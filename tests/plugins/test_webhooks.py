"""Another server is told who comes and goes, and asked who may; no client notices how that goes."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pov_rt.config import load, show
from pov_rt.plugins import webhooks
from pov_rt.registry import build_registry
from pov_rt.settings import LimitSettings, SettingsError
from pov_rt.testing import Client, RunningServer, make_settings

SECRET = "the webhooks' own secret, which nobody sees"
WAIT_S = 5.0


class Call(NamedTuple):
    """A call as the receiver got it."""

    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """What it says."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def events(self) -> list[str]:
        """Its events and whom they are about."""
        return [f"{each['event']} {each['userId']}" for each in self.json["events"]]


class Receiver:
    """A server that keeps what it is told, and answers with the next of `answers`, then 204."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Call] = queue.Queue()
        self.answers: queue.Queue[int] = queue.Queue()
        self.open = threading.Event()
        """Unset, and nothing is answered."""
        self.open.set()
        self.at_once = self.most_at_once = 0
        self.port = 0
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """Where it is, or will be."""
        return f"http://127.0.0.1:{self.port}/hook"

    def start(self) -> None:
        """Listen, on the same port each time."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.at_once += 1
                receiver.most_at_once = max(receiver.most_at_once, receiver.at_once)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.calls.put(Call(dict(self.headers.items()), body))
                receiver.open.wait(WAIT_S)
                receiver.at_once -= 1
                try:
                    self.send_response(receiver.answers.get_nowait())
                except queue.Empty:
                    self.send_response(204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self._running.callback(thread.join)
        self._running.callback(server.server_close)
        self._running.callback(server.shutdown)

    def stop(self) -> None:
        """Listen no more."""
        self._running.close()

    def next(self) -> Call:
        """Return the next call."""
        return self.calls.get(timeout=WAIT_S)

    def collect(self, count: int) -> list[str]:
        """Return so many events, of as many calls as it takes."""
        found: list[str] = []
        while len(found) < count:
            found += self.next().events
        return found


Run = Callable[..., RunningServer]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    made.start()
    yield made
    made.open.set()
    made.stop()


@pytest.fixture
def run(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Start a server with these options, which is told of at once and retries soon."""
    monkeypatch.setattr(webhooks, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(webhooks, "DOWN_S", 0.05)
    with ExitStack() as running:

        def start(**options: Any) -> RunningServer:
            settings = make_settings(limits=LimitSettings(message_rate="10000/s"))
            settings.plugins["webhooks"] = {"secret": SECRET, "debounce_s": 0.02, **options}
            return running.enter_context(RunningServer(settings, None))

        yield start


def counts(server: RunningServer) -> dict[str, int]:
    return server.call(lambda: dict(server.web.server.plugins.hosts["webhooks"].counts))


def wait_for(server: RunningServer, name: str, least: int = 1) -> None:
    while counts(server).get(name, 0) < least:
        pass


def join(client: Client, pov: str = "acme") -> Client:
    assert client.request({"type": "subscribe", "povId": pov})["type"] == "subscribed"
    return client


def leave(client: Client, pov: str = "acme") -> None:
    client.request({"type": "unsubscribe", "povId": pov})


def is_signed(call: Call) -> bool:
    """Verify as docs/operations.md says."""
    timestamp = call.headers["Pov-Rt-Timestamp"]
    wanted = hmac.new(SECRET.encode(), timestamp.encode() + b"." + call.body, hashlib.sha256)
    return hmac.compare_digest(wanted.hexdigest(), call.headers["Pov-Rt-Signature"])


# Events:


def test_a_call_is_signed_and_says_who_came(run: Run, receiver: Receiver) -> None:
    server = run(url=receiver.url)
    join(server.connect("ana"))
    call = receiver.next()
    assert is_signed(call)
    assert abs(int(call.headers["Pov-Rt-Timestamp"]) - time.time()) < 5
    assert call.headers["Content-Type"] == "application/json"
    (event,) = call.json["events"]
    assert event.pop("at").endswith("Z")
    assert event == {"event": "joined", "userId": "ana", "povId": "acme"}
    assert call.json["node"] == server.web.server.node
    wait_for(server, "events_sent")
    assert counts(server) == {"events_queued": 1, "events_sent": 1}


def test_the_events_of_a_connection_say_which_one(run: Run, receiver: Receiver) -> None:
    every = ["joined", "left", "subscribed", "unsubscribed", "connected", "disconnected"]
    server = run(url=receiver.url, events=every)
    ana = server.connect("ana", device="laptop")
    join(ana)
    join(ana, "*")
    ana.socket.close()
    found: list[dict[str, Any]] = []
    while len(found) < 8:
        found += receiver.next().json["events"]
    assert [(each["event"], each.get("povId")) for each in found] == [
        ("connected", None),
        ("subscribed", "acme"),
        ("joined", "acme"),
        ("subscribed", "*"),
        ("unsubscribed", "acme"),
        ("unsubscribed", "*"),
        ("disconnected", None),
        ("left", "acme"),
    ]
    connections = {each["connectionId"] for each in found if "connectionId" in each}
    assert len(connections) == 1
    with_device = [each["event"] for each in found if each.get("device") == "laptop"]
    assert with_device == [each["event"] for each in found if each["event"] not in every[:2]]


def test_a_user_is_one_however_many_connections(run: Run, receiver: Receiver) -> None:
    server = run(url=receiver.url)
    first, second = join(server.connect("ana")), join(server.connect("ana"))
    leave(first)
    join(server.connect("ben"))
    second.socket.close()
    assert receiver.collect(3) == ["joined ana", "joined ben", "left ana"]


def test_who_is_back_in_time_has_not_left(run: Run, receiver: Receiver) -> None:
    server = run(url=receiver.url, debounce_s=30)
    ana = join(server.connect("ana"))
    for _ in range(3):
        leave(ana)
        join(ana)
    ana.socket.close()
    ana = join(server.connect("ana"))
    join(server.connect("ben"))
    assert receiver.collect(2) == ["joined ana", "joined ben"]


def test_events_travel_in_batches_in_order_one_call_at_a_time(run: Run, receiver: Receiver) -> None:
    server = run(url=receiver.url, batch=7)
    receiver.open.clear()
    users = [f"user{number}" for number in range(30)]
    for user in users:
        join(server.connect(user))
    first = receiver.next()
    receiver.open.set()
    found, sizes = first.events, [len(first.events)]
    while len(found) < len(users):
        events = receiver.next().events
        found += events
        sizes.append(len(events))
    assert found == [f"joined {user}" for user in users]
    assert max(sizes) == 7
    assert receiver.most_at_once == 1


def test_a_retry_has_the_same_id_and_a_signature_of_its_own(run: Run, receiver: Receiver) -> None:
    for status in (500, 302, 404):
        receiver.answers.put(status)
    server = run(url=receiver.url)
    join(server.connect("ana"))
    calls = [receiver.next() for _ in range(4)]
    assert len({call.json["id"] for call in calls}) == 1
    assert len({call.body for call in calls}) == 1
    assert all(is_signed(call) for call in calls)
    join(server.connect("ben"))
    following = receiver.next()
    assert following.events == ["joined ben"]
    assert following.json["id"] != calls[0].json["id"]
    wait_for(server, "events_sent", 2)
    assert counts(server)["calls_failed"] == 3


def test_events_outlast_a_receiver_that_is_down(
    run: Run, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.stop()
    server = run(url=receiver.url)
    join(server.connect("ana"))
    wait_for(server, "calls_failed", 3)
    join(server.connect("ben"))
    receiver.start()
    assert receiver.collect(2) == ["joined ana", "joined ben"]
    assert caplog.text.count("the webhook's receiver answered nothing") == 1


def test_past_the_bound_the_oldest_are_dropped_and_clients_wait_for_nothing(
    run: Run, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    server = run(url=receiver.url, queue=5)
    receiver.open.clear()
    join(server.connect("first"))
    assert receiver.next().events == ["joined first"]
    for number in range(20):
        join(server.connect(f"user{number}"))
    assert counts(server)["events_dropped"] == 15
    receiver.open.set()
    assert receiver.collect(5) == [f"joined user{number}" for number in range(15, 20)]
    assert caplog.text.count("the oldest events are dropped") == 1


def test_a_call_that_never_succeeds_holds_up_the_others_for_so_long(
    run: Run, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers.put(400)
    server = run(url=receiver.url, retry_s=0)
    join(server.connect("ana"))
    assert receiver.next().events == ["joined ana"]
    wait_for(server, "events_dropped")
    join(server.connect("ben"))
    assert receiver.next().events == ["joined ben"]
    assert "1 events are dropped" in caplog.text


def test_a_receiver_that_is_gone_is_told_no_more(
    run: Run, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers.put(410)
    server = run(url=receiver.url)
    join(server.connect("ana"))
    receiver.next()
    wait_for(server, "events_dropped")
    join(server.connect("ben"))
    server.run(server.web.server.plugins.stop)
    assert receiver.calls.empty()
    assert "gone (410)" in caplog.text


def test_the_shut_down_tells_what_is_left_to_tell(run: Run, receiver: Receiver) -> None:
    server = run(url=receiver.url, debounce_s=30)
    join(server.connect("ana"))
    leave(join(server.connect("ben")))
    server.run(server.web.server.plugins.stop)
    assert receiver.collect(3) == ["joined ana", "joined ben", "left ben"]


def test_the_shut_down_takes_up_a_call_under_way_and_waits_only_so_long(
    run: Run,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhooks, "FLUSH_S", 0.3)
    receiver.open.clear()
    server = run(url=receiver.url)
    join(server.connect("ana"))
    first = receiver.next()
    join(server.connect("ben"))
    server.run(server.web.server.plugins.stop)
    assert receiver.next().json["id"] == first.json["id"]
    assert "2 events are dropped: the webhook's receiver does not answer" in caplog.text
    assert counts(server)["events_dropped"] == 2


def test_without_a_url_nothing_happens(run: Run, receiver: Receiver) -> None:
    join(run(secret="").connect("ana"))
    assert receiver.calls.empty()


# The authoriser:


def subscribe(client: Client, pov: str = "acme") -> str:
    answer = client.request({"type": "subscribe", "povId": pov})
    code: str = answer.get("code", answer["type"])
    return code


def test_the_authoriser_allows_and_denies_and_is_asked_once(run: Run, receiver: Receiver) -> None:
    server = run(authorize_url=receiver.url)
    ana = server.connect("ana", role="lead", team_id="red")
    assert subscribe(ana) == "subscribed"
    call = receiver.next()
    assert is_signed(call)
    assert call.json == {"userId": "ana", "povId": "acme", "role": "lead", "teamId": "red"}
    receiver.answers.put(403)
    for _ in range(2):
        refused = ana.request({"type": "subscribe", "povId": "other"})
        assert (refused["code"], refused["field"]) == ("forbidden", "povId")
    assert subscribe(ana) == "subscribed"
    assert subscribe(server.connect("ana", role="lead", team_id="red")) == "subscribed"
    assert receiver.next().json["povId"] == "other"
    assert receiver.calls.empty()
    assert subscribe(server.connect("ana", role="guest", team_id="red")) == "subscribed"
    assert receiver.next().json["role"] == "guest"


def test_what_the_token_does_not_cover_is_not_asked(run: Run, receiver: Receiver) -> None:
    server = run(authorize_url=receiver.url)
    assert subscribe(server.connect("ana", povs=["other"])) == "forbidden"
    assert receiver.calls.empty()


def test_an_answer_is_good_for_so_long(run: Run, receiver: Receiver) -> None:
    ana = run(authorize_url=receiver.url, authorize_ttl_s=0).connect("ana")
    assert subscribe(ana) == "subscribed"
    receiver.answers.put(403)
    assert subscribe(ana) == "forbidden"


def test_the_memory_of_answers_is_bounded(
    run: Run, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_ANSWERS", 2)
    ana = run(authorize_url=receiver.url).connect("ana")
    for pov in ("a", "b", "c", "b", "c", "a"):
        assert subscribe(ana, pov) == "subscribed"
    asked = [receiver.next().json["povId"] for _ in range(4)]
    assert asked == ["a", "b", "c", "a"]
    assert receiver.calls.empty()


def test_the_same_question_is_asked_once_though_the_first_asker_leaves(
    run: Run, receiver: Receiver
) -> None:
    server = run(authorize_url=receiver.url)
    first, second = server.connect("ana"), server.connect("ana")
    receiver.open.clear()
    for client in (first, second):
        client.send({"type": "subscribe", "povId": "acme"})
    receiver.next()
    assert second.request({"type": "ping"})["type"] == "pong"
    first.socket.close()
    while server.call(lambda: len(server.web.server.register)) > 1:
        pass
    receiver.open.set()
    assert second.receive()["type"] == "subscribed"
    assert receiver.calls.empty()


@pytest.mark.parametrize("status", [500, 404, 302])
def test_an_answer_that_is_neither_yes_nor_no_is_none(
    run: Run, receiver: Receiver, status: int
) -> None:
    server = run(authorize_url=receiver.url)
    ana = server.connect("ana")
    receiver.answers.put(status)
    assert subscribe(ana) == "unavailable"
    assert subscribe(ana) == "subscribed"
    assert counts(server) == {"questions_asked": 2, "questions_failed": 1}


def test_an_authoriser_that_is_down_refuses_until_it_is_back(run: Run, receiver: Receiver) -> None:
    receiver.stop()
    ana = run(authorize_url=receiver.url).connect("ana")
    answer = ana.request({"type": "subscribe", "povId": "acme"})
    assert (answer["code"], answer["retryAfter"]) == ("unavailable", 0.05)
    assert "127.0.0.1" not in json.dumps(answer)
    receiver.start()
    while (code := subscribe(ana)) == "unavailable":
        pass
    assert code == "subscribed"


def test_one_that_does_not_answer_is_not_waited_for_at_each_pov(
    run: Run,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "ASK_S", 0.2)
    monkeypatch.setattr(webhooks, "DOWN_S", 60.0)
    ana = run(authorize_url=receiver.url).connect("ana")
    receiver.open.clear()
    povs = [f"pov{number}" for number in range(100)]
    answer = ana.request({"type": "subscribe", "povIds": povs})
    assert {each["code"] for each in answer["results"]} == {"unavailable"}
    receiver.next()
    assert receiver.calls.empty()


# The secret and the settings:


def test_the_secret_is_in_no_log_and_not_shown(
    run: Run, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for status in (500, 204, 500):
        receiver.answers.put(status)
    server = run(url=receiver.url, authorize_url=receiver.url)
    ana = server.connect("ana")
    assert [subscribe(ana) for _ in range(2)] == ["unavailable", "subscribed"]
    server.run(server.web.server.plugins.stop)
    assert SECRET not in caplog.text
    file = tmp_path / "pov-rt.toml"
    file.write_text(f'[plugins.webhooks]\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n')
    shown = {name: text for name, text, _ in show(load(file=file, flags={}, environ={}))}
    assert shown["plugins.webhooks.secret"] == '"****"'


def test_the_secret_may_come_from_a_file(run: Run, receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    join(run(url=receiver.url, secret="", secret_file=str(file)).connect("ana"))
    assert is_signed(receiver.next())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "ftp://x", "secret": SECRET}, "must begin with"),
        ({"url": "http://x"}, "set secret or secret_file"),
        ({"authorize_url": "http://x"}, "set secret or secret_file"),
        ({"url": "http://x", "secret": "short and secret"}, "at least 32 bytes"),
        ({"events": ["came"]}, "Invalid enum value 'came'"),
        ({"batch": 0}, "batch"),
        ({"uri": "http://x"}, "no such option"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as refused:
        build_registry({"webhooks": options})
    assert "short and secret" not in str(refused.value)

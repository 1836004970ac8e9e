"""Another server is told who comes and goes; no client notices how that goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import LimitSettings, SettingsError
from pov_rt.plugin import calls as outgoing
from pov_rt.plugins.presence import expired
from pov_rt.registry.build import build_registry
from pov_rt.registry.discovery import PluginError
from pov_rt.testing import Client, RunningServer, make_settings
from tests.receivers import SECRET, Receiver, is_signed, receive

Run = Callable[..., RunningServer]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as made:
        yield made


@pytest.fixture
def run(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Start a server with these options, where nobody has a long grace and retries come soon."""
    monkeypatch.setattr(outgoing.Outbox, "retry_s", (0.02, 30.0))
    with ExitStack() as running:

        def start(
            grace_s: float = 0.02, enable_presence: bool = True, **options: Any
        ) -> RunningServer:
            settings = make_settings(limits=LimitSettings(message_rate="10000/s"))
            settings.plugins["presence"] = {"enabled": enable_presence, "grace_s": grace_s}
            settings.plugins["webhooks"] = {"url": receiver.url, "secret": SECRET, **options}
            return running.enter_context(RunningServer(settings, None))

        yield start


def counts(server: RunningServer) -> dict[str, int]:
    return server.call(lambda: +Counter(server.web.server.hooks.hosts["webhooks"].counts))


def wait_for(server: RunningServer, name: str, least: int = 1) -> None:
    while counts(server).get(name, 0) < least:
        pass


def join(client: Client, pov: str = "acme") -> Client:
    assert client.request({"type": "subscribe", "povId": pov})["type"] == "subscribed"
    return client


def leave(client: Client, pov: str = "acme") -> None:
    client.request({"type": "unsubscribe", "povId": pov})


def test_a_call_is_signed_and_says_who_came(run: Run, receiver: Receiver) -> None:
    server = run()
    join(server.connect("ana"))
    call = receiver.next()
    assert is_signed(call)
    assert abs(int(call.headers["Pov-Rt-Timestamp"]) - time.time()) < 5
    assert call.headers["Content-Type"] == "application/json"
    (event,) = call.json["events"]
    assert event.pop("at").endswith("Z")
    assert event == {"event": "joined", "userId": "ana", "povId": "acme"}
    node = server.web.server
    assert (call.json["node"], call.json["run"]) == (node.node, node.run)
    wait_for(server, "events_sent")
    assert counts(server) == {"events_queued": 1, "events_sent": 1}


def test_the_events_of_a_connection_say_which_one(run: Run, receiver: Receiver) -> None:
    every = ["joined", "left", "subscribed", "unsubscribed", "connected", "disconnected"]
    server = run(events=every)
    ana = server.connect("ana", device="laptop")
    join(ana)
    join(ana, "*")
    found: list[dict[str, Any]] = []
    while len(found) < 4:
        found += receiver.next().json["events"]
    ana.socket.close()
    while len(found) < 8:
        found += receiver.next().json["events"]
    assert sorted((each["event"], each.get("povId", "")) for each in found) == [
        ("connected", ""),
        ("disconnected", ""),
        ("joined", "acme"),
        ("left", "acme"),
        ("subscribed", "*"),
        ("subscribed", "acme"),
        ("unsubscribed", "*"),
        ("unsubscribed", "acme"),
    ]
    mine = [each for each in found if each["event"] not in ("joined", "left")]
    assert [each["event"] for each in mine] == [
        *("connected", "subscribed", "subscribed"),
        *("unsubscribed", "unsubscribed", "disconnected"),
    ]
    assert len({each["connectionId"] for each in mine}) == 1
    assert {each["device"] for each in mine} == {"laptop"}
    assert not any("device" in each for each in found if each not in mine)


def test_a_user_is_one_however_many_connections(run: Run, receiver: Receiver) -> None:
    server = run()
    first, second = join(server.connect("ana")), join(server.connect("ana"))
    assert receiver.collect(1) == ["joined ana"]
    leave(first)
    join(server.connect("ben"))
    assert receiver.collect(1) == ["joined ben"]
    second.socket.close()
    assert receiver.collect(1) == ["left ana"]


def test_who_is_back_within_presences_grace_has_not_left(run: Run, receiver: Receiver) -> None:
    server = run(grace_s=30)
    ana = join(server.connect("ana"))
    assert receiver.collect(1) == ["joined ana"]
    for pov in ("a", "b", "c"):
        ana.socket.close()
        ana = join(server.connect("ana"))
        join(ana, pov)
        call = receiver.next()
        assert [(each["event"], each["povId"]) for each in call.json["events"]] == [("joined", pov)]


def test_without_presence_connections_are_told_of_all_the_same(
    run: Run, receiver: Receiver
) -> None:
    server = run(enable_presence=False, events=["joined", "connected"])
    join(server.connect("ana"))
    assert receiver.collect(1) == ["connected ana"]


def test_events_travel_in_batches_in_order_one_call_at_a_time(run: Run, receiver: Receiver) -> None:
    server = run(batch=7)
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
    server = run()
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
    server = run()
    join(server.connect("ana"))
    wait_for(server, "calls_failed", 3)
    join(server.connect("ben"))
    wait_for(server, "events_queued", 2)
    receiver.start()
    assert receiver.collect(2) == ["joined ana", "joined ben"]
    assert caplog.text.count("their receiver answered nothing") == 1


def test_past_the_bound_the_oldest_are_dropped_and_clients_wait_for_nothing(
    run: Run, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    server = run(queue=5)
    receiver.open.clear()
    join(server.connect("first"))
    assert receiver.next().events == ["joined first"]
    for number in range(20):
        join(server.connect(f"user{number}"))
    wait_for(server, "events_queued", 21)
    assert counts(server)["events_dropped"] == 15
    receiver.open.set()
    assert receiver.collect(5) == [f"joined user{number}" for number in range(15, 20)]
    assert caplog.text.count("events are dropped: the queue of 5 is full") == 1


def test_a_call_that_never_succeeds_holds_up_the_others_for_so_long(
    run: Run, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers.put(400)
    server = run(retry_s=0)
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
    server = run()
    join(server.connect("ana"))
    receiver.next()
    wait_for(server, "events_dropped")
    join(server.connect("ben"))
    wait_for(server, "events_dropped", 2)
    server.run(server.web.server.hooks.stop)
    assert receiver.calls.empty()
    assert "gone (410)" in caplog.text


def test_the_shut_down_tells_what_waits_and_not_that_its_own_users_leave(
    run: Run, receiver: Receiver
) -> None:
    receiver.answers.put(500)
    server = run(grace_s=30)
    join(server.connect("ana"))
    receiver.next()
    ben = join(server.connect("ben"))
    wait_for(server, "events_queued", 2)
    ben.socket.close()
    server.run(server.web.server.hooks.stop)
    calls: dict[str, list[str]] = {}
    while not receiver.calls.empty():
        call = receiver.next()
        calls[call.json["id"]] = call.events  # one under way at the end comes twice
    assert [each for told in calls.values() for each in told] == ["joined ana", "joined ben"]


def test_who_leaves_within_the_last_moment_is_told_of(run: Run, receiver: Receiver) -> None:
    server = run(grace_s=30)

    async def stop() -> None:
        expired("acme", "ana", server.web.server.hooks.hosts["presence"])
        await server.web.server.hooks.stop()

    server.run(stop)
    assert receiver.collect(1) == ["left ana"]


def test_the_shut_down_takes_up_a_call_under_way_and_waits_only_so_long(
    run: Run,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(outgoing.Outbox, "flush_s", 0.3)
    receiver.open.clear()
    server = run()
    join(server.connect("ana"))
    first = receiver.next()
    join(server.connect("ben"))
    wait_for(server, "events_queued", 2)
    server.run(server.web.server.hooks.stop)
    assert receiver.next().json["id"] == first.json["id"]
    assert "2 events are dropped: their receiver does not answer" in caplog.text
    assert counts(server)["events_dropped"] == 2


def test_without_a_url_there_is_no_plugin() -> None:
    with RunningServer(make_settings(), None) as server:
        assert "webhooks" not in server.web.server.hooks.hosts


def test_the_secret_may_come_from_a_file(run: Run, receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    join(run(url=receiver.url, secret="", secret_file=str(file)).connect("ana"))
    assert is_signed(receiver.next())


def test_a_file_without_a_secret_is_said_at_start(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("short\n")
    with pytest.raises(PluginError, match=r"secret needs at least 32 bytes"):
        run(secret="", secret_file=str(file))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "ftp://x", "secret": SECRET}, "must begin with"),
        ({"url": "http://x"}, "set secret or secret_file"),
        ({"url": "http://x", "secret": "short and secret"}, "at least 32 bytes"),
        ({"events": ["came"]}, r"events\[0\]: must be 'joined', .* or 'disconnected'"),
        ({"batch": 0}, "batch"),
        ({"uri": "http://x"}, "no such option"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as refused:
        build_registry({"webhooks": options})
    assert "short and secret" not in str(refused.value)


def test_of_an_erased_user_nothing_is_told_that_was_not_told_yet(
    run: Run, receiver: Receiver
) -> None:
    server = run(events=["connected"])
    receiver.open.clear()
    server.connect("ana")
    assert receiver.next().events == ["connected ana"]
    for user in ("eve", "ben"):
        server.connect(user)
    wait_for(server, "events_queued", 3)
    server.run(lambda: server.web.server.people.erase("eve"))
    receiver.open.set()
    assert receiver.next().events == ["connected ben"]
    wait_for(server, "events_sent", 2)
    assert counts(server) == {"events_queued": 3, "events_sent": 2, "events_dropped": 1}

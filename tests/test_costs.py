"""What one member asks for costs that member: others are answered, and memory stays."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from pov_rt.activities.publishing import Publisher
from pov_rt.config.settings import EngineSettings, LimitSettings
from pov_rt.connections.budgets import AT_WORK, BURST_S, DELIVERY, SHARE
from pov_rt.plugin import NewActivity
from pov_rt.registry.build import build_registry
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import Client, RunningServer, make_settings
from pov_rt.web.http import REFUSED_S

APP = Publisher("service:app", "app", "main")
POVS, ENTRIES = 20, 2000
PAGES_BYTES = 8 * 1024 * 1024
CAN = ("subscribe", "collaborate")
ANSWERS = 50
"""A bystander gets so many while somebody floods, for a median that says something."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    limits = LimitSettings(message_rate="1000/s", pages_bytes=PAGES_BYTES)
    engine = EngineSettings(url=f"sqlite://{tmp_path}/log.db")
    with RunningServer(make_settings(engine=engine, limits=limits), None) as running:
        yield running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def thrifty(clock: ManualClock) -> Iterator[RunningServer]:
    """Run a server of which a user gets little, and where no time passes."""
    limits = LimitSettings(message_rate="1000/s", cost_rate="40/s")
    with RunningServer(make_settings(limits=limits), None, clock) as running:
        yield running


def fill(server: RunningServer, povs: int, entries: int, pad: int = 200) -> str:
    """Publish on some PoVs; return the log's epoch."""
    batch = [
        NewActivity(type="t", action=f"a{n % 5}", pov_id="p", details={"x": "y" * pad})
        for n in range(min(entries, 1000))
    ]

    async def work() -> str:
        publishing = server.web.server.publishing
        for pov in range(povs):
            named = [NewActivity(**fields_of(each, f"p{pov}")) for each in batch]
            for _ in range(0, entries, len(batch)):
                await publishing.publish(named, APP)
        return (await server.web.server.engine.log.top("pov/p0")).epoch

    return server.run(work)


def fields_of(activity: NewActivity, pov_id: str) -> dict[str, Any]:
    return {
        "type": activity.type,
        "action": activity.action,
        "pov_id": pov_id,
        "details": activity.details,
    }


def spend(client: Client) -> float:
    """Ask for what costs until that is refused; return after how long it will not be."""
    asked = {"type": "subscribe", "povIds": [f"s{n}" for n in range(20)]}
    while (answer := client.request(asked))["type"] == "subscribed":
        pass
    assert answer["code"] == "rate_limited"
    return float(answer["retryAfter"])


def get(server: RunningServer, path: str, token: str) -> tuple[int, dict[str, Any], str | None]:
    with closing(HTTPConnection(server.address, timeout=10)) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = json.loads(response.read())
        return response.status, body.get("error", body), response.getheader("Retry-After")


def test_there_is_one_budget_for_all_connections_and_http_and_waiting_as_told_pays_it(
    thrifty: RunningServer, clock: ManualClock
) -> None:
    token = thrifty.token("ana", can=CAN)
    one, other, ben = thrifty.connect("ana"), thrifty.connect("ana"), thrifty.connect("ben")
    retry_after_s = spend(one)
    asked = {"type": "subscribe", "povId": "x"}
    assert other.request(asked)["code"] == "rate_limited"
    status, body, retry_after = get(thrifty, "/api/povs/p0/activities", token)
    assert (status, body["code"], retry_after) == (429, "rate_limited", "1")
    assert get(thrifty, f"/ws/?token={token}", token)[0] == 429
    assert ben.request(asked)["type"] == "subscribed"
    # What keeps a connection, or makes less work, is never refused.
    for message in ("ping", "unsubscribe"):
        assert other.request({"type": message, "povId": "x"})["type"] in ("pong", "unsubscribed")
    again = other.request(asked)["retryAfter"]
    assert again == pytest.approx(retry_after_s + 1 / 40, abs=0.002), "the end of one is charged"
    clock.advance(again)
    assert other.request(asked)["type"] == "subscribed"


def test_coming_back_is_no_new_budget(thrifty: RunningServer, clock: ManualClock) -> None:
    one = thrifty.connect("ana")
    spend(one)
    one.socket.close()
    while thrifty.call(lambda: len(thrifty.web.server.directory)):
        pass
    thrifty.call(thrifty.web.server.sweep)
    token = thrifty.token("ana", can=CAN)
    assert get(thrifty, f"/ws/?token={token}", token)[1]["code"] == "rate_limited"
    clock.advance(20)
    thrifty.call(thrifty.web.server.sweep)
    assert get(thrifty, f"/ws/?token={token}", token)[1]["code"] == "upgrade_required"


def test_who_is_gone_waits_for_no_budget(thrifty: RunningServer) -> None:
    """In a debt replays wait: those of connections that have ended would pile up."""
    fill(thrifty, 1, 900)
    server = thrifty.web.server
    for _ in range(10):
        one = thrifty.connect("ana")
        one.send({"type": "subscribe", "povId": "p0", "since": {"last": 900}})
        one.receive()
        one.socket.close()
        if server.budgets.debt_s("ana") > 0:
            break

    def replays() -> int:
        return sum("_catch_up" in repr(task) for task in asyncio.all_tasks())

    while thrifty.call(lambda: len(server.directory)) or thrifty.call(replays):
        pass


def test_a_large_message_is_paid_for_before_it_is_looked_into(
    thrifty: RunningServer, clock: ManualClock
) -> None:
    """Whatever it is: one that is free, one of which nobody knows, and one that is no JSON."""
    ana, ben = thrifty.connect("ana"), thrifty.connect("ben")
    pad = "x" * 60_000
    large = [json.dumps({"type": kind, "x": pad}) for kind in ("ping", "nobody")] + ["{" + pad]

    def ask(text: str) -> str | None:
        ana.send(text)
        code: str | None = ana.receive().get("code")
        return code

    assert ask(large[0]) is None
    while ask(large[0]) is None:
        pass
    assert [ask(text) for text in large] == ["rate_limited"] * 3
    assert ask('{"type":"ping"}') is None, "a small one that is free"
    assert ben.request({"type": "ping"})["type"] == "pong"
    clock.advance(20)
    assert [ask(text) for text in large] == [None, "unknown_type", "invalid_message"]


def test_who_publishes_pays_for_the_bytes_and_for_each_who_gets_it(
    thrifty: RunningServer, clock: ManualClock
) -> None:
    def cost_of(activity: dict[str, Any]) -> float:
        clock.advance(100)
        budget = thrifty.web.server.budgets.of("ana")
        answer = ana.request({"type": "publish", "data": {**activity, "povId": "p"}})
        assert answer["type"] == "published"
        paid_at: float = thrifty.call(lambda: budget.paid_at)
        return (paid_at - clock.monotonic() + BURST_S) * 40

    can = ("subscribe", "publish")
    ana = thrifty.connect("ana", can=can)
    small = {"type": "t", "action": "a"}
    assert cost_of(small) == pytest.approx(1, abs=0.1)
    assert cost_of({**small, "details": {"x": "y" * 10_240}}) == pytest.approx(4, abs=0.2)
    for number in range(20):
        assert thrifty.connect(f"u{number}").request({"type": "subscribe", "povId": "p"})
    assert cost_of(small) == pytest.approx(1 + 20 * DELIVERY, abs=0.1)
    spend(ana)
    answer = ana.request({"type": "publish", "data": {**small, "povId": "p"}})
    assert answer["code"] == "rate_limited"


def test_whoever_is_told_to_wait_over_http_waits_for_that_answer_too(
    thrifty: RunningServer,
) -> None:
    token = thrifty.token("ana", can=CAN)
    spend(thrifty.connect("ana"))
    for path in ("/api/povs/p0/activities", f"/ws/?token={token}"):
        began = time.monotonic()
        assert get(thrifty, path, token)[0] == 429
        assert time.monotonic() - began >= REFUSED_S


def test_many_who_ask_at_once_get_no_more_than_the_budget_has(
    thrifty: RunningServer, clock: ManualClock
) -> None:
    fill(thrifty, 1, 1000, 1000)
    token = thrifty.token("ana", can=CAN)
    path = "/api/povs/p0/activities?limit=1000"
    with ThreadPoolExecutor(40) as threads:
        statuses = Counter(
            status for status, *_ in threads.map(lambda _: get(thrifty, path, token), range(40))
        )
    # A page costs more than there is; one is being read by each who may do so at a time.
    assert 1 <= statuses[200] <= AT_WORK
    assert statuses[200] + statuses[429] == 40


def test_a_page_with_200_povs_and_its_20_tabs_are_served_at_once(server: RunningServer) -> None:
    fill(server, POVS, 10)
    povs = [f"p{n}" for n in range(200)]
    for _ in range(20):
        tab = server.connect("ana", can=CAN)
        answer = tab.request({"type": "subscribe", "povIds": povs, "since": {"last": 10}})
        assert not [each for each in answer["results"] if "code" in each]
        received = [tab.receive() for _ in range(POVS * 10)]
        assert {each["type"] for each in received} == {"activity"}
        ack = tab.request({"type": "ack", "povId": "p0", "offset": 10})
        assert ack["type"] == "acked"


def test_whoever_is_far_behind_on_many_povs_is_answered_though_others_are_too(
    server: RunningServer,
) -> None:
    since = {"epoch": fill(server, POVS, ENTRIES), "offset": 0}
    povs = [f"p{n}" for n in range(POVS)]
    clients = [server.connect(f"user{n}", can=CAN) for n in range(8)]
    for client in clients:
        client.send({"type": "subscribe", "povIds": povs, "since": since})
    for client in clients:
        answer = client.receive()
        assert answer["type"] == "subscribed"
        assert {each["missed"] for each in answer["results"]} == {ENTRIES}
        digests = [each["digest"] for each in answer["results"] if "digest" in each]
        assert all(each["counted"] == ENTRIES for each in digests)


def test_what_a_member_does_not_read_over_http_is_bounded(server: RunningServer) -> None:
    fill(server, 1, 1000, pad=4000)
    token = server.token("mallory", can=CAN)
    request = (
        f"GET /api/povs/p0/activities?limit=1000 HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    )
    pages = server.web.server.pages
    sockets = []
    try:
        for _ in range(30):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.web.port))
            client.settimeout(10)
            client.sendall(request.encode())
            sockets.append(client)
        statuses = [client.recv(12)[9:] for client in sockets]
        assert set(statuses) == {b"200", b"429"}
        assert server.call(lambda: pages.held("mallory")) <= PAGES_BYTES / SHARE + 1_100_000
        assert pages.bound.refused == statuses.count(b"429")
        # Others are served, and the rest when something was read, or given up.
        assert get(server, "/api/povs/p0/activities?limit=1000", server.token("ben"))[0] == 200
    finally:
        for client in sockets:
            client.close()
    while server.call(lambda: pages.used):
        pass
    assert get(server, "/api/povs/p0/activities?limit=1000", token)[0] == 200


def random_message(dice: random.Random, tag: str, epoch: str) -> dict[str, Any]:
    """Return a message of a type, with what makes it dear."""
    pov = f"p{dice.randrange(POVS)}"
    since = dice.choice([{"last": 1000}, {"epoch": epoch, "offset": 0}, "cursor"])
    fields: dict[str, dict[str, Any]] = {
        "subscribe": {
            "povIds": dice.sample([f"p{n}" for n in range(POVS)], 10)
            + [f"x{dice.randrange(10**6)}" for _ in range(90)],
            "since": since,
            "durable": dice.random() < 0.3,
        },
        "history": {"povId": pov, "limit": 1000, "users": [dice.choice(["nobody", "app"])]},
        "presence": {"povId": pov},
        "ack": {"povId": pov, "offset": 1},
        "read": {"povId": pov, "offset": 1},
        "seen": {"povId": pov, "offset": 1},
        "unread": {"povId": pov, "offset": 1},
        "mute": {"povId": f"x{dice.randrange(10**6)}", "level": "feed"},
        "typing": {"povId": pov, "active": dice.random() < 0.5},
        "unsubscribe": {"povId": pov, "durable": True},
        "refresh": {"token": "x"},
        "publish": {"data": {"type": "t", "action": "a", "povId": pov}},
    }
    return {"type": tag, "id": dice.randrange(1000), **fields.get(tag, {})}


def open_socket(server: RunningServer, token: str, device: str) -> socket.socket:
    """Open a WebSocket without a library, which would take the time of the server beside it."""
    client = socket.create_connection(("127.0.0.1", server.web.port), timeout=10)
    client.sendall(
        f"GET /ws/?token={token}&device={device} HTTP/1.1\r\nHost: localhost\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Protocol: pov-rt.v1\r\n\r\n".encode()
    )
    assert client.recv(12) == b"HTTP/1.1 101"
    client.setblocking(False)
    return client


def flood(
    server: RunningServer,
    token: str,
    seed: int,
    epoch: str,
    sent: Counter[str],
    done: threading.Event,
) -> None:
    """Send all types of messages and requests, as fast as they are taken; count those in `sent`."""
    dice = random.Random(seed)
    registry = build_registry({})
    tags = sorted(registry.tags)
    paths = [
        f"/api{route.spec.path}".format(pov_id="p1", user_id="x")
        for route in registry.routes
        if route.spec.method == "GET"
    ]
    paths += ["/api/povs/p1/activities?limit=1000", "/api/auth/ws-token"]
    clients = [open_socket(server, token, f"d{n}") for n in range(4)]
    readable = [socket.create_connection(("127.0.0.1", server.web.port)) for _ in range(4)]
    for client in readable:
        client.setblocking(False)
    while not done.wait(0.002):
        for client in clients + readable:
            with suppress(BlockingIOError):
                while client.recv(1 << 20):
                    pass
        with suppress(BlockingIOError):
            tag = dice.choice(tags)
            text = json.dumps(random_message(dice, tag, epoch)).encode()
            head = bytes((0x81, 0xFE)) + len(text).to_bytes(2, "big") + bytes(4)
            if len(text) < 126:
                head = bytes((0x81, 0x80 | len(text))) + bytes(4)
            dice.choice(clients).sendall(head + text)
            sent[tag] += 1
            path = dice.choice(paths)
            dice.choice(readable).sendall(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\n"
                f"Authorization: Bearer {token}\r\n\r\n".encode()
            )
            sent[path] += 1
    for client in clients + readable:
        client.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_mix_of_what_a_member_can_send_leaves_others_their_answers(
    server: RunningServer, seed: int
) -> None:
    epoch = fill(server, POVS, ENTRIES)
    token = server.token("mallory", can=CAN)
    bystander = server.connect("ben")
    tags, sent = build_registry({}).tags, Counter[str]()
    done, took, before = threading.Event(), list[float](), resident_bytes()

    def refused() -> int:
        return server.call(lambda: server.web.server.dispatcher.errors["rate_limited"])

    with ThreadPoolExecutor(1) as threads:
        flooding = threads.submit(flood, server, token, seed, epoch, sent, done)
        try:
            while len(took) < ANSWERS or not sent.keys() >= tags or not refused():
                assert not flooding.done(), flooding.result()
                # Not by the clock: what else the machine does is not the server's.
                name, began = f"ben{len(took)}", time.process_time()
                subscribed = bystander.request({"type": "subscribe", "povId": name})
                assert subscribed["type"] == "subscribed"
                assert bystander.request({"type": "ping"})["type"] == "pong"
                took.append(time.process_time() - began)
                bystander.request({"type": "unsubscribe", "povId": name})
        finally:
            done.set()
    took.sort()
    assert took[len(took) // 2] < 0.25, "client, attacker and server share an interpreter"
    assert resident_bytes() - before < 128 * 1024 * 1024
    assert server.web.server.budgets.debt_s("ben") <= 0


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096

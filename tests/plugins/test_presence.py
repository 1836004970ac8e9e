"""Who is on a PoV, whatever comes and goes."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClient

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.testing import Client, Connect, RunningServer, make_settings

GRACE_S = 0.6


@pytest.fixture
def settings() -> Settings:
    made = make_settings(limits=LimitSettings(message_rate="10000/s"))
    made.plugins["presence"] = {"grace_s": GRACE_S}
    return made


def join(client: Client, pov: str = "acme") -> Client:
    assert client.request({"type": "subscribe", "povId": pov})["type"] == "subscribed"
    return client


def ask(client: Client, **fields: Any) -> dict[str, Any]:
    return client.request({"type": "presence", "povId": "acme", **fields})


def users(answer: dict[str, Any]) -> dict[str, tuple[list[str], str]]:
    return {each["userId"]: (each["devices"], each["state"]) for each in answer["users"]}


def diff(client: Client) -> dict[str, Any]:
    told = client.receive()
    assert told["type"] == "presence_diff"
    return told


@pytest.mark.parametrize("seconds", [-1800.0, 1800.0])
def test_a_clock_that_is_put_back_or_forward_makes_nobody_stay_or_leave(
    server: RunningServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    seconds: float,
) -> None:
    ana, ben = join(connect("ana")), join(connect("ben"))
    ask(ben)
    monkeypatch.setattr(server.web.server.clock, "time", lambda: time.time() + seconds)
    ana.socket.close()
    monkeypatch.setattr(server.web.server.clock, "time", lambda: time.time() - seconds)
    again = join(connect("ana"))
    assert set(users(ask(ben))) == {"ana", "ben"}
    again.socket.close()
    monkeypatch.setattr(server.web.server.clock, "time", lambda: time.time() + seconds)
    assert diff(ben)["left"] == ["ana"], "after its grace, and not told of twice"
    assert set(users(ask(ben))) == {"ben"}
    assert not ben.early


def test_a_user_is_one_on_however_many_devices(connect: Connect) -> None:
    ana = join(connect("ana", device="laptop"))
    ben = join(connect("ben"))
    answer = ask(ben)
    assert (answer["type"], answer["more"]) == ("present", 0)
    assert users(answer) == {"ana": (["laptop"], "active"), "ben": (["default"], "active")}
    phone = join(connect("ana", device="phone"))
    assert [each["devices"] for each in diff(ben)["changed"]] == [["laptop", "phone"]]
    ask(phone, state="away")
    assert [each["state"] for each in diff(ben)["changed"]] == ["away"]
    ana.socket.close()
    assert [each["devices"] for each in diff(ben)["changed"]] == [["phone"]]
    phone.request({"type": "unsubscribe", "povId": "acme"})
    told = diff(ben)
    assert (told["left"], told["joined"], told["changed"]) == (["ana"], [], [])
    assert set(users(ask(ben))) == {"ben"}


def test_a_reload_is_nothing_to_tell(connect: Connect) -> None:
    ben = join(connect("ben"))
    ana = join(connect("ana"))
    since = next(each["since"] for each in ask(ben)["users"] if each["userId"] == "ana")
    for _ in range(3):
        ana.socket.close()
        ana = join(connect("ana"))
    cy = join(connect("cy"))
    assert [each["userId"] for each in diff(ben)["joined"]] == ["cy"]
    assert {each["userId"]: each["since"] for each in ask(ben)["users"]}["ana"] == since
    cy.socket.close()
    assert diff(ben)["left"] == ["cy"]


def test_only_those_who_asked_are_told_and_no_more_once_they_leave(
    connect: Connect,
) -> None:
    asked, silent, plain = (
        join(connect("a")),
        join(connect("b")),
        join(connect("c", v1=False)),
    )
    ask(asked)
    newcomer = join(connect("d"))
    assert [each["userId"] for each in diff(asked)["joined"]] == ["d"]
    for client in (silent, plain):
        assert client.request({"type": "ping"})["type"] == "pong"
        assert not client.early
    asked.request({"type": "unsubscribe", "povId": "acme"})
    newcomer.request({"type": "unsubscribe", "povId": "acme"})
    watcher = join(connect("e"))
    ask(watcher)
    while set(users(ask(watcher))) != {"b", "c", "e"}:
        pass
    assert not asked.early


def test_a_client_without_the_right_or_a_subscription_is_refused(connect: Connect) -> None:
    assert ask(connect("ana"))["code"] == "forbidden"
    assert ask(join(connect("ana", can=["subscribe"])))["code"] == "forbidden"
    assert ask(join(connect("ana")), state="asleep")["code"] == "invalid_message"


def test_http_answers_the_same_and_to_whom_the_socket_would(
    server: RunningServer, connect: Connect
) -> None:
    answer = ask(join(connect("ana")))

    def get(token: str) -> tuple[int, Any]:
        client = HTTPClient()
        try:
            got = client.fetch(
                f"http://{server.address}/api/povs/acme/presence",
                headers={"Authorization": f"Bearer {token}"},
                raise_error=False,
            )
        finally:
            client.close()
        return got.code, json.loads(got.body)

    there = {key: answer[key] for key in answer if key != "id"}
    assert get(server.token("x", povs=["acme"])) == (200, there)
    assert get(server.token("x", can=["subscribe"]))[0] == 403
    assert get(server.token("app", Kind.SERVICE, can=None)) == (200, there), "as a service may"


class Watcher:
    """Keeps a snapshot true by the diffs, as a client does."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.users = {each["userId"]: each for each in ask(client)["users"]}
        early, client.early = client.early, []
        for told in early:
            self.apply(told)

    def apply(self, told: dict[str, Any]) -> None:
        for each in told["joined"] + told["changed"]:
            self.users[each["userId"]] = each
        for user in told["left"]:
            self.users.pop(user, None)


def happen(server: RunningServer, client: Client, how: str) -> None:
    """Have something happen to a client, which ends its subscription unless it is `refresh`."""
    if how == "close":
        client.socket.close()
    elif how == "crash":
        client.socket.abort()
    elif how == "unsubscribe":
        client.request({"type": "unsubscribe", "povId": "acme"})
    else:
        connections = server.call(server.web.server.directory.all)
        (mine,) = [each for each in connections if each.id == client.connection_id]
        povs: Any = ["other"] if how == "lose" else "*"
        token = server.token(mine.identity.user_id, ttl_s=7200, povs=povs)
        answer = client.request({"type": "refresh", "token": token})
        assert answer["lost"] == (["acme"] if how == "lose" else [])


@pytest.mark.parametrize("seed", range(4))
def test_a_snapshot_and_the_diffs_make_the_later_snapshot(
    server: RunningServer, connect: Connect, seed: int
) -> None:
    chance = random.Random(seed)
    watchers = [Watcher(join(connect("watcher")))]
    there: list[Client] = []
    for number in range(40):
        if chance.random() < 0.1:
            watchers.append(Watcher(join(connect(f"watcher-{number}"))))
        elif there and chance.random() < 0.45:
            client = there.pop(chance.randrange(len(there)))
            how = chance.choice(["close", "crash", "unsubscribe", "lose", "refresh"])
            if how == "refresh":
                there.append(client)
            happen(server, client, how)
        else:
            user, device = chance.choice("abcde"), chance.choice("xyz")
            there.append(join(connect(user, device=device)))
            if chance.random() < 0.3:
                ask(there[-1], state=chance.choice(["away", "active"]))
    last = join(connect("last"))
    ask(last)
    last.request({"type": "unsubscribe", "povId": "acme"})
    for watcher in watchers:
        left: set[str] = set()
        while "last" not in left:  # by then every earlier grace is over too
            told = diff(watcher.client)
            watcher.apply(told)
            left |= set(told["left"])
        later = {each["userId"]: each for each in ask(watcher.client)["users"]}
        for told in watcher.client.early:
            watcher.apply(told)
        assert watcher.users == later


HEARER = """
from pov_rt.plugin import Event, Host, Message, Plugin

class Joined(Event, tag="presence.joined"):
    pov_id: str
    user_id: str

class Left(Event, tag="presence.left"):
    user_id: str

class Heard(Message, tag="hearer.heard"):
    text: str

plugin = Plugin("hearer")

@plugin.hears(Joined)
def joined(event: Joined, host: Host) -> None:
    host.send_user("watcher", Heard(text=f"{event.user_id} joined {event.pov_id}"))

@plugin.hears(Left)
def left(event: Left, host: Host) -> None:
    host.send_user("watcher", Heard(text=f"{event.user_id} left"))
"""


def test_other_plugins_hear_once_who_joined_and_who_left(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "hearer.py").write_text(HEARER)
    with RunningServer(settings, tmp_path) as server:
        watcher = server.connect("watcher")
        first, second = join(server.connect("ana")), join(server.connect("ana"))
        join(second, "*")
        assert watcher.receive()["text"] == "ana joined acme"
        first.socket.close()
        for _ in range(3):
            second.socket.close()
            second = join(server.connect("ana"))
        join(second, "other")
        assert watcher.receive()["text"] == "ana joined other"
        second.request({"type": "unsubscribe", "povId": "acme"})
        assert watcher.receive()["text"] == "ana left"
        join(second)
        assert watcher.receive()["text"] == "ana joined acme"


def test_at_the_end_of_a_node_its_users_begin_to_leave(settings: Settings) -> None:
    with RunningServer(settings, None) as server:
        ana = join(server.connect("ana"))
        ask(ana)
        ana.socket.close()
        while server.call(lambda: len(server.web.server.directory)):
            pass
        server.run(server.web.server.hooks.stop)
        leases = server.web.server.engine.leases
        (lease,) = server.run(lambda: leases.members("presence/acme"))
        assert lease.leaving_at is not None

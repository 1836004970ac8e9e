"""A socket goes on with a newer token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import AuthSettings, LimitSettings, Settings
from pov_rt.protocol.errors import TokenError
from pov_rt.testing import SECRET, Client, Connect, RunningServer, make_settings
from tests.plugins.test_history import publish


@pytest.fixture
def settings() -> Settings:
    return make_settings(
        auth=AuthSettings(secrets=[SECRET], socket_ttl_s=100, warning_s=2, grace_s=20),
        limits=LimitSettings(message_rate="100000/s"),
    )


def test_subscriptions_stay_and_grants_change_at_once(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect("ana", povs=["acme", "secret"], ttl_s=60)
    ana.request({"type": "subscribe", "povIds": ["acme", "secret"]})
    token = server.token("ana", povs=["acme", "new"], ttl_s=90, can=["subscribe"])
    answer = ana.request({"type": "refresh", "token": token})
    assert (answer["type"], answer["lost"]) == ("refreshed", ["secret"])
    publish(server, 1, pov_id="secret")
    publish(server, 1)
    assert ana.receive()["data"]["povId"] == "acme"
    assert ana.request({"type": "subscribe", "povId": "new"})["type"] == "subscribed"
    assert ana.request({"type": "subscribe", "povId": "secret"})["code"] == "forbidden"
    activity = {"type": "t", "action": "a", "povId": "acme"}
    assert ana.request({"type": "publish", "data": activity})["code"] == "forbidden"


def test_within_the_grace_a_socket_is_saved_by_its_refresh(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect("ana", ttl_s=1.2)
    assert ana.receive()["type"] == "token_expiring"
    activity = {"type": "t", "action": "a", "povId": "acme"}
    while ana.request({"type": "publish", "data": activity})["type"] == "published":
        pass
    assert ana.request({"type": "publish", "data": activity})["code"] == "token_expired"
    token = server.token("ana", ttl_s=60)
    assert ana.request({"type": "refresh", "token": token})["type"] == "refreshed"
    assert ana.request({"type": "publish", "data": activity})["type"] == "published"


def test_another_users_older_or_wrong_token_changes_nothing(
    server: RunningServer, connect: Connect
) -> None:
    older = server.token("ana", ttl_s=90)

    def refused(token: str) -> str:
        ana = connect("ana", povs=["acme"], ttl_s=60)
        ana.request({"type": "subscribe", "povId": "acme"})
        code: str = ana.request({"type": "refresh", "token": token})["code"]
        publish(server, 1)
        assert ana.receive()["type"] == "activity"
        assert ana.request({"type": "ping"})["type"] == "pong"
        return code

    assert refused(server.token("ben")) == "token_invalid"
    assert refused(older) == "token_invalid"
    assert refused(server.token("ana", Kind.SERVICE)) == "token_invalid"
    assert refused("x.y.z") == "token_invalid"
    ana = connect()
    assert ana.request({"type": "refresh"})["code"] == "invalid_message"


def test_a_newer_token_may_end_sooner(server: RunningServer, connect: Connect) -> None:
    ana = connect("ana", ttl_s=60)
    token = server.token("ana", ttl_s=30)
    assert ana.request({"type": "refresh", "token": token})["type"] == "refreshed"


def test_without_an_instant_of_issue_the_expiry_tells_which_is_newer(
    server: RunningServer, connect: Connect
) -> None:
    def regrant(ttl_s: float) -> None:
        connection = server.web.server.directory.get(ana.connection_id)
        assert connection is not None
        identity = replace(connection.identity, issued_at=None)
        given = replace(identity, expires_at=identity.expires_at + ttl_s)
        server.web.server.hooks.hosts["refresh"].regrant(ana.connection_id, given)

    ana = connect("ana", ttl_s=60)
    server.call(lambda: regrant(1.0))
    with pytest.raises(TokenError):
        server.call(lambda: regrant(-1.0))


def test_a_grant_that_is_gone_ends_what_it_allowed(server: RunningServer, connect: Connect) -> None:
    ana, ben = connect("ana", povs=["acme"]), connect("ben", povs=["acme"])
    for client in (ana, ben):
        client.request({"type": "subscribe", "povId": "acme"})
        assert client.request({"type": "presence", "povId": "acme"})["type"] == "present"
    for client, can, lost in ((ana, ["publish"], ["acme"]), (ben, ["subscribe"], [])):
        token = server.token("ana" if client is ana else "ben", povs=["acme"], can=can)
        assert client.request({"type": "refresh", "token": token})["lost"] == lost
    assert server.call(lambda: topics_of(server, ana)) == ["user/ana"]
    assert server.call(lambda: topics_of(server, ben)) == ["pov/acme", "user/ben"]
    assert ben.request({"type": "presence", "povId": "acme"})["code"] == "forbidden"


def topics_of(server: RunningServer, client: Client) -> list[str]:
    connection = server.web.server.directory.get(client.connection_id)
    assert connection is not None
    return sorted(connection.topics)


@contextmanager
def joining_waits(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nobody join a topic before this ends, as when the engine is slow."""
    hub, gate = server.web.server.hub, server.call(asyncio.Event)
    join = hub.join

    async def wait_and_join(*args: Any, **more: Any) -> Any:
        await gate.wait()
        return await join(*args, **more)

    monkeypatch.setattr(hub, "join", wait_and_join)
    yield
    server.call(gate.set)


@pytest.mark.parametrize(
    ("message", "claims"),
    [
        ({"povId": "acme"}, {"povs": ["other"]}),
        ({"povId": "acme"}, {"can": ["publish"]}),
        ({"povId": "*"}, {"povs": ["acme"]}),
        ({"povId": "*"}, {"team_id": "another"}),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_a_subscription_that_is_on_its_way_needs_the_new_token_too(
    server: RunningServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    message: dict[str, Any],
    claims: dict[str, Any],
    again: bool,
) -> None:
    ana = connect("ana")
    if again:
        assert ana.request({"type": "subscribe", **message})["type"] == "subscribed"
    with joining_waits(server, monkeypatch):
        ana.send({"type": "subscribe", **message})
        refreshed = ana.request({"type": "refresh", "token": server.token("ana", **claims)})
        assert refreshed["lost"] == ([message["povId"]] if again else [])
    assert ana.receive()["code"] == "forbidden"
    assert server.call(lambda: topics_of(server, ana)) == ["user/ana"]
    assert server.call(lambda: server.web.server.hub.subscriptions) == 0
    publish(server, 1)
    assert ana.request({"type": "ping"})["type"] == "pong"
    assert not ana.early


@pytest.mark.parametrize("claims", [{"povs": ["other"]}, {"can": ["subscribe"]}])
def test_who_listens_needs_the_new_token_too(
    server: RunningServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    claims: dict[str, Any],
) -> None:
    ana = connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    with joining_waits(server, monkeypatch):
        ana.send({"type": "presence", "povId": "acme"})
        token = server.token("ana", **claims)
        assert ana.request({"type": "refresh", "token": token})["type"] == "refreshed"
    assert ana.receive()["code"] == "forbidden"
    assert "presence/acme" not in server.call(lambda: topics_of(server, ana))

"""A socket goes on with a newer token."""

from __future__ import annotations

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.settings import AuthSettings, LimitSettings, Settings
from pov_rt.testing import SECRET, Connect, RunningServer, make_settings
from tests.plugins.test_history_plugin import publish


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
    def refused(token: str) -> str:
        ana = connect("ana", povs=["acme"], ttl_s=60)
        ana.request({"type": "subscribe", "povId": "acme"})
        code: str = ana.request({"type": "refresh", "token": token})["code"]
        publish(server, 1)
        assert ana.receive()["type"] == "activity"
        assert ana.request({"type": "ping"})["type"] == "pong"
        return code

    assert refused(server.token("ben")) == "token_invalid"
    assert refused(server.token("ana", ttl_s=30)) == "token_invalid"
    assert refused(server.token("ana", Kind.SERVICE)) == "token_invalid"
    assert refused("x.y.z") == "token_invalid"
    ana = connect()
    assert ana.request({"type": "refresh"})["code"] == "invalid_message"

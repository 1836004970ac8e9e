"""An application's own service tokens are good at a real server, and never too old."""

from __future__ import annotations

import json

import jwt
import pytest

from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import SECRET, RunningServer, make_settings
from pov_rt.tracker import ServiceToken
from tests.auth.apps import NOW, SERVICE
from tests.web.routes.test_activities import call

ONE = {"type": "t", "action": "a", "povId": "acme", "userId": "ana"}


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode(), f"{SECRET}\n", f"{SECRET}\r\n"])
def test_the_server_takes_it(server: RunningServer, secret: str | bytes) -> None:
    answer = call(
        server, "/api/activities", method="POST", token=ServiceToken(secret, "my-app")(), body=ONE
    )
    assert answer.code == 201
    assert json.loads(answer.body)["offset"] == 1


def test_it_covers_what_it_was_made_for_and_nothing_else(server: RunningServer) -> None:
    token = ServiceToken(SECRET, "my-app", povs=["other"], team="north")()
    assert call(server, "/api/activities", method="POST", token=token, body=ONE).code == 403
    identity = server.web.server.tokens.verify(token, SERVICE)
    assert (identity.user_id, identity.grants.povs) == ("my-app", ("other",))
    assert (identity.grants.team_id, identity.issued_at) == ("north", int(identity.issued_at or 0))


def test_a_new_one_is_made_before_the_last_one_ends_and_when_the_clock_was_set_back() -> None:
    clock = ManualClock(NOW)
    make = ServiceToken(SECRET, "my-app", ttl_s=100, clock=clock)

    def end() -> float:
        found: float = jwt.decode(make(), options={"verify_signature": False})["exp"]
        return found

    first = make()
    clock.advance(49)
    assert make() == first
    clock.advance(1)
    second = make()
    assert second != first
    assert end() > clock.time() + 99
    clock.step(-3600)
    assert make() not in (first, second)
    assert end() < NOW


def test_a_short_secret_is_refused_and_none_is_shown() -> None:
    with pytest.raises(ValueError, match="a secret of 31 bytes, of at least 32") as refusal:
        ServiceToken("s" * 31 + "\n", "my-app")
    assert "sss" not in str(refusal.value)
    assert "sss" not in repr(ServiceToken("s" * 32, "my-app"))


def test_a_server_that_does_not_live_with_the_secret_refuses_it() -> None:
    with RunningServer(make_settings(), None) as server:
        token = ServiceToken("another secret, of 32 bytes and more", "my-app")()
        assert call(server, "/api/activities", method="POST", token=token, body=ONE).code == 401

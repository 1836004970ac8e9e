"""What is said of a token is what the server does with it, and why."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from pov_rt.auth.explain import explain
from pov_rt.auth.grants import Kind
from pov_rt.auth.keys import Keyring
from pov_rt.auth.tokens import SERVICE_AUDIENCE, Identity, Tokens
from pov_rt.config.settings import AuthSettings
from pov_rt.protocol.errors import TokenRevoked
from pov_rt.runtime.clock import ManualClock
from tests.auth.apps import NEXT_SECRET, NOW, SECRET, app_token


class Revoked:
    """Holds every token for revoked."""

    def covers(self, identity: Identity) -> bool:
        return True

    def refusal(self, identity: Identity) -> TokenRevoked:
        return TokenRevoked()

    def see(self, identity: Identity) -> None:
        pass


def ask(token: str, clock: ManualClock, void: Any = None, **settings: Any) -> Any:
    auth = AuthSettings(**{"secrets": [SECRET], "default_povs": "*"} | settings)
    keyring = Keyring(auth, clock)
    return explain(token, Tokens(auth, keyring, clock, void), keyring)


def test_a_good_one_with_all_that_it_grants(clock: ManualClock, tokens: Tokens) -> None:
    token = tokens.issue(
        Kind.SOCKET,
        "ana",
        ttl_s=60,
        povs=["b", "a"],
        can=["subscribe"],
        team_id="north",
        role="lead",
    )
    found = ask(f"  {token}\n", clock, secrets=[NEXT_SECRET, SECRET])
    assert (found.verdict, found.is_signed, found.kinds) == ("good", True, ["socket"])
    assert (found.user_id, found.team_id, found.role) == ("ana", "north", "lead")
    assert (found.povs, found.can, found.expires_at) == (["a", "b"], ["subscribe"], NOW + 60)
    assert (found.algorithm, found.key, found.keys) == ("HS256", 2, 2)
    assert found.says["userId"] == "ana"


def test_an_apps_own_is_named_with_every_door_that_takes_it(clock: ManualClock) -> None:
    assert ask(app_token(), clock).kinds == ["access", "socket"]
    assert ask(app_token(), clock, require_audience=True).kinds == ["access"]
    assert ask(app_token(aud=SERVICE_AUDIENCE), clock).kinds == ["service"]


def test_povs_by_default_are_those_of_the_settings(clock: ManualClock) -> None:
    assert ask(app_token(), clock).povs == "*"
    assert ask(app_token(), clock, default_povs="none").povs == []


def test_one_that_is_too_old_says_what_it_granted(clock: ManualClock) -> None:
    found = ask(app_token(exp=NOW - 720), clock)
    assert (found.verdict, found.is_signed) == ("expired", True)
    assert (found.user_id, found.expires_at) == ("alice", NOW - 720)


def test_one_that_was_revoked(clock: ManualClock) -> None:
    assert ask(app_token(), clock, Revoked()).verdict == "revoked"
    assert ask(app_token(exp=NOW - 1), clock, Revoked()).verdict == "expired"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (
            app_token(aud="another"),
            "the audience is another: 'another' instead of pov-rt.socket or pov-rt.service or none",
        ),
        (app_token(iat=NOW + 3600), "iat is in the future"),
        (app_token(userId="a\x07"), "userId: "),
        (app_token(userId=[7]), "userId has to be a text or an integer, and is a list"),
    ],
)
def test_one_of_ours_that_was_never_good_says_why(
    token: str, reason: str, clock: ManualClock
) -> None:
    found = ask(token, clock)
    assert (found.verdict, found.is_signed) == ("refused", True)
    assert found.reason.startswith(reason)


def test_what_nobody_signed_says_so_and_is_shown_for_what_it_is(clock: ManualClock) -> None:
    found = ask(app_token(), clock, secrets=[NEXT_SECRET])
    assert (found.verdict, found.is_signed) == ("refused", False)
    assert found.reason == (
        "no key has signed this (the signature is another key's, or the token was changed)"
    )
    assert found.says["userId"] == "alice"


@pytest.mark.parametrize("text", ["", "hello", "a.b", "a.b.c", "é.é.é", "x" * 9000, "a.W10.c"])
def test_garbage_is_refused_in_words(text: str, clock: ManualClock) -> None:
    found = ask(text, clock)
    assert found.verdict == "refused"
    assert found.reason
    assert not found.says


def test_half_a_character_in_a_claim_is_no_claim_to_repeat(clock: ManualClock) -> None:
    claims = base64.urlsafe_b64encode(b'{"userId": "\\ud800"}').decode().rstrip("=")
    found = ask(f"e30.{claims}.x", clock)
    assert found.verdict != "good"
    msgspec.json.encode(found)

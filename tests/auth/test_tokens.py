"""What a good token is worth, and for how long it is believed."""

from collections.abc import Callable

import pytest

from pov_rt.auth.grants import DEFAULT_CAN, Grants
from pov_rt.auth.tokens import SERVICE_AUDIENCE, SOCKET_AUDIENCE, Identity, Kind, Tokens
from pov_rt.config.settings import RoleSettings
from pov_rt.protocol.errors import TokenError, TokenExpired
from tests.auth.apps import (
    ACCESS,
    ANY,
    NEXT_SECRET,
    NOW,
    PUBLISHERS,
    SERVICE,
    SOCKET,
    Claims,
    app_token,
    outcome,
)


def test_a_token_of_an_existing_app_needs_exp_and_user_id_only(tokens: Tokens) -> None:
    assert tokens.verify(app_token(), ACCESS) == Identity(
        user_id="alice",
        email=None,
        role=None,
        kind=Kind.ACCESS,
        grants=Grants(None, DEFAULT_CAN[Kind.ACCESS], "main"),
        expires_at=NOW + 900,
        issued_at=None,
        token_id=None,
    )


def test_every_claim_of_a_full_token_is_taken_over(tokens: Tokens) -> None:
    token = app_token(
        aud=SERVICE_AUDIENCE,
        userId="\u738b\u82b3 \U0001f600",
        email="alice@example.com",
        role="admin",
        povs=["pov-1", "\u00e9"],
        can=["publish", "poll"],
        teamId="north",
        iat=NOW,
        nbf=NOW,
        jti="token-1",
        sub="ignored",
        name={"also": "ignored"},
    )
    assert tokens.verify(token, SERVICE) == Identity(
        user_id="\u738b\u82b3 \U0001f600",
        email="alice@example.com",
        role="admin",
        kind=Kind.SERVICE,
        grants=Grants(frozenset({"pov-1", "\u00e9"}), frozenset({"publish", "poll"}), "north"),
        expires_at=NOW + 900,
        issued_at=NOW,
        token_id="token-1",
    )


def test_email_and_role_may_be_null(tokens: Tokens) -> None:
    identity = tokens.verify(app_token(email=None, role=None), ACCESS)
    assert (identity.email, identity.role) == (None, None)


@pytest.mark.parametrize(
    ("audience", "accept", "kind"),
    [
        ({}, ACCESS, Kind.ACCESS),
        ({}, SOCKET, Kind.SOCKET),
        ({}, SERVICE, None),
        ({}, PUBLISHERS, Kind.SOCKET),
        ({}, ANY, Kind.ACCESS),
        ({}, frozenset(), None),
        ({"aud": SOCKET_AUDIENCE}, ACCESS, None),
        ({"aud": SOCKET_AUDIENCE}, SOCKET, Kind.SOCKET),
        ({"aud": SOCKET_AUDIENCE}, SERVICE, None),
        ({"aud": SOCKET_AUDIENCE}, ANY, Kind.SOCKET),
        ({"aud": SERVICE_AUDIENCE}, ACCESS, None),
        ({"aud": SERVICE_AUDIENCE}, SOCKET, None),
        ({"aud": SERVICE_AUDIENCE}, SERVICE, Kind.SERVICE),
        ({"aud": SERVICE_AUDIENCE}, PUBLISHERS, Kind.SERVICE),
        ({"aud": "another"}, ANY, None),
        ({"aud": ""}, ANY, None),
        ({"aud": None}, ANY, None),
        ({"aud": [SOCKET_AUDIENCE]}, ANY, None),
    ],
)
def test_the_audience_decides_what_a_token_is_accepted_as(
    tokens: Tokens, audience: Claims, accept: frozenset[Kind], kind: Kind | None
) -> None:
    token = app_token(**audience)
    assert outcome(tokens, token, accept) == kind
    assert outcome(tokens, token, accept) == kind, "the same when it is remembered"


def test_what_a_token_was_accepted_as_once_opens_no_other_door(tokens: Tokens) -> None:
    socket, own = tokens.issue(Kind.SOCKET, "alice", ttl_s=60), app_token()
    assert outcome(tokens, socket, SOCKET) is Kind.SOCKET
    assert outcome(tokens, socket, ACCESS) is None
    assert outcome(tokens, own, ACCESS) is Kind.ACCESS
    assert outcome(tokens, own, SOCKET) is Kind.SOCKET
    assert outcome(tokens, own, ACCESS) is Kind.ACCESS


def test_with_require_audience_a_token_without_one_opens_no_socket(
    make: Callable[..., Tokens],
) -> None:
    tokens = make(require_audience=True)
    assert outcome(tokens, app_token(), SOCKET) is None
    assert outcome(tokens, app_token(), ACCESS) is Kind.ACCESS
    assert outcome(tokens, app_token(aud=SOCKET_AUDIENCE), SOCKET) is Kind.SOCKET


@pytest.mark.parametrize(
    ("claims", "required", "povs"),
    [
        ({}, False, None),
        ({}, True, frozenset()),
        ({"povs": "*"}, True, None),
        ({"povs": []}, False, frozenset()),
        ({"povs": ["a", "b", "a"]}, True, frozenset({"a", "b"})),
    ],
)
def test_without_povs_every_pov_is_seen_unless_grants_are_required(
    make: Callable[..., Tokens], claims: Claims, required: bool, povs: frozenset[str] | None
) -> None:
    tokens = make(require_grants=required)
    assert tokens.verify(app_token(**claims), SOCKET).grants.povs == povs


@pytest.mark.parametrize(
    ("claims", "can"),
    [
        ({}, {"subscribe", "collaborate"}),
        ({"role": "guest"}, {"subscribe", "collaborate"}),
        ({"role": "lead"}, {"subscribe", "publish"}),
        ({"role": "muted"}, set()),
        ({"role": "lead", "can": ["poll"]}, {"poll"}),
        ({"role": "lead", "can": []}, set()),
        ({"aud": SERVICE_AUDIENCE}, {"subscribe", "collaborate", "publish"}),
        ({"aud": SERVICE_AUDIENCE, "role": "muted"}, set()),
    ],
)
def test_can_comes_from_the_token_else_from_its_role_else_from_its_kind(
    make: Callable[..., Tokens], claims: Claims, can: set[str]
) -> None:
    roles = {"lead": RoleSettings(can=["subscribe", "publish"]), "muted": RoleSettings(can=[])}
    assert make(roles=roles).verify(app_token(**claims), PUBLISHERS).grants.can == can


def test_clock_difference_is_allowed_for_nbf_and_iat_and_not_for_exp(
    make: Callable[..., Tokens],
) -> None:
    tokens = make(leeway_s=10)
    assert outcome(tokens, app_token(nbf=NOW + 10, iat=NOW + 10), ACCESS)
    assert not outcome(tokens, app_token(nbf=NOW + 10.1), ACCESS)
    assert not outcome(tokens, app_token(iat=NOW + 10.1), ACCESS)
    with pytest.raises(TokenExpired):
        tokens.verify(app_token(exp=NOW), ACCESS)


@pytest.mark.parametrize("exp", [NOW, NOW - 0.001, 0, -1, -1e308])
def test_a_correctly_signed_token_of_the_past_is_expired(tokens: Tokens, exp: float) -> None:
    with pytest.raises(TokenExpired):
        tokens.verify(app_token(exp=exp), ANY)


@pytest.mark.parametrize(
    "claims",
    [{"secret": NEXT_SECRET}, {"aud": "another"}, {"povs": "all"}, {"userId": ""}, {"userId": 1}],
    ids=repr,
)
def test_no_token_that_was_never_good_is_called_expired(tokens: Tokens, claims: Claims) -> None:
    with pytest.raises(TokenError) as refusal:
        tokens.verify(app_token(exp=NOW - 1, **claims), ANY)
    assert type(refusal.value) is TokenError

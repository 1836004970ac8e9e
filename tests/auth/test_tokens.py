"""What a good token is worth, and for how long it is believed."""

from collections.abc import Callable

import jwt
import pytest
from msgspec.structs import replace

from pov_rt.auth.grants import DEFAULT_CAN, Grants
from pov_rt.auth.tokens import SERVICE_AUDIENCE, SOCKET_AUDIENCE, Identity, Kind, Tokens
from pov_rt.config.settings import RoleSettings
from pov_rt.protocol.errors import TokenError, TokenExpired, TokenUnsigned
from tests.auth.apps import (
    ACCESS,
    ANY,
    NEXT_SECRET,
    NOW,
    PUBLISHERS,
    SECRET,
    SERVICE,
    SOCKET,
    Claims,
    app_token,
    outcome,
    raw_token,
)


def test_a_token_of_an_existing_app_needs_exp_and_user_id_only(tokens: Tokens) -> None:
    identity = tokens.verify(app_token(), ACCESS)
    assert replace(identity, token_id=None) == Identity(
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
        grants=Grants(("pov-1", "\u00e9"), frozenset({"publish", "poll"}), "north"),
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
        ({"aud": None}, ANY, Kind.ACCESS),
        ({"aud": [SOCKET_AUDIENCE, 1]}, ANY, Kind.SOCKET),
        ({"aud": [SOCKET_AUDIENCE]}, ANY, Kind.SOCKET),
        ({"aud": ["another", SERVICE_AUDIENCE]}, ANY, Kind.SERVICE),
        ({"aud": [SOCKET_AUDIENCE]}, ACCESS, None),
        ({"aud": [SERVICE_AUDIENCE, SOCKET_AUDIENCE]}, PUBLISHERS, Kind.SOCKET),
        ({"aud": ["another"]}, ANY, None),
        ({"aud": []}, ANY, None),
        ({"aud": [1]}, ANY, None),
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
    ("choice", "povs"),
    [
        ({"default_povs": "*"}, None),
        ({"default_povs": "none"}, ()),
        ({"default_povs": None, "require_grants": False}, None),
        ({"default_povs": None, "require_grants": True}, ()),
        # No server starts like this; a verifier that was made all the same shows nothing.
        ({"default_povs": None}, ()),
    ],
)
def test_without_povs_a_token_sees_what_was_chosen_and_with_them_just_these(
    make: Callable[..., Tokens], choice: Claims, povs: tuple[str, ...] | None
) -> None:
    tokens = make(**choice)
    assert tokens.verify(app_token(), SOCKET).grants.povs == povs
    assert tokens.verify(app_token(povs="*"), SOCKET).grants.povs is None
    assert tokens.verify(app_token(povs=[]), SOCKET).grants.povs == ()
    listed = app_token(povs=["a", "b", "a"])
    assert tokens.verify(listed, SOCKET).grants.povs == ("a", "b")


@pytest.mark.parametrize(
    ("settings", "claims", "kind"),
    [
        ({"audiences": ["api"]}, {}, None),
        ({"audiences": ["api"]}, {"aud": "api"}, Kind.ACCESS),
        ({"audiences": ["web", "api"]}, {"aud": ["other", "api"]}, Kind.ACCESS),
        ({"audiences": ["api"]}, {"aud": ["other"]}, None),
        ({"audiences": ["api"]}, {"aud": "API"}, None),
        ({"audiences": ["api"]}, {"aud": []}, None),
        ({"audiences": ["api"]}, {"aud": [SOCKET_AUDIENCE, "api"]}, Kind.SOCKET),
        ({"issuer": "https://id"}, {}, None),
        ({"issuer": "https://id"}, {"iss": "https://id"}, Kind.ACCESS),
        ({"issuer": "https://id"}, {"iss": "https://id/"}, None),
        ({"issuer": "https://id"}, {"iss": ["https://id"]}, None),
        ({"issuer": "https://id"}, {"iss": None}, None),
        ({"issuer": "https://id"}, {"aud": SERVICE_AUDIENCE}, Kind.SERVICE),
        ({"issuer": "https://id"}, {"aud": SERVICE_AUDIENCE, "iss": "https://evil"}, None),
        ({}, {"iss": 5}, Kind.ACCESS),
    ],
)
def test_an_apps_token_must_be_of_its_issuer_and_for_its_audience(
    make: Callable[..., Tokens], settings: Claims, claims: Claims, kind: Kind | None
) -> None:
    assert outcome(make(**settings), raw_token({}, **claims), ANY) == kind


@pytest.mark.parametrize(
    ("types", "header_type", "own", "apps"),
    [
        (None, "JWT", True, True),
        (None, None, True, True),
        (None, "jwt", True, True),
        (None, "at+jwt", True, True),
        (None, "application/AT+JWT", True, True),
        (None, "refresh+jwt", False, False),
        (None, "logout+jwt", False, False),
        (None, "x/jwt", False, False),
        (None, "", False, False),
        (["at+jwt"], "at+jwt", True, True),
        (["application/at+jwt"], "AT+jwt", True, True),
        (["at+jwt"], "JWT", True, False),
        (["at+jwt"], None, True, False),
        (["session"], "session", False, True),
        (["session"], "refresh+jwt", False, False),
    ],
)
def test_a_token_of_another_type_is_made_for_something_else(
    make: Callable[..., Tokens],
    types: list[str] | None,
    header_type: str | None,
    own: bool,
    apps: bool,
) -> None:
    tokens = make(types=types)
    for claims, accept, good in (({"aud": SOCKET_AUDIENCE}, SOCKET, own), ({}, ACCESS, apps)):
        token = raw_token({} if header_type is None else {"typ": header_type}, **claims)
        assert (outcome(tokens, token, accept) is not None) == good


@pytest.mark.parametrize(
    ("settings", "claims", "accept", "words"),
    [
        ({}, {"aud": "x"}, ACCESS, "'x' instead of none (there is no auth.audiences)"),
        ({}, {"aud": ["x"]}, SOCKET, "['x'] instead of pov-rt.socket or none (there is no"),
        ({}, {}, SERVICE, "none instead of pov-rt.service"),
        ({"audiences": ["a", "b"]}, {}, ACCESS, "none instead of a or b"),
        ({"require_audience": True}, {}, SOCKET, "none instead of pov-rt.socket"),
        ({}, {"aud": "x" * 9000}, ACCESS, "... instead of none"),
    ],
)
def test_the_log_says_which_audience_it_has_and_which_it_could_have(
    make: Callable[..., Tokens],
    settings: Claims,
    claims: Claims,
    accept: frozenset[Kind],
    words: str,
) -> None:
    with pytest.raises(TokenError) as refusal:
        make(**settings).verify(app_token(**claims), accept)
    said = str(refusal.value.__cause__)
    assert said.startswith("the audience is another: ")
    assert words in said
    assert len(said) < 400


def test_a_type_that_is_no_string_is_refused(tokens: Tokens) -> None:
    assert outcome(tokens, raw_token({"typ": "JWT"}), ACCESS)
    assert outcome(tokens, raw_token({"typ": None}), ACCESS), "null is absent"
    for found in (1, ["JWT"]):
        assert not outcome(tokens, raw_token({"typ": found}), ACCESS), found


@pytest.mark.parametrize(
    ("claims", "good"),
    [
        ({"iat": NOW - 90, "exp": NOW + 10}, True),
        ({"iat": NOW - 190, "exp": NOW + 10}, False),
        ({"exp": NOW + 100}, True),
        ({"exp": NOW + 200}, False),
    ],
)
def test_with_an_end_of_revocations_no_token_is_good_for_longer(
    make: Callable[..., Tokens], claims: Claims, good: bool
) -> None:
    tokens = make(revocation_s=100.0)
    assert (outcome(tokens, app_token(**claims), ACCESS) is not None) == good


def test_without_a_jti_a_token_is_known_by_a_digest_of_its_claims(tokens: Tokens) -> None:
    ids = {tokens.verify(app_token(**claims), ACCESS).token_id for claims in (
        {}, {"jti": ""}, {"iat": NOW}
    )}  # fmt: skip
    assert len(ids) == 3
    assert all(token_id is not None and token_id.startswith("~") for token_id in ids)
    headers = {"kid": "1"}
    again = jwt.encode({"exp": NOW + 900, "userId": "alice"}, SECRET, "HS256", headers)
    assert tokens.verify(again, ACCESS).token_id in ids


def test_an_apps_own_token_has_no_parent(tokens: Tokens) -> None:
    claims: Claims = {"parent": "p", "parentIat": NOW, "iat": NOW}
    own = tokens.verify(app_token(**claims), ACCESS)
    assert (own.parent_id, own.parent_issued_at) == (None, None)
    socket = tokens.verify(app_token(aud=SOCKET_AUDIENCE, **claims), SOCKET)
    assert (socket.parent_id, socket.parent_issued_at) == ("p", NOW)


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
    [{"secret": NEXT_SECRET}, {"aud": "another"}, {"povs": "all"}, {"userId": ""}, {"userId": []}],
    ids=repr,
)
def test_no_token_that_was_never_good_is_called_expired(tokens: Tokens, claims: Claims) -> None:
    with pytest.raises(TokenError) as refusal:
        tokens.verify(app_token(exp=NOW - 1, **claims), ANY)
    assert type(refusal.value) in (TokenError, TokenUnsigned)


def test_a_service_does_not_pay_with_the_user_who_is_called_like_it(tokens: Tokens) -> None:
    owners = {
        tokens.verify(tokens.issue(kind, "app", ttl_s=60), frozenset({kind})).owner
        for kind in (Kind.SOCKET, Kind.SERVICE)
    }
    assert len(owners) == 2

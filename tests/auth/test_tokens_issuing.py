"""Which tokens are made, and what an access token is exchanged for."""

from collections.abc import Callable

import jwt
import pytest

from pov_rt.auth.grants import Grants
from pov_rt.auth.keys import MAX_TOKEN_BYTES, Keyring
from pov_rt.auth.tokens import SOCKET_AUDIENCE, Identity, Kind, Tokens
from pov_rt.config.settings import AuthSettings, RoleSettings, SettingsError
from pov_rt.protocol.errors import InvalidId, TokenError, TooLarge
from pov_rt.runtime.clock import ManualClock
from tests.auth.apps import ACCESS, ANY, NOW, SERVICE, SOCKET, Claims, app_token, outcome

CALL: Claims = {"user_id": "alice", "ttl_s": 60}


@pytest.mark.parametrize("kind", list(Kind))
def test_an_issued_token_verifies_as_its_kind_and_no_other(tokens: Tokens, kind: Kind) -> None:
    token = tokens.issue(
        kind,
        "alice",
        ttl_s=60.5,
        email="alice@example.com",
        role="lead",
        povs=["b", "a"],
        can=["publish"],
        team_id="north",
    )
    assert tokens.verify(token, ANY) == Identity(
        user_id="alice",
        email="alice@example.com",
        role="lead",
        kind=kind,
        grants=Grants(("a", "b"), frozenset({"publish"}), "north"),
        expires_at=NOW + 60.5,
        issued_at=NOW,
        token_id="1".zfill(32),
    )
    assert outcome(tokens, token, ANY - {kind, Kind.SOCKET}) is None


def test_an_issued_token_holds_nothing_that_was_not_asked_for(tokens: Tokens) -> None:
    claims = jwt.decode(
        tokens.issue(Kind.ACCESS, "alice", ttl_s=60), options={"verify_signature": False}
    )
    assert claims.keys() == {"exp", "userId", "iat", "jti"}
    every = tokens.issue(Kind.ACCESS, "alice", ttl_s=60, povs="*", can=[])
    assert tokens.verify(every, ACCESS).grants == Grants(None, frozenset())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"user_id": ""}, InvalidId),
        ({"user_id": "a\nb"}, InvalidId),
        ({"povs": ["*"]}, InvalidId),
        ({"povs": "pov-1"}, ValueError),
        ({"team_id": "*"}, InvalidId),
        ({"ttl_s": 0}, ValueError),
        ({"ttl_s": -1}, ValueError),
        ({"ttl_s": float("nan")}, ValueError),
        ({"ttl_s": float("inf")}, ValueError),
        ({"ttl_s": 1e12}, ValueError),
        ({"povs": [f"pov-{number}" for number in range(1_000)]}, TooLarge),
    ],
)
def test_a_token_that_would_be_refused_is_not_issued(
    tokens: Tokens, arguments: Claims, error: type[Exception]
) -> None:
    with pytest.raises(error):
        tokens.issue(Kind.SOCKET, **CALL | arguments)


def test_an_apps_own_is_made_as_the_settings_say_that_the_app_makes_it(
    make: Callable[..., Tokens],
) -> None:
    tokens = make(user_claim="user.id", role_claim="https://app/role", audiences=["api"])
    token = tokens.issue(Kind.ACCESS, "alice", ttl_s=60, role="lead", povs=["a"])
    said = jwt.decode(token, options={"verify_signature": False})
    assert (said["user"], said["https://app/role"], said["aud"]) == ({"id": "alice"}, "lead", "api")
    assert "userId" not in said
    identity = tokens.verify(token, ACCESS)
    assert (identity.user_id, identity.role) == ("alice", "lead")
    service = tokens.issue(Kind.SERVICE, "app", ttl_s=60)
    assert jwt.decode(service, options={"verify_signature": False})["userId"] == "app"


@pytest.mark.parametrize("kind", list(Kind))
def test_only_what_travels_in_urls_has_to_be_short(tokens: Tokens, kind: Kind) -> None:
    def issue(count: int) -> str:
        return tokens.issue(
            kind, "alice", ttl_s=60, povs=[f"pov-{each:04}" for each in range(count)]
        )

    assert len(issue(200)) < 4096
    for count, most in ((300, 4096), (1200, MAX_TOKEN_BYTES)):
        if kind is Kind.SOCKET or most == MAX_TOKEN_BYTES:
            with pytest.raises(TooLarge, match="grant fewer PoVs"):
                issue(count)
        else:
            assert tokens.verify(issue(count), frozenset({kind})).kind is kind


def test_an_access_token_is_exchanged_for_a_socket_token_of_the_same_person(
    tokens: Tokens,
) -> None:
    claims = {"email": "alice@example.com", "role": "lead", "teamId": "north"}
    access = tokens.verify(app_token(povs=["a", "b"], can=["poll"], **claims), ACCESS)
    token = tokens.exchange(access)
    socket = tokens.verify(token, SOCKET)
    assert (socket.user_id, socket.email, socket.role) == ("alice", "alice@example.com", "lead")
    assert socket.grants == access.grants
    assert outcome(tokens, token, ACCESS | SERVICE) is None, "it is no access token in turn"


def test_an_exchanged_token_of_an_existing_app_has_what_its_clients_read(tokens: Tokens) -> None:
    token = tokens.exchange(tokens.verify(app_token(email="a@b.example", role="x"), ACCESS))
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["aud"] == SOCKET_AUDIENCE
    assert claims["userId"] == "alice"
    assert claims["email"] == "a@b.example"
    assert claims["role"] == "x"
    assert "can" not in claims, "it says nothing new"


@pytest.mark.parametrize(
    ("exp", "expected"), [(NOW + 900, NOW + 900), (NOW + 0.1, NOW + 0.1), (NOW + 1e6, NOW + 3_600)]
)
def test_an_exchanged_token_never_outlives_the_access_token(
    tokens: Tokens, exp: float, expected: float
) -> None:
    access = tokens.verify(app_token(exp=exp), ACCESS)
    assert tokens.verify(tokens.exchange(access), SOCKET).expires_at == expected


def test_an_exchange_widens_no_grants(make: Callable[..., Tokens]) -> None:
    tokens = make(require_grants=True, roles={"muted": RoleSettings(can=[])})
    muted = {"role": "muted"}
    cases: list[Claims] = [{}, {"povs": "*"}, {"povs": []}, muted, muted | {"can": ["x"]}]
    for claims in cases:
        access = tokens.verify(app_token(**claims), ACCESS)
        assert tokens.verify(tokens.exchange(access), SOCKET).grants == access.grants


def test_an_access_token_is_issued_as_the_app_issues_its_own(make: Callable[..., Tokens]) -> None:
    tokens = make(issuer="https://id", audiences=["api", "web"], types=["at+jwt"])
    token = tokens.issue(Kind.ACCESS, "alice", ttl_s=60)
    socket = tokens.exchange(tokens.verify(token, ACCESS))
    assert outcome(tokens, socket, SOCKET) is Kind.SOCKET
    assert outcome(tokens, socket, ACCESS | SERVICE) is None


def test_no_token_is_issued_that_would_be_valid_for_longer_than_allowed(
    make: Callable[..., Tokens],
) -> None:
    tokens = make(revocation_s=60.0)
    assert outcome(tokens, tokens.issue(Kind.SERVICE, "app", ttl_s=60), SERVICE)
    with pytest.raises(ValueError, match=r"auth\.revocation_s is 60"):
        tokens.issue(Kind.SERVICE, "app", ttl_s=61)


@pytest.mark.parametrize("iat", [NOW - 100, None])
def test_a_socket_token_says_when_its_access_token_was_issued(
    tokens: Tokens, iat: float | None
) -> None:
    claims: Claims = {} if iat is None else {"iat": iat}
    access = tokens.verify(app_token(**claims), ACCESS)
    socket = tokens.verify(tokens.exchange(access), SOCKET)
    assert (socket.parent_id, socket.parent_issued_at) == (access.token_id, iat)
    assert socket.issued_at == NOW


@pytest.mark.parametrize("kind", [Kind.SOCKET, Kind.SERVICE])
def test_only_an_access_token_is_exchanged(tokens: Tokens, kind: Kind) -> None:
    identity = tokens.verify(tokens.issue(kind, "alice", ttl_s=60), ANY)
    with pytest.raises(TokenError):
        tokens.exchange(identity)


def test_an_access_token_too_full_to_be_exchanged_is_refused_with_words(tokens: Tokens) -> None:
    token = app_token(povs=[f"{number:0110}" for number in range(26)])
    assert len(token) <= MAX_TOKEN_BYTES
    with pytest.raises(TooLarge, match="grant fewer PoVs"):
        tokens.exchange(tokens.verify(token, ACCESS))


def test_without_a_secret_nothing_is_issued(clock: ManualClock) -> None:
    auth = AuthSettings(jwks_url="https://app.example/jwks.json")
    with pytest.raises(SettingsError, match="no secret to sign"):
        Tokens(auth, Keyring(auth, clock), clock).issue(Kind.SOCKET, "alice", ttl_s=60)

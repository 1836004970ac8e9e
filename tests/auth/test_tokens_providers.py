"""Tokens and key sets as identity providers and common libraries make them, each with the settings
that it takes. All names are invented, all keys made here."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pov_rt.auth.keys import MAX_TOKEN_BYTES
from pov_rt.auth.tokens import Tokens
from pov_rt.config.settings import RoleSettings
from pov_rt.protocol.errors import TokenError, TokenExpired
from tests.auth.apps import ACCESS, NOW, SECRET, SOCKET, outcome

GUID = str(UUID(int=0x1234567890ABCDEF1234567890ABCDEF))
DOTNET = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/"
DOTNET_ROLE = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"
GROUPS = [str(UUID(int=number)) for number in range(150)]


class Shape(NamedTuple):
    """A token with its header, the key set, the settings that it takes, and who it then is."""

    algorithm: str
    header: dict[str, Any]
    claims: dict[str, Any]
    jwk: dict[str, Any]
    """What the provider writes beside the key's material."""
    settings: dict[str, Any]
    user: str
    role: str | None = None
    team: str = "main"


NO_KEY_SET: dict[str, Any] = {}

SHAPES = {
    "Entra ID, version 2, with 150 groups": Shape(
        "RS256",
        {"typ": "JWT", "kid": "nOo3ZDrODXEK1jKWhXslHR_KXEg"},
        {
            "aud": GUID, "iss": f"https://login.microsoftonline.com/{GUID}/v2.0",
            "iat": NOW, "nbf": NOW, "exp": NOW + 4000, "aio": "AXQAi/8TAAAA", "azp": GUID,
            "azpacr": "1", "groups": GROUPS, "name": "Ana", "oid": GUID,
            "preferred_username": "ana@example.com", "rh": "0.A", "roles": ["Pov.Lead"],
            "scp": "access_as_user", "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
            "tid": GUID, "uti": "x", "ver": "2.0",
        },
        {
            "use": "sig", "x5t": "nOo3ZDrODXEK1jKWhXslHR_KXEg", "x5c": ["MIIC/TCCAeWgAwIBAgII"],
            "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0",
        },
        {
            "user_claim": "oid", "team_claim": "tid", "role_claim": "roles", "audiences": [GUID],
            "issuer": f"https://login.microsoftonline.com/{GUID}/v2.0",
            "roles": {"Pov.Lead": RoleSettings(can=["subscribe", "publish"])},
        },
        GUID, "Pov.Lead", GUID,
    ),
    "Okta": Shape(
        "RS256",
        {"typ": None, "kid": "ABC-kid"},
        {
            "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "iss": "https://acme.okta.example/oauth2/default", "aud": "api://default",
            "sub": "ana@example.com", "iat": NOW, "exp": NOW + 3600, "cid": "nmdP1fcyvdVO11AL7ECm",
            "uid": "00uid4BxXw6I6TV4m0g3", "scp": ["openid", "email"], "groups": ["Everyone"],
        },
        {"alg": "RS256", "e": "AQAB", "use": "sig"},
        {
            "user_claim": "uid", "audiences": ["api://default"], "role_claim": "groups",
            "issuer": "https://acme.okta.example/oauth2/default",
        },
        "00uid4BxXw6I6TV4m0g3", "Everyone",
    ),
    "Auth0, with a namespace of its own": Shape(
        "RS256",
        {"typ": "at+jwt", "kid": "NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg"},
        {
            "iss": "https://acme.eu.auth0.example/", "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "aud": ["https://rt.example/api", "https://acme.eu.auth0.example/userinfo"],
            "iat": NOW, "exp": NOW + 86400, "azp": "my_client_id", "scope": "openid profile",
            "org_id": "org_9ybsU1dN2dKfDkBi", "https://app.example/role": "lead",
            "https://app.example/povs": ["acme"], "permissions": [],
        },
        {"alg": "RS256", "use": "sig", "x5t": "x", "x5c": ["MIIC"]},
        {
            "user_claim": "sub", "team_claim": "org_id", "audiences": ["https://rt.example/api"],
            "role_claim": "https://app.example/role", "povs_claim": "https://app.example/povs",
            "issuer": "https://acme.eu.auth0.example/",
        },
        "auth0|5f7c8ec7c33c6c004bbafe82", "lead", "org_9ybsU1dN2dKfDkBi",
    ),
    "Cognito, an id token": Shape(
        "RS256",
        {"kid": "abcdefghijklmnopqrsexample="},
        {
            "sub": GUID, "aud": "xxxxxxxxxxxxexample", "cognito:groups": ["leads", "all"],
            "email_verified": True, "token_use": "id", "auth_time": NOW, "cognito:username": "ana",
            "iss": "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_example",
            "exp": NOW + 3600, "iat": NOW, "email": "ana@example.com", "custom:tenant": "north",
        },
        {"alg": "RS256", "use": "sig"},
        {
            "user_claim": "sub", "role_claim": "cognito:groups", "team_claim": "custom:tenant",
            "audiences": ["xxxxxxxxxxxxexample"],
        },
        GUID, "leads", "north",
    ),
    "Cognito, an access token, which has no aud": Shape(
        "RS256",
        {"kid": "1234example="},
        {
            "sub": GUID, "device_key": None, "token_use": "access", "scope": "openid",
            "client_id": "xxxxexample", "username": "ana", "jti": GUID, "auth_time": NOW,
            "iss": "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_example",
            "exp": NOW + 3600, "iat": NOW,
        },
        {"alg": "RS256", "use": "sig"},
        {
            "user_claim": "username",
            "issuer": "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_example",
        },
        "ana",
    ),
    "Keycloak": Shape(
        "RS256",
        {"typ": "JWT", "kid": "FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"},
        {
            "exp": NOW + 300, "iat": NOW, "auth_time": NOW, "jti": f"onrtac:{GUID}",
            "typ": "Bearer",
            "iss": "https://id.example/realms/acme", "aud": ["rt", "account"], "sub": GUID,
            "azp": "app", "sid": GUID, "acr": "1", "allowed-origins": ["https://app.example"],
            "realm_access": {"roles": ["offline_access", "pov-lead", "uma_authorization"]},
            "resource_access": {"rt": {"roles": ["viewer"]}}, "scope": "openid email",
            "email_verified": False, "preferred_username": "ana",
        },
        {"alg": "RS256", "use": "sig", "x5c": ["MIIC"], "x5t": "x", "x5t#S256": "y"},
        {
            "user_claim": "sub", "role_claim": "realm_access.roles", "audiences": ["rt"],
            "issuer": "https://id.example/realms/acme",
            "roles": {"pov-lead": RoleSettings(can=["publish"])},
        },
        GUID, "pov-lead",
    ),
    "Google, an id token": Shape(
        "RS256",
        {"typ": "JWT", "kid": "f833e8a7fe3fe4b878948219a1684afa373ca86f"},
        {
            "iss": "https://accounts.google.com", "azp": "1.apps.googleusercontent.com",
            "aud": "1.apps.googleusercontent.com", "sub": "110169484474386276334",
            "hd": "example.com", "email": "ana@example.com", "email_verified": True,
            "at_hash": "x", "nbf": NOW, "iat": NOW, "exp": NOW + 3600, "jti": "abc161fcc",
        },
        {"alg": "RS256", "use": "sig"},
        {
            "user_claim": "sub", "audiences": ["1.apps.googleusercontent.com"],
            "issuer": "https://accounts.google.com", "team_claim": "hd",
        },
        "110169484474386276334", None, "example.com",
    ),
    "Firebase": Shape(
        "RS256",
        {"typ": "JWT", "kid": "05f8b9d0"},
        {
            "iss": "https://securetoken.google.com/acme-rt", "aud": "acme-rt", "auth_time": NOW,
            "user_id": "zTvKnJ9g", "sub": "zTvKnJ9g", "iat": NOW, "exp": NOW + 3600,
            "email": "ana@example.com", "email_verified": True, "picture": None,
            "firebase": {"identities": {}, "sign_in_provider": "password", "tenant": "north"},
        },
        {"alg": "RS256", "use": "sig"},
        {
            "user_claim": "sub", "audiences": ["acme-rt"], "team_claim": "firebase.tenant",
            "issuer": "https://securetoken.google.com/acme-rt",
        },
        "zTvKnJ9g", None, "north",
    ),
    "Supabase, with its signing keys": Shape(
        "ES256",
        {"typ": "JWT", "kid": GUID},
        {
            "aal": "aal1", "amr": [{"method": "password", "timestamp": NOW}],
            "app_metadata": {"provider": "email", "role": "lead"}, "aud": "authenticated",
            "email": "ana@example.com", "exp": NOW + 3600, "iat": NOW, "is_anonymous": False,
            "iss": "https://x.supabase.example/auth/v1", "phone": "", "role": "authenticated",
            "session_id": GUID, "sub": GUID, "user_metadata": {},
        },
        {"alg": "ES256", "ext": True, "key_ops": ["verify"], "use": "sig"},
        {
            "user_claim": "sub", "role_claim": "app_metadata.role", "audiences": ["authenticated"],
        },
        GUID, "lead",
    ),
    "Supabase, with its secret": Shape(
        "HS256",
        {"typ": "JWT", "kid": "x/4NFp0i0lPBbnHI"},
        {
            "aud": "authenticated", "exp": NOW + 3600, "iat": NOW, "sub": GUID, "email": "",
            "role": "authenticated", "app_metadata": {"provider": "email"}, "user_metadata": {},
        },
        NO_KEY_SET, {"user_claim": "sub", "audiences": ["authenticated"]}, GUID, "authenticated",
    ),
    "Better Auth and jose, which call EdDSA Ed25519": Shape(
        "Ed25519",
        {"kid": "HzDbDQBUgWCTTbDb"},
        {
            "id": GUID, "name": "Ana", "email": "ana@example.com", "emailVerified": False,
            "image": None, "sub": GUID, "iat": NOW, "exp": NOW + 900,
            "iss": "https://app.example", "aud": "https://app.example",
        },
        {"alg": "Ed25519", "use": None, "key_ops": None, "ext": None},
        {"user_claim": "sub", "audiences": ["https://app.example"]},
        GUID,
    ),
    "django-rest-framework-simplejwt": Shape(
        "HS256",
        {"typ": "JWT"},
        {"token_type": "access", "exp": NOW + 300, "iat": NOW, "jti": "5a8c", "user_id": 1},
        NO_KEY_SET, {"user_claim": "user_id"}, "1",
    ),
    "Laravel, tymon/jwt-auth": Shape(
        "HS256",
        {"typ": "JWT"},
        {
            "iss": "https://app.example/api/login", "iat": NOW, "exp": NOW + 3600, "nbf": NOW,
            "jti": "Tq2hL1n", "sub": "1", "prv": "23bd5c8949f600adb39e701c400872db7a5976f7",
        },
        NO_KEY_SET, {"user_claim": "sub"}, "1",
    ),
    "Laravel Passport, with fractions of a second": Shape(
        "RS256",
        {"typ": "JWT"},
        {
            "aud": ["3"], "jti": "eyJ0eXA", "iat": NOW + 0.123456, "nbf": NOW + 0.123459,
            "exp": NOW + 1800.113, "sub": "17", "scopes": [],
        },
        {"use": None, "alg": None, "kid": None},
        {"user_claim": "sub", "audiences": ["3"]},
        "17",
    ),
    "Rails, devise-jwt": Shape(
        "HS256",
        {"typ": None},
        {
            "sub": "5", "scp": "user", "aud": None, "iat": NOW, "exp": NOW + 86400, "jti": GUID,
        },
        NO_KEY_SET, {"user_claim": "sub", "role_claim": "scp"}, "5", "user",
    ),
    "Rails, by hand": Shape(
        "HS256", {}, {"user_id": 5, "exp": NOW + 86400}, NO_KEY_SET, {"user_claim": "user_id"}, "5"
    ),
    "Spring Authorization Server": Shape(
        "RS256",
        {"kid": GUID, "typ": None},
        {
            "sub": "ana", "aud": "messaging-client", "nbf": NOW, "scope": ["openid", "pov"],
            "roles": ["ROLE_USER"], "iss": "http://auth:9000", "exp": NOW + 300, "iat": NOW,
        },
        {}, {"user_claim": "sub", "role_claim": "roles", "audiences": ["messaging-client"]},
        "ana", "ROLE_USER",
    ),
    ".NET, with its long names": Shape(
        "HS256",
        {"typ": "JWT"},
        {
            f"{DOTNET}nameidentifier": GUID, f"{DOTNET}name": "Ana",
            f"{DOTNET}emailaddress": "ana@example.com", DOTNET_ROLE: ["Admin", "User"],
            "exp": NOW + 3600, "iss": "https://app.example", "aud": "https://app.example",
        },
        NO_KEY_SET,
        {
            "user_claim": f"{DOTNET}nameidentifier", "role_claim": DOTNET_ROLE,
            "audiences": ["https://app.example"], "issuer": "https://app.example",
        },
        GUID, "Admin",
    ),
    "Flask-JWT-Extended": Shape(
        "HS256",
        {"typ": "JWT"},
        {
            "fresh": False, "iat": NOW, "jti": GUID, "type": "access", "sub": "ana", "nbf": NOW,
            "csrf": GUID, "exp": NOW + 900,
        },
        NO_KEY_SET, {"user_claim": "sub"}, "ana",
    ),
    "Express, with the user as it is in the database": Shape(
        "HS256",
        {"typ": "JWT"},
        {"user": {"id": 7, "email": None, "admin": True}, "iat": NOW, "exp": NOW + 3600},
        NO_KEY_SET, {"user_claim": "user.id"}, "7",
    ),
    "Hasura": Shape(
        "HS256",
        {"typ": "JWT"},
        {
            "sub": "1", "exp": NOW + 3600,
            "https://hasura.io/jwt/claims": {
                "x-hasura-allowed-roles": ["lead", "user"], "x-hasura-default-role": "user",
                "x-hasura-user-id": "42", "x-hasura-org-id": None,
            },
        },
        NO_KEY_SET,
        {
            "user_claim": "https://hasura.io/jwt/claims.x-hasura-user-id",
            "role_claim": "https://hasura.io/jwt/claims.x-hasura-allowed-roles",
            "team_claim": "https://hasura.io/jwt/claims.x-hasura-org-id",
        },
        "42", "lead",
    ),
}  # fmt: skip


@cache
def private_key(algorithm: str, which: str = "theirs") -> Any:
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def signer(algorithm: str) -> jwt.algorithms.Algorithm:
    return jwt.get_algorithm_by_name("EdDSA" if algorithm == "Ed25519" else algorithm)


def sign(shape: Shape, *, key: Any = None, **more: Any) -> str:
    """Sign as the shape says, nulls and all, which no library of ours would write."""
    algorithm = signer(shape.algorithm)
    if key is None:
        key = SECRET if shape.algorithm == "HS256" else private_key(shape.algorithm)
    parts = [{"alg": shape.algorithm} | shape.header, shape.claims | more]
    text = b".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = algorithm.sign(text, algorithm.prepare_key(key))
    return (text + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode()


def key_set(shape: Shape) -> bytes:
    """Return the provider's key set, with keys for other things and a key that nobody knows."""
    public: Any = signer(shape.algorithm)
    public = public.to_jwk(private_key(shape.algorithm).public_key(), as_dict=True)
    named = {"kid": shape.header["kid"]} if "kid" in shape.header else {}
    ours = {**public, **named, **shape.jwk}
    other = jwt.algorithms.RSAAlgorithm.to_jwk(
        private_key("RS256", "another").public_key(), as_dict=True
    )
    keys: list[Any] = [
        {**other, "kid": "for encryption", "use": "enc", "alg": "RSA-OAEP"},
        {"kty": "EC", "crv": "P-521", "kid": "another curve", "x": "AA", "y": "AA"},
        ours,
    ]
    return b"\xef\xbb\xbf" + json.dumps({"keys": keys}).encode()


Verifier = Callable[[Shape], Tokens]


@pytest.fixture
def verifier(make: Callable[..., Tokens], tmp_path: Path) -> Verifier:
    def verifier(shape: Shape) -> Tokens:
        if shape.algorithm == "HS256":
            return make(**shape.settings)
        path = tmp_path / "jwks.json"
        path.write_bytes(key_set(shape))
        return make(jwks_file=str(path), **shape.settings)

    return verifier


every_shape = pytest.mark.parametrize("name", SHAPES)


@every_shape
def test_it_is_taken_for_its_user_and_its_socket_token_is_small(
    verifier: Verifier, name: str
) -> None:
    shape = SHAPES[name]
    tokens, token = verifier(shape), sign(shape)
    identity = tokens.verify(token, ACCESS)
    assert (identity.user_id, identity.role) == (shape.user, shape.role)
    assert identity.grants.team_id == shape.team
    assert identity.expires_at == shape.claims["exp"]
    assert tokens.verify(token, SOCKET).user_id == shape.user, "an app may connect with it, too"
    socket = tokens.exchange(identity)
    assert len(socket) < 1024
    exchanged = tokens.verify(socket, SOCKET)
    assert (exchanged.user_id, exchanged.grants) == (identity.user_id, identity.grants)


@every_shape
def test_it_is_refused_once_it_is_another(verifier: Verifier, name: str) -> None:
    shape = SHAPES[name]
    tokens = verifier(shape)
    with pytest.raises(TokenExpired):
        tokens.verify(sign(shape, exp=NOW), ACCESS)
    user_claim = shape.settings["user_claim"]
    others = {"user": sign(shape, **{user_claim: None})} if user_claim in shape.claims else {}
    if "audiences" in shape.settings:
        others["audience"] = sign(shape, aud="another")
        others["no audience"] = sign(shape, aud=None)
    if "issuer" in shape.settings:
        others["issuer"] = sign(shape, iss="https://evil.example")
        others["no issuer"] = sign(shape, iss=None)
    if shape.algorithm != "HS256":
        others["key"] = sign(shape, key=private_key(shape.algorithm, "another"))
        others["signature"] = sign(shape)[:-8] + "AAAAAAAA"
    else:
        others["key"] = sign(shape, key="another secret, which is long enough")
    assert [what for what, token in others.items() if outcome(tokens, token, ACCESS)] == []


def test_the_largest_is_several_times_what_a_url_can_have(verifier: Verifier) -> None:
    shape = SHAPES["Entra ID, version 2, with 150 groups"]
    token = sign(shape)
    assert 7_000 < len(token) < 10_000
    with pytest.raises(TokenError, match="missing or invalid") as refusal:
        verifier(shape).verify(sign(shape, groups=GROUPS * 3), ACCESS)
    assert f"may have {MAX_TOKEN_BYTES}" in str(refusal.value.__cause__)


PAGE = (Path(__file__).parents[2] / "docs/tokens.md").read_text()
ROWS: dict[str, str] = dict(re.findall(r"^\| ([^|]+) \| (`.*) \|$", PAGE, re.M))


@pytest.mark.parametrize("row", ROWS)
def test_the_page_says_what_each_takes(row: str) -> None:
    said = dict(re.findall(r'`(\w+_claim) = "([^"]+)"`', ROWS[row]))
    shapes = [shape for name, shape in SHAPES.items() if name.startswith(row)]
    assert said in [
        {name: value for name, value in shape.settings.items() if name.endswith("_claim")}
        for shape in shapes
    ]


@pytest.mark.parametrize(
    ("in_token", "in_set", "good"),
    [
        ("a", "a", True),
        ("a", "b", False),
        (None, "a", True),
        ("a", None, True),
        (None, None, True),
        ("", "a", True),
        ("a", "", True),
        (7, 7, True),
        (7, "7", True),
        ("7", 7, True),
        (7, 8, False),
        ([], "a", True),
        ({}, "a", True),
        (True, "a", True),
        (1.5, "a", True),
        ("a", ["a"], True),
    ],
)
def test_a_kid_names_a_key_whatever_it_is_and_else_all_are_tried(
    verifier: Verifier, in_token: object, in_set: object, good: bool
) -> None:
    shape = Shape(
        "ES256",
        {"kid": in_token},
        {"exp": NOW + 60, "userId": "ana"},
        {"kid": in_set},
        {},
        "ana",
    )
    tokens, token = verifier(shape), sign(shape)
    if good:
        assert tokens.verify(token, ACCESS).user_id == "ana"
    else:
        with pytest.raises(TokenError) as refusal:
            tokens.verify(token, ACCESS)
        assert "it names the key" in str(refusal.value.__cause__)


@pytest.mark.parametrize("in_set", ["EdDSA", "Ed25519", None])
@pytest.mark.parametrize("in_token", ["EdDSA", "Ed25519"])
def test_both_names_of_the_algorithm_are_one(
    verifier: Verifier, in_token: str, in_set: str | None
) -> None:
    claims = {"exp": NOW + 60, "userId": "ana"}
    shape = Shape("Ed25519", {"alg": in_token}, claims, {"alg": in_set}, {}, "ana")
    assert verifier(shape).verify(sign(shape), ACCESS).user_id == "ana"

"""Apps, as the tests of tokens play them."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

import jwt

from pov_rt.auth.tokens import Kind, Tokens
from pov_rt.protocol.errors import TokenError

SECRET, NEXT_SECRET = "the secret of these tests " * 2, "the next secret " * 3
NOW = 1_800_000_000.0
ACCESS, SOCKET, SERVICE = (frozenset({kind}) for kind in Kind)
PUBLISHERS = frozenset({Kind.SOCKET, Kind.SERVICE})
ANY = frozenset(Kind)

Claims = dict[str, Any]


def app_token(secret: str = SECRET, **claims: Any) -> str:
    """Make a token as an app does, with a library of its own."""
    return jwt.encode({"exp": NOW + 900, "userId": "alice"} | claims, secret, "HS256")


def raw_token(header: Claims, /, **claims: Any) -> str:
    """Sign a token that no library would make."""
    return signed_raw(SECRET, header, **claims)


def signed_raw(secret: str, header: Claims, /, **claims: Any) -> str:
    """Sign a token that no library would make."""
    parts = {"alg": "HS256"} | header, {"exp": NOW + 900, "userId": "alice"} | claims
    signed = b".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    mac = hmac.digest(secret.encode(), signed, "sha256")
    return (signed + b"." + urlsafe_b64encode(mac).rstrip(b"=")).decode()


def outcome(tokens: Tokens, token: str, accept: frozenset[Kind]) -> Kind | None:
    """Return what the token is taken for, None if it is refused."""
    try:
        return tokens.verify(token, accept).kind
    except TokenError:
        return None

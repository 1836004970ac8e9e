"""What a token is good for, or why it is refused: for whoever makes tokens, not for who sends one.

The sender of a bad token is told nothing that helps to forge one. Who has the keys may know all.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.auth.keys import Keyring
from pov_rt.auth.tokens import Identity, Kind, Tokens
from pov_rt.protocol.errors import ClientError, TokenError, TokenExpired, TokenRevoked
from pov_rt.protocol.tenants import wire_of

ALL = frozenset(Kind)


class Explanation(msgspec.Struct, rename="camel", omit_defaults=True):
    """A verdict with all that it follows from. Times are seconds since 1970.

    `refused` is a token that was never good, and `reason` says why. Of what nobody signed, `says`
    is anybody's word.
    """

    verdict: Literal["good", "expired", "revoked", "refused"]
    is_signed: bool
    reason: str | UnsetType = UNSET
    kinds: list[str] | UnsetType = UNSET
    """What it is taken for."""
    user_id: str | UnsetType = UNSET
    team_id: str | UnsetType = UNSET
    role: str | UnsetType = UNSET
    povs: list[str] | Literal["*"] | UnsetType = UNSET
    can: list[str] | UnsetType = UNSET
    expires_at: float | UnsetType = UNSET
    algorithm: str | UnsetType = UNSET
    key: int | UnsetType = UNSET
    """Which of the `keys` that are accepted now has signed it, from 1."""
    keys: int | UnsetType = UNSET
    says: dict[str, Any] | UnsetType = UNSET
    """Its claims."""


def explain(token: str, tokens: Tokens, keyring: Keyring) -> Explanation:
    """Return what the server makes of a token. It is not written anywhere."""
    token = token.strip()
    found = Explanation(verdict="refused", is_signed=False, says=_read_claims(token))
    try:
        key = keyring.verify(token).key
    except TokenError as error:
        found.reason = _reason(error)
        return found
    accepted = keyring.accepted
    found.is_signed = True
    found.algorithm = key.algorithm
    found.keys = len(accepted)
    found.key = accepted.index(key) + 1
    try:
        _describe(found, tokens.identify(token, ALL))
        found.kinds = [kind.value for kind in Kind if _is_taken(tokens, token, kind)]
        tokens.verify(token, ALL)
        found.verdict = "good"
    except TokenExpired:
        found.verdict = "expired"
    except TokenRevoked:
        found.verdict = "revoked"
    except ClientError as error:
        found.reason = _reason(error)
    return found


def _describe(found: Explanation, identity: Identity) -> None:
    grants = identity.grants
    found.user_id, found.team_id = wire_of(identity.user_id), grants.team_id
    found.role = UNSET if identity.role is None else identity.role
    found.povs = "*" if grants.povs is None else sorted(map(wire_of, grants.povs))
    found.can = sorted(grants.can)
    found.expires_at = identity.expires_at


def _is_taken(tokens: Tokens, token: str, kind: Kind) -> bool:
    try:
        tokens.identify(token, frozenset({kind}))
    except TokenError:
        return False
    return True


def _reason(error: ClientError) -> str:
    cause = error.__cause__
    if isinstance(cause, ClientError):  # such as an id that is none
        return f"{cause.field}: {cause.message}" if cause.field else cause.message
    return str(cause or error.message)


def _read_claims(token: str) -> dict[str, Any] | UnsetType:
    """Return what a token says, be it true or not; nothing of what has no claims to read."""
    parts = token.split(".")
    if len(parts) != 3:
        return UNSET
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        json.dumps(claims, ensure_ascii=False).encode()  # half a character cannot be answered
    except (binascii.Error, ValueError, RecursionError):
        return UNSET
    return claims if isinstance(claims, dict) else UNSET

"""What a token says: its claims, as pov-rt names them and as an app's own tokens do.

Only what decides something has to be of a type. Null is absent, but for `povs` and `can`, which
grant by default what they do not say.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn, cast

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.config.settings import AuthSettings
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.messages import check_id

MAX_SHOWN = 20
"""Claims that are named to whoever looks for the one that is missing."""


_SAID = msgspec.json.Decoder(dict[str, Any])


class Names(NamedTuple):
    """What the claims are called that may be called otherwise: paths."""

    user: str = "userId"
    role: str = "role"
    team: str = "teamId"
    povs: str = "povs"


OWN = Names()
"""In tokens that are made for this server."""


def names_of(settings: AuthSettings) -> Names:
    """Return the names in the app's own tokens."""
    return Names(settings.user_claim, settings.role_claim, settings.team_claim, settings.povs_claim)


class Claims(msgspec.Struct, rename="camel", omit_defaults=True):
    """A token's claims by our names. Times are seconds since 1970."""

    exp: float
    user_id: str
    email: str | None = None
    role: str | list[str] | None = None
    """One, or several."""
    aud: str | UnsetType = UNSET
    iss: str | UnsetType = UNSET
    nbf: float | UnsetType = UNSET
    iat: float | UnsetType = UNSET
    jti: str | UnsetType = UNSET
    povs: list[str] | str | UnsetType = UNSET
    can: list[str] | UnsetType = UNSET
    team_id: str | UnsetType = UNSET
    parent: str | UnsetType = UNSET
    parent_iat: float | UnsetType = UNSET

    def check_ids(self, names: Names = OWN) -> None:
        """Raise `InvalidId` or ValueError for an id that is none."""
        check_id(self.user_id, names.user)
        if self.team_id is not UNSET:
            check_id(self.team_id, names.team)
        if isinstance(self.povs, list):
            for index, pov_id in enumerate(self.povs):
                check_id(pov_id, f"{names.povs}[{index}]")
        elif self.povs not in (UNSET, "*"):
            raise ValueError(f"{names.povs} is neither a list nor '*'")


def decode(payload: bytes) -> dict[str, Any]:
    """Return what a token says. Raises ValueError or RecursionError for what is no JSON object."""
    # msgspec does not look into all that it skips; decoding first refuses bad UTF-8 anywhere.
    return _SAID.decode(payload.decode())


def find(said: Any, path: str) -> object:
    """Return the claim at a path; UNSET if it is not there, None where no object is on the way.

    A name may have dots itself, as URLs do: the longest name that is there is meant.
    """
    if path in said:
        return said[path]
    if "." not in path:
        return UNSET
    head, dot, _ = path.rpartition(".")
    while dot:
        if head in said:
            inner = said[head]
            return find(inner, path[len(head) + 1 :]) if isinstance(inner, dict) else None
        head, dot, _ = head.rpartition(".")
    return UNSET


def read(said: dict[str, Any], names: Names, *, is_ours: bool, has_roles: bool) -> Claims:
    """Return the claims that decide. Raises ValueError, which names the one that is wrong.

    Without roles in the settings the role decides nothing, and may be anything; in what is not made
    for this server, so may what we call the parent.
    """
    exp = _time(said, "exp")
    if exp is UNSET:
        raise ValueError("it has no exp")
    povs = find(said, names.povs)
    email = said.get("email")
    claims = Claims(
        exp=exp,
        user_id=_user(said, names.user),
        email=email if isinstance(email, str) else None,
        role=_roles(find(said, names.role), names.role)
        if has_roles
        else texts(find(said, names.role)),
        nbf=_time(said, "nbf"),
        iat=_time(said, "iat"),
        jti=_text(said, "jti"),
        povs=povs if povs is UNSET or povs == "*" else _list(povs, names.povs),
        can=_strings(said["can"], "can") if "can" in said else UNSET,
        team_id=_text(said, names.team),
    )
    if is_ours:
        claims.parent, claims.parent_iat = _text(said, "parent"), _time(said, "parentIat")
    claims.check_ids(names)
    return claims


def write(claims: Claims, names: Names) -> bytes:
    """Return a token's payload, with the claims where `read` looks for them by these names."""
    said = msgspec.json.decode(encode(claims))
    for ours, theirs in zip(OWN, names, strict=True):
        if ours != theirs and ours in said:
            _place(said, theirs, said.pop(ours))
    return encode(said)


def texts(value: object) -> list[str]:
    """Return the texts of a claim that may be one or a list of them; what is none is no text."""
    if value is None or value is UNSET:
        return []
    found = map(as_text, value if isinstance(value, list) else [value])
    return [each for each in found if each is not None]


def as_text(value: object) -> str | None:
    """Return a text, or an integer as one; None for anything else."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _user(said: dict[str, Any], path: str) -> str:
    value = find(said, path)
    if value is UNSET or value is None:
        has = ", ".join(list(said)[:MAX_SHOWN])
        raise ValueError(
            f"it has no {path}, which would say whose it is (auth.user_claim); it has: {has}"
        )
    user = as_text(value)
    return user if user is not None else _refuse(path, "a text or an integer", value)


def _text(said: dict[str, Any], path: str) -> str | UnsetType:
    value = find(said, path)
    if value is UNSET or value is None:
        return UNSET
    text = as_text(value)
    return text if text is not None else _refuse(path, "a text or an integer", value)


def _time(said: dict[str, Any], name: str) -> float | UnsetType:
    value = said.get(name)
    if value is None:
        return UNSET
    if not isinstance(value, int | float) or isinstance(value, bool):
        _refuse(name, "a number of seconds since 1970", value)
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} is beyond any date") from error


def _roles(value: object, path: str) -> list[str]:
    if value is UNSET or value is None:
        return []
    found = texts(value)
    if len(found) < (len(value) if isinstance(value, list) else 1):
        _refuse(path, "a text or a list of texts, for auth.roles", value)
    return found


def _list(value: object, path: str) -> list[str]:
    """Return a list of ids."""
    if not isinstance(value, list):
        _refuse(path, "'*' or a list of ids", value)
    found = [each if isinstance(each, str) else as_text(each) for each in value]
    if None in found:
        index = found.index(None)
        _refuse(f"{path}[{index}]", "an id", value[index])
    return cast(list[str], found)


def _strings(value: object, path: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        _refuse(path, "a list of texts", value)
    return value


def _refuse(path: str, wanted: str, value: object) -> NoReturn:
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    found = "null" if value is None else kinds.get(type(value), "an object")
    raise ValueError(f"{path} has to be {wanted}, and is {found}")


def _place(said: dict[str, Any], path: str, value: object) -> None:
    """Put a claim at a path. A URL is one name."""
    *objects, name = [path] if "/" in path else path.split(".")
    for each in objects:
        said = said.setdefault(each, {})
    said[name] = value

"""Tokens: check who sent one and what it allows, remember the good ones, and make new ones."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, Protocol

from msgspec import UNSET, Struct, UnsetType

from pov_rt.auth.claims import OWN, Claims, Names, decode, names_of, read, texts, write
from pov_rt.auth.grants import DEFAULT_CAN, DEFAULT_TEAM, Grants, Kind
from pov_rt.auth.keys import MAX_TOKEN_BYTES, Keyring
from pov_rt.auth.remembered import Remembered
from pov_rt.config.settings import SERVICE_AUDIENCE, SOCKET_AUDIENCE, AuthSettings
from pov_rt.protocol.errors import InvalidId, TokenError, TokenExpired, TokenRevoked, TooLarge
from pov_rt.protocol.tenants import SEPARATOR, TenantId, wire_of
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.texts import shared

__all__ = ["SERVICE_AUDIENCE", "SOCKET_AUDIENCE", "Identity", "Kind", "Tokens"]

AUDIENCE_OF = {Kind.SOCKET: SOCKET_AUDIENCE, Kind.SERVICE: SERVICE_AUDIENCE}
"""Of tokens that are made for this server. All others are the app's own."""

USUAL_TYPES = ("JWT", "at+jwt")
"""A token that says it is of another type is made for something else: to refresh, to log out, to
identify (RFC 8725, section 3.11)."""

MAX_SOCKET_TOKEN_BYTES = 4096
"""Of those that are made here: they travel in URLs, whose length others bound, too."""

TOKEN_BYTES, NAME_BYTES = 600, 120
"""What a token takes: the objects around it, and around each PoV and right that it lists."""
DIGEST_BYTES = 16
FEW = 8
"""So many PoVs are looked through as fast as they are looked up."""
EVERYBODY_OF = "*" + SEPARATOR
"""Before a team: all of its users. No user's id begins with it."""
MAX_SHOWN_CHARS = 200
"""Of what a token says, to whoever looks for what is wrong with it."""
YEAR_9999 = 253_370_764_800.0
"""1 January 9999, UTC: a later `exp` cannot be written as a date."""


class Identity(Struct, frozen=True, gc=False):
    """Who sent a token, and what it allows until `expires_at` (seconds since 1970)."""

    user_id: str
    email: str | None
    role: str | None
    kind: Kind
    grants: Grants
    expires_at: float
    issued_at: float | None
    token_id: str | None
    """The token's `jti`; where it has none, a digest of its claims."""
    parent_id: str | None = None
    """Of the access token that a socket token was exchanged for."""
    parent_issued_at: float | None = None
    """When that was issued, if it says so."""

    @property
    def owner(self) -> str:
        """Who pays for what this token's bearer costs, over all connections and HTTP.

        A service is not the user who is called like it.
        """
        return self.user_id if self.kind is not Kind.SERVICE else SEPARATOR + self.user_id

    @property
    def everybody(self) -> str:
        """All users of its tenant, as a revocation calls them; without tenants nobody's name."""
        return "" if self.grants.tenant is None else EVERYBODY_OF + self.grants.tenant


_Key = bytes | tuple[str, frozenset[Kind]]
_SOCKET = frozenset({Kind.SOCKET})


class Void(Protocol):
    """Which tokens are void though they are good: `Revocations`."""

    def covers(self, identity: Identity) -> bool:
        """Tell whether a token is void."""

    def refusal(self, identity: Identity) -> TokenRevoked:
        """Return the error for a token that is void."""

    def see(self, identity: Identity) -> None:
        """Take note of a token that is verified for the first time, or anew."""


class Tokens:
    """Verifies and issues tokens. `void` is asked about each good one, remembered or not."""

    def __init__(
        self, settings: AuthSettings, keyring: Keyring, clock: Clock, void: Void | None = None
    ) -> None:
        self._void = void
        self._settings = settings
        self._names = names_of(settings)
        self._keyring = keyring
        self._keys_version = keyring.version
        self._clock = clock
        # Successes only: a flood of forged tokens must not push out the good ones.
        self._verified = self._new_memory()
        self.bound = Bound(
            "verified_tokens",
            "auth.verified_bytes",
            settings.verified_bytes,
            lambda: self._verified.used,
        )

    @property
    def remembered(self) -> int:
        """How many verified tokens are remembered; `bound` has their bytes."""
        return len(self._verified)

    def verify(self, token: str, accept: frozenset[Kind]) -> Identity:
        """Return whose token this is, if it is one of the accepted kinds.

        Raises `TokenExpired` or `TokenRevoked` for a token that was good once, else `TokenError`;
        its `__cause__` says why, for the log: the sender is told nothing that helps to forge one.
        """
        if not isinstance(token, str):
            raise TokenError from TypeError("no string")
        if self._keys_version != self._keyring.version:
            self._keys_version = self._keyring.version
            self._forget()
        key = _key_of(token, accept)
        known = self._verified.get(key)
        if known is None:
            known, until = self._check(token, accept)
            self._verified.add(key, known, known.owner, _size_of(key, known), until)
        if self._void is not None and self._void.covers(known):
            raise _void(self._void.refusal(known), known)
        return known

    def identify(self, token: str, accept: frozenset[Kind]) -> Identity:
        """Return whose token this is, though it may be too old or revoked: to explain it.

        Raises `TokenError` for what is wrong otherwise, as `verify` does.
        """
        return self._read(token, accept)[0]

    def remembers(self, token: str, accept: frozenset[Kind]) -> bool:
        """Tell whether `verify` would not have to look at a signature."""
        return self._verified.get(_key_of(token, accept)) is not None

    def issue(
        self,
        kind: Kind,
        user_id: str,
        *,
        ttl_s: float,
        email: str | None = None,
        role: str | None = None,
        povs: Iterable[str] | Literal["*"] | None = None,
        can: Iterable[str] | None = None,
        team_id: str | None = None,
    ) -> str:
        """Return a token signed with the newest secret; what is None is left out of it.

        The app's own has its claims where the settings say that the app puts them. Raises
        `InvalidId` for a bad id, `TooLarge` for more PoVs than a token can hold, ValueError for a
        lifetime that no token may have, `SettingsError` if there is no secret.
        """
        settings, is_apps = self._settings, kind is Kind.ACCESS
        expires_at = self._clock.time() + ttl_s
        if not (ttl_s > 0 and expires_at < YEAR_9999):
            raise ValueError(f"a token cannot be valid for {ttl_s} s")
        if settings.revocation_s is not None and ttl_s > settings.revocation_s:
            raise ValueError(
                f"a token cannot be valid for {ttl_s:g} s, as auth.revocation_s is "
                f"{settings.revocation_s:g}"
            )
        # The app's own is made as the settings say that the app makes it.
        audience = next(iter(settings.audiences), UNSET) if is_apps else AUDIENCE_OF[kind]
        return self._sign(
            Claims(
                exp=expires_at,
                user_id=user_id,
                email=email,
                role=role,
                aud=audience,
                iss=settings.issuer if is_apps and settings.issuer is not None else UNSET,
                povs=UNSET if povs is None else povs if isinstance(povs, str) else sorted(povs),
                can=UNSET if can is None else sorted(can),
                team_id=self._name_team(team_id),
            ),
            settings.types[0] if is_apps and settings.types else None,
            names=self._names if is_apps else OWN,
            most=MAX_SOCKET_TOKEN_BYTES if kind is Kind.SOCKET else MAX_TOKEN_BYTES,
        )

    def exchange(self, access: Identity) -> str:
        """Return a socket token for the sender of an access token, never valid for longer than it.

        Raises `TokenError` for another kind, `TooLarge` and `SettingsError` as `issue` does.
        """
        if access.kind is not Kind.ACCESS:
            raise TokenError from ValueError(f"a {access.kind} token is not exchanged")
        grants = access.grants
        # Left out where it says nothing new: tokens travel in URLs, and a role's rights may change.
        roles = [] if access.role is None else [access.role]
        by_default = grants.can == self._default_can(Kind.SOCKET, roles)
        return self._sign(
            Claims(
                exp=min(self._clock.time() + self._settings.socket_ttl_s, access.expires_at),
                user_id=access.user_id,
                email=access.email,
                role=access.role,
                aud=SOCKET_AUDIENCE,
                povs="*" if grants.povs is None else sorted(map(wire_of, grants.povs)),
                can=UNSET if by_default else sorted(grants.can),
                team_id=self._name_team(grants.team_id),
                parent=UNSET if access.token_id is None else access.token_id,
                # A revocation looks at it: a new token must not make an old session younger.
                parent_iat=UNSET if access.issued_at is None else access.issued_at,
            )
        )

    def reload(self, settings: AuthSettings) -> None:
        """Take over changed settings and their keys; on `SettingsError` all stays as it was."""
        self._keyring.reload(settings)
        self._settings = settings
        self._names = names_of(settings)
        self._forget()

    def _check(self, token: str, accept: frozenset[Kind]) -> tuple[Identity, float]:
        identity, key_until = self._read(token, accept)
        if identity.expires_at <= self._clock.time():
            raise _void(TokenExpired(), identity)
        if self._void is not None:
            self._void.see(identity)
        return identity, min(identity.expires_at, key_until)

    def _read(self, token: str, accept: frozenset[Kind]) -> tuple[Identity, float]:
        payload, key_until, header_type, _ = self._keyring.verify(token)
        try:
            said = decode(payload)
            kind, is_apps = self._kind(said.get("aud"), accept)
            self._check_origin(said.get("iss"), header_type, is_apps=is_apps)
            names = self._names if is_apps else OWN
            has_roles = bool(self._settings.roles)
            claims = read(said, names, is_ours=not is_apps, has_roles=has_roles)
            self._check_claims(claims, names)
        except (ValueError, RecursionError, InvalidId) as error:
            raise TokenError from error
        grants = self._grants(claims, kind)
        token_id = claims.jti or f"~{hashlib.sha256(payload).hexdigest()[:32]}"
        parent_id = None if claims.parent is UNSET else claims.parent
        identity = Identity(
            user_id=grants.scope(claims.user_id),
            email=claims.email,
            role=self._role(texts(claims.role)),
            kind=kind,
            grants=grants,
            expires_at=claims.exp,
            issued_at=None if claims.iat is UNSET else claims.iat,
            token_id=grants.scope(token_id),
            parent_id=None if parent_id is None else grants.scope(parent_id),
            parent_issued_at=None if claims.parent_iat is UNSET else claims.parent_iat,
        )
        return identity, key_until

    def _check_claims(self, claims: Claims, names: Names) -> None:
        now, settings = self._clock.time(), self._settings
        latest = now + settings.leeway_s
        if claims.exp >= YEAR_9999:
            raise ValueError("exp is beyond any date (it has to be in seconds)")
        if claims.nbf is not UNSET and claims.nbf > latest:
            raise ValueError("nbf is in the future")
        if claims.iat is not UNSET and claims.iat > latest:
            raise ValueError("iat is in the future")
        if settings.revocation_s is not None:
            issued_at = now if claims.iat is UNSET else claims.iat
            # With a second for an `exp` and an `iat` that were rounded.
            if claims.exp - issued_at > settings.revocation_s + 1:
                raise ValueError("it is valid for longer than auth.revocation_s")
        if settings.tenants and claims.team_id is UNSET:
            # Not the default's: an app that forgets it would put all its customers into one team.
            raise ValueError(f"it has no {names.team}, which auth.tenants needs")

    def _kind(self, audience: object, accept: frozenset[Kind]) -> tuple[Kind, bool]:
        """Return what a token is taken for, and whether it is the app's own."""
        named = texts(audience)  # RFC 7519, section 4.1.3: one of several is enough
        for kind, own in AUDIENCE_OF.items():
            if kind in accept and own in named:
                return kind, False
        expected = self._settings.audiences
        takes = accept if not self._settings.require_audience else accept - {Kind.SOCKET}
        if any(each in expected for each in named) if expected else audience is None:
            if Kind.ACCESS in takes:
                return Kind.ACCESS, True
            if Kind.SOCKET in takes:
                return Kind.SOCKET, True
        wanted = [own for kind, own in AUDIENCE_OF.items() if kind in accept]
        if takes & {Kind.ACCESS, Kind.SOCKET}:
            wanted += expected or ["none (there is no auth.audiences)"]
        found = "none" if audience is None else _cut(audience)
        raise ValueError(f"the audience is another: {found} instead of {' or '.join(wanted)}")

    def _check_origin(self, issuer: object, header_type: object, *, is_apps: bool) -> None:
        """Refuse what another issuer made, or what was made for something else.

        What is made for this server need not name an issuer, as it names its audience.
        """
        expected = self._settings.issuer
        if expected is not None and issuer != expected and (is_apps or issuer is not None):
            raise ValueError(f"the issuer is another: {_cut(issuer)} and not {expected!r}")
        types = self._settings.types
        if types is None and (header_type == "JWT" or header_type is None):
            return  # nearly all
        if header_type is None:
            if types is not None and is_apps:
                raise ValueError("it has no typ")
            return
        allowed = types if types is not None and is_apps else USUAL_TYPES
        full = media_type(header_type) if isinstance(header_type, str) else ""
        if full not in map(media_type, allowed):
            raise ValueError(f"the type is another: {header_type!r}")

    def _grants(self, claims: Claims, kind: Kind) -> Grants:
        team_id = DEFAULT_TEAM if claims.team_id is UNSET else claims.team_id
        tenant = team_id if self._settings.tenants else None
        povs: Collection[str] | None
        if isinstance(claims.povs, list):
            povs = _povs_of(claims.povs, tenant)
        elif claims.povs is UNSET and not self._settings.sees_all_by_default:
            povs = ()
        else:
            povs = None
        if claims.can is UNSET:
            can = self._default_can(kind, texts(claims.role))
        else:
            can = frozenset(claims.can)
        return Grants(povs, can, team_id, tenant)

    def _name_team(self, team_id: str | None) -> str | UnsetType:
        """Return the claim for a team; None is the default one."""
        if self._settings.tenants:
            return DEFAULT_TEAM if team_id is None else team_id
        return UNSET if team_id in (None, DEFAULT_TEAM) else team_id

    def _default_can(self, kind: Kind, roles: Sequence[str]) -> frozenset[str]:
        """Return what all of the roles grant together that the settings know."""
        known = [self._settings.roles[role].can for role in roles if role in self._settings.roles]
        return frozenset().union(*known) if known else DEFAULT_CAN[kind]

    def _role(self, roles: Sequence[str]) -> str | None:
        """Return the one that the app is told of: the first that the settings know, else any."""
        return next(
            (role for role in roles if role in self._settings.roles), next(iter(roles), None)
        )

    def _new_memory(self) -> Remembered[_Key, Identity]:
        return Remembered(self._settings.verified_bytes, self._clock)

    def _forget(self) -> None:
        self._verified = self._new_memory()
        self.bound.limit = self._settings.verified_bytes

    def _sign(
        self,
        claims: Claims,
        header_type: str | None = None,
        *,
        names: Names = OWN,
        most: int = MAX_SOCKET_TOKEN_BYTES,
    ) -> str:
        claims.check_ids()
        claims.iat = self._clock.time()
        claims.jti = self._clock.new_id()
        token = self._keyring.sign(write(claims, names), header_type)
        if len(token) > most:
            raise TooLarge(
                f"the token would have {len(token)} bytes, and may have {most}: "
                "grant fewer PoVs, or '*'"
            )
        return token


def _povs_of(listed: Sequence[str], tenant: str | None) -> Collection[str]:
    """Return the PoVs that a token lists.

    Every connection has some. A set of a few is four times as large as a tuple, and the same id
    is one text for all who have it (docs/measurements.md, idle parts).
    """
    if tenant is None:
        povs = frozenset(map(shared, listed)) if len(listed) <= FEW else frozenset(listed)
    else:
        povs = frozenset(TenantId.of(tenant, each) for each in listed)
    return povs if len(povs) > FEW else tuple(sorted(povs))


def _key_of(token: str, accept: frozenset[Kind]) -> _Key:
    """Return by what a token is remembered: what it was accepted as, and its text, or a digest.

    An app's own token can be ACCESS or SOCKET. A socket's is looked for once, and its text would be
    memory for as long as it is good (docs/measurements.md, idle parts); a request's is each time.
    """
    if accept != _SOCKET:
        return token, accept
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()[:DIGEST_BYTES]


def _size_of(key: _Key, identity: Identity) -> int:
    """Return how many bytes it takes to remember a token, more or less."""
    names = [*(identity.grants.povs or ()), *identity.grants.can]
    texts = (
        key[0] if isinstance(key, tuple) else key,
        identity.user_id, identity.email, identity.role, identity.token_id, identity.parent_id,
    )  # fmt: skip
    text_bytes = sum(len(each) for each in (*texts, *names) if each is not None)
    return TOKEN_BYTES + text_bytes + NAME_BYTES * len(names)


def media_type(name: str) -> str:
    """Return a `typ` in full and in one spelling: RFC 7515, section 4.1.9."""
    name = name.lower()
    return name if "/" in name else f"application/{name}"


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


def _void(error: TokenError, identity: Identity) -> TokenError:
    error.bearer = identity.user_id
    return error

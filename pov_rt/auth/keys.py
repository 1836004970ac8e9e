"""The keyring: which keys sign and verify tokens now, and how they change without an outage."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from binascii import a2b_base64
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from string import ascii_lowercase, ascii_uppercase, digits
from typing import NamedTuple, Protocol, Self

import jwt
import msgspec
from jwt.algorithms import Algorithm, HMACAlgorithm

from pov_rt.auth.sources import (
    Key,
    name_of_algorithm,
    name_of_key,
    parse_jwks,
    read_public_keys,
    read_secrets,
)
from pov_rt.config.settings import AuthSettings, SettingsError
from pov_rt.protocol.errors import TokenError, TokenUnsigned
from pov_rt.runtime.clock import Clock

log = logging.getLogger(__name__)

MAX_TOKEN_BYTES = 16 * 1024
"""Those of identity providers have 10 KB where they list a user's groups."""

JWKS_COOLDOWN_S = 30.0
"""Between a fetch and the next one for an unknown `kid`: anyone can invent those."""

# RFC 7515, section 7.1, without the empty parts it allows. ASCII only: PyJWT 2.15 raises
# UnicodeEncodeError for a lone surrogate. No padding: a token has one spelling.
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_LETTERS = ascii_uppercase + ascii_lowercase + digits + "-_"
_STANDARD = bytes.maketrans(b"-_", b"+/")
_ENDS = (_LETTERS, "", _LETTERS[::16], _LETTERS[::4])
"""How base64url may end, by what is left of its length by four: its last bits have to be 0."""


BLOCK_BYTES = 64
"""Of SHA-256."""
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


class Hash(Protocol):
    """A hash under way, of `hashlib`."""

    def copy(self) -> Self:
        """Return another one that has got as far."""

    def update(self, data: bytes, /) -> None:
        """Go on."""

    def digest(self) -> bytes:
        """Return what it is of all so far."""


class CheckedHmac(HMACAlgorithm):
    """HS256 that looks at a secret once: whether it is long enough, and no public key by mistake.

    PyJWT looks each time it signs. What a MAC does with the key alone is done once, too
    (docs/measurements.md, secrets).
    """

    def __init__(self) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        self._prepared: dict[str | bytes, bytes] = {}
        self._begun: dict[bytes, tuple[Hash, Hash]] = {}

    def prepare_key(self, key: str | bytes) -> bytes:
        """Return the secret's bytes. Raises jwt.InvalidKeyError for what is no secret."""
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepared[key] = super().prepare_key(key)
        return prepared

    def check_key_length(self, key: bytes) -> str | None:
        """Return None: `sources` has refused shorter ones."""
        return None

    def sign(self, msg: bytes, key: bytes) -> bytes:
        """Return the MAC of a token's first two parts; `verify` compares it with the third."""
        begun = self._begun.get(key)
        if begun is None:
            begun = self._begun[key] = _begin(key)
        inner, outer = (each.copy() for each in begun)
        inner.update(msg)
        outer.update(inner.digest())
        return outer.digest()


def _begin(key: bytes) -> tuple[Hash, Hash]:
    """Return the two hashes of a MAC, fed with the key (RFC 2104, section 4)."""
    block = (key if len(key) <= BLOCK_BYTES else sha256(key).digest()).ljust(BLOCK_BYTES, b"\0")
    return sha256(block.translate(_INNER)), sha256(block.translate(_OUTER))


ALGORITHMS: Mapping[str, Algorithm] = {
    "HS256": CheckedHmac(),
    **{name: jwt.get_algorithm_by_name(name) for name in ("RS256", "ES256", "EdDSA")},
}
"""Those that keys may have."""


class Header(msgspec.Struct):
    """What is read of a token's header: before its signature only to choose among our keys."""

    alg: str
    kid: object = None
    typ: object = None
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64: object = None


_HEADER = msgspec.json.Decoder(Header)


class Verified(NamedTuple):
    """A correctly signed token: its payload, until when its key is accepted, its header's `typ`."""

    payload: bytes
    key_until: float
    header_type: object
    key: Key


class Keyring:
    """The keys of the settings, those fetched from `jwks_url`, and for a while those that left.

    `version` changes with the keys. `jwks_wanted` is set when a token names a key that nobody
    knows, at most once per `JWKS_COOLDOWN_S`. Raises `SettingsError` for keys that cannot be used.
    """

    def __init__(self, settings: AuthSettings, clock: Clock) -> None:
        self.version = 0
        self.jwks_wanted = asyncio.Event()
        self._clock = clock
        self._jws = jwt.PyJWS(algorithms=[])
        self._jws.register_algorithm("HS256", ALGORITHMS["HS256"])
        self._fetched_at = -math.inf
        self._secrets: tuple[Key, ...] = ()
        self._public: tuple[Key, ...] = ()
        self._fetched: tuple[Key, ...] = ()
        self._accepted: dict[Key, float] = {}
        """Each key, in the order of trying, with the time at which it stops being accepted."""
        self._settings = settings
        self.reload(settings)

    @property
    def is_usable(self) -> bool:
        """Tell whether there is a key, so that a token could be good."""
        now = self._clock.time()
        return any(until > now for until in self._accepted.values())

    @property
    def accepted(self) -> tuple[Key, ...]:
        """The keys that are accepted now, in the order of trying."""
        now = self._clock.time()
        return tuple(key for key, until in self._accepted.items() if until > now)

    def reload(self, settings: AuthSettings) -> None:
        """Take over the keys of changed settings; on `SettingsError` everything stays as it was."""
        secrets, public = read_secrets(settings), read_public_keys(settings)
        if not secrets and not public and settings.jwks_url is None:
            raise SettingsError(
                "there is no key to check tokens with: set auth.secrets or auth.secret_files "
                "(make a secret with: openssl rand -base64 48), auth.public_key_files, "
                "auth.jwks_file or auth.jwks_url"
            )
        if settings.jwks_url != self._settings.jwks_url:
            self._fetched = ()
            self._fetched_at = -math.inf
            self.jwks_wanted.set()
        self._settings = settings
        self._secrets, self._public = secrets, public
        self._update()

    def replace_jwks(self, document: bytes) -> None:
        """Take over the keys of a fetched JWK Set.

        Raises ValueError for a document without usable keys; the keys stay as they were.
        """
        self._fetched = parse_jwks(document)
        self._update()

    async def refresh_jwks(self, fetch: Callable[[str], Awaitable[bytes]]) -> None:
        """Get `jwks_url` with `fetch` and take its keys over; if that fails, keep those there are.

        For a task that calls it every `jwks_refresh_s`, and at once when `jwks_wanted` is set.
        """
        self.jwks_wanted.clear()
        url = self._settings.jwks_url
        if url is None:
            return
        self._fetched_at = self._clock.monotonic()
        try:
            document = await fetch(url)
            if url == self._settings.jwks_url:  # a reload can change it meanwhile
                self.replace_jwks(document)
        except Exception as error:  # whatever `fetch` raises: the issuer's outage must not be ours
            log.warning("the keys at %s stay as they were: %r", url, error)

    def verify(self, token: str) -> Verified:
        """Return what a correctly signed token has inside.

        Raises `TokenError` for anything else; its `__cause__` says why, for the log.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenUnsigned from ValueError(
                f"too long: it has {len(token)} bytes, and may have {MAX_TOKEN_BYTES}"
            )
        if _TOKEN.fullmatch(token) is None:
            is_encrypted = token.count(".") == 4  # RFC 7516, section 3.1
            raise TokenUnsigned from ValueError(
                "it is encrypted (five parts, a JWE): only who made it can read it"
                if is_encrypted
                else "not three parts in base64url"
            )
        try:
            return self._verify(token)
        except TokenError:
            raise
        except Exception as error:  # PyJWT lets some of its input's errors through
            raise TokenUnsigned from error

    def sign(self, payload: bytes, header_type: str | None = None) -> str:
        """Return a token with this payload, signed with the newest secret, of that `typ` or `JWT`.

        Raises `SettingsError` if there are only public keys.
        """
        if not self._secrets:
            raise SettingsError(
                "there is no secret to sign tokens with: set auth.secrets or auth.secret_files "
                "(make a secret with: openssl rand -base64 48)"
            )
        headers = None if header_type is None else {"typ": header_type}
        return self._jws.encode(payload, self._secrets[0].identity, "HS256", headers)

    def _verify(self, token: str) -> Verified:
        signed, _, signature = token.rpartition(".")
        encoded, _, payload = signed.partition(".")
        header = _read_header(encoded)
        if header.crit is not msgspec.UNSET or header.b64 is False:
            raise TokenUnsigned from ValueError("no critical extension is supported")
        now, message, mac = self._clock.time(), signed.encode(), _decode(signature)
        algorithm, kid = name_of_algorithm(header.alg), name_of_key(header.kid)
        for key, until in self._accepted.items():
            is_named = kid is None or key.kid in (None, kid)
            # The algorithm is the key's, whatever the header says.
            if key.algorithm == algorithm and is_named and until > now:
                if ALGORITHMS[key.algorithm].verify(message, key.material, mac):
                    return Verified(_decode(payload), until, header.typ, key)
        self._miss(kid)
        raise TokenUnsigned from ValueError(f"no key has signed this ({self._why(algorithm, kid)})")

    def _why(self, algorithm: str, kid: str | None) -> str:
        """Return what is amiss with a token that no key has signed, as far as it says."""
        fitting = [key for key in self.accepted if key.algorithm == algorithm]
        if not fitting:
            names = ", ".join(sorted({key.algorithm for key in self.accepted})) or "none"
            return f"it is of algorithm {algorithm[:20]!r}, the keys are of {names}"
        if kid is not None and all(key.kid not in (None, kid) for key in fitting):
            return f"it names the key {kid[:64]!r}, which is not among them"
        return "the signature is another key's, or the token was changed"

    def _miss(self, kid: str | None) -> None:
        if kid is None or self._settings.jwks_url is None:
            return
        if any(key.kid == kid for key in self._accepted):
            return
        if self._clock.monotonic() - self._fetched_at >= JWKS_COOLDOWN_S:
            self.jwks_wanted.set()

    def _update(self) -> None:
        now = self._clock.time()
        current = dict.fromkeys((*self._secrets, *self._public, *self._fetched), math.inf)
        overlap_end = now + self._settings.key_overlap_s
        retired = {
            # A shorter overlap in new settings holds for keys on their way out, too.
            key: min(until, overlap_end)
            for key, until in self._accepted.items()
            if key not in current and until > now
        }
        accepted = current | retired
        if accepted != self._accepted:
            self._accepted = accepted
            self.version += 1


@lru_cache(64)
def _read_header(part: str) -> Header:
    """Return a token's header; those of one issuer are nearly all the same."""
    return _HEADER.decode(_decode(part).decode())


def _decode(part: str) -> bytes:
    """Return what base64url stands for, in the one spelling that it has."""
    if part[-1] not in _ENDS[len(part) % 4]:
        raise ValueError("a part is no base64url")
    return a2b_base64(part.encode().translate(_STANDARD) + b"==")

"""Where keys come from: secrets, PEM files and JWK Sets. Each key has one algorithm, for good."""

from __future__ import annotations

from codecs import BOM_UTF8
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from pov_rt.config.settings import MIN_SECRET_BYTES, AuthSettings, SettingsError
from pov_rt.protocol.encoding import BYTE_ORDER_MARK

MIN_RSA_BITS = 2048
"""RFC 7518, section 3.3."""

MAX_RSA_BITS = 8192
"""A stranger's token costs a check with each key: 0.3 ms with this many, 1.3 ms with twice that."""

MAX_RSA_EXPONENT = 2**32 - 1
"""All issuers have 65537. With 2,048 bits in it, a check with a small key takes 2 ms."""

MAX_JWKS_KEYS = 64
"""A token without `kid` is tried against each of them, before its sender is known."""

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_HMAC = jwt.get_algorithm_by_name("HS256")
_MATERIAL = frozenset({"kty", "n", "e", "crv", "x", "y"})


@dataclass(frozen=True, slots=True)
class Key:
    """A key with the only algorithm it is ever used with.

    `identity` (the secret, or the public key as DER) tells whether two keys are the same.
    """

    algorithm: str
    identity: bytes = field(repr=False)
    material: bytes | PublicKey = field(repr=False, compare=False)
    kid: str | None = None


class JwkSet(msgspec.Struct):
    """RFC 7517, section 5."""

    keys: list[Any]


def name_of_algorithm(name: str) -> str:
    """Return what we call an algorithm: `EdDSA` is `Ed25519` to others (RFC 9864)."""
    return "EdDSA" if name == "Ed25519" else name


def name_of_key(kid: object) -> str | None:
    """Return a `kid` as text; None for what names no key.

    It only says which key to try first of all, so it need not be as RFC 7517 has it.
    """
    if isinstance(kid, int) and not isinstance(kid, bool):
        return str(kid)
    return kid if isinstance(kid, str) and kid else None


def read_secrets(settings: AuthSettings) -> tuple[Key, ...]:
    """Return the HS256 keys, newest first: those in files before those in the settings.

    Raises `SettingsError` for a secret that is too short, is no secret, or cannot be read.
    """
    found: dict[bytes, Key] = {}
    for path in settings.secret_files:
        secret = _read(path, "auth.secret_files").removesuffix(b"\n").removesuffix(b"\r")
        found.setdefault(secret, _secret_key(secret, f"the secret in {path} (auth.secret_files)"))
    for index, text in enumerate(settings.secrets):
        # An environment variable that is not UTF-8 arrives with its bytes escaped as surrogates.
        secret = text.encode("utf-8", "surrogateescape")
        found.setdefault(secret, _secret_key(secret, f"auth.secrets[{index}]"))
    return tuple(found.values())


def read_public_keys(settings: AuthSettings) -> tuple[Key, ...]:
    """Return the keys of the PEM files and of the JWKS file.

    Raises `SettingsError` naming the file that cannot be read or used.
    """
    keys = [_read_pem(path) for path in settings.public_key_files]
    if settings.jwks_file is not None:
        document = _read(settings.jwks_file, "auth.jwks_file")
        try:
            keys.extend(parse_jwks(document))
        except ValueError as error:
            raise SettingsError(f"auth.jwks_file: {settings.jwks_file}: {error}") from error
    return tuple(dict.fromkeys(keys))


def parse_jwks(document: bytes) -> tuple[Key, ...]:
    """Return the usable signature keys of a JWK Set; the others are skipped (RFC 7517, section 5).

    Raises ValueError if it is no JWK Set, has no usable key, or more than `MAX_JWKS_KEYS` keys.
    """
    try:
        jwks = msgspec.json.decode(document.removeprefix(BOM_UTF8), type=JwkSet).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"this is no JWK Set: {error}") from error
    if len(jwks) > MAX_JWKS_KEYS:
        raise ValueError(f"a JWK Set may have {MAX_JWKS_KEYS} keys, this one has {len(jwks)}")
    found = (_jwk_key(jwk) for jwk in jwks if isinstance(jwk, dict))
    keys = tuple(dict.fromkeys(key for key in found if key is not None))
    if not keys:
        raise ValueError("the JWK Set has no public key for RS256, ES256 or EdDSA signatures")
    return keys


def _secret_key(secret: bytes, name: str) -> Key:
    remedy = "make one with: openssl rand -base64 48"
    if len(secret) < MIN_SECRET_BYTES:
        raise SettingsError(
            f"{name} has {len(secret)} bytes; HS256 needs at least {MIN_SECRET_BYTES}; {remedy}"
        )
    try:
        _HMAC.prepare_key(secret)
    except jwt.InvalidKeyError as error:
        # Whoever has the public key could then sign tokens with it.
        raise SettingsError(f"{name} is a key or certificate, no secret; {remedy}") from error
    return Key("HS256", secret, secret)


def _read_pem(path: str) -> Key:
    pem = _read(path, "auth.public_key_files")
    name = f"auth.public_key_files: {path}"
    if b"PRIVATE KEY-----" in pem:
        raise SettingsError(f"{name} is a private key; give its public half: openssl pkey -pubout")
    try:
        return _public_key(load_pem_public_key(pem), kid=None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{name} is not usable: {error}") from error


def _jwk_key(jwk: dict[str, Any]) -> Key | None:
    jwk = {name: value for name, value in jwk.items() if value is not None}
    # A symmetric key in a published document is no secret, and a private one ("d") has leaked.
    if jwk.get("kty") == "oct" or "d" in jwk:
        return None
    try:
        if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
            return None
        # What it is for is looked at here: the library would refuse names that it does not know.
        material = {name: value for name, value in jwk.items() if name in _MATERIAL}
        key = _public_key(jwt.PyJWK(material).key, name_of_key(jwk.get("kid")))
    except Exception:  # whatever the libraries raise on a malformed key; the others stay usable
        return None
    return key if name_of_algorithm(jwk.get("alg", key.algorithm)) == key.algorithm else None


def _public_key(key: object, kid: str | None) -> Key:
    match key:
        case RSAPublicKey():
            if key.key_size < MIN_RSA_BITS:
                raise ValueError(f"RSA keys need {MIN_RSA_BITS} bits, this has {key.key_size}")
            if key.key_size > MAX_RSA_BITS:
                raise ValueError(f"RSA keys may have {MAX_RSA_BITS} bits, this has {key.key_size}")
            if key.public_numbers().e > MAX_RSA_EXPONENT:
                raise ValueError("the exponent of an RSA key must be below 2^32, such as 65537")
            algorithm = "RS256"
        case EllipticCurvePublicKey(curve=SECP256R1()):
            algorithm = "ES256"
        case Ed25519PublicKey():
            algorithm = "EdDSA"
        case _:
            raise ValueError("it must be an RSA, EC P-256 or Ed25519 public key")
    identity = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(algorithm, identity, key, kid)


def _read(path: str, setting: str) -> bytes:
    try:
        return Path(path).read_bytes().removeprefix(BYTE_ORDER_MARK)
    except OSError as error:
        raise SettingsError(f"{setting}: cannot read {path}: {error.strerror}") from error

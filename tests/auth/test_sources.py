"""Which secrets, files and JWK Sets make keys, and how the others are refused."""

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from pov_rt.auth.sources import MAX_JWKS_KEYS, parse_jwks, read_public_keys, read_secrets
from pov_rt.config.settings import AuthSettings, SettingsError

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()

JWKS: dict[str, dict[str, Any]] = {
    "RS256": jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True),
    "ES256": jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key(), as_dict=True),
    "EdDSA": jwt.algorithms.OKPAlgorithm.to_jwk(ED.public_key(), as_dict=True),
}


def pem(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def jwk_set(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def test_secrets_in_files_come_before_those_in_settings_without_their_newline(
    tmp_path: Path,
) -> None:
    unix = write(tmp_path / "unix", b"u" * 32 + b"\n")
    windows = write(tmp_path / "windows", b" " + b"w" * 31 + b"\r\n")
    settings = AuthSettings(secrets=["s" * 32, "u" * 32], secret_files=[unix, windows])
    secrets = [key.identity for key in read_secrets(settings)]
    assert secrets == [b"u" * 32, b" " + b"w" * 31, b"s" * 32]
    assert {key.algorithm for key in read_secrets(settings)} == {"HS256"}


def test_a_secret_is_measured_in_bytes_and_may_hold_any(tmp_path: Path) -> None:
    assert read_secrets(AuthSettings(secrets=["\u00e9" * 16]))
    escaped = (b"\xff" * 32).decode("utf-8", "surrogateescape")
    path = write(tmp_path / "binary", b"\xff" * 32)
    (key,) = read_secrets(AuthSettings(secrets=[escaped], secret_files=[path]))
    assert key.identity == b"\xff" * 32


def test_a_short_secret_is_refused_by_name_with_a_remedy_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"auth\.secrets\[1\] has 31 bytes.*openssl") as refusal:
        read_secrets(AuthSettings(secrets=["g" * 32, "h" * 31]))
    assert "hhh" not in str(refusal.value)
    path = write(tmp_path / "short", b"i" * 31 + b"\n")
    with pytest.raises(
        SettingsError, match=r"short \(auth\.secret_files\) has 31 bytes"
    ) as refusal:
        read_secrets(AuthSettings(secret_files=[path]))
    assert "iii" not in str(refusal.value)


def test_a_public_key_is_refused_as_a_secret() -> None:
    for text in (pem(RSA.public_key()).decode(), json.dumps(JWKS["ES256"])):
        with pytest.raises(SettingsError, match=r"auth\.secrets\[0\] is a key or certificate"):
            read_secrets(AuthSettings(secrets=[text]))


def test_a_secret_does_not_show_in_the_repr_of_its_key() -> None:
    (key,) = read_secrets(AuthSettings(secrets=["hidden" * 8]))
    assert "hidden" not in repr(key)


def test_missing_files_are_refused_with_setting_and_path(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(SettingsError, match=r"auth\.secret_files: cannot read .*missing: No such"):
        read_secrets(AuthSettings(secret_files=[missing]))
    with pytest.raises(SettingsError, match=r"auth\.public_key_files: cannot read .*missing"):
        read_public_keys(AuthSettings(public_key_files=[missing]))
    with pytest.raises(SettingsError, match=r"auth\.jwks_file: cannot read .*: Is a directory"):
        read_public_keys(AuthSettings(jwks_file=str(tmp_path)))


def test_each_pem_file_gets_the_one_algorithm_of_its_key(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{index}.pem", pem(public))
        for index, public in enumerate(
            [RSA.public_key(), EC.public_key(), ED.public_key(), RSA.public_key()]
        )
    ]
    keys = read_public_keys(AuthSettings(public_key_files=files))
    assert [key.algorithm for key in keys] == ["RS256", "ES256", "EdDSA"]


@pytest.mark.parametrize(
    "data",
    [
        pem(rsa.generate_private_key(65537, 1024).public_key()),
        pem(ec.generate_private_key(ec.SECP384R1()).public_key()),
        pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
        pem(ed448.Ed448PrivateKey.generate().public_key()),
        b"",
        b"no key",
        b"-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n",
        pem(RSA.public_key())[:200],
    ],
    ids=["RSA 1024", "P-384", "secp256k1", "Ed448", "empty", "text", "not base64", "cut"],
)
def test_unsuitable_pem_files_are_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "app.pem", data)
    with pytest.raises(SettingsError, match=r"auth\.public_key_files: .*app\.pem is not usable"):
        read_public_keys(AuthSettings(public_key_files=[path]))


@pytest.mark.parametrize(
    ("bits", "exponent", "words"),
    [
        (2047, 65537, "need 2048 bits"),
        (2048, 65537, None),
        (2048, 3, None),
        (2048, 2**32 + 1, "exponent"),
        (8192, 2**32 - 1, None),
        (8193, 65537, "may have 8192 bits"),
        (131_072, 65537, "may have 8192 bits"),
    ],
)
def test_an_rsa_key_is_neither_weak_nor_costly_for_strangers_to_use(
    tmp_path: Path, bits: int, exponent: int, words: str | None
) -> None:
    # No product of primes: nobody can sign with it, and it costs as much.
    key = rsa.RSAPublicNumbers(exponent, 2 ** (bits - 1) + 1).public_key()
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True)
    files = AuthSettings(public_key_files=[write(tmp_path / "app.pem", pem(key))])
    others = jwk_set(jwk, JWKS["ES256"])
    if words is None:
        assert [each.algorithm for each in read_public_keys(files)] == ["RS256"]
        assert [each.algorithm for each in parse_jwks(others)] == ["RS256", "ES256"]
        return
    with pytest.raises(SettingsError, match=words):
        read_public_keys(files)
    assert [each.algorithm for each in parse_jwks(others)] == ["ES256"]


def test_a_private_key_is_refused_with_the_command_for_its_public_half(tmp_path: Path) -> None:
    private = EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = write(tmp_path / "app.pem", private)
    with pytest.raises(SettingsError, match="openssl pkey -pubout"):
        read_public_keys(AuthSettings(public_key_files=[path]))


def test_a_jwks_file_gives_its_keys_with_their_names(tmp_path: Path) -> None:
    named = [jwk | {"kid": name, "use": "sig", "alg": name} for name, jwk in JWKS.items()]
    path = write(tmp_path / "jwks.json", jwk_set(*named))
    keys = read_public_keys(AuthSettings(jwks_file=path))
    assert [(key.kid, key.algorithm) for key in keys] == [(name, name) for name in JWKS]


def test_an_unusable_jwks_file_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "jwks.json", b"{}")
    with pytest.raises(SettingsError, match=r"auth\.jwks_file: .*jwks\.json: this is no JWK Set"):
        read_public_keys(AuthSettings(jwks_file=path))


PRIVATE_JWK = jwt.algorithms.ECAlgorithm.to_jwk(EC, as_dict=True)
P384_JWK = jwt.algorithms.ECAlgorithm.to_jwk(
    ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True
)


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "oct", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg"},
        {"kty": "oct", "k": "eHh4", "alg": "HS256"},
        {"kty": "new"},
        {"kty": 1},
        {"kty": "RSA"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "n": 5, "e": []},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "EC", "crv": "P-999", "x": "AAAA", "y": "AAAA"},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
        PRIVATE_JWK,
        P384_JWK,
        JWKS["RS256"] | {"alg": "none"},
        JWKS["RS256"] | {"alg": "HS256"},
        JWKS["RS256"] | {"alg": "PS256"},
        JWKS["RS256"] | {"alg": "RS512"},
        JWKS["RS256"] | {"alg": ["RS256"]},
        JWKS["RS256"] | {"use": "enc"},
        JWKS["RS256"] | {"key_ops": ["encrypt"]},
        JWKS["RS256"] | {"key_ops": 5},
        None,
        5,
        [JWKS["RS256"]],
    ],
    ids=lambda jwk: (
        " ".join(f"{name}={jwk[name]}" for name in jwk if name not in "nexyd")[:50]
        if isinstance(jwk, dict)
        else repr(jwk)[:20]
    ),
)
def test_an_unsuitable_key_of_a_jwk_set_is_skipped_and_the_others_stay(jwk: Any) -> None:
    keys = parse_jwks(jwk_set(jwk, JWKS["EdDSA"] | {"kid": "good", "key_ops": ["verify"]}))
    assert [(key.kid, key.algorithm) for key in keys] == [("good", "EdDSA")]
    with pytest.raises(ValueError, match="no public key"):
        parse_jwks(jwk_set(jwk))


BIG = jwt.utils.base64url_decode(JWKS["RS256"]["n"])


@pytest.mark.parametrize(
    "more",
    [
        {name: None for name in ("use", "alg", "key_ops", "kid", "d", "x5c", "x5t", "ext")},
        {"use": "sig", "alg": "RS256", "key_ops": ["verify"]},
        {"key_ops": ["sign", "verify"]},
        {"kid": 7},
        {"kid": {}},
        {"kid": ""},
        {"x5c": ["MIIC"], "x5t": "x", "x5t#S256": "y", "issuer": "https://id.example/{tenantid}"},
        {"n": base64.urlsafe_b64encode(BIG).decode()},
        {"n": base64.b64encode(BIG).decode()},
        {"n": base64.urlsafe_b64encode(b"\0" + BIG).decode().rstrip("=")},
    ],
    ids=lambda more: "big n" if "n" in more else repr(more),
)
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"])
def test_a_key_is_taken_as_providers_write_it(more: dict[str, Any], before: bytes) -> None:
    (key,) = parse_jwks(before + jwk_set(JWKS["RS256"] | more))
    (plain,) = parse_jwks(jwk_set(JWKS["RS256"]))
    assert (key.algorithm, key.identity) == (plain.algorithm, plain.identity)


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"null", b"{}", b'{"keys":{}}', b'{"keys":null}', b"\xff",
     b'{"keys":[', b"<html>", b'{"keys":' + b"[" * 5_000, b'{"keys":[{"kty":"\xff"}]}'],
    ids=lambda document: repr(document[:20]),
)  # fmt: skip
def test_what_is_no_jwk_set_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError, match="no JWK Set"):
        parse_jwks(document)


def test_an_empty_jwk_set_and_a_huge_one_are_refused() -> None:
    with pytest.raises(ValueError, match="no public key"):
        parse_jwks(jwk_set())
    with pytest.raises(ValueError, match="may have 64 keys, this one has 65"):
        parse_jwks(jwk_set(*[JWKS["EdDSA"]] * (MAX_JWKS_KEYS + 1)))

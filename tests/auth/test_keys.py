"""How keys verify and sign, come, leave and overlap."""

import base64
import hmac
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pov_rt.auth.keys import ALGORITHMS, MAX_TOKEN_BYTES, Keyring
from pov_rt.config.settings import AuthSettings, SettingsError
from pov_rt.protocol.errors import TokenError
from pov_rt.runtime.clock import ManualClock

OLD, NEW = "old secret " * 4, "new secret " * 4

PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def sign(key: Any, algorithm: str, **headers: str) -> str:
    return jwt.encode({"userId": "alice"}, key, algorithm, headers)


def accepts(keyring: Keyring, token: str) -> bool:
    try:
        payload, *_ = keyring.verify(token)
    except TokenError:
        return False
    return payload == b'{"userId":"alice"}'


def pem_file(folder: Path, algorithm: str) -> str:
    path = folder / f"{algorithm}.pem"
    public = PRIVATE[algorithm].public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_the_newest_secret_signs_and_each_verifies(clock: ManualClock) -> None:
    keyring = Keyring(AuthSettings(secrets=[NEW, OLD]), clock)
    token = keyring.sign(b'{"userId":"alice"}')
    assert accepts(keyring, token)
    assert jwt.decode(token, NEW, ["HS256"]) == {"userId": "alice"}
    assert accepts(keyring, sign(OLD, "HS256"))


def test_a_keyring_without_any_key_is_refused(clock: ManualClock) -> None:
    with pytest.raises(SettingsError, match="openssl rand -base64 48"):
        Keyring(AuthSettings(), clock)


def test_signing_with_public_keys_only_is_refused_with_words(
    clock: ManualClock, tmp_path: Path
) -> None:
    keyring = Keyring(AuthSettings(public_key_files=[pem_file(tmp_path, "EdDSA")]), clock)
    with pytest.raises(SettingsError, match=r"no secret to sign.*auth\.secrets"):
        keyring.sign(b"{}")


@pytest.mark.parametrize("algorithm", list(PRIVATE))
def test_a_public_key_verifies_its_own_algorithm_only(
    clock: ManualClock, tmp_path: Path, algorithm: str
) -> None:
    keyring = Keyring(AuthSettings(public_key_files=[pem_file(tmp_path, algorithm)]), clock)
    for other, key in PRIVATE.items():
        assert accepts(keyring, sign(key, other)) == (other == algorithm)
        assert accepts(keyring, sign(key, other, kid="unknown")) == (other == algorithm)


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "PS512"])
def test_another_algorithm_of_a_good_key_is_refused(
    clock: ManualClock, tmp_path: Path, algorithm: str
) -> None:
    keyring = Keyring(AuthSettings(public_key_files=[pem_file(tmp_path, "RS256")]), clock)
    assert not accepts(keyring, sign(PRIVATE["RS256"], algorithm))


@pytest.mark.parametrize("alg", ["HS256", "RS256"])
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("secrets", [[], [NEW]])
def test_a_public_key_is_never_used_as_a_secret(
    clock: ManualClock, tmp_path: Path, alg: str, encoding: Encoding, secrets: list[str]
) -> None:
    files = [pem_file(tmp_path, "RS256")]
    keyring = Keyring(AuthSettings(secrets=secrets, public_key_files=files), clock)
    public = PRIVATE["RS256"].public_key()
    known_to_all = public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    parts = (b'{"alg":"%s"}' % alg.encode(), b'{"userId":"alice"}')
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    for key in (known_to_all, known_to_all.strip(), known_to_all + b"\n"):
        signature = base64.urlsafe_b64encode(hmac.digest(key, signed, "sha256")).rstrip(b"=")
        assert not accepts(keyring, (signed + b"." + signature).decode())


def test_a_token_may_be_as_long_as_the_bound_and_no_longer(clock: ManualClock) -> None:
    keyring = Keyring(AuthSettings(secrets=[NEW]), clock)
    header_and_signature = len(keyring.sign(b""))
    room = (MAX_TOKEN_BYTES - header_and_signature) * 3 // 4
    assert keyring.verify(keyring.sign(b"x" * room))[0] == b"x" * room
    with pytest.raises(TokenError):
        keyring.verify(keyring.sign(b"x" * (room + 2)))


def test_a_secret_that_left_the_settings_is_accepted_for_the_overlap(clock: ManualClock) -> None:
    keyring = Keyring(AuthSettings(secrets=[OLD], key_overlap_s=100), clock)
    token = sign(OLD, "HS256")
    keyring.reload(AuthSettings(secrets=[NEW], key_overlap_s=100))
    _, until, *_ = keyring.verify(token)
    assert until == clock.time() + 100
    assert jwt.decode(keyring.sign(b"{}"), NEW, ["HS256"]) == {}
    clock.advance(99.9)
    assert accepts(keyring, token)
    clock.advance(0.1)
    assert not accepts(keyring, token)
    keyring.reload(AuthSettings(secrets=[NEW], key_overlap_s=100))
    assert not accepts(keyring, token), "an overlap that is over does not start again"


def test_a_secret_that_comes_back_stays(clock: ManualClock) -> None:
    keyring = Keyring(AuthSettings(secrets=[OLD], key_overlap_s=100), clock)
    keyring.reload(AuthSettings(secrets=[NEW], key_overlap_s=100))
    keyring.reload(AuthSettings(secrets=[NEW, OLD], key_overlap_s=100))
    clock.advance(1_000)
    assert accepts(keyring, sign(OLD, "HS256"))


def test_a_shorter_overlap_holds_for_keys_that_already_left(clock: ManualClock) -> None:
    keyring = Keyring(AuthSettings(secrets=[OLD], key_overlap_s=3_600), clock)
    keyring.reload(AuthSettings(secrets=[NEW], key_overlap_s=3_600))
    keyring.reload(AuthSettings(secrets=[NEW], key_overlap_s=1))
    clock.advance(1)
    assert not accepts(keyring, sign(OLD, "HS256"))


def test_settings_that_cannot_be_loaded_change_nothing(clock: ManualClock) -> None:
    keyring = Keyring(AuthSettings(secrets=[OLD]), clock)
    version = keyring.version
    for settings in (
        AuthSettings(),
        AuthSettings(secrets=["short"]),
        AuthSettings(secrets=[NEW], public_key_files=["/nonexistent.pem"]),
    ):
        with pytest.raises(SettingsError):
            keyring.reload(settings)
    assert keyring.version == version
    assert jwt.decode(keyring.sign(b"{}"), OLD, ["HS256"]) == {}


def test_the_version_changes_with_the_keys_and_only_with_them(clock: ManualClock) -> None:
    keyring = Keyring(AuthSettings(secrets=[OLD]), clock)
    version = keyring.version
    keyring.reload(AuthSettings(secrets=[OLD], leeway_s=9))
    assert keyring.version == version
    keyring.reload(AuthSettings(secrets=[NEW]))
    assert keyring.version != version


@pytest.mark.parametrize("size", [32, 63, 64, 65, 500])
def test_a_mac_is_as_it_always_is(size: int) -> None:
    secret = bytes(range(256)) * 2
    for text in (b"", b"a.b", b"x" * 1000):
        mac = ALGORITHMS["HS256"].sign(text, secret[:size])
        assert mac == hmac.digest(secret[:size], text, "sha256")


def test_each_part_of_a_token_has_one_spelling() -> None:
    """Of a part's last letter some bits mean nothing: with any of them set it is another token."""
    keyring = Keyring(AuthSettings(secrets=[NEW]), ManualClock())
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = sign(NEW, "HS256")
    assert accepts(keyring, token)
    assert not [
        each for each in letters if each != token[-1] and accepts(keyring, token[:-1] + each)
    ]
    for header in ("{}", '{"alg":"HS256"}', '{"alg":"HS256" }', '{"alg":"HS256"  }'):
        encoded = base64.urlsafe_b64encode(header.encode()).decode().rstrip("=")
        signed = f"{encoded}.{token.split('.')[1]}"
        mac = base64.urlsafe_b64encode(hmac.digest(NEW.encode(), signed.encode(), "sha256"))
        good = f"{signed}.{mac.decode().rstrip('=')}"
        assert accepts(keyring, good) == (header != "{}")
        odd = f"{encoded[:-1]}{letters[letters.index(encoded[-1]) | 1]}.{token.split('.')[1]}"
        mac = base64.urlsafe_b64encode(hmac.digest(NEW.encode(), odd.encode(), "sha256"))
        if len(encoded) % 4:
            assert not accepts(keyring, f"{odd}.{mac.decode().rstrip('=')}")

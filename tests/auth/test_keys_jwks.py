"""How the keys of a JWK Set are chosen, rotated and fetched."""

import asyncio
import json
import logging
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pov_rt.auth.keys import JWKS_COOLDOWN_S, Keyring
from pov_rt.config.settings import AuthSettings
from pov_rt.protocol.errors import TokenError
from pov_rt.runtime.clock import ManualClock

URL = "https://app.example/jwks.json"
ELSEWHERE = "https://elsewhere.example/jwks.json"

FIRST, SECOND = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def sign(key: Ed25519PrivateKey, kid: str | None = None) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode({"userId": "alice"}, key, "EdDSA", headers)


def accepts(keyring: Keyring, token: str) -> bool:
    try:
        payload, *_ = keyring.verify(token)
    except TokenError:
        return False
    return payload == b'{"userId":"alice"}'


def jwk_set(**keys: Ed25519PrivateKey) -> bytes:
    """Publish these keys' public halves, each under its name."""
    to_jwk = jwt.algorithms.OKPAlgorithm.to_jwk
    return json.dumps(
        {
            "keys": [
                to_jwk(key.public_key(), as_dict=True) | {"kid": kid} for kid, key in keys.items()
            ]
        }
    ).encode()


class Issuer:
    """The app's side of a fetch: counts requests and answers with the document, or fails."""

    def __init__(self, document: bytes = b"", failure: Exception | None = None) -> None:
        self.document = document
        self.failure = failure
        self.asked: list[str] = []

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if self.failure is not None:
            raise self.failure
        return self.document


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keyring(clock: ManualClock) -> Keyring:
    return Keyring(AuthSettings(jwks_url=URL, key_overlap_s=100), clock)


def refresh(keyring: Keyring, issuer: Issuer) -> None:
    asyncio.run(keyring.refresh_jwks(issuer.fetch))


def test_kid_selects_among_the_keys_of_a_jwks_file(clock: ManualClock, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwk_set(first=FIRST, second=SECOND))
    keyring = Keyring(AuthSettings(jwks_file=str(path)), clock)
    assert accepts(keyring, sign(FIRST, "first"))
    assert accepts(keyring, sign(SECOND, "second"))
    assert accepts(keyring, sign(SECOND)), "without kid each key is tried"
    assert not accepts(keyring, sign(FIRST, "second"))
    assert not accepts(keyring, sign(FIRST, "third"))
    assert not keyring.jwks_wanted.is_set(), "there is nowhere to fetch from"


def test_keys_rotate_with_overlap(keyring: Keyring, clock: ManualClock) -> None:
    keyring.replace_jwks(jwk_set(a=FIRST))
    version = keyring.version
    keyring.replace_jwks(jwk_set(a=FIRST))
    assert keyring.version == version, "the same keys again are no change"
    keyring.replace_jwks(jwk_set(b=SECOND))
    clock.advance(99)
    assert accepts(keyring, sign(FIRST, "a"))
    assert accepts(keyring, sign(SECOND, "b"))
    clock.advance(1)
    assert not accepts(keyring, sign(FIRST, "a"))
    assert accepts(keyring, sign(SECOND, "b"))


@pytest.mark.parametrize("document", [b"", b"<html>", b'{"keys":[]}', b"[]"])
def test_a_bad_jwk_set_replaces_nothing(keyring: Keyring, document: bytes) -> None:
    keyring.replace_jwks(jwk_set(a=FIRST))
    with pytest.raises(ValueError, match="JWK Set"):
        keyring.replace_jwks(document)
    assert accepts(keyring, sign(FIRST, "a"))


def test_refresh_takes_over_what_it_fetches(keyring: Keyring) -> None:
    issuer = Issuer(jwk_set(a=FIRST))
    refresh(keyring, issuer)
    assert issuer.asked == [URL]
    assert accepts(keyring, sign(FIRST, "a"))


@pytest.mark.parametrize(
    "issuer",
    [Issuer(failure=OSError("unreachable")), Issuer(failure=TimeoutError()), Issuer(b"<html>")],
    ids=["unreachable", "timeout", "no JWK Set"],
)
def test_a_failed_refresh_keeps_the_keys_and_logs_one_line(
    keyring: Keyring, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    refresh(keyring, Issuer(jwk_set(a=FIRST)))
    with caplog.at_level(logging.INFO):
        refresh(keyring, issuer)
    assert accepts(keyring, sign(FIRST, "a"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert URL in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_cancelled_refresh_is_cancelled(keyring: Keyring) -> None:
    async def cancel_while_fetching() -> None:
        fetching = asyncio.Event()

        async def never(url: str) -> bytes:
            fetching.set()
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        task = asyncio.create_task(keyring.refresh_jwks(never))
        await fetching.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_while_fetching())


def test_refresh_without_a_url_fetches_nothing(clock: ManualClock) -> None:
    keyring, issuer = Keyring(AuthSettings(secrets=["s" * 32]), clock), Issuer()
    refresh(keyring, issuer)
    assert issuer.asked == []


def test_an_unknown_kid_asks_for_a_refresh_once_per_cooldown(
    keyring: Keyring, clock: ManualClock
) -> None:
    issuer = Issuer(jwk_set(a=FIRST))
    assert not accepts(keyring, sign(SECOND, "b"))
    assert keyring.jwks_wanted.is_set()
    refresh(keyring, issuer)
    clock.advance(JWKS_COOLDOWN_S - 1)
    assert not accepts(keyring, sign(SECOND, "b"))
    assert not keyring.jwks_wanted.is_set()
    clock.advance(1)
    assert not accepts(keyring, sign(SECOND, "b"))
    assert keyring.jwks_wanted.is_set()
    issuer.document = jwk_set(a=FIRST, b=SECOND)
    refresh(keyring, issuer)
    assert not keyring.jwks_wanted.is_set()
    assert accepts(keyring, sign(SECOND, "b"))


def test_a_failed_refresh_counts_for_the_cooldown(keyring: Keyring) -> None:
    refresh(keyring, Issuer(failure=OSError("unreachable")))
    assert not accepts(keyring, sign(FIRST, "a"))
    assert not keyring.jwks_wanted.is_set()


def test_a_forged_token_without_a_new_kid_asks_for_nothing(keyring: Keyring) -> None:
    keyring.replace_jwks(jwk_set(a=FIRST))
    assert not accepts(keyring, sign(SECOND, "a"))
    assert not accepts(keyring, sign(SECOND))
    assert not keyring.jwks_wanted.is_set()


def test_another_url_retires_the_keys_of_the_former_and_asks_for_a_refresh(
    keyring: Keyring, clock: ManualClock
) -> None:
    refresh(keyring, Issuer(jwk_set(a=FIRST)))
    keyring.reload(AuthSettings(jwks_url=ELSEWHERE, key_overlap_s=100))
    assert keyring.jwks_wanted.is_set()
    issuer = Issuer(jwk_set(b=SECOND))
    refresh(keyring, issuer)
    assert issuer.asked == [ELSEWHERE]
    assert accepts(keyring, sign(FIRST, "a"))
    clock.advance(100)
    assert not accepts(keyring, sign(FIRST, "a"))
    assert accepts(keyring, sign(SECOND, "b"))


def test_an_answer_from_a_url_that_was_replaced_meanwhile_is_dropped(keyring: Keyring) -> None:
    async def reload_while_fetching(url: str) -> bytes:
        keyring.reload(AuthSettings(jwks_url=ELSEWHERE))
        return jwk_set(a=FIRST)

    asyncio.run(keyring.refresh_jwks(reload_while_fetching))
    assert not accepts(keyring, sign(FIRST, "a"))
    assert keyring.jwks_wanted.is_set()


def usable(keyring: Keyring) -> bool:
    return keyring.is_usable


def test_a_keyring_is_usable_while_one_key_is_accepted(
    keyring: Keyring, clock: ManualClock
) -> None:
    assert not usable(keyring)
    refresh(keyring, Issuer(jwk_set(a=FIRST)))
    assert usable(keyring)
    keyring.reload(AuthSettings(jwks_url=ELSEWHERE, key_overlap_s=100))
    refresh(keyring, Issuer(failure=OSError("unreachable")))
    clock.advance(99)
    assert usable(keyring)
    clock.advance(1)
    assert not usable(keyring)

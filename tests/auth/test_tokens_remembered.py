"""How long a verified token is believed without checking its signature again."""

from collections.abc import Callable
from typing import Any

import pytest

from pov_rt.auth.keys import Keyring
from pov_rt.auth.tokens import Identity, Tokens
from pov_rt.config.settings import AuthSettings, SettingsError
from pov_rt.protocol.errors import TokenExpired, TokenRevoked
from pov_rt.runtime.clock import ManualClock
from tests.auth.apps import ANY, NEXT_SECRET, NOW, SECRET, SOCKET, app_token, outcome


def test_a_remembered_token_gives_the_same_identity_without_checking_again(
    tokens: Tokens,
) -> None:
    token = app_token()
    assert tokens.verify(token, SOCKET) is tokens.verify(token, SOCKET)


def test_a_remembered_token_is_dropped_at_its_expiry(tokens: Tokens, clock: ManualClock) -> None:
    token = app_token(exp=NOW + 10)
    tokens.verify(token, SOCKET)
    clock.advance(9.999)
    assert tokens.verify(token, SOCKET)
    clock.advance(0.001)
    for _ in range(2):
        with pytest.raises(TokenExpired):
            tokens.verify(token, SOCKET)


def test_a_remembered_token_is_refused_when_its_key_is_no_longer_accepted(
    tokens: Tokens, clock: ManualClock
) -> None:
    token = app_token()
    tokens.verify(token, SOCKET)
    tokens.reload(AuthSettings(secrets=[NEXT_SECRET], key_overlap_s=100))
    assert outcome(tokens, token, SOCKET), "the overlap"
    clock.advance(100)
    assert not outcome(tokens, token, SOCKET)


def test_a_key_change_behind_its_back_makes_it_forget(clock: ManualClock) -> None:
    auth = AuthSettings(secrets=[SECRET])
    keyring = Keyring(auth, clock)
    tokens = Tokens(auth, keyring, clock)
    before = tokens.verify(app_token(), SOCKET)
    keyring.reload(AuthSettings(secrets=[NEXT_SECRET, SECRET]))
    after = tokens.verify(app_token(), SOCKET)
    assert after == before
    assert after is not before
    assert tokens.verify(app_token(), SOCKET) is after


def test_reload_applies_changed_settings_to_remembered_tokens(tokens: Tokens) -> None:
    token = app_token()
    assert tokens.verify(token, SOCKET).grants.povs is None
    tokens.reload(AuthSettings(secrets=[SECRET], require_grants=True))
    assert tokens.verify(token, SOCKET).grants.povs is not None
    tokens.reload(AuthSettings(secrets=[SECRET], require_audience=True))
    assert not outcome(tokens, token, SOCKET)


def test_a_reload_that_fails_changes_nothing(tokens: Tokens) -> None:
    before = tokens.verify(app_token(), SOCKET)
    with pytest.raises(SettingsError):
        tokens.reload(AuthSettings(secrets=["short"], require_audience=True))
    assert tokens.verify(app_token(), SOCKET) is before


class Void:
    """Tokens that are void by their ids."""

    def __init__(self) -> None:
        self.ids: set[str | None] = set()
        self.asked: list[Identity] = []
        self.seen: list[Identity] = []

    def see(self, identity: Identity) -> None:
        self.seen.append(identity)

    def covers(self, identity: Identity) -> bool:
        self.asked.append(identity)
        return identity.token_id in self.ids

    def refusal(self, identity: Identity) -> TokenRevoked:
        return TokenRevoked()


def test_revocation_holds_for_new_and_for_remembered_tokens(make: Callable[..., Tokens]) -> None:
    void = Void()
    tokens = make(void)
    tokens.verify(app_token(jti="1"), SOCKET)
    void.ids |= {"1", "2"}
    for jti in ("1", "2"):
        for _ in range(2):
            with pytest.raises(TokenRevoked):
                tokens.verify(app_token(jti=jti), SOCKET)
    assert tokens.verify(app_token(jti="3"), SOCKET)


def test_revocation_is_not_asked_about_forged_or_expired_tokens(
    make: Callable[..., Tokens],
) -> None:
    void = Void()
    tokens = make(void)
    for token in (app_token(NEXT_SECRET), app_token(exp=NOW), app_token(aud="x"), "a.b.c"):
        assert not outcome(tokens, token, ANY)
    assert void.asked == void.seen == []


def test_forged_tokens_push_no_good_one_out(make: Callable[..., Tokens]) -> None:
    tokens = make(verified_bytes=40_000)
    good = tokens.verify(app_token(), SOCKET)
    for number in range(10):
        assert not outcome(tokens, app_token(NEXT_SECRET, jti=str(number)), SOCKET)
    assert tokens.verify(app_token(), SOCKET) is good


def test_two_verifiers_in_one_process_do_not_see_each_other(make: Callable[..., Tokens]) -> None:
    one, other = make(), make(secrets=[NEXT_SECRET])
    assert outcome(one, app_token(), SOCKET)
    assert not outcome(other, app_token(), SOCKET)


NAMES = [f"name {number}" for number in range(200)]


@pytest.mark.parametrize(
    "large", [{"povs": NAMES}, {"can": NAMES}, {"email": "m" * 5_000}, {"role": "m" * 5_000}]
)
def test_a_member_whose_tokens_are_large_has_a_share_of_the_memory(
    make: Callable[..., Tokens], large: dict[str, Any]
) -> None:
    room = 1024 * 1024
    tokens = make(verified_bytes=room)
    good = [app_token(userId=f"user {number}") for number in range(20)]
    found = [tokens.verify(token, SOCKET) for token in good]
    for number in range(100):
        tokens.verify(app_token(userId="mallory", **large, jti=str(number)), SOCKET)
    assert [tokens.verify(token, SOCKET) for token in good] == found
    assert all(tokens.verify(token, SOCKET) is who for token, who in zip(good, found, strict=True))
    assert tokens.bound.used() <= room / 16 + 20 * 2000

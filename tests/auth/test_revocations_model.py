"""Revocations in any order of events: no revoked token is good again, and no later one is void.

The app's clock differs from the server's by up to the leeway, for the whole of an example, and it
may write whole seconds. Where that alone leaves open which came first, a token that the server had
not seen is allowed to be either (`MAYBE`), but not one and then the other.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
)

from pov_rt.auth.keys import Keyring
from pov_rt.auth.revocations import Revocations
from pov_rt.auth.tokens import SERVICE_AUDIENCE, Tokens
from pov_rt.config.settings import AuthSettings, EngineSettings
from pov_rt.engine.memory import MemoryEngine
from pov_rt.protocol.errors import TokenExpired, TokenRevoked
from pov_rt.runtime.clock import ManualClock
from tests.auth.apps import ACCESS, NOW, SECRET, SERVICE, SOCKET, app_token

LEEWAY_S = 5.0
DAY_S = 86400.0
USERS = st.sampled_from(["ana", "ben"])


class Worth(Enum):
    """What a token must be taken for."""

    GOOD = auto()
    VOID = auto()
    MAYBE = auto()


@dataclass(eq=False)
class Token:
    """A token of the app's, as it is, and what the model holds of it."""

    text: str
    user_id: str
    issued_at: float
    """By the server's clock, which the app does not have."""
    is_service: bool
    worth: Worth
    seen: bool = False
    """By the server that runs."""


@dataclass(eq=False)
class Socket:
    """A socket token that was exchanged for an access token."""

    text: str
    access: Token


@dataclass(frozen=True)
class Said:
    """A revocation: since when, and what is certainly good in spite of it."""

    user_id: str | None
    good_from: float


class Model(RuleBasedStateMachine):
    """One server, its engine, and an app."""

    tokens = Bundle("tokens")
    sockets = Bundle("sockets")

    def __init__(self) -> None:
        super().__init__()
        self.every: list[Token] = []

    @initialize(
        ahead=st.sampled_from([0.0, 4.9, -4.9, 0.3]),
        whole_seconds=st.booleans(),
        has_ids=st.booleans(),
        keep_s=st.sampled_from([None, 30 * DAY_S]),
    )
    def begin(self, ahead: float, whole_seconds: bool, has_ids: bool, keep_s: float | None) -> None:
        self.ahead, self.whole_seconds, self.has_ids = ahead, whole_seconds, has_ids
        self.clock = ManualClock(NOW + 0.4)
        self.auth = AuthSettings(
            secrets=[SECRET],
            default_povs="*",
            leeway_s=LEEWAY_S,
            revocation_s=keep_s,
            verified_bytes=100_000,
        )
        self.engine = MemoryEngine(EngineSettings(), self.clock, "node")
        self.said: list[Said] = []
        self.number = 0
        self.start()

    def start(self) -> None:
        self.void = Revocations(self.engine.sets, self.clock, self.auth)
        asyncio.run(self.void.load())
        self.server = Tokens(self.auth, Keyring(self.auth, self.clock), self.clock, self.void)

    @rule(
        target=tokens,
        user_id=USERS,
        life_s=st.sampled_from([60.0, DAY_S, 29 * DAY_S, 365 * DAY_S]),
        is_service=st.booleans(),
    )
    def issue(self, user_id: str, life_s: float, is_service: bool) -> Token:
        now = self.clock.time()
        iat = now + self.ahead
        if self.whole_seconds:
            iat = math.floor(iat)
        if self.auth.revocation_s is not None:
            life_s = min(life_s, 29 * DAY_S)
        self.number += 1
        claims: dict[str, Any] = {"userId": user_id, "iat": iat, "exp": now + life_s}
        claims |= {"jti": f"j{self.number}"} if self.has_ids else {"n": self.number}
        claims |= {"aud": SERVICE_AUDIENCE} if is_service else {}
        is_late = all(
            now >= said.good_from for said in self.said if said.user_id in (None, user_id)
        )
        worth = Worth.GOOD if is_late else Worth.MAYBE
        token = Token(app_token(**claims), user_id, now, is_service, worth)
        self.every.append(token)
        return token

    @rule(token=tokens)
    def use_one(self, token: Token) -> None:
        self.use(token)

    def use(self, token: Token) -> None:
        """At the token endpoint, at /ws/, as a refresh, over HTTP: all are this question."""
        doors = (SERVICE,) if token.is_service else (ACCESS, SOCKET)
        for accept in doors:
            self.try_door(token, token.text, accept)

    @rule(target=sockets, token=tokens.filter(lambda token: not token.is_service))
    def exchange(self, token: Token) -> Socket:
        identity = self.try_door(token, token.text, ACCESS)
        return Socket("" if identity is None else self.server.exchange(identity), token)

    @rule(socket=sockets)
    def use_socket(self, socket: Socket) -> None:
        if socket.text:
            self.try_door(socket.access, socket.text, SOCKET)

    @rule(token=tokens)
    def revoke_token(self, token: Token) -> None:
        identity = self.try_door(token, token.text, SERVICE if token.is_service else ACCESS)
        if identity is not None:
            self.revoke(token_id=identity.token_id)
            token.worth = Worth.VOID

    @rule(socket=consumes(sockets))
    def revoke_socket(self, socket: Socket) -> None:
        if socket.text and (identity := self.try_door(socket.access, socket.text, SOCKET)):
            self.revoke(token_id=identity.token_id)
            with pytest.raises(TokenRevoked):
                self.server.verify(socket.text, SOCKET)

    @rule(user_id=st.none() | USERS)
    def revoke_now(self, user_id: str | None) -> None:
        """Without an instant of the app's, where the server's clock decides."""
        now = self.clock.time()
        self.revoke(user_id=user_id, before=now if user_id is None else None)
        for token in self.of(user_id):
            if token.seen or token.issued_at < now - LEEWAY_S - 1:
                token.worth = Worth.VOID
            elif token.worth is Worth.GOOD:
                token.worth = Worth.MAYBE
        behind_s = LEEWAY_S + 1 if self.ahead < 0 else 0.0
        self.said.append(Said(user_id, now + behind_s))

    @rule(user_id=st.none() | USERS, ago_s=st.sampled_from([0.0, 0.5, 3.0, DAY_S]))
    def revoke_before(self, user_id: str | None, ago_s: float) -> None:
        """With an instant by the clock that also dates the app's tokens."""
        now = self.clock.time()
        instant = now - ago_s
        # That the token of a clock ahead was seen before an instant by that clock says nothing.
        ahead_s = LEEWAY_S if self.ahead > 0 else 0.0
        self.revoke(user_id=user_id, before=instant + self.ahead)
        for token in self.of(user_id):
            # One without a fraction looks as if it were in whole seconds, whoever wrote it.
            is_whole = self.whole_seconds or float(token.issued_at).is_integer()
            is_certain = token.issued_at < instant - (1.0 if is_whole else 0.0)
            if is_certain or (token.seen and self.ahead >= 0 and ago_s == 0):
                token.worth = Worth.VOID
            elif token.worth is Worth.GOOD and token.issued_at < instant + ahead_s:
                token.worth = Worth.MAYBE
        self.said.append(Said(user_id, now))

    @rule(seconds=st.sampled_from([0.1, 0.3, 0.7, 1.0, 4.0, 6.0, DAY_S, 31 * DAY_S]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.void.sweep()

    @rule()
    def restart(self) -> None:
        for token in self.every:
            token.seen = False
        self.start()

    def of(self, user_id: str | None) -> list[Token]:
        return [token for token in self.every if user_id in (None, token.user_id)]

    def revoke(
        self,
        *,
        token_id: str | None = None,
        user_id: str | None = None,
        before: float | None = None,
    ) -> None:
        asyncio.run(self.void.store(self.void.add(self.void.make(token_id, user_id, before))))

    def try_door(self, token: Token, text: str, accept: frozenset[Any]) -> Any:
        """Return whose it is; None if it is void or its time is over, and rightly so."""
        try:
            identity = self.server.verify(text, accept)
        except TokenExpired:
            return None
        except TokenRevoked:
            token.seen = True
            assert token.worth is not Worth.GOOD, "a token is void that came after"
            token.worth = Worth.VOID
            return None
        token.seen = True
        assert token.worth is not Worth.VOID, "a revoked token is good"
        return identity

    def teardown(self) -> None:
        """Find what nobody looked at: now, after a restart, and after a month."""
        self.use_all()
        self.start()
        self.use_all()
        self.clock.advance(31 * DAY_S)
        self.void.sweep()
        self.use_all()

    def use_all(self) -> None:
        for token in self.every:
            self.use(token)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)

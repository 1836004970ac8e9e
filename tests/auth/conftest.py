"""Verifiers whose clock stands at `NOW`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pov_rt.auth.keys import Keyring
from pov_rt.auth.tokens import Tokens, Void
from pov_rt.config.settings import AuthSettings
from pov_rt.runtime.clock import ManualClock
from tests.auth.apps import NOW, SECRET


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def make(clock: ManualClock) -> Callable[..., Tokens]:
    def make(void: Void | None = None, **settings: Any) -> Tokens:
        auth = AuthSettings(**{"secrets": [SECRET], "default_povs": "*"} | settings)
        return Tokens(auth, Keyring(auth, clock), clock, void)

    return make


@pytest.fixture
def tokens(make: Callable[..., Tokens]) -> Tokens:
    return make()

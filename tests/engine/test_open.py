"""The engine is chosen by its URL."""

from __future__ import annotations

import pytest

from pov_rt.clock import ManualClock
from pov_rt.engine.open import open_engine
from pov_rt.settings import ENGINES, EngineSettings, SettingsError


@pytest.mark.parametrize("scheme", ENGINES)
def test_every_scheme_that_the_settings_allow_has_an_engine(scheme: str) -> None:
    engine = open_engine(EngineSettings(url=f"{scheme}://"), ManualClock(), "node")
    assert engine.health() is None


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(SettingsError, match=r"engine\.url: there is no engine 'mysql'.*memory"):
        open_engine(EngineSettings(url="mysql://x"), ManualClock(), "node")

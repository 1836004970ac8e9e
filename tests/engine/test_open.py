"""The engine is chosen by its URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from pov_rt.config.settings import (
    ENGINES,
    EngineSettings,
    ServerSettings,
    Settings,
    SettingsError,
    find_problems,
)
from pov_rt.engine.base import Health
from pov_rt.engine.open import open_engine
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.runtime.clock import ManualClock


def make(url: str, data: str | None = None) -> Settings:
    return Settings(server=ServerSettings(data=data), engine=EngineSettings(url=url), dev=True)


@pytest.mark.parametrize("scheme", ENGINES)
def test_every_scheme_that_the_settings_allow_has_an_engine(scheme: str, tmp_path: Path) -> None:
    engine = open_engine(make(f"{scheme}://", str(tmp_path)), ManualClock(), "node")
    assert engine.health() == Health()


@pytest.mark.parametrize(
    ("url", "data", "path"),
    [
        ("sqlite://", "/var/lib/x", "/var/lib/x/pov-rt.db"),
        ("sqlite:///srv/a%20b.db", "/var/lib/x", "/srv/a b.db"),
    ],
)
def test_the_database_is_where_the_url_or_the_data_folder_says(
    url: str, data: str, path: str
) -> None:
    engine = open_engine(make(url, data), ManualClock(), "node")
    assert isinstance(engine, SqliteEngine)
    assert str(engine.path) == path


def test_a_database_that_is_nowhere_is_a_problem_of_the_settings() -> None:
    assert [name for name, _ in find_problems(make("sqlite://"))] == ["engine.url"]
    with pytest.raises(SettingsError, match=r"server\.data is not set"):
        open_engine(make("sqlite://"), ManualClock(), "node")


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(SettingsError, match=r"engine\.url: there is no engine 'mysql'.*memory"):
        open_engine(make("mysql://x"), ManualClock(), "node")

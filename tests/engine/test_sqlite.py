"""The SQLite engine keeps every guarantee of engines, and survives what befalls a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pov_rt.clock import ManualClock
from pov_rt.engine.base import Engine
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.settings import EngineSettings
from pov_rt.suites import EngineSuite


class TestSqliteEngine(EngineSuite):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "pov-rt.db"

    def make(self, clock: ManualClock, **settings: Any) -> Engine:
        return SqliteEngine(self.path, EngineSettings(**settings), clock, "node-1")

"""A file for a log."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's database is to be."""
    return tmp_path / "pov-rt.db"

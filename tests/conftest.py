"""What every test can use. The fixtures of `pov_rt.testing` come with its pytest plugin."""

from __future__ import annotations

import pytest


@pytest.fixture
def plugins_dir() -> None:
    """Run servers with the built-in plugins alone; a test that wants more overrides this."""
    return

"""What every test can use: our short names for the fixtures of `pov_rt.testing`.

And what every test must do: end the programs that it started.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings as slices

from pov_rt.config.settings import Settings
from pov_rt.testing import Plugins, RunningServer, make_settings
from tests.processes import children, end_children

# How long an example takes says more of the machine than of the code.
slices.register_profile("pov-rt", deadline=None)
slices.load_profile("pov-rt")


def pytest_configure() -> None:
    """Have programs heed Ctrl-C, which one inherits as ignored from a shell's background job."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def leave_no_process() -> Iterator[None]:
    """End what a test has left running, so that no other test meets it; that is a failure."""
    before = children()  # a module's own server, browsers
    yield
    if left := children() - before:
        pytest.fail(f"left behind: {end_children(left)}")


@pytest.fixture
def plugins_dir() -> Plugins:
    """Run servers with the built-in plugins alone; a test that wants more overrides this."""
    return None


@pytest.fixture
def pov_rt_plugins(plugins_dir: Plugins) -> Plugins:
    """Return what a test says."""
    return plugins_dir


@pytest.fixture
def settings() -> Settings:
    """Return settings that a test may override."""
    return make_settings()


@pytest.fixture
def pov_rt_settings(settings: Settings) -> Settings:
    """Return what a test says."""
    return settings


@pytest.fixture
def server(pov_rt_server: RunningServer) -> RunningServer:
    """Return the running server."""
    return pov_rt_server

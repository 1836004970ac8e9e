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
from tests.processes import OUTLIVING, children, end_children

# How long an example takes says more of the machine than of the code.
slices.register_profile("pov-rt", deadline=None)
slices.load_profile("pov-rt")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have an option for what is too much for each run."""
    parser.addoption(
        "--redis", action="store_true", help="run all of tests/plugins over Redis, too, not a few"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have programs heed Ctrl-C, which one inherits as ignored from a shell's background job."""
    config.addinivalue_line(
        "markers", "own_clock: moves the clock that leases end by; Redis goes by its own"
    )
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test a minute, unless it says how long it takes.

    Not in the settings of pytest: those hold for a plugin's tests in this checkout, too, whose
    author has no pytest-timeout.
    """
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(60))


@pytest.fixture(autouse=True)
def leave_no_process() -> Iterator[None]:
    """End what a test has left running, so that no other test meets it; that is a failure."""
    before = children()  # a module's own server, browsers
    yield
    if left := children() - before - OUTLIVING:
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
    """Return settings that a test may override; on a busy machine no handler takes too long."""
    return make_settings(limits={"handler_deadline_s": 60.0})


@pytest.fixture
def pov_rt_settings(settings: Settings) -> Settings:
    """Return what a test says."""
    return settings


@pytest.fixture
def server(pov_rt_server: RunningServer) -> Iterator[RunningServer]:
    """Return the running server; at the end its connections ended for reasons that are counted."""
    closes = pov_rt_server.web.server.arrivals.closes
    declared = set(closes)
    yield pov_rt_server
    assert set(closes) == declared

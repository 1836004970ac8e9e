"""The plugins' tests over Redis: those of a few in each run, all of them with `--redis`.

A server that a test starts itself is on the engine that the test says.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import msgspec
import pytest

from pov_rt.config.settings import Settings
from tests.redis_servers import HOW, RedisServer, find_program, redis_running

PROGRAM = "redis-server"
OFTEN = ("test_presence", "test_typing", "test_mute", "test_read", "test_revoke")
"""What each run tries: what is asked of leases, marks, sets and store, not of the log alone."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on the engine of its settings, and over Redis."""
    if "over" not in metafunc.fixturenames:
        return
    is_often = metafunc.module.__name__.rpartition(".")[2] in OFTEN
    goes_by_own_clock = metafunc.definition.get_closest_marker("own_clock") is not None
    if (is_often or metafunc.config.getoption("redis")) and not goes_by_own_clock:
        metafunc.parametrize("over", ["own", "redis"], indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what would be over Redis twice: a test of several engines."""
    items[:] = [
        each
        for each in items
        if not (
            isinstance(each, pytest.Function)
            and hasattr(each, "callspec")
            and each.callspec.params.get("over") == "redis"
            and each.callspec.params.get("settings") == "sqlite"
        )
    ]


@pytest.fixture(scope="session")
def plugins_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a server for all of a worker's tests: each has keys of its own."""
    if find_program(PROGRAM) is None:
        pytest.skip(f"there is no {PROGRAM}; {HOW[PROGRAM]}")
    with redis_running(PROGRAM, tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")  # before a test begins, at whose end all it started has ended
def over(request: pytest.FixtureRequest) -> RedisServer | None:
    """Return the Redis that a test is over; None: the engine that its settings name."""
    if getattr(request, "param", "own") == "own":
        return None
    server: RedisServer = request.getfixturevalue("plugins_redis")
    return server


@pytest.fixture
def pov_rt_settings(settings: Settings, over: RedisServer | None) -> Settings:
    """Return what a test says, but for its engine where it is over Redis."""
    if over is None:
        return settings
    redis = msgspec.structs.replace(settings.engine.redis, prefix=f"test-{uuid4().hex[:12]}")
    engine = msgspec.structs.replace(settings.engine, url=over.url, redis=redis)
    return msgspec.structs.replace(settings, engine=engine)

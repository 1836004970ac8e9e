"""Servers for the tests: one of each kind for all of a worker's tests, and one for a test alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from pov_rt.engine.redis.health import conditions
from tests.engine.redis.certificates import make_certificate
from tests.redis_sentinels import Group, group_running
from tests.redis_servers import (
    HOW,
    PROGRAMS,
    WAIT_S,
    RedisServer,
    Start,
    find_program,
    redis_running,
)


def need(name: str) -> str:
    """Return a program's name if it is installed; else skip the test, with the line to type."""
    if find_program(name) is None:
        pytest.skip(f"there is no {name}; {HOW[name]}")
    return name


@pytest.fixture(scope="session", params=PROGRAMS)
def shared_redis(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """Return a server that other tests use, too: each with a `prefix` of its own."""
    name = need(request.param)
    with redis_running(name, tmp_path_factory.mktemp(name)) as server:
        yield server


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no Redis be slow for what this machine has to do beside the tests."""
    monkeypatch.setattr(conditions, "SLOW_S", WAIT_S)


@pytest.fixture(scope="session")
def shared_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Return a primary with replicas and sentinels, for `group`: they take long to begin."""
    need(PROGRAMS[0])
    with group_running(tmp_path_factory.mktemp("group")) as group:
        yield group


@pytest.fixture
def group(shared_group: Group) -> Group:
    """Return them as they are when all is well, whatever the test before has done to them."""
    shared_group.heal()
    return shared_group


@pytest.fixture(scope="session")
def shared_valkey_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Return the same of Valkey, for `any_group`."""
    with group_running(tmp_path_factory.mktemp("valkey"), need(PROGRAMS[1])) as group:
        yield group


@pytest.fixture(scope="session")
def shared_tls_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Return the same where all speak TLS to each other and to us."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = make_certificate(folder / "certificate")
    with group_running(folder, need(PROGRAMS[0]), certificate) as group:
        yield group


@pytest.fixture
def tls_group(shared_tls_group: Group) -> Group:
    """Return it as it is when all is well."""
    shared_tls_group.heal()
    return shared_tls_group


@pytest.fixture(params=["shared_group", "shared_valkey_group", "shared_tls_group"])
def any_group(request: pytest.FixtureRequest) -> Group:
    """Return one of each kind as it is when all is well."""
    group = request.getfixturevalue(request.param)
    assert isinstance(group, Group)
    group.heal()
    return group


@pytest.fixture
def prefix() -> str:
    """Return what a test's keys on a shared server begin with."""
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a server of the test's own: `start_redis(*options, name=...)`."""
    with ExitStack() as stack:

        def start(*options: str, name: str = PROGRAMS[0]) -> RedisServer:
            folder = tmp_path / f"server{uuid4().hex[:8]}"
            return stack.enter_context(redis_running(need(name), folder, *options))

        yield start

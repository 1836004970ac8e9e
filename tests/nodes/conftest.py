"""Two servers on one Redis, which know of each other by it alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest

from pov_rt.config.settings import RedisSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from tests.redis_servers import HOW, RedisServer, find_program, redis_running

PROGRAM = "redis-server"
Nodes = tuple[RunningServer, RunningServer]


@pytest.fixture(scope="session")
def nodes_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a server for all of a worker's tests: each has keys of its own."""
    if find_program(PROGRAM) is None:
        pytest.skip(f"there is no {PROGRAM}; {HOW[PROGRAM]}")
    with redis_running(PROGRAM, tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def settings(nodes_redis: RedisServer) -> Settings:
    """Return the settings of all nodes, where nobody has a long grace."""
    redis = RedisSettings(prefix=f"test-{uuid4().hex[:12]}")
    made = make_settings(
        engine={"url": nodes_redis.url, "redis": redis},
        limits={"handler_deadline_s": 60.0, "message_rate": "10000/s"},
    )
    made.plugins["presence"] = {"grace_s": 0.2}
    return made


@pytest.fixture
def nodes(settings: Settings) -> Iterator[Nodes]:
    """Run two nodes that know of each other."""
    with ExitStack() as stack:
        one, two = (stack.enter_context(RunningServer(settings, None)) for _ in range(2))
        for node in (one, two):
            wait_for_peers(node, 1)
        yield one, two


def wait_for_peers(node: RunningServer, number: int) -> None:
    """Wait until a node knows of so many others."""
    while len(node.call(lambda: node.web.server.asking.peers)) != number:
        pass

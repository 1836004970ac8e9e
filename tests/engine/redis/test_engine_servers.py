"""Two servers on one Redis are one system for whoever is connected to either."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from pov_rt.config.settings import EngineSettings, RedisSettings
from pov_rt.testing import Client, Http, RunningServer, make_settings
from tests.redis_servers import WAIT_S, RedisServer, Start


@pytest.fixture
def servers(shared_redis: RedisServer, prefix: str) -> Iterator[list[RunningServer]]:
    """Run two servers on one Redis."""
    redis = RedisSettings(prefix=prefix, deadline_s=20.0)
    engine = EngineSettings(url=shared_redis.url, redis=redis)
    with ExitStack() as stack:
        settings = [make_settings(engine=engine) for _ in range(2)]
        yield [stack.enter_context(RunningServer(each, None)) for each in settings]


def activity(number: int) -> dict[str, str]:
    return {"id": str(number), "type": "t", "action": "a", "povId": "acme", "userId": "eve"}


def received(client: Client, number: int) -> list[str]:
    """Return the ids of the next activities."""
    found: list[str] = []
    while len(found) < number:
        message = client.receive()
        if message["type"] == "activity":
            found.append(message["data"]["id"])
    return found


def publish(server: RunningServer, *numbers: int) -> None:
    batch = [activity(number) for number in numbers]
    answer = Http(server).post("/api/activities", batch, service=True)
    assert answer.status == 200, answer.body


def test_what_is_published_at_one_server_reaches_a_socket_of_the_other(
    servers: list[RunningServer],
) -> None:
    one, two = servers
    client = two.connect("ana")
    answer = client.request({"type": "subscribe", "povId": "acme"})
    assert answer["guarantee"]["survives"] == "primary"
    publish(one, 1, 2, 3)
    publish(two, 1, 2, 3)  # retries, at the other server
    publish(two, 4)
    assert received(client, 4) == ["1", "2", "3", "4"]


def test_who_comes_back_at_the_other_server_goes_on_where_they_were(
    servers: list[RunningServer],
) -> None:
    one, two = servers
    client = one.connect("ana")
    start = client.request({"type": "subscribe", "povId": "acme"})
    publish(one, 1)
    assert received(client, 1) == ["1"]
    client.socket.close()
    publish(one, 2, 3)
    client = two.connect("ana")
    place = {"epoch": start["epoch"], "offset": 1}
    answer = client.request({"type": "subscribe", "povId": "acme", "since": place})
    assert answer["recovered"] is True, answer
    assert received(client, 2) == ["2", "3"]


def test_a_server_that_is_started_before_redis_waits_for_it(
    start_redis: Start, caplog: pytest.LogCaptureFixture
) -> None:
    redis = start_redis()
    redis.kill()
    engine = EngineSettings(url=redis.url, redis=RedisSettings(deadline_s=0.3))
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        running = RunningServer(make_settings(engine=engine), None)
        entering = pool.submit(stack.enter_context, running)
        deadline = time.monotonic() + WAIT_S
        while "the start waits for the engine: Redis at" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        redis.start()
        publish(entering.result(WAIT_S), 1)

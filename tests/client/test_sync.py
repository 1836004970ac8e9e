"""The client for code that blocks."""

from __future__ import annotations

import threading

import pytest

from pov_rt.client import Closed, Refused, SyncPovClient
from pov_rt.testing import RunningServer
from tests.client.support import new
from tests.clients import publish, span


def test_a_script_follows_asks_and_publishes(server: RunningServer) -> None:
    publish(server, 3)
    with SyncPovClient(server.address, server.token("ana")) as rt:
        following = rt.subscribe("acme", last=2)
        rt.publish(new())
        seen = []
        for activity in following:
            seen.append(activity.offset)
            following.ack()
            if len(seen) == 3:
                break
        assert seen == span(2, 4)
        assert following.position.offset == 4
        assert [each["offset"] for each in rt.history("acme", after=0)["activities"]] == span(1, 4)
        rt.send({"type": "ping"})
        with pytest.raises(Refused):
            rt.request({"type": "nothing"})


def test_closing_ends_a_loop_in_another_thread(server: RunningServer) -> None:
    with SyncPovClient(server.address, server.token("ana")) as rt:
        following = rt.subscribe("acme", last=1)
        rt.request({"type": "ping"})
        seen: list[int] = []
        came = threading.Event()

        def loop() -> None:
            for activity in following:
                seen.append(activity.offset)
                came.set()

        thread = threading.Thread(target=loop)
        thread.start()
        publish(server, 1)
        assert came.wait(10)
    thread.join(10)
    assert (thread.is_alive(), seen) == (False, [1])
    with pytest.raises(Closed, match="in a `with`"):
        rt.request({"type": "ping"})


def test_a_subscription_ends_with_its_block(server: RunningServer) -> None:
    with SyncPovClient(server.address, server.token("ana")) as rt:
        for _ in range(2):
            with rt.subscribe("acme") as following:
                assert following.position is None

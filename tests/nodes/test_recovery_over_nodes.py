"""Who comes back is caught up by one read of the log for a topic and node, however many do."""

from __future__ import annotations

import re

from pov_rt.testing import RunningServer
from tests.clients import offsets, publish, span, subscribe
from tests.nodes.conftest import Nodes
from tests.redis_servers import RedisServer


def reads(redis: RedisServer) -> int:
    """Return how often Redis was asked for entries, or, every ten seconds, for the right to."""
    found = re.search(rb"cmdstat_lrange:calls=(\d+)", redis.command("INFO", "commandstats"))
    return int(found[1]) if found else 0


def come_back(server: RunningServer, number: int, povs: list[str], count: int) -> None:
    """Have clients come back to PoVs of which they have nothing, and get what they missed."""
    epochs = {pov: subscribe(server.connect("zoe"), pov)["epoch"] for pov in povs}
    clients = [server.connect(f"u{at}") for at in range(number)]
    for client in clients:
        for pov in povs:
            answer = subscribe(client, pov, since={"epoch": epochs[pov], "offset": 0})
            assert answer["recovered"] is True
            assert offsets(client, count) == span(1, count)
        client.socket.close()


def test_the_log_is_read_once_for_a_topic_and_node_however_many_come_back(
    nodes: Nodes, nodes_redis: RedisServer
) -> None:
    one, two = nodes
    povs = ["a", "b", "c"]
    for pov in povs:
        publish(one, 10, pov)
    before = reads(nodes_redis)
    for node in (one, two):
        come_back(node, 20, povs, 10)
    least = len(povs) * len(nodes)
    assert least <= reads(nodes_redis) - before < 2 * least, "and not 20 times as often"

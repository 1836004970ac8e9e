"""What the wire calls a topic, and that no two things share a topic's name."""

from __future__ import annotations

import pytest

from pov_rt.protocol.topics import (
    NODES,
    TEAM_FEED,
    channel_topic,
    pov_of,
    pov_topic,
    team_topic,
    user_topic,
)
from pov_rt.registry.build import build_registry


@pytest.mark.parametrize("name", ["acme", "a/b", "team/main", "pov/acme", "nodes", "é\u2028"])
def test_the_wire_calls_a_pov_by_its_id_and_a_feed_by_its_star(name: str) -> None:
    assert pov_of(pov_topic(name)) == name
    assert pov_of(team_topic(name)) == TEAM_FEED


def test_topics_of_one_name_are_apart() -> None:
    for name in ("acme", NODES, "a/b"):
        plugins = [found.plugin.name for found in build_registry({}).found]
        topics = {pov_topic(name), team_topic(name), user_topic(name), NODES}
        topics |= {channel_topic(plugin, name) for plugin in plugins}
        assert len(topics) == 4 + len(plugins)

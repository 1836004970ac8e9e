"""The names of topics, which is what engine and hub deal in."""

from __future__ import annotations

from functools import lru_cache

from pov_rt.protocol.tenants import restore

TEAM_FEED = "*"
"""What a client subscribes to instead of a PoV id to get every activity of its team."""

NODES = "nodes"
"""The topic on which nodes tell each other what concerns connections wherever they are."""


def node_topic(run: str) -> str:
    """Return the topic on which others ask one node, and answer it; `run` is its start's name."""
    return "node/" + run


@lru_cache(maxsize=4096)
def pov_topic(pov_id: str) -> str:
    """Return the topic of a PoV's activities: one text, unless there are many at a time.

    Entries and ids keep it, and would each have a copy (docs/measurements.md, batches).
    """
    return "pov/" + pov_id


def team_topic(team_id: str) -> str:
    """Return the topic of a team's feed."""
    return "team/" + team_id


def user_topic(user_id: str) -> str:
    """Return the topic of a user's inbox."""
    return "user/" + user_id


def channel_topic(plugin: str, pov_id: str) -> str:
    """Return the topic of a plugin's own signals on a PoV."""
    return f"{plugin}/{pov_id}"


def pov_of(topic: str) -> str:
    """Return the PoV of a topic, or `*` for a team feed."""
    kind, _, name = topic.partition("/")
    return TEAM_FEED if kind == "team" else restore(name)

"""Two servers on one Redis, as in tests/nodes."""

from tests.nodes.conftest import nodes, nodes_redis, settings

__all__ = ["nodes", "nodes_redis", "settings"]

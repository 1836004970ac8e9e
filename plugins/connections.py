"""For services: who is connected, and an end to a user's connections."""

from pov_rt.plugin import ConnectionInfo, Part, Plugin, Request, check_id

plugin = Plugin("connections")

MAX_NAMED = 1000
"""Connections in one answer, for which all others wait (docs/measurements.md, lists)."""


class Connections(Part):
    """The connections of this node, those first that are open for longest; `more` are not named."""

    node: str
    connections: list[ConnectionInfo]
    more: int


@plugin.http("GET", "/connections", grant="operate", service=True)
def connections(request: Request) -> Connections:
    """List the connections of this node, or with `?userId=` a user's, `?limit=` at most."""
    host, user_id = request.host, request.query.get("userId")
    if user_id is not None:
        check_id(user_id, "userId")
    limit = request.number("limit", MAX_NAMED, 1, MAX_NAMED)
    tenant = request.user.grants.operates_on
    named = host.connections(user_id, limit=limit, tenant=tenant)
    more = host.count_connections(user_id, tenant=tenant) - len(named)
    return Connections(node=host.node, connections=list(named), more=more)


@plugin.http("POST", "/users/{user_id}/disconnect", grant="operate", service=True, price=0)
def disconnect(request: Request) -> None:
    """Close the user's connections on all nodes; their clients stay away."""
    request.host.disconnect(user_id=request.path["user_id"])

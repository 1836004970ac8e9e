"""For services: who is connected, and an end to a user's connections."""

from pov_rt.plugin import ConnectionInfo, Part, Plugin, Request

plugin = Plugin("connections")


class Connections(Part):
    """The connections of this node."""

    node: str
    connections: list[ConnectionInfo]


@plugin.http("GET", "/connections", grant="operate", service=True)
def connections(request: Request) -> Connections:
    """List the connections of this node, or with `?userId=` those of a user."""
    user_id = request.query.get("userId")
    return Connections(node=request.host.node, connections=list(request.host.connections(user_id)))


@plugin.http("POST", "/users/{user_id}/disconnect", grant="operate", service=True)
def disconnect(request: Request) -> None:
    """Close the user's connections on all nodes; their clients stay away."""
    request.host.disconnect(user_id=request.path["user_id"])

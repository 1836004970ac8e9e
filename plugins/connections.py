"""For services: an end to a user's connections."""

from pov_rt.plugin import MissingNode, Part, Plugin, Request

plugin = Plugin("connections")


class Disconnected(Part):
    """How many connections ended, on all nodes but those that are `missing`.

    These did not say so within a second, and close them when they hear of it.
    """

    closed: int
    missing: list[MissingNode]


@plugin.http("POST", "/users/{user_id}/disconnect", grant="operate", service=True, price=0)
async def disconnect(request: Request) -> Disconnected:
    """Close the user's connections on all nodes; their clients stay away."""
    order = request.host.disconnect(user_id=request.path["user_id"])
    closed = await request.host.closed(order)
    return Disconnected(closed=closed.number, missing=list(closed.missing))

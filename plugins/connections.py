"""For services: an end to a user's connections."""

from pov_rt.plugin import Plugin, Request

plugin = Plugin("connections")


@plugin.http("POST", "/users/{user_id}/disconnect", grant="operate", service=True, price=0)
def disconnect(request: Request) -> None:
    """Close the user's connections on all nodes; their clients stay away."""
    request.host.disconnect(user_id=request.path["user_id"])

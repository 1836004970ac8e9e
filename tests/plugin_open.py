"""A plugin for `test_readable`: a message and a body in which anything may be."""

from typing import Any

from pov_rt.plugin import Context, Message, Part, Plugin, Request

plugin = Plugin("open")


class Say(Message, tag="open.say"):
    """Something."""

    what: Any


class Said(Message, tag="open.said"):
    """The same."""

    what: Any


class Body(Part):
    """Something."""

    what: Any


@plugin.on(Say)
def say(message: Say, context: Context) -> Said:
    """Say it back."""
    return Said(what=message.what)


@plugin.http("POST", "/open", grant="publish", body=Body)
async def write(request: Request) -> Body:
    """Answer the same."""
    return request.body(Body)

"""Keeps a connection alive from the client's side: `ping` is answered, `pong` is accepted."""

from pov_rt.plugin import Context, Message, Plugin

plugin = Plugin("ping")


class Ping(Message, tag="ping"):
    """Ask for a sign of life."""


class Pong(Message, tag="pong"):
    """The sign of life; a client's own is accepted without an answer."""


# Unordered: a slow handler must not make its own user look dead.
@plugin.on(Ping, price=0, unordered=True)
def ping(message: Ping, context: Context) -> Pong:
    """Answer at once."""
    return Pong()


@plugin.on(Pong, price=0, unordered=True)
def pong(message: Pong, context: Context) -> None:
    """Answer nothing; any byte counts as alive."""

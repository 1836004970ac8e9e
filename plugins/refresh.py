"""A newer token for an open socket: subscriptions stay, what it grants changes at once."""

from typing import Annotated

from pov_rt.plugin import Context, Length, Message, Plugin, rfc3339

plugin = Plugin("refresh")


class Refresh(Message, tag="refresh"):
    """Go on with this token, the same user's and newer than the one in use."""

    token: Annotated[str, Length(1, 16384)]


class Refreshed(Message, tag="refreshed"):
    """The socket lives until `expires_at` (RFC 3339).

    `lost` are the PoVs that the new token does not let it be subscribed to; it no longer is.
    """

    expires_at: str
    lost: list[str]


# Unordered: a slow handler must not let the token expire that its own user has renewed. Nor must a
# debt: what it costs is charged, but there is no price that could refuse it.
@plugin.on(Refresh, rate="1/s", price=0, unordered=True)
def refresh(message: Refresh, context: Context) -> Refreshed:
    """Swap the token in place; on an error the connection stays as it was."""
    context.charge(5)
    identity = context.host.verify(message.token)
    lost = context.host.regrant(context.connection_id, identity)
    return Refreshed(expires_at=rfc3339(identity.expires_at), lost=list(lost))

"""Notifications to a user, kept until each device has acknowledged them or one has read them."""

from pov_rt.plugin import UNSET, Context, NewNotification, Part, Plugin, Request

plugin = Plugin("inbox")


class Notified(Part):
    """Where the notification is in the user's inbox; `duplicate`: its id was there before."""

    id: str
    user_id: str
    epoch: str
    offset: int
    duplicate: bool


@plugin.connected
def connected(context: Context) -> None:
    """Deliver the inbox to clients that know what a notification is."""
    if context.subprotocol:
        context.follow_inbox()


@plugin.http(
    "POST",
    "/users/{user_id}/notifications",
    grant="publish",
    service=True,
    body=NewNotification,
    price=0,
)
async def notify(request: Request) -> Notified:
    """Put a notification into a user's inbox."""
    new = request.body(NewNotification)
    await request.check_pov(None if new.pov_id is UNSET else new.pov_id)
    done = await request.host.notify(request.path["user_id"], new, sender=request.user)
    return Notified(
        id=done.id,
        user_id=request.path["user_id"],
        epoch=done.epoch,
        offset=done.offset,
        duplicate=done.duplicate,
    )

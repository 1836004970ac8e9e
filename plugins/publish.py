"""Publishing over the socket, for those whose token grants it."""

from pov_rt.plugin import Context, Message, NewActivity, Plugin

plugin = Plugin("publish")


class Publish(Message, tag="publish"):
    """Publish an activity in the connected user's name; a `userId` in it has no effect."""

    data: NewActivity


class Published(Message, tag="published"):
    """The activity is durable at this place; `duplicate`: its id was published before."""

    activity_id: str
    pov_id: str
    epoch: str
    offset: int
    duplicate: bool


@plugin.on(Publish, grant="publish")
async def publish(message: Publish, context: Context) -> Published:
    """Publish and answer with the place in the log."""
    done = await context.publish(message.data)
    return Published(
        activity_id=done.id,
        pov_id=done.pov_id,
        epoch=done.epoch,
        offset=done.offset,
        duplicate=done.duplicate,
    )

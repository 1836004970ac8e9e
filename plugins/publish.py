"""Publishing over the socket, for those whose token grants it."""

from asyncio import Future

from pov_rt.plugin import Context, Message, NewActivity, Plugin
from pov_rt.plugin import Published as Place

plugin = Plugin("publish")


class Publish(Message, tag="publish"):
    """Publish an activity in the connected user's name; a `userId` in it has no effect.

    With `echo` false a subscribed sender does not get its activity back: the answer stands in for
    it, in its place in the stream.
    """

    data: NewActivity
    echo: bool = True


class Published(Message, tag="published"):
    """The activity is durable at this place; `duplicate`: its id was published before."""

    activity_id: str
    pov_id: str
    epoch: str
    offset: int
    duplicate: bool


def is_answered_in_turn(message: Publish) -> bool:
    """Tell whether the answer waits for its turn, and not for its place in the stream."""
    return message.echo


# Pipelined: a connection that publishes a lot does not wait for each commit on its own.
@plugin.on(Publish, grant="publish", pipelined=is_answered_in_turn)
def publish(message: Publish, context: Context) -> Future[Published]:
    """Publish and answer with the place in the log."""
    instead = None if message.echo else answer
    return context.publish(message.data, answer=answer, instead=instead, field="data")


def answer(done: Place) -> Published:
    """Say where the activity is."""
    return Published(
        activity_id=done.id,
        pov_id=done.pov_id,
        epoch=done.epoch,
        offset=done.offset,
        duplicate=done.duplicate,
    )

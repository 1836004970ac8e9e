"""Notifications to a user, kept until each device has acknowledged them or one has read them."""

from typing import Annotated

from pov_rt.plugin import (
    UNSET,
    Context,
    InvalidMessage,
    Message,
    NewNotification,
    Part,
    Plugin,
    Position,
    Range,
    Request,
)


class Read(Message, tag="read"):
    """The user has read the notifications up to `offset`: no device needs them any more."""

    inbox: bool
    offset: Annotated[int, Range(0, 2**53 - 1)]


class InboxRead(Message, tag="inbox_read"):
    """The user has read the inbox up to `offset`, here or on another device."""

    epoch: str
    offset: int


plugin = Plugin("inbox", pushes=[InboxRead])


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


@plugin.on(Read)
async def read(message: Read, context: Context) -> InboxRead:
    """Move the user's mark and tell all devices."""
    if not message.inbox:
        raise InvalidMessage(field="inbox", detail="Only the inbox can be read so far")
    sent = context.delivered()
    if sent is None or message.offset > sent.offset:
        raise InvalidMessage(field="offset", detail="This connection was not sent that much")
    user_id = context.user.user_id
    position = Position(sent.epoch, message.offset)
    host = context.host
    mark = await host.marks.advance(host.inbox(user_id), user_id, "read", position)
    answer = InboxRead(epoch=mark.epoch, offset=mark.offset)
    host.send_user(user_id, answer)
    return answer


@plugin.http("POST", "/users/{user_id}/notifications", grant="publish", service=True)
async def notify(request: Request) -> Notified:
    """Put a notification into a user's inbox."""
    new = request.body(NewNotification)
    request.check_pov(None if new.pov_id is UNSET else new.pov_id)
    done = await request.host.notify(request.path["user_id"], new, sender=request.user)
    return Notified(
        id=done.id,
        user_id=request.path["user_id"],
        epoch=done.epoch,
        offset=done.offset,
        duplicate=done.duplicate,
    )

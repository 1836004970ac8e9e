"""What a user has seen, and marked unread again: told to the user's devices, and nobody else."""

from pov_rt.plugin import (
    UNSET,
    Context,
    InvalidMessage,
    MarksMessage,
    Message,
    Offset,
    Plugin,
    PovId,
    UnsetType,
)


class Seen(Message, tag="seen"):
    """The user has had a PoV, or with `inbox` the notifications, on the screen up to `offset`.

    What was read was seen, too. With the offset 0 it asks for the marks alone.
    """

    offset: Offset
    pov_id: PovId | UnsetType = UNSET
    inbox: bool = False
    epoch: str | UnsetType = UNSET


class Unread(Message, tag="unread"):
    """Mark everything of a PoV from `offset` on as unread again, whatever was read.

    The last one counts. Behind what was read it takes the one before away.
    """

    offset: Offset
    pov_id: PovId
    epoch: str | UnsetType = UNSET


plugin = Plugin("seen", pushes=[MarksMessage])


@plugin.on(Seen)
async def seen(message: Seen, context: Context) -> MarksMessage:
    """Move the user's mark, which never goes back."""
    if (message.pov_id is UNSET) != message.inbox:
        raise InvalidMessage(field="povId", detail="Send povId, or inbox: true")
    pov_id = None if message.pov_id is UNSET else message.pov_id
    position = context.delivered(message.offset, pov_id, message.epoch)
    marked, has_moved = await context.mark_seen(position, pov_id)
    answer = MarksMessage(pov_id=message.pov_id, inbox=message.inbox or UNSET, **marked._asdict())
    if has_moved:
        context.host.send_user(context.user.user_id, answer, pov_id=pov_id)
    return answer


@plugin.on(Unread)
async def unread(message: Unread, context: Context) -> MarksMessage:
    """Put the floor there, below which what was read stays so."""
    position = context.delivered(message.offset, message.pov_id, message.epoch)
    marked, has_changed = await context.mark_unread(position, message.pov_id)
    answer = MarksMessage(pov_id=message.pov_id, **marked._asdict())
    if has_changed:
        context.host.send_user(context.user.user_id, answer, pov_id=message.pov_id)
    return answer

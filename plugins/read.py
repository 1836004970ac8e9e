"""Read receipts: how far each user has read a PoV, or their own inbox."""

from collections.abc import AsyncIterator

from pov_rt.plugin import (
    MAX_SAFE_INTEGER,
    UNSET,
    Context,
    Host,
    InvalidMessage,
    Message,
    Offset,
    Part,
    Plugin,
    PovId,
    Request,
    UnsetType,
)

TICK_S = 0.25
"""What several users read in this time is told of in one frame."""
MAX_NAMED = 500


class Read(Message, tag="read"):
    """The user has read a PoV, or with `inbox` the notifications, up to `offset`."""

    offset: Offset
    pov_id: PovId | UnsetType = UNSET
    inbox: bool = False
    epoch: str | UnsetType = UNSET


class Receipts(Message, tag="receipts"):
    """Up to where users have read the PoV, those who went on since the last message."""

    pov_id: str
    read: dict[str, int]


class InboxRead(Message, tag="inbox_read"):
    """The user has read the inbox up to `offset`, here or on another device."""

    epoch: str
    offset: int


class Readers(Part):
    """Who has read the PoV up to `offset`: how many, of how many who follow it, and who.

    Those follow it who are subscribed durably, are there, or have ever read it. At most 500 are
    named.
    """

    pov_id: str
    epoch: str
    offset: int
    readers: int
    followers: int
    users: list[str]


Unread = dict[str, dict[str, int]]
"""By PoV and user: what is to be told of next."""

plugin = Plugin[Unread]("read", pushes=[Receipts, InboxRead])


@plugin.lifespan
async def unread(host: Host) -> AsyncIterator[Unread]:
    """Begin with nothing to tell."""
    yield {}


@plugin.on(Read)
async def read(message: Read, context: Context[Unread]) -> Receipts | InboxRead:
    """Move the user's mark, which never goes back."""
    if (message.pov_id is UNSET) != message.inbox:
        raise InvalidMessage(field="povId", detail="Send povId, or inbox: true")
    pov_id = None if message.pov_id is UNSET else message.pov_id
    position = context.delivered(message.offset, pov_id, message.epoch)
    host, user_id = context.host, context.user.user_id
    mark, has_moved = await context.mark_read(position, pov_id)
    answer: Receipts | InboxRead
    if pov_id is None:
        answer = InboxRead(epoch=mark.epoch, offset=mark.offset)
        if has_moved:
            host.send_user(user_id, answer)
        return answer
    answer = Receipts(pov_id=pov_id, read={user_id: mark.offset})
    if has_moved:
        # The user's other devices learn it at once, and whether they look at the PoV or not.
        host.send_user(user_id, answer)
        context.state.setdefault(pov_id, {})[user_id] = mark.offset
    return answer


@plugin.every(TICK_S)
def tick(host: Host[Unread]) -> None:
    """Tell each PoV who has read on."""
    for pov_id, users in host.state.items():
        host.broadcast(pov_id, Receipts(pov_id=pov_id, read=users))
    host.state.clear()


@plugin.http("GET", "/povs/{pov_id}/receipts", grant="subscribe")
async def readers(request: Request[Unread]) -> Readers:
    """Answer who has read `?offset=` of the PoV; without it, its newest activity."""
    pov_id, host = request.path["pov_id"], request.host
    page = await host.history(pov_id, limit=1, reverse=True)
    offset = request.number("offset", page.offset, 0, MAX_SAFE_INTEGER)
    marks = await host.marks.all(host.topic(pov_id), "read")
    users = [
        user for user, mark in marks.items() if mark.epoch == page.epoch and mark.offset >= offset
    ]
    followers = {
        *marks,
        *(await host.durable.followers(pov_id)),
        *(lease.member for lease in await host.leases.members(host.channel(pov_id, "presence"))),
    }
    return Readers(
        pov_id=pov_id,
        epoch=page.epoch,
        offset=offset,
        readers=len(users),
        followers=len(followers),
        users=sorted(users)[:MAX_NAMED],
    )

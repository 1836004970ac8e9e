"""Read receipts: how far each user has read a PoV, or their own inbox."""

from collections.abc import AsyncIterator

from pov_rt.plugin import (
    MAX_SAFE_INTEGER,
    UNSET,
    Context,
    Host,
    InvalidMessage,
    MarksMessage,
    Message,
    Offset,
    Part,
    Plugin,
    PovId,
    Request,
    UnsetType,
    wire_of,
)

TICK_S = 0.25
"""What several users read in this time is told of in one frame."""
MAX_NAMED = 500
PER_MARK = 0.02
"""What an answer costs for each user who has ever read the PoV."""
HIDDEN = "hidden"
"""The mark up to where what a user has read is not told: read without the grant `collaborate`, or
before the user lost the PoV. Who reads on with it is counted again."""


class Read(Message, tag="read"):
    """The user has read a PoV, or with `inbox` the notifications, up to `offset`.

    Others are told of those who may collaborate on the PoV.
    """

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

    Those follow it who are subscribed durably, are there, or have ever read it, but not those who
    are known to have lost it. At most 500 are named.
    """

    pov_id: str
    epoch: str
    offset: int
    readers: int
    followers: int
    users: list[str]


class News:
    """By PoV and user what is to be told of next; and who lost which PoV."""

    def __init__(self) -> None:
        self.read: dict[str, dict[str, int]] = {}
        self.lost: set[tuple[str, str]] = set()


plugin = Plugin[News]("read", pushes=[Receipts, InboxRead, MarksMessage])


@plugin.lifespan
async def news(host: Host) -> AsyncIterator[News]:
    """Begin with nothing to tell."""
    yield News()


@plugin.on(Read)
async def read(message: Read, context: Context[News]) -> Receipts | InboxRead:
    """Move the user's mark, which never goes back, and what is marked unread with it."""
    if (message.pov_id is UNSET) != message.inbox:
        raise InvalidMessage(field="povId", detail="Send povId, or inbox: true")
    pov_id = None if message.pov_id is UNSET else message.pov_id
    position = context.delivered(message.offset, pov_id, message.epoch)
    host, user_id = context.host, context.user.user_id
    is_told = pov_id is not None and await context.may("collaborate", pov_id)
    if pov_id is not None and not is_told:  # first, so that it is never told in between
        await host.marks.advance(context.topic(pov_id), user_id, HIDDEN, position)
    mark, has_moved, marked = await context.mark_read(position, pov_id)
    answer: Receipts | InboxRead
    if pov_id is None:
        answer = InboxRead(epoch=mark.epoch, offset=mark.offset)
        if has_moved:
            host.send_user(user_id, answer)
        return answer
    answer = Receipts(pov_id=pov_id, read={wire_of(user_id): mark.offset})
    if has_moved:
        # The user's other devices learn it at once, and whether they look at the PoV or not.
        host.send_user(user_id, answer, pov_id=pov_id)
        if is_told:
            context.state.read.setdefault(pov_id, {})[wire_of(user_id)] = mark.offset
    if marked is not None:
        told = MarksMessage(pov_id=pov_id, **marked._asdict())
        host.send_user(user_id, told, pov_id=pov_id)
    return answer


@plugin.lost
def lost(pov_id: str, context: Context[News]) -> None:
    """Have a user leave those who follow the PoV."""
    if pov_id != "*":
        context.state.lost.add((pov_id, context.user.user_id))


@plugin.every(TICK_S)
async def tick(host: Host[News]) -> None:
    """Tell each PoV who has read on, and hide who lost it."""
    for pov_id, users in host.state.read.items():
        # By user: who has had to catch up is told of all that went on meanwhile.
        states = {user: Receipts(pov_id=pov_id, read={user: at}) for user, at in users.items()}
        host.broadcast(pov_id, Receipts(pov_id=pov_id, read=users), states=states)
    host.state.read.clear()
    for pov_id, user_id in [*host.state.lost]:
        if not host.devices(pov_id, user_id):  # with another token the user may still see it
            topic = host.topic(pov_id)
            mark = await host.marks.get(topic, user_id, "read")
            if mark is not None:
                await host.marks.advance(topic, user_id, HIDDEN, mark)
            await host.durable.unfollow(user_id, [pov_id])
        host.state.lost.discard((pov_id, user_id))


@plugin.http("GET", "/povs/{pov_id}/receipts", grant="subscribe")
async def readers(request: Request[News]) -> Readers:
    """Answer who has read `?offset=` of the PoV; without it, its newest activity."""
    pov_id, host = request.path["pov_id"], request.host
    page = await host.history(pov_id, limit=1, reverse=True)
    offset = request.number("offset", page.offset, 0, MAX_SAFE_INTEGER)
    hidden = await host.marks.all(host.topic(pov_id), HIDDEN)
    marks = {
        user: mark
        for user, mark in (await host.marks.all(host.topic(pov_id), "read")).items()
        if user not in hidden or hidden[user].epoch != mark.epoch or hidden[user] < mark
    }
    request.charge(PER_MARK * len(marks))
    users = [
        user for user, mark in marks.items() if mark.epoch == page.epoch and mark.offset >= offset
    ]
    followers = {
        *marks,
        *(await host.durable.followers(pov_id)),
        *(
            lease.member
            for lease in await host.leases.members(host.channel(pov_id, "presence"))
            if lease.leaving_at is None
        ),
    }
    return Readers(
        pov_id=pov_id,
        epoch=page.epoch,
        offset=offset,
        readers=len(users),
        followers=len(followers),
        users=sorted(map(wire_of, users))[:MAX_NAMED],
    )

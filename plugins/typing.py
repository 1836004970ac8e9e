"""Who is typing on a PoV, and where; never stored, and over after some seconds of silence."""

from collections.abc import AsyncIterator
from typing import Annotated

from pov_rt.plugin import (
    UNSET,
    Context,
    Host,
    Length,
    Message,
    Part,
    Plugin,
    PovId,
    UnsetType,
    wire_of,
)

SILENCE_S = 6.0
"""A user who has not renewed it for this long has stopped."""
TICK_S = 0.5
"""A PoV is told of its typists at most this often, in one frame for all."""
REPEAT_S = 3.0
"""It is told again this often: a slow client may not have been sent the end."""
MAX_NAMED = 20


class Typing(Message, tag="typing"):
    """Say that one is typing, and where; repeat it every few seconds. `active: false`: stopped."""

    pov_id: PovId
    active: bool
    where: Annotated[str, Length(0, 64)] | UnsetType = UNSET


class Typist(Part):
    """A user who is typing."""

    user_id: str
    where: str | UnsetType = UNSET


class Typists(Message, tag="typing"):
    """All who are typing on the PoV, oneself perhaps among them; `more` are not named."""

    pov_id: str
    users: list[Typist]
    more: int


class Updates:
    """PoVs to look at, users who stopped, and what each PoV was told; None: it is told anew."""

    def __init__(self) -> None:
        self.changed: set[str] = set()
        self.stopped: set[tuple[str, str]] = set()
        self.told: dict[str, list[tuple[str, bytes]] | None] = {}

    def tell_anew(self, *pov_ids: str) -> None:
        """Have PoVs told by the next tick, changed or not."""
        self.changed.update(pov_ids)
        self.told.update(dict.fromkeys(pov_ids))


plugin = Plugin[Updates]("typing", pushes=[Typists])


@plugin.lifespan
async def updates(host: Host) -> AsyncIterator[Updates]:
    """Begin with nobody."""
    yield Updates()


# Unordered: what a user types is not held up by what the user does.
@plugin.on(Typing, grant="collaborate", rate="4/s", unordered=True)
async def typing(message: Typing, context: Context[Updates]) -> None:
    """Mark the user as typing or not; the next tick tells of it."""
    pov_id, user_id, host = message.pov_id, context.user.user_id, context.host
    context.require_subscribed(pov_id)
    if message.active:
        where = b"" if message.where is UNSET else message.where.encode()
        await host.leases.put(host.channel(pov_id), user_id, where)
        await host.leases.leave(host.channel(pov_id), user_id, SILENCE_S)
    else:
        await host.leases.remove(host.channel(pov_id), user_id)
    context.state.changed.add(pov_id)


@plugin.subscribed
def came(pov_id: str, context: Context[Updates]) -> None:
    """Tell a newcomer too who is typing."""
    if pov_id in context.state.told:
        context.state.tell_anew(pov_id)


@plugin.unsubscribed
def went(pov_id: str, context: Context[Updates]) -> None:
    """Mark a user as stopped who has left."""
    if pov_id in context.state.told or pov_id in context.state.changed:
        context.state.stopped.add((pov_id, context.user.user_id))


@plugin.expired
def fell_silent(pov_id: str, user_id: str, host: Host[Updates]) -> None:
    """Tell anew of a PoV on which a user's time is over; another node may have told of them."""
    host.state.tell_anew(pov_id)


@plugin.every(REPEAT_S)
def repeat(host: Host[Updates]) -> None:
    """Tell again who is typing."""
    host.state.tell_anew(*host.state.told)


@plugin.every(TICK_S)
async def tick(host: Host[Updates]) -> None:
    """Tell each PoV on which somebody began or stopped."""
    mine, stopped, changed = host.state, host.state.stopped, host.state.changed
    mine.stopped, mine.changed = set(), set()
    try:
        for pov_id, user_id in [*stopped]:
            if not host.devices(pov_id, user_id):  # in another tab they may go on
                await host.leases.remove(host.channel(pov_id), user_id)
                changed.add(pov_id)
            stopped.remove((pov_id, user_id))
        for pov_id in [*changed]:
            there = await host.leases.members(host.channel(pov_id))
            now = [(wire_of(each.member), each.body) for each in there]
            changed.remove(pov_id)
            if now == mine.told.get(pov_id, []):
                continue
            users = [Typist(user_id=a, where=b.decode() or UNSET) for a, b in now[:MAX_NAMED]]
            told = Typists(pov_id=pov_id, users=users, more=len(now) - len(users))
            host.broadcast(pov_id, told, states={"typists": told})
            mine.told[pov_id] = now
            if not now:
                del mine.told[pov_id]
    finally:  # what is left after a failure waits
        mine.stopped |= stopped
        mine.changed |= changed

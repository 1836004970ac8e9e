"""Who is on a PoV: its subscribers, each once however many tabs; gone some time after the last."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Literal

import msgspec

from pov_rt.plugin import (
    UNSET,
    Context,
    Host,
    Joined,
    Left,
    Message,
    Part,
    Plugin,
    PovId,
    Range,
    Request,
    Roster,
    UnsetType,
    rfc3339,
)

TICK_S = 0.2
"""Who comes and goes within this time is told of in one diff."""
PER_USER = 0.02
"""What an answer costs for each user on the PoV."""

State = Literal["active", "away"]


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """`grace_s`: how long a user may be without a connection, as while a page reloads."""

    grace_s: Annotated[float, Range(0, 3600)] = 10.0


class User(Part):
    """A user on a PoV; `since` is RFC 3339."""

    user_id: str
    devices: list[str]
    since: str
    state: State


class Presence(Message, tag="presence"):
    """Ask who is on a PoV, and be told of changes from then on; `state` sets one's own."""

    pov_id: PovId
    state: State | UnsetType = UNSET


class Present(Message, tag="present"):
    """Who is on the PoV; `more` are there that are not named."""

    pov_id: str
    users: list[User]
    more: int


class PresenceDiff(Message, tag="presence_diff"):
    """Who came, who left (their ids), and whose devices or state changed."""

    pov_id: str
    joined: list[User]
    left: list[str]
    changed: list[User]


plugin = Plugin[Roster[User]](
    "presence", options=Options, pushes=[PresenceDiff], announces=[Joined, Left]
)


@plugin.lifespan
async def roster(host: Host[Roster[User]]) -> AsyncIterator[Roster[User]]:
    """Begin with nobody; at the end all have begun to leave, and another node tells who did."""

    def describe(pov_id: str, user_id: str, known: User | None) -> User | None:
        devices = [*host.devices(pov_id, user_id)]
        if known is None:
            now = rfc3339(host.clock.time())
            known = User(user_id=user_id, devices=devices, since=now, state="active")
        return msgspec.structs.replace(known, user_id=user_id, devices=devices) if devices else None

    yield Roster(host, User, describe, grace_s=host.options(Options).grace_s)
    await tick(host)


@plugin.subscribed
@plugin.unsubscribed
def touch(pov_id: str, context: Context[Roster[User]]) -> None:
    """Look at a user whose connection came or went; the next tick tells of it."""
    if pov_id != "*":
        context.state.touch(pov_id, context.user.user_id)


@plugin.gone
def gone(pov_id: str, user_ids: Sequence[str], host: Host[Roster[User]]) -> None:
    """Tell those who listen here of users whose time is over, as every node does."""
    told = PresenceDiff(pov_id=pov_id, joined=[], left=[*user_ids], changed=[])
    host.broadcast(pov_id, told, listeners=True, here=True)
    host.state.ended(pov_id, user_ids)


@plugin.expired
def expired(pov_id: str, user_id: str, host: Host[Roster[User]]) -> None:
    """Tell the other plugins, on one node."""
    host.announce(Left(pov_id=pov_id, user_id=user_id))


@plugin.lapsed
def lapsed(host: Host[Roster[User]]) -> None:
    """Enter everybody again, when the other nodes have taken this one for dead."""
    host.state.enter_again()


@plugin.erased
async def erased(user_id: str, host: Host[Roster[User]]) -> None:
    """Have them leave at once, without the grace of those who may be back."""
    await host.state.drop(user_id)


@plugin.every(TICK_S)
async def tick(host: Host[Roster[User]]) -> None:
    """Tell each PoV of its changes in one diff, and the other plugins."""
    for pov_id, diff in (await host.state.look()).items():
        told = PresenceDiff(pov_id=pov_id, joined=diff.joined, left=diff.left, changed=diff.changed)
        host.broadcast(pov_id, told, listeners=True)
        for user in diff.joined:
            host.announce(Joined(pov_id=pov_id, user_id=user.user_id))
        for user_id in diff.left:
            host.announce(Left(pov_id=pov_id, user_id=user_id))


@plugin.on(Presence, grant="collaborate")
async def presence(message: Presence, context: Context[Roster[User]]) -> Present:
    """Answer who is there; what changes from here on is told."""
    pov_id = message.pov_id
    context.require_subscribed(pov_id)
    if message.state is not UNSET:
        context.state.touch(pov_id, context.user.user_id, state=message.state)
    await tick(context.host)  # the answer has what happened so far, oneself included
    await context.listen(pov_id)
    answer = await snapshot(pov_id, context.state)
    context.charge(PER_USER * (len(answer.users) + answer.more))
    return answer


@plugin.http("GET", "/povs/{pov_id}/presence", grant="collaborate")
async def who(request: Request[Roster[User]]) -> Present:
    """Answer who is on the PoV."""
    answer = await snapshot(request.path["pov_id"], request.state)
    request.charge(PER_USER * (len(answer.users) + answer.more))
    return answer


async def snapshot(pov_id: str, roster: Roster[User]) -> Present:
    """Read who is on a PoV, on all nodes."""
    users, more = await roster.members(pov_id)
    return Present(pov_id=pov_id, users=users, more=more)

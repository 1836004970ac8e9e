"""Who is on a PoV: its subscribers, each once however many tabs; gone some time after the last."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

import msgspec

from pov_rt.plugin import (
    UNSET,
    Context,
    Forbidden,
    Host,
    Message,
    Part,
    Plugin,
    PovId,
    Range,
    Request,
    UnsetType,
    rfc3339,
)

MAX_USERS = 500
"""Users of a PoV that one answer names; of more it says how many."""
TICK_S = 0.2
"""Who comes and goes within this time is told of in one diff."""


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """`grace_s`: how long a user may be without a connection, as while a page reloads."""

    grace_s: Annotated[float, Range(0, 3600)] = 10.0


class User(Part):
    """A user on a PoV; `since` is RFC 3339."""

    user_id: str
    devices: list[str]
    since: str
    state: Literal["active", "away"]


class Presence(Message, tag="presence"):
    """Ask who is on a PoV, and be told of changes from then on; `state` sets one's own."""

    pov_id: PovId
    state: Literal["active", "away"] | UnsetType = UNSET


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


Key = tuple[str, str]
"""A PoV and a user."""


class Here:
    """What this node knows of the users who are connected to it, or were until a moment ago."""

    def __init__(self) -> None:
        self.devices: dict[Key, dict[str, str]] = {}  # by connection
        self.since: dict[Key, str] = {}
        self.state: dict[Key, Literal["active", "away"]] = {}
        self.told: dict[Key, User] = {}
        self.changed: dict[Key, None] = {}
        self.diffs: dict[str, PresenceDiff] = {}
        self.lock = asyncio.Lock()

    def user(self, key: Key) -> User:
        """Return a user who is connected here."""
        devices = sorted(set(self.devices[key].values()))
        state = self.state.get(key, "active")
        return User(user_id=key[1], devices=devices, since=self.since[key], state=state)

    def forget(self, key: Key) -> None:
        """Forget a user who is gone."""
        for known in (self.since, self.state, self.told):
            known.pop(key, None)

    def diff(self, pov_id: str) -> PresenceDiff:
        """Return what is to be told of a PoV next."""
        if pov_id not in self.diffs:
            self.diffs[pov_id] = PresenceDiff(pov_id=pov_id, joined=[], left=[], changed=[])
        return self.diffs[pov_id]


plugin = Plugin[Here]("presence", options=Options, pushes=[PresenceDiff])

encode, decode = msgspec.json.encode, msgspec.json.Decoder(User).decode


@plugin.lifespan
async def here(host: Host) -> AsyncIterator[Here]:
    """Begin with nobody."""
    yield Here()


@plugin.subscribed
def came(pov_id: str, context: Context[Here]) -> None:
    """Take note of a connection; the next tick tells of it."""
    key, mine = (pov_id, context.user.user_id), context.state
    if pov_id != "*":
        mine.devices.setdefault(key, {})[context.connection_id] = context.device
        mine.since.setdefault(key, rfc3339(context.host.clock.time()))
        mine.changed[key] = None


@plugin.unsubscribed
def went(pov_id: str, context: Context[Here]) -> None:
    """Take note that a connection is gone."""
    key = (pov_id, context.user.user_id)
    if context.state.devices.get(key, {}).pop(context.connection_id, None) is not None:
        context.state.changed[key] = None


@plugin.on(Presence, grant="collaborate")
async def presence(message: Presence, context: Context[Here]) -> Present:
    """Answer who is there; what changes from here on is told."""
    pov_id = message.pov_id
    if not context.subscribed(pov_id):
        raise Forbidden("Subscribe first", field="povId")
    if message.state is not UNSET:
        key = (pov_id, context.user.user_id)
        context.state.state[key] = message.state
        context.state.changed[key] = None
    await tick(context.host)  # the answer has what happened so far, oneself included
    await context.listen(pov_id)
    return await snapshot(pov_id, context.host)


@plugin.http("GET", "/povs/{pov_id}/presence", grant="subscribe")
async def who(request: Request[Here]) -> Present:
    """Answer who is on the PoV."""
    return await snapshot(request.path["pov_id"], request.host)


async def snapshot(pov_id: str, host: Host[Here]) -> Present:
    """Read who is on a PoV, on all nodes."""
    members = await host.leases.members(host.channel(pov_id))
    users = [decode(lease.body) for lease in members[:MAX_USERS]]
    return Present(pov_id=pov_id, users=users, more=len(members) - len(users))


@plugin.every(TICK_S)
async def tick(host: Host[Here]) -> None:
    """Enter what changed into the leases, and tell each PoV in one diff."""
    mine = host.state
    async with mine.lock:  # whoever asks may come in between
        changed, mine.changed = mine.changed, {}
        for key in changed:
            pov_id, user_id = key
            if mine.devices.get(key):
                user = mine.user(key)
                is_new = await host.leases.put(host.channel(pov_id), user_id, encode(user))
                if is_new:
                    mine.diff(pov_id).joined.append(user)
                elif user != mine.told.get(key):
                    mine.diff(pov_id).changed.append(user)
                mine.told[key] = user
            elif mine.devices.pop(key, None) is not None:
                grace_s = host.options(Options).grace_s
                if not await host.leases.leave(host.channel(pov_id), user_id, grace_s):
                    mine.forget(key)  # it came and went before anybody was told
        diffs, mine.diffs = mine.diffs, {}
        for pov_id, diff in diffs.items():
            host.broadcast(pov_id, diff, listeners=True)


@plugin.expired
def left(pov_id: str, user_id: str, host: Host[Here]) -> None:
    """Take note that a user's time is over; the next tick tells of it."""
    mine, key = host.state, (pov_id, user_id)
    if mine.devices.get(key):
        mine.changed[key] = None  # it came back in the last moment, and joins again
        return
    mine.forget(key)
    mine.diff(pov_id).left.append(user_id)

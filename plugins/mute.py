"""Mutes: how loud each PoV is for a user, on all devices. Clients keep to it, not the server."""

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from pov_rt.plugin import (
    UNSET,
    Context,
    Host,
    InvalidMessage,
    KeptByPov,
    Message,
    Part,
    Plugin,
    PovOrFeed,
    Unavailable,
    UnsetType,
    rfc3339,
)

MAX_MUTES = 200
"""Of one user."""
DAY_S = 86400.0
IDLE_S = 180 * DAY_S
"""One is kept for so long after its user has last asked for them."""
PER_MUTE = 0.02
"""What an answer costs for each of them."""

Level = Literal["off", "feed", "toast", "sound"]


class Mute(Message, tag="mute"):
    """Say how loud a PoV, or with `*` the team feed, is for the user.

    For good, or until an instant (RFC 3339 with a time zone): then it is as it was for good before.
    Without a `level` it is again as it was by default.
    """

    # No PovId: whoever lost the right to see a PoV must still be able to forget it.
    pov_id: PovOrFeed
    level: Level | UnsetType = UNSET
    until: Annotated[datetime, msgspec.Meta(tz=True)] | UnsetType = UNSET


class Muted(Message, tag="muted"):
    """How loud the PoV is for the user from now on; without a `level`: as by default.

    `then` is the level after `until`; absent: as by default.
    """

    pov_id: str
    level: Level | UnsetType = UNSET
    until: str | UnsetType = UNSET
    then: Level | UnsetType = UNSET


class Mutes(Message, tag="mutes"):
    """Ask for all that is not as by default."""


class Muting(Part):
    """How loud one PoV is."""

    pov_id: str
    level: Level
    until: str | UnsetType = UNSET
    then: Level | UnsetType = UNSET


class Mutings(Message, tag="mutes"):
    """All PoVs that are not as by default, also those that the user may not see now."""

    mutes: list[Muting]


class Kept(msgspec.Struct, array_like=True):
    """What is stored; the times are seconds since 1970."""

    level: Level
    used_at: float
    until: float | None
    then: Level | None = None

    def expires_at(self) -> float:
        """Return when it is forgotten."""
        idle_at = self.used_at + IDLE_S
        return idle_at if self.until is None or self.then else min(idle_at, self.until)

    def at(self, now: float) -> "Kept":
        """Return what holds now."""
        if self.then is None or self.until is None or self.until > now:
            return self
        return Kept(self.then, self.used_at, None)

    @property
    def for_good(self) -> Level | None:
        """What is left when no instant is waited for."""
        return self.level if self.until is None else self.then

    def told(self) -> tuple[str | UnsetType, Level | UnsetType]:
        """Return `until` and `then` as clients are told."""
        until = UNSET if self.until is None else rfc3339(self.until)
        return until, self.then or UNSET


plugin = Plugin[KeptByPov]("mute", pushes=[Muted])
_decode = msgspec.json.Decoder(Kept).decode


@plugin.lifespan
async def kept(host: Host) -> AsyncIterator[KeptByPov]:
    """Keep them in the engine."""
    yield KeptByPov(host.sets, "mutes", "muted PoVs")


@plugin.on(Mute)
async def mute(message: Mute, context: Context[KeptByPov]) -> Muted:
    """Remember it, and tell the user's other devices."""
    user_id, pov_id, now = context.user.user_id, message.pov_id, context.host.clock.time()
    level, until = message.level, None if message.until is UNSET else message.until.timestamp()
    if until is not None and (level is UNSET or until <= now):
        detail = "Nothing ends without a level" if level is UNSET else "This has passed already"
        raise InvalidMessage(field="until", detail=detail)
    if level is UNSET:
        await context.state.remove(user_id, pov_id)
        answer = Muted(pov_id=pov_id)
    else:
        await context.check_pov(pov_id, "subscribe")
        new = Kept(level, now, until)
        if until is not None and (before := (await context.state.of(user_id)).get(pov_id)):
            new.then = _decode(before).at(now).for_good
        await put(context, pov_id, new)
        ends, then = new.told()
        answer = Muted(pov_id=pov_id, level=level, until=ends, then=then)
    context.host.send_user(user_id, answer)
    return answer


@plugin.on(Mutes)
async def mutes(message: Mutes, context: Context[KeptByPov]) -> Mutings:
    """Answer all of the user's, which are used by that."""
    now, found = context.host.clock.time(), await context.state.of(context.user.user_id)
    context.charge(PER_MUTE * len(found))
    listed = []
    for pov_id, body in found.items():
        each = _decode(body).at(now)
        if now - each.used_at >= DAY_S:
            each.used_at = now
            with suppress(Unavailable):  # a full disk can be read
                await put(context, pov_id, each, body)
        listed.append(muting(pov_id, each))
    return Mutings(mutes=listed)


@plugin.erased
async def erased(user_id: str, host: Host[KeptByPov]) -> None:
    """Forget all of the user's."""
    await host.state.clear(user_id)


@plugin.exported
async def exported(user_id: str, host: Host[KeptByPov]) -> AsyncIterator[Muting]:
    """Yield all of the user's."""
    now = host.clock.time()
    for pov_id, body in (await host.state.of(user_id)).items():
        yield muting(pov_id, _decode(body).at(now))


def muting(pov_id: str, kept: Kept) -> Muting:
    """Return what is told of a mute."""
    until, then = kept.told()
    return Muting(pov_id=pov_id, level=kept.level, until=until, then=then)


async def put(
    context: Context[KeptByPov], pov_id: str, new: Kept, instead_of: bytes | None = None
) -> None:
    """Keep how loud a PoV is; with `instead_of` only where nobody has changed it meanwhile."""
    await context.state.put(
        context.user.user_id,
        pov_id,
        msgspec.json.encode(new),
        most=MAX_MUTES,
        expires_at=new.expires_at(),
        instead_of=instead_of,
    )

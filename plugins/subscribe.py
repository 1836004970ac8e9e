"""Subscriptions: what happens on a PoV is pushed, from now on or from where the client was."""

import asyncio
from typing import Annotated, Any, Literal

import msgspec

from pov_rt.plugin import (
    MAX_ID_CHARS,
    UNSET,
    ClientError,
    Context,
    Digest,
    Guarantee,
    InvalidMessage,
    Length,
    LimitExceeded,
    Message,
    Only,
    Part,
    Plugin,
    Position,
    Range,
    Since,
    UnsetType,
)

MAX_DURABLE = 200
"""Durable subscriptions of one user."""

# No PovId: `*` is the team feed, and one bad id of many must not refuse the others. The context
# checks the ids and what the token grants.
Name = Annotated[str, Length(1, MAX_ID_CHARS)]


class Place(Part):
    """A position (`epoch` and `offset`) after which everything is wanted, or the `last` so many."""

    epoch: Annotated[str, Length(1, 64)] | UnsetType = UNSET
    offset: Annotated[int, Range(0, 2**53 - 1)] | UnsetType = UNSET
    last: Annotated[int, Range(1, 1000)] | UnsetType = UNSET


Kinds = Annotated[list[Annotated[str, Length(1, 64)]], Length(1, 50)]
Users = Annotated[list[Name], Length(1, 50)]


class Filter(Part):
    """Of which types, actions and users activities are wanted; those of `notUsers` never are."""

    types: Kinds | UnsetType = UNSET
    actions: Kinds | UnsetType = UNSET
    users: Users | UnsetType = UNSET
    not_users: Users | UnsetType = UNSET


class Subscribe(Message, tag="subscribe"):
    """Subscribe to one PoV (`povId`, or `*` for the team feed) or to several (`povIds`).

    `since` says from where: a position, `"cursor"` for where this device acknowledged, or
    `{last: n}`; `positions` does so for each of several. `only` leaves out what it does not name.
    `durable` remembers the subscription, with its filter.
    """

    pov_id: Name | UnsetType = UNSET
    pov_ids: Annotated[list[Name], Length(1, 200)] | UnsetType = UNSET
    since: Literal["cursor"] | Place | UnsetType = UNSET
    positions: dict[str, Place] | UnsetType = UNSET
    only: Filter | UnsetType = UNSET
    durable: bool = False


encode, decode = msgspec.json.encode, msgspec.json.Decoder(Filter).decode


class Resume(Message, tag="resume"):
    """Subscribe to all that the user subscribed to durably, from this device's cursors."""


class Result(Part):
    """What became of one subscription: where it begins, or an error."""

    pov_id: str
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    oldest_offset: int | UnsetType = UNSET
    guarantee: Guarantee | UnsetType = UNSET
    filtered: bool | UnsetType = UNSET
    read_offset: int | UnsetType = UNSET
    unread: int | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET
    missed: int | UnsetType = UNSET
    digest: Digest | UnsetType = UNSET
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


# With the fields of `Result` once more: a struct cannot have two bases with fields.
class Answer(Message, tag="subscribed"):
    """The subscription stands. Everything after `offset` follows, or after `since` if `recovered`.

    Of what is `filtered` not all is sent; a `position` says now and then how far it has come. Of
    what was `missed` and is not recovered, the `digest` says how much it was.
    """

    pov_id: str | UnsetType = UNSET
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    oldest_offset: int | UnsetType = UNSET
    guarantee: Guarantee | UnsetType = UNSET
    filtered: bool | UnsetType = UNSET
    read_offset: int | UnsetType = UNSET
    unread: int | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET
    missed: int | UnsetType = UNSET
    digest: Digest | UnsetType = UNSET
    pov_ids: list[str] | UnsetType = UNSET
    results: list[Result] | UnsetType = UNSET


class PositionMessage(Message, tag="position"):
    """How far a filtered subscription has come, of which not all is sent."""

    pov_id: str
    offset: int


plugin = Plugin("subscribe", pushes=[PositionMessage])


@plugin.on(Subscribe)
async def subscribe(message: Subscribe, context: Context) -> Answer:
    """Subscribe the connection."""
    if message.pov_id is not UNSET and message.pov_ids is not UNSET:
        raise InvalidMessage(field="povIds", detail="Send povId or povIds, not both")
    if message.pov_id is not UNSET:
        return Answer(**await enter(message.pov_id, message.since, message.only, message, context))
    if message.pov_ids is UNSET:
        raise InvalidMessage(field="povId")
    places = message.positions or {}
    wanted = [
        (pov_id, places.get(pov_id, message.since), message.only) for pov_id in message.pov_ids
    ]
    return await enter_all(wanted, message, context)


@plugin.on(Resume)
async def resume(message: Resume, context: Context) -> Answer:
    """Subscribe the connection to the user's durable subscriptions."""
    kept = await context.host.sets.members(f"durable/{context.user.user_id}")
    wanted = [
        (pov_id, "cursor", decode(body) if body else UNSET) for pov_id, body in sorted(kept.items())
    ]
    return await enter_all(wanted, message, context)


async def enter_all(
    wanted: list[tuple[str, Any, Any]], message: Message, context: Context
) -> Answer:
    """Subscribe to several; what goes wrong with one is said in its place."""
    async with asyncio.TaskGroup() as group:
        entering = [
            group.create_task(try_to_enter(*each, message=message, context=context))
            for each in wanted
        ]
    results = [task.result() for task in entering]
    return Answer(pov_ids=[pov_id for pov_id, _, _ in wanted], results=results)


async def try_to_enter(
    pov_id: str, place: Any, only: Any, *, message: Message, context: Context
) -> Result:
    """Subscribe to one of several."""
    try:
        return Result(**await enter(pov_id, place, only, message, context))
    except ClientError as error:
        return Result(pov_id=pov_id, code=error.code, message=error.message)


async def enter(
    pov_id: str, place: Any, wanted: Any, message: Message, context: Context
) -> dict[str, Any]:
    """Subscribe to one; return what its answer says."""
    since, only = await resolve(pov_id, place, context), only_of(wanted)
    done = await context.subscribe(pov_id, since, only)
    if isinstance(message, Subscribe) and message.durable:
        await remember(pov_id, b"" if wanted is UNSET else encode(wanted), context)
    fields: dict[str, Any] = {
        "pov_id": done.pov_id,
        "epoch": done.epoch,
        "offset": done.offset,
        "oldest_offset": done.oldest_offset,
        "guarantee": done.guarantee,
    }
    if only is not None:
        fields["filtered"] = True
    if context.subprotocol and pov_id != "*":
        # Up to where the user has read it, on whatever device.
        user_id = context.user.user_id
        mark = await context.host.marks.get(context.topic(pov_id), user_id, "read")
        read = mark.offset if mark is not None and mark.epoch == done.epoch else 0
        fields |= {"read_offset": read, "unread": done.offset - read}
    if place is not UNSET:
        # Without a cursor nobody knows what the device has: its app has to load everything.
        fields["recovered"] = done.recovered is True
    if done.missed:
        fields["missed"] = done.missed
        if isinstance(since, Position) and pov_id != "*":
            fields["digest"] = await context.host.digest(pov_id, since.offset)
    return fields


async def resolve(pov_id: str, place: Any, context: Context) -> Since | None:
    """Turn what the client asks for into a position; None: from now on."""
    if place is UNSET:
        return None
    if place == "cursor":
        return await context.cursor(pov_id)
    if place.last is not UNSET and place.epoch is place.offset is UNSET:
        return int(place.last)
    if place.last is not UNSET or place.epoch is UNSET or place.offset is UNSET:
        raise InvalidMessage(field="since", detail="Send epoch and offset, or last")
    return Position(place.epoch, place.offset)


def only_of(wanted: Any) -> Only | None:
    """Turn what the client wants into a filter; None: everything."""
    if wanted is UNSET or wanted == Filter():
        return None
    named = (wanted.types, wanted.actions, wanted.users)
    types, actions, users = (None if each is UNSET else frozenset(each) for each in named)
    return Only(types, actions, users, frozenset(wanted.not_users or ()))


async def remember(pov_id: str, body: bytes, context: Context) -> None:
    """Make a subscription durable: for the user, and for those who ask who follows the PoV."""
    user_id, sets = context.user.user_id, context.host.sets
    mine = await sets.members(f"durable/{user_id}")
    if pov_id not in mine and len(mine) >= MAX_DURABLE:
        raise LimitExceeded(f"A user has at most {MAX_DURABLE} durable subscriptions")
    await sets.add(f"durable/{user_id}", pov_id, body)
    await sets.add(f"followers/{pov_id}", user_id)

"""Subscriptions: what happens on a PoV is pushed, from now on or from where the client was."""

from functools import partial
from typing import Annotated, Any, Literal

import msgspec

from pov_rt.plugin import (
    UNSET,
    ClientError,
    Context,
    Digest,
    Guarantee,
    InvalidMessage,
    Length,
    Message,
    Only,
    Part,
    Place,
    Plugin,
    Position,
    PovOrFeed,
    UncheckedId,
    UnsetType,
    check_distinct,
)

From = Literal["cursor"] | Place | UnsetType
Wanted = tuple[str, Any, Only | None]


class Subscribe(Message, tag="subscribe"):
    """Subscribe to one PoV (`povId`, or `*` for the team feed) or to several (`povIds`).

    `since` says from where: a position, `"cursor"` for where this device acknowledged, or
    `{last: n}`; `positions` does so for each of several. `only` leaves out what it does not name.
    `durable` remembers the subscription, with its filter.
    """

    pov_id: PovOrFeed | UnsetType = UNSET
    pov_ids: Annotated[list[UncheckedId], Length(1, 200)] | UnsetType = UNSET
    since: From = UNSET
    positions: dict[UncheckedId, Place] | UnsetType = UNSET
    only: Only | UnsetType = UNSET
    durable: bool = False


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


# As much as it has PoVs.
@plugin.on(Subscribe, price=lambda asked: 1 if asked.pov_ids is UNSET else len(asked.pov_ids))
async def subscribe(message: Subscribe, context: Context) -> Answer:
    """Subscribe the connection."""
    if message.pov_id is not UNSET and message.pov_ids is not UNSET:
        raise InvalidMessage(field="povIds", detail="Send povId or povIds, not both")
    only, keep = message.only or None, message.durable
    if message.pov_id is not UNSET:
        return Answer(**await enter(message.pov_id, message.since, only, keep, context))
    if message.pov_ids is UNSET:
        raise InvalidMessage(field="povId")
    check_distinct(message.pov_ids, "povIds")
    places = message.positions or {}
    wanted = [(pov_id, places.get(pov_id, message.since), only) for pov_id in message.pov_ids]
    return await enter_all(wanted, keep, context)


@plugin.on(Resume)
async def resume(message: Resume, context: Context) -> Answer:
    """Subscribe the connection to the user's durable subscriptions."""
    durable, user_id = context.host.durable, context.user.user_id
    kept = (await durable.of(user_id)).items()
    context.charge(len(kept))
    answer = await enter_all([(pov_id, "cursor", only) for pov_id, only in kept], False, context)
    lost = [each.pov_id for each in answer.results or () if each.code == "forbidden"]
    await durable.unfollow(user_id, lost)
    return answer


async def enter_all(wanted: list[Wanted], keep: bool, context: Context) -> Answer:
    """Subscribe to several at a time; what goes wrong with one is said in its place."""
    done = await context.several(
        {pov_id: partial(enter, pov_id, place, only, keep) for pov_id, place, only in wanted}
    )
    results = {
        pov_id: Result(pov_id=pov_id, code=each.code, message=each.message)
        if isinstance(each, ClientError)
        else Result(**each)
        for pov_id, each in done.items()
    }
    pov_ids = [pov_id for pov_id, _, _ in wanted]
    return Answer(pov_ids=pov_ids, results=[results[pov_id] for pov_id in pov_ids])


async def enter(
    pov_id: str, place: From, only: Only | None, keep: bool, context: Context
) -> dict[str, Any]:
    """Subscribe to one; return what its answer says."""
    since = place.since() if isinstance(place, Place) else None
    if place == "cursor":
        since = await context.cursor(pov_id)
    done = await context.subscribe(pov_id, since, only, durable=keep)
    fields = msgspec.structs.asdict(done) | {
        "filtered": bool(only) or UNSET,
        # Without a cursor nobody knows what the device has: its app has to load everything.
        "recovered": UNSET if place is UNSET else done.recovered is True,
        "missed": done.missed or UNSET,
    }
    del fields["newest"]
    if pov_id == "*":
        return fields
    # Nothing that an answer can do without decides whether it comes.
    if context.subprotocol and (read := await context.unread(done)) is not None:
        fields |= read._asdict()
    if done.missed and isinstance(since, Position):
        fields["digest"] = await context.digest(pov_id, since.offset) or UNSET
    return fields

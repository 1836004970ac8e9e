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
    Subscribed,
    UncheckedId,
    UnsetType,
    check_distinct,
)

From = Literal["cursor"] | Place | UnsetType
Wanted = tuple[str, Any, Only | None]
Entered = tuple[Subscribed, dict[str, Any]]
"""A subscription, and the fields of its answer."""


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
    seen_offset: int | UnsetType = UNSET
    unread_from: int | UnsetType = UNSET
    unread: int | UnsetType = UNSET
    unseen: int | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET
    after: int | UnsetType = UNSET
    missed: int | UnsetType = UNSET
    digest: Digest | UnsetType = UNSET
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


# With the fields of `Result` once more: a struct cannot have two bases with fields.
class Answer(Message, tag="subscribed"):
    """The subscription stands. Everything after `offset` follows, or after `after` if `recovered`.

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
    seen_offset: int | UnsetType = UNSET
    unread_from: int | UnsetType = UNSET
    unread: int | UnsetType = UNSET
    unseen: int | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET
    after: int | UnsetType = UNSET
    missed: int | UnsetType = UNSET
    digest: Digest | UnsetType = UNSET
    pov_ids: list[str] | UnsetType = UNSET
    results: list[Result] | UnsetType = UNSET


class PositionMessage(Message, tag="position"):
    """How far a subscription has come where not all is sent, as with a filter.

    With an `epoch`: the log has this one from here on, and holds all that was sent up to `offset`.
    """

    pov_id: str
    epoch: str | UnsetType = UNSET
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
        one = await join(message.pov_id, message.since, only, keep, context)
        await add_marks({message.pov_id: one}, context)
        return Answer(**one[1])
    if message.pov_ids is UNSET:
        raise InvalidMessage(field="povId", detail="Send povId or povIds")
    check_distinct(message.pov_ids, "povIds")
    places = message.positions or {}
    wanted = [(pov_id, places.get(pov_id, message.since), only) for pov_id in message.pov_ids]
    return await join_all(wanted, keep, context)


@plugin.on(Resume)
async def resume(message: Resume, context: Context) -> Answer:
    """Subscribe the connection to the user's durable subscriptions."""
    kept = (await context.host.durable.of(context.user.user_id)).items()
    context.charge(len(kept))
    answer = await join_all([(pov_id, "cursor", only) for pov_id, only in kept], False, context)
    lost = [each.pov_id for each in answer.results or () if each.code == "forbidden"]
    await context.host.durable.unfollow(context.user.user_id, lost)
    return answer


async def join_all(wanted: list[Wanted], keep: bool, context: Context) -> Answer:
    """Subscribe to several at a time; what goes wrong with one is said in its place."""
    done = await context.several(
        {pov_id: partial(join, pov_id, place, only, keep) for pov_id, place, only in wanted},
        partial(add_marks, context=context),
    )
    results = [
        Result(pov_id=pov_id, code=each.code, message=each.message)
        if isinstance(each, ClientError)
        else Result(**each[1])
        for pov_id, each in done.items()
    ]
    return Answer(pov_ids=[*done], results=results)


async def join(pov_id: str, at: From, only: Only | None, keep: bool, context: Context) -> Entered:
    """Subscribe to one; return what its answer says, but for the marks."""
    named = at.since() if isinstance(at, Place) else None
    since = await context.cursor(pov_id) if at == "cursor" else named
    done = await context.subscribe(pov_id, since, only, durable=keep)
    fields = msgspec.structs.asdict(done) | {
        "filtered": bool(only) or UNSET,
        # Without a cursor nobody knows what the device has: its app has to load everything.
        "recovered": UNSET if at is UNSET else done.recovered is True,
        "missed": done.missed or UNSET,
    }
    del fields["newest"]
    # Nothing that an answer can do without decides whether it comes.
    if pov_id != "*" and done.missed and isinstance(since, Position):
        fields["digest"] = await context.digest(pov_id, since.offset) or UNSET
    return done, fields


async def add_marks(entered: dict[str, Entered], context: Context) -> None:
    """Add what the user has seen and read: last, so that it is true when the answer is sent."""
    marked = await context.marked([subscribed for subscribed, _ in entered.values()])
    for pov_id, marks in marked.items():
        entered[pov_id][1].update(marks._asdict())

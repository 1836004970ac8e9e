"""Subscriptions: what happens on a PoV is pushed to those who subscribed to it."""

from typing import Annotated

from pov_rt.plugin import (
    MAX_ID_CHARS,
    UNSET,
    ClientError,
    Context,
    Guarantee,
    InvalidMessage,
    Length,
    Message,
    Part,
    Plugin,
    Subscribed,
    UnsetType,
)

plugin = Plugin("subscribe")

# No PovId: `*` is the team feed, and one bad id of many must not refuse the others. The context
# checks the ids and what the token grants.
Name = Annotated[str, Length(1, MAX_ID_CHARS)]


class Subscribe(Message, tag="subscribe"):
    """Subscribe to one PoV (`povId`, or `*` for the team feed) or to several (`povIds`)."""

    pov_id: Name | UnsetType = UNSET
    pov_ids: Annotated[list[Name], Length(1, 200)] | UnsetType = UNSET


class Answer(Message, tag="subscribed"):
    """The subscription stands; everything after `offset` follows.

    `guarantee` says what an acknowledged activity survives: `process`, `disk` or `primary`.
    """

    pov_id: str | UnsetType = UNSET
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    oldest_offset: int | UnsetType = UNSET
    guarantee: Guarantee | UnsetType = UNSET
    pov_ids: list[str] | UnsetType = UNSET
    results: "list[Result] | UnsetType" = UNSET


class Result(Part):
    """What became of one of `povIds`: a position, or an error."""

    pov_id: str
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    oldest_offset: int | UnsetType = UNSET
    guarantee: Guarantee | UnsetType = UNSET
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


@plugin.on(Subscribe)
async def subscribe(message: Subscribe, context: Context) -> Answer:
    """Subscribe the connection."""
    if message.pov_id is not UNSET and message.pov_ids is not UNSET:
        raise InvalidMessage(field="povIds", detail="Send povId or povIds, not both")
    if message.pov_id is not UNSET:
        done = await context.subscribe(message.pov_id)
        return Answer(
            pov_id=done.pov_id,
            epoch=done.epoch,
            offset=done.offset,
            oldest_offset=done.oldest_offset,
            guarantee=done.guarantee,
        )
    if message.pov_ids is UNSET:
        raise InvalidMessage(field="povId")
    results = [await result_of(pov_id, context) for pov_id in message.pov_ids]
    return Answer(pov_ids=message.pov_ids, results=results)


async def result_of(pov_id: str, context: Context) -> Result:
    """Subscribe to one of several."""
    try:
        done: Subscribed = await context.subscribe(pov_id)
    except ClientError as error:
        return Result(pov_id=pov_id, code=error.code, message=error.message)
    return Result(
        pov_id=pov_id,
        epoch=done.epoch,
        offset=done.offset,
        oldest_offset=done.oldest_offset,
        guarantee=done.guarantee,
    )

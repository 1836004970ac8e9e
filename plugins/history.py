"""Pages of what happened on a PoV, both ways, also of chosen sorts of activities alone."""

import asyncio
from typing import Annotated

from pov_rt.plugin import (
    UNSET,
    Activity,
    AuthorId,
    Context,
    InvalidMessage,
    Length,
    Message,
    Offset,
    Only,
    Part,
    Plugin,
    PovId,
    Range,
    UnsetType,
)

plugin = Plugin("history")

PAGE = 200
"""Activities looked at in one turn of the loop (docs/measurements.md, pages of history)."""
MAX_SEARCHED = 5_000
"""Activities looked at for one answer: what is rare takes several, each with where to go on."""
MAX_BYTES = 256 * 1024
"""Of activities in one answer, save for the last one of them."""

Names = Annotated[list[Annotated[str, Length(1, 64)]], Length(1, 20)]


class History(Message, tag="history"):
    """Ask for activities after an offset, the oldest first; or before one, the newest first.

    With neither, for the newest. `types`, `actions` and `users` leave out all others.
    """

    pov_id: PovId
    after: Offset | UnsetType = UNSET
    before: Offset | UnsetType = UNSET
    limit: Annotated[int, Range(1, 1000)] = 100
    types: Names | UnsetType = UNSET
    actions: Names | UnsetType = UNSET
    users: Annotated[list[AuthorId], Length(1, 50)] | UnsetType = UNSET


class Item(Part):
    """An activity with its place in the PoV's log."""

    data: Activity
    offset: int


class Page(Message, tag="history_page"):
    """The activities found, and the state of the log.

    `next` is what to send as `after` or `before` for what follows; without it there is no more.
    """

    pov_id: str
    epoch: str
    offset: int
    oldest_offset: int
    activities: list[Item]
    next: int | UnsetType = UNSET


@plugin.on(History, grant="subscribe", rate="10/s")
async def history(message: History, context: Context) -> Page:
    """Answer one page."""
    if message.after is not UNSET and message.before is not UNSET:
        raise InvalidMessage(field="before", detail="Send after or before, not both")
    reverse = message.after is UNSET
    at = (message.before or 0) if message.after is UNSET else message.after
    only = Only(types=_set(message.types), actions=_set(message.actions), users=_set(message.users))
    found: list[Item] = []
    size = 0
    for _ in range(MAX_SEARCHED // PAGE):
        left = message.limit - len(found)
        page = await context.host.history(
            message.pov_id,
            after=at,
            # Without a filter no more is looked at than is answered.
            limit=PAGE if only else min(PAGE, left),
            reverse=reverse,
            only=only,
            max_bytes=MAX_BYTES - size,
            raw=True,
        )
        found += [Item(data=activity, offset=offset) for offset, activity in page.activities[:left]]
        size += page.size
        next_at = found[-1].offset if len(page.activities) > left else page.next
        if next_at is None or len(found) == message.limit or size >= MAX_BYTES:
            break
        at = next_at
        await asyncio.sleep(0)  # an engine in memory lets nobody else have a turn
    return Page(
        pov_id=message.pov_id,
        epoch=page.epoch,
        offset=page.offset,
        oldest_offset=page.oldest_offset,
        activities=found,
        next=UNSET if next_at is None else next_at,
    )


def _set(names: list[str] | UnsetType) -> frozenset[str] | UnsetType:
    return UNSET if names is UNSET else frozenset(names)

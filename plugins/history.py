"""Pages of what happened on a PoV, both ways, also of chosen sorts of activities alone."""

from typing import Annotated

from pov_rt.plugin import (
    UNSET,
    Activity,
    Context,
    InvalidMessage,
    Length,
    Message,
    Offset,
    Part,
    Plugin,
    PovId,
    Range,
    UnsetType,
    UserId,
)

plugin = Plugin("history")

PAGE = 500
MAX_SEARCHED = 5_000
"""Activities looked at for one answer: what is rare takes several, each with where to go on."""

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
    users: Annotated[list[UserId], Length(1, 50)] | UnsetType = UNSET


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


@plugin.on(History, grant="subscribe")
async def history(message: History, context: Context) -> Page:
    """Answer one page."""
    if message.after is not UNSET and message.before is not UNSET:
        raise InvalidMessage(field="before", detail="Send after or before, not both")
    reverse = message.after is UNSET
    at = (message.before or 0) if message.after is UNSET else message.after
    found: list[Item] = []
    searched, more = 0, True
    while more and len(found) < message.limit and searched < MAX_SEARCHED:
        page = await context.host.history(message.pov_id, after=at, limit=PAGE, reverse=reverse)
        more = len(page.activities) == PAGE
        for offset, activity in page.activities:
            at = offset
            searched += 1
            if is_wanted(activity, message):
                found.append(Item(data=activity, offset=offset))
                if len(found) == message.limit:
                    more = offset != (page.oldest_offset if reverse else page.offset)
                    break
    return Page(
        pov_id=message.pov_id,
        epoch=page.epoch,
        offset=page.offset,
        oldest_offset=page.oldest_offset,
        activities=found,
        next=at if more else UNSET,
    )


def is_wanted(activity: Activity, message: History) -> bool:
    """Tell whether an activity is of the sort that is asked for."""
    return (
        (message.types is UNSET or activity.type in message.types)
        and (message.actions is UNSET or activity.action in message.actions)
        and (message.users is UNSET or activity.user_id in message.users)
    )

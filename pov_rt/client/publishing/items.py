"""Activities on their way to where they are safe: checked, with an id, as JSON."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.protocol.details.traces import current_traceparent, with_trace
from pov_rt.protocol.errors import InvalidActivity
from pov_rt.protocol.messages import MAX_NAME_CHARS, NewActivity, check_id
from pov_rt.runtime.clock import new_id


class Item(NamedTuple):
    """An activity that is to be kept until the server has it: its id, its PoV, and its JSON."""

    id: str
    pov: str
    body: str


def make_item(activity: NewActivity, traceparent: str | UnsetType | None = UNSET) -> Item:
    """Return an activity as it is kept; one without an id gets one, by which retries are known.

    `traceparent` is that of the request that it comes from, which travels in the details: unless
    said otherwise, of the request that is being handled (`protocol/details/traces`). None: of none.

    What the server would refuse at sight is refused here, where the app can mend it: raises
    `ClientError` naming the field.
    """
    if activity.id is UNSET:
        activity = msgspec.structs.replace(activity, id=new_id())
    activity = with_trace(
        activity, current_traceparent() if isinstance(traceparent, UnsetType) else traceparent
    )
    if activity.user_id is UNSET:
        raise InvalidActivity("say who did it: user_id is not there", field="userId")
    name = str(activity.id)
    check_id(name, "id")
    check_id(activity.pov_id, "povId")
    check_id(activity.user_id, "userId")
    for field, text in (("type", activity.type), ("action", activity.action)):
        if not 1 <= len(text) <= MAX_NAME_CHARS:
            raise InvalidActivity(f"{field} has 1 to {MAX_NAME_CHARS} characters", field=field)
    try:
        body = msgspec.json.encode(activity).decode()
        msgspec.json.decode(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidActivity(f"JSON cannot hold it: {error}", field="details") from error
    return Item(name, activity.pov_id, body)


def numbered(body: str, producer: str, seq: int) -> bytes:
    """Return an activity's JSON with its producer's number, at the end of the object."""
    return f'{body[:-1]},"producer":"{producer}","seq":{seq}}}'.encode()

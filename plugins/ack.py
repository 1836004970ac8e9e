"""Acknowledgements: how far a device has come, on a PoV or in its user's inbox."""

from collections.abc import AsyncIterator
from typing import get_args

from pov_rt.plugin import (
    UNSET,
    Context,
    Host,
    InvalidMessage,
    Message,
    Offset,
    Plugin,
    PovOrFeed,
    Reason,
    UnsetType,
)

plugin = Plugin("ack")


@plugin.lifespan
async def run(host: Host) -> AsyncIterator[None]:
    """Have what may be counted in the metrics from the start."""
    for name in ("shown", *(f"not_shown_{reason}" for reason in get_args(Reason))):
        host.count(name, 0)
    yield None


class Ack(Message, tag="ack"):
    """Say that this device has a PoV, or with `inbox` its user's inbox, up to `offset`.

    A client that says the `epoch` too learns when the log was replaced. `shown` says whether the
    user was shown what is at `offset`, and `reason` why not.
    """

    offset: Offset
    pov_id: PovOrFeed | UnsetType = UNSET
    inbox: bool = False
    epoch: str | UnsetType = UNSET
    shown: bool | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET


class Acked(Message, tag="acked"):
    """Where the device's cursor is now (0: it has none); it never goes back."""

    pov_id: str | UnsetType = UNSET
    inbox: bool | UnsetType = UNSET
    epoch: str
    offset: int


@plugin.on(Ack)
async def ack(message: Ack, context: Context) -> Acked:
    """Move the device's cursor, and remember what it says was shown."""
    if (message.pov_id is UNSET) != message.inbox:
        raise InvalidMessage(field="povId", detail="Send povId, or inbox: true")
    if (message.shown is False) != (message.reason is not UNSET):
        raise InvalidMessage(field="reason", detail="Send it with shown: false, and only then")
    pov_id = None if message.pov_id is UNSET else message.pov_id
    position = context.delivered(message.offset, pov_id, message.epoch)
    cursor = await context.acknowledge(position, pov_id)
    if message.shown is not UNSET:
        context.report(position, pov_id, message.reason or None)
        context.host.count(f"not_shown_{message.reason}" if message.reason else "shown")
    return Acked(
        pov_id=message.pov_id,
        inbox=message.inbox or UNSET,
        epoch=cursor.epoch,
        offset=cursor.offset,
    )

"""Amending and retracting what was published: over the socket, and over HTTP for services too."""

from typing import Annotated, Any

from pov_rt.plugin import (
    UNSET,
    ActivityId,
    Context,
    Length,
    Message,
    Offset,
    Part,
    Plugin,
    PovId,
    Published,
    Request,
    UnsetType,
    UserId,
)

plugin = Plugin("amend")

Reason = Annotated[str, Length(1, 200)]


class Amend(Message, tag="amend"):
    """Give an activity other `details`; all else of it stays.

    `change_id` is the change's own id, for retries; `reason` is shown with it. With the grant
    `operate` the activity may be anybody's, and `offset` says where it is, if it is old.
    """

    pov_id: PovId
    activity_id: ActivityId
    details: dict[str, Any]
    change_id: ActivityId | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    offset: Offset | UnsetType = UNSET


class Retract(Message, tag="retract"):
    """Withdraw an activity: its `details` are gone for good; the fields are those of `amend`."""

    pov_id: PovId
    activity_id: ActivityId
    change_id: ActivityId | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    offset: Offset | UnsetType = UNSET


class Changed(Message, tag="changed"):
    """The change is durable: the activity `change_id` at this place tells of it."""

    pov_id: str
    activity_id: str
    change_id: str
    epoch: str
    offset: int
    duplicate: bool


class Retraction(Part, forbid_unknown_fields=True):
    """What is withdrawn over HTTP. `user_id` is who did it, where that is not the author."""

    pov_id: PovId
    change_id: ActivityId | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    user_id: UserId | UnsetType = UNSET
    offset: Offset | UnsetType = UNSET


class NewDetails(Part, forbid_unknown_fields=True):
    """What becomes of an activity over HTTP. `user_id` is who did it, if that is not the author."""

    pov_id: PovId
    details: dict[str, Any]
    change_id: ActivityId | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    user_id: UserId | UnsetType = UNSET
    offset: Offset | UnsetType = UNSET


class ChangePlace(Part):
    """Where the activity is that tells of the change; `duplicate`: it was there before."""

    id: str
    pov_id: str
    epoch: str
    offset: int
    duplicate: bool


@plugin.on(Amend, grant="publish")
async def amend(message: Amend, context: Context) -> Changed:
    """Amend an activity in the connected user's name."""
    done = await context.amend(
        message.pov_id,
        message.activity_id,
        message.details,
        change_id=message.change_id,
        reason=message.reason,
        offset=message.offset,
    )
    return _changed(message, done)


@plugin.on(Retract, grant="publish")
async def retract(message: Retract, context: Context) -> Changed:
    """Retract an activity in the connected user's name."""
    done = await context.retract(
        message.pov_id,
        message.activity_id,
        change_id=message.change_id,
        reason=message.reason,
        offset=message.offset,
    )
    return _changed(message, done)


@plugin.http("POST", "/activities/{activity_id}/amend", grant="publish", body=NewDetails)
async def amend_by_request(request: Request) -> ChangePlace:
    """Give an activity other details, in the name of the token's user or service."""
    new = request.body(NewDetails)
    done = await request.host.amend(
        new.pov_id,
        request.path["activity_id"],
        new.details,
        sender=request.user,
        change_id=new.change_id,
        user_id=new.user_id,
        reason=new.reason,
        offset=new.offset,
    )
    return _place(done)


@plugin.http("POST", "/activities/{activity_id}/retract", grant="publish", body=Retraction)
async def retract_by_request(request: Request) -> ChangePlace:
    """Withdraw an activity, in the name of the token's user or service."""
    what = request.body(Retraction)
    done = await request.host.retract(
        what.pov_id,
        request.path["activity_id"],
        sender=request.user,
        change_id=what.change_id,
        user_id=what.user_id,
        reason=what.reason,
        offset=what.offset,
    )
    return _place(done)


def _changed(message: Amend | Retract, done: Published) -> Changed:
    return Changed(
        pov_id=done.pov_id,
        activity_id=message.activity_id,
        change_id=done.id,
        epoch=done.epoch,
        offset=done.offset,
        duplicate=done.duplicate,
    )


def _place(done: Published) -> ChangePlace:
    return ChangePlace(
        id=done.id,
        pov_id=done.pov_id,
        epoch=done.epoch,
        offset=done.offset,
        duplicate=done.duplicate,
    )

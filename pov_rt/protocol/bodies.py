"""The JSON bodies of the HTTP side. `schema` describes them from these classes."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from pov_rt.protocol.messages import Activity, NewActivity, Offset, Part, UserId

Index = Annotated[int, Meta(ge=0)]


class SocketToken(Part):
    """A token to connect with."""

    token: str


class PublishedActivity(NewActivity, forbid_unknown_fields=True):
    """An activity as it is published over HTTP: an unknown field is a typo, and refused.

    So is one without `userId`: its publisher is a service, and no user did it in silence.
    """

    user_id: UserId


class LogPlace(Part):
    """Where an activity is in its PoV's log; `duplicate`, in a batch, if it was there already."""

    id: str
    pov_id: str
    offset: Offset
    epoch: str
    duplicate: bool | UnsetType = UNSET


class Problem(Part):
    """What is wrong: `code` is stable, `message` for people; a plugin's errors may say more."""

    code: str
    message: str
    field: str | UnsetType = UNSET
    index: Index | UnsetType = UNSET
    """Which item of a batch it is about, from 0."""
    retry_after: float | UnsetType = UNSET
    """In seconds."""
    incident: str | UnsetType = UNSET
    """What the operator finds in the log."""


class ErrorAnswer(Part):
    """The answer to whatever went wrong."""

    error: Problem


class BatchAnswer(Part):
    """What became of each activity of a batch, in its order: a `LogPlace` or an `ErrorAnswer`."""

    results: list[Any]


class StoredActivity(Part):
    """An activity with its place in the PoV's log."""

    data: Activity
    offset: Offset


class PageState(Part):
    """The state of a PoV's log: its last offset, and the oldest one that is still there.

    `next` is what to send as `after` or `before` for what follows; without it there is no more.
    """

    pov_id: str
    epoch: str
    offset: Offset
    oldest_offset: Offset
    next: Offset | UnsetType = UNSET


class HistoryAnswer(PageState):
    """A page of a PoV's activities, with the state of its log."""

    activities: list[StoredActivity]

"""The wire's vocabulary: the base of every message, the activity, and what the core itself says.

Wire names are camelCase, Python names snake_case; `type` is the tag and comes first. One class
validates on the server, types the test client and describes the wire in the generated documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, dataclass_transform

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pov_rt.protocol.characters import find_unsafe, is_visible
from pov_rt.protocol.errors import InvalidId, InvalidMessage
from pov_rt.protocol.tenants import TenantId

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest integer that JavaScript holds exactly (ECMA-262, Number.MAX_SAFE_INTEGER)."""

MAX_ID_CHARS = 128
MAX_NAME_CHARS = 64

RESERVED_IDS = frozenset({"*", "__proto__"})
"""`*` is the team feed. To set `__proto__` of an object of JavaScript is to replace its prototype,
and `receipts.read` is keyed by user."""

_PLAIN_START = frozenset(map(chr, range(0x21, 0x7F))) - {text[0] for text in RESERVED_IDS}
"""With what nearly all ids begin: there is then something to see."""


def _id(sort: str) -> Meta:
    """Mark an id, so that `registry.pov_ids` finds it.

    The length is for the schema alone: `check_id` refuses all that is wrong with an id, and would
    not see what the decoder has refused.
    """
    bounds = {"minLength": 1, "maxLength": MAX_ID_CHARS}
    return Meta(extra_json_schema=bounds, extra={"id": sort})


PovId = Annotated[str, _id("pov")]
"""A PoV's id. A handler's message that has one is checked against the token's grants first."""

PovOrFeed = Annotated[str, _id("feed")]
"""A PoV's id, or `*` for the team feed. That the token covers it is not checked."""

UncheckedId = Annotated[str, _id("unchecked")]
"""An id that the handler checks: one of several, of which a bad one must not refuse the others.

Of what is named like a PoV but is none, too: that nobody checks it has to be said."""

UserId = Annotated[str, _id("user")]
"""A user's id, compared byte for byte."""

AuthorId = Annotated[str, _id("author")]
"""A user's id as it stands in activities: for those who look into them."""

ActivityId = Annotated[str, _id("activity")]
"""The id of an activity or a notification, by which a retry is known."""

Offset = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]
"""A place in a topic's log; 0 is before its first entry."""

RequestId = (
    Annotated[str, Meta(max_length=64)]
    | Annotated[int, Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]
)
"""What a client puts into `id` to find the answer again."""


def Length(shortest: int, longest: int) -> Meta:
    """Bound a string's characters or a list's items, both ends included."""
    return Meta(min_length=shortest, max_length=longest)


def Range(least: float, most: float) -> Meta:
    """Bound a number, both ends included."""
    return Meta(ge=least, le=most)


class PartMeta(msgspec.StructMeta):
    """Makes frozen, keyword-only, camelCase structs.

    The settings are applied here and not given to a base class, because msgspec does not inherit
    `kw_only` and mypy refuses every subclass of a struct declared `frozen=True` (mypy 2.4).
    """

    def __new__(  # noqa: D102  (the class docstring says it)
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any
    ) -> PartMeta:
        settings: dict[str, Any] = {"frozen": True, "kw_only": True, "rename": "camel"}
        return super().__new__(mcls, name, bases, namespace, **settings | config)


class MessageMeta(PartMeta):
    """Makes structs that are tagged by `type`; `tag` is the wire type."""

    def __new__(  # noqa: D102  (the class docstring says it)
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any
    ) -> PartMeta:
        settings: dict[str, Any] = {"tag_field": "type"}
        return super().__new__(mcls, name, bases, namespace, **settings | config)


# The transform tells type checkers that fields are keyword-only. It cannot also say `frozen`: mypy
# then refuses the inheritance from msgspec.Struct. At run time every message is frozen.
@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class Part(msgspec.Struct, metaclass=PartMeta):
    """An object inside a message."""


@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, metaclass=MessageMeta):
    """A message in either direction: `class Vote(Message, tag="poll.vote")`.

    `id` is the client's correlation id. The server echoes it on the answer by itself; a handler has
    no need to read or set it.
    """

    id: RequestId | UnsetType = UNSET


class Event(Part):
    """What a plugin announces to others on this node: `class Closed(Event, tag="poll.closed")`.

    The tag begins with the plugin's name. Whoever hears it may declare a class of its own with the
    same tag and those of the fields that it wants.
    """


class Joined(Event, tag="presence.joined"):
    """A user is on a PoV and was on it on no node: what the plugin `presence` announces."""

    pov_id: str
    user_id: str


class Left(Event, tag="presence.left"):
    """A user has been without a connection to a PoV for the grace, or the user's node is gone."""

    pov_id: str
    user_id: str


class Original(Part):
    """Which activity a change is about: its id, and its place in the PoV's log."""

    id: str
    offset: int


class Activity(Part, kw_only=False):
    """What happened on a PoV, as stored and pushed. `at` is the server's time (RFC 3339).

    One that was changed later is `amended`, with other `details`, or `retracted`, without any; so
    is the activity that tells of the change, which says of which `original`. `by` is who changed
    it, where that is not who did it, and `reason` what they said. What tells of an amendment has no
    `details` where another one followed.
    """

    id: str
    type: str
    action: str
    pov_id: str
    user_id: str
    at: str | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET
    original: Original | UnsetType = UNSET
    amended: bool | UnsetType = UNSET
    retracted: bool | UnsetType = UNSET
    by: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class NewActivity(Part):
    """An activity as a publisher sends it; the server adds what is missing.

    `id` identifies it for retries; the server makes one when absent. `user_id` is who did it; the
    token's user when absent (over a socket always the token's user).
    """

    id: ActivityId | UnsetType = UNSET
    type: Annotated[str, Length(1, MAX_NAME_CHARS)]
    action: Annotated[str, Length(1, MAX_NAME_CHARS)]
    pov_id: PovId
    user_id: UserId | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET


class Notification(Part):
    """A message to one user, as stored and pushed. `at` is the server's time (RFC 3339)."""

    id: str
    type: str
    at: str | UnsetType = UNSET
    pov_id: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    expires_at: datetime | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET


class NewNotification(Part, forbid_unknown_fields=True):
    """A message to one user as it is sent; the server adds what is missing.

    `user_id` is whom it is from, `pov_id` what it is about; after `expires_at` (RFC 3339 with a
    time zone) it is delivered no more.
    """

    id: ActivityId | UnsetType = UNSET
    type: Annotated[str, Length(1, MAX_NAME_CHARS)]
    pov_id: PovId | UnsetType = UNSET
    user_id: UserId | UnsetType = UNSET
    expires_at: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET


class NotificationMessage(Message, tag="notification"):
    """A notification of the user's own inbox; `offset` is its place there."""

    data: Notification
    offset: int


class ErrorMessage(Message, tag="error"):
    """Something was wrong with a request; `code` is stable, `message` is for people."""

    message: str
    code: str
    field: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET
    incident: str | UnsetType = UNSET
    outcome: str | UnsetType = UNSET


class ActivityMessage(Message, tag="activity"):
    """An activity on a PoV this connection is subscribed to; `offset` is its place in that log.

    `feed` is `*` when it comes from the team feed; `offset` is then the feed's.
    """

    data: Activity
    offset: int
    feed: str | UnsetType = UNSET


class Welcome(Message, tag="welcome"):
    """The first message on a socket that was opened with the `pov-rt.v1` subprotocol.

    `expires_at` is the token's expiry (RFC 3339); `ping_interval` is in seconds.
    """

    connection_id: str
    user_id: str
    device: str
    expires_at: str
    ping_interval: float
    version: str


class Closing(Message, tag="closing"):
    """The server is about to close this socket; come back after `retry_after` seconds if given."""

    code: int
    reason: str
    retry_after: float | UnsetType = UNSET


class Unsubscribed(Message, tag="unsubscribed"):
    """The connection is not subscribed any more.

    The answer to `unsubscribe`, whether it was or not. Without being asked for it has a `code` and
    a `message`: the user may not see the PoV now (`forbidden`), or nobody could say for too long.
    """

    pov_id: str
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


class MarksMessage(Message, tag="marks"):
    """Up to where the user has read and seen a PoV, or with `inbox` the notifications.

    `unread` and `unseen` are what the log has behind that. With `unread_from` everything from there
    on is unread, whatever was read.
    """

    pov_id: str | UnsetType = UNSET
    inbox: bool | UnsetType = UNSET
    epoch: str
    read_offset: int
    seen_offset: int
    unread_from: int | UnsetType = UNSET
    unread: int
    unseen: int


class TokenExpiring(Message, tag="token_expiring"):
    """The token expires at `expires_at` (RFC 3339); get a new one now."""

    expires_at: str


CORE_PUSHES: tuple[type[Message], ...] = (
    Welcome,
    ActivityMessage,
    NotificationMessage,
    Unsubscribed,
    ErrorMessage,
    TokenExpiring,
    Closing,
)
"""What the core sends by itself; every other type belongs to a plugin."""


def check_id(text: str, field: str, *, longest: int = MAX_ID_CHARS) -> None:
    """Refuse an id that is empty, too long or reserved, that nobody sees, or with an odd character.

    Those are controls, line breaks, controls of direction and lone surrogates, which break lines,
    terminals or encoders. Anything else is a good id, in any script, emoji with joiners too,
    compared byte for byte (no normalisation). Raises `InvalidId` naming `field`.
    """
    if type(text) is TenantId:
        text = text.wire_id
    if not 1 <= len(text) <= longest:
        raise InvalidId(f"{field} must have 1 to {longest} characters", field=field)
    if text[0] in _PLAIN_START and text.isprintable():
        return
    if text in RESERVED_IDS:
        raise InvalidId(f"{field} may not be '{text}', which is reserved", field=field)
    if (odd := find_unsafe(text)) is not None:
        raise InvalidId(f"{field} may not contain U+{ord(odd):04X}", field=field)
    if not is_visible(text):
        raise InvalidId(f"{field} has only characters that nobody sees", field=field)


def check_distinct(ids: Sequence[str], field: str) -> None:
    """Raise `InvalidMessage` naming the first id that is there for the second time."""
    if len(set(ids)) < len(ids):
        index = next(index for index, each in enumerate(ids) if each in ids[:index])
        raise InvalidMessage(field=f"{field}[{index}]", detail="This one is there twice")

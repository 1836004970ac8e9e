"""All that a plugin may import.

A plugin is one Python file with a `Plugin` object called `plugin`. It declares message classes and
registers functions for them; docs/plugins.md walks through an example. `Context` is what a handler
gets beside its message, `Host` what everything else gets.
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from pov_rt.activities.digest import Digest
from pov_rt.activities.kept import KeptByPov
from pov_rt.activities.shown import Reason, Shown
from pov_rt.auth.grants import Grants
from pov_rt.auth.tokens import Identity
from pov_rt.connections.directory import Closed, Order
from pov_rt.delivery.filters import Only, Place, Since
from pov_rt.engine.base import Leases, Marks, Position, Sets
from pov_rt.plugin.calls import Endpoint, Outbox, SignedCalls, WebhookOptions
from pov_rt.plugin.declare import Plugin
from pov_rt.plugin.interfaces import (
    Access,
    Allowed,
    ConnectionInfo,
    Context,
    Guarantee,
    HistoryPage,
    Host,
    Request,
    Response,
    Revoked,
    Subscribed,
)
from pov_rt.plugin.lookup import Lookup
from pov_rt.plugin.roster import Diff, Roster
from pov_rt.plugin.storage import Storage
from pov_rt.protocol.bodies import MissingNode, Published
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import (
    ClientError,
    CloseCode,
    EpochChanged,
    Forbidden,
    InvalidId,
    InvalidMessage,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    RateLimited,
    Rejected,
    Retracted,
    TokenError,
    TooLarge,
    Unavailable,
)
from pov_rt.protocol.messages import (
    MAX_ID_CHARS,
    MAX_SAFE_INTEGER,
    Activity,
    ActivityId,
    AuthorId,
    Event,
    Joined,
    Left,
    Length,
    MarksMessage,
    Message,
    NewActivity,
    NewNotification,
    Offset,
    Part,
    PovId,
    PovOrFeed,
    Range,
    UncheckedId,
    Unsubscribed,
    UserId,
    check_distinct,
    check_id,
)
from pov_rt.protocol.tenants import team_of, wire_of
from pov_rt.runtime.clock import Clock, rfc3339

__all__ = [
    "MAX_ID_CHARS",
    "MAX_SAFE_INTEGER",
    "UNSET",
    "Access",
    "Activity",
    "ActivityId",
    "Allowed",
    "AuthorId",
    "ClientError",
    "Clock",
    "CloseCode",
    "Closed",
    "ConnectionInfo",
    "Context",
    "Diff",
    "Digest",
    "Endpoint",
    "EpochChanged",
    "Event",
    "Forbidden",
    "Grants",
    "Guarantee",
    "HistoryPage",
    "Host",
    "Identity",
    "InvalidId",
    "InvalidMessage",
    "InvalidRequest",
    "Joined",
    "KeptByPov",
    "Leases",
    "Left",
    "Length",
    "LimitExceeded",
    "Lookup",
    "Marks",
    "MarksMessage",
    "Message",
    "MissingNode",
    "NewActivity",
    "NewNotification",
    "NotFound",
    "Offset",
    "Only",
    "Order",
    "Outbox",
    "Part",
    "Place",
    "Plugin",
    "Position",
    "PovId",
    "PovOrFeed",
    "Published",
    "Range",
    "RateLimited",
    "Reason",
    "Rejected",
    "Request",
    "Response",
    "Retracted",
    "Revoked",
    "Roster",
    "Sets",
    "Shown",
    "SignedCalls",
    "Since",
    "Storage",
    "Subscribed",
    "TokenError",
    "TooLarge",
    "Unavailable",
    "UncheckedId",
    "UnsetType",
    "Unsubscribed",
    "UserId",
    "WebhookOptions",
    "check_distinct",
    "check_id",
    "encode",
    "rfc3339",
    "team_of",
    "wire_of",
]

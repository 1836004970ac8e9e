"""The JSON bodies of the HTTP side. `schema` describes them from these classes."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from pov_rt.protocol.messages import (
    MAX_SAFE_INTEGER,
    Activity,
    Length,
    NewActivity,
    Offset,
    Part,
    UserId,
)

Index = Annotated[int, Meta(ge=0)]


class SocketToken(Part):
    """A token to connect with."""

    token: str


class PublishedActivity(NewActivity, forbid_unknown_fields=True):
    """An activity as it is published over HTTP: an unknown field is a typo, and refused.

    So is one without `userId`: its publisher is a service, and no user did it in silence.
    """

    user_id: UserId
    producer: Annotated[str, Length(1, 64)] | UnsetType = UNSET
    """Which of the publisher's producers numbers it."""
    seq: Annotated[int, Meta(ge=1, le=MAX_SAFE_INTEGER)] | UnsetType = UNSET
    """Its number: higher than those that the producer sent before to this PoV."""


class Published(Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Where an activity is in its PoV's log. `duplicate`: this id was published before.

    One that is known by its producer's number alone is there or before.
    """

    id: str
    pov_id: str
    offset: Offset
    epoch: str
    duplicate: bool = False


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
    """What became of each activity of a batch, in its order: a `Published` or an `ErrorAnswer`."""

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


class MissingNode(Part):
    """A node of which an answer has nothing, and why: it was asked, and did not answer in time.

    `host` is its machine's name.
    """

    node: str
    host: str
    version: str
    why: str


class Erased(Part):
    """What was removed of a user, in numbers; none of it is in the log's files any more.

    `activities` and `notifications` are those in the user's name, `inbox` is the user's own. Of
    others' activities that the user has `changed` the change stays, and not who made it.
    `failed` names the plugins that could not erase what they keep elsewhere: then ask again.
    `revocations` are kept, for the tokens that they are about would be good without. `connections`
    are without those that nodes which are `missing` closed: these did not say so within a second.
    """

    user_id: str
    activities: int = 0
    changed: int = 0
    notifications: int = 0
    inbox: int = 0
    ids: int = 0
    marks: int = 0
    devices: int = 0
    subscriptions: int = 0
    values: int = 0
    connections: int = 0
    revocations: int = 0
    failed: list[str] = field(default_factory=list)
    missing: list[MissingNode] = field(default_factory=list)


class DeletedPov(Part):
    """What was removed with a PoV, in numbers; `ended` are subscriptions of connections."""

    pov_id: str
    activities: int = 0
    subscriptions: int = 0
    ended: int = 0


MAX_BLOCK_S = 10 * 365 * 86400


class Block(Part, forbid_unknown_fields=True):
    """For how long a user is kept out."""

    seconds: Annotated[float, Meta(gt=0, le=MAX_BLOCK_S)]


class Blocked(Part):
    """Until when a user is kept out (RFC 3339).

    `closed` is how many connections ended, on all nodes but those that are `missing`: these did not
    confirm it within a second, and do it when they hear of it.
    """

    user_id: str
    until: str
    closed: int
    missing: list[MissingNode]


class Unblocked(Part):
    """Whether there was a block to lift."""

    was_blocked: bool


class ConnectionRow(Part):
    """A connection of a node, in a list. Times are RFC 3339 or seconds.

    `bytes` are of the socket, since the handshake. `lag` is how many activities and notifications
    it has not been sent yet; `cost` which part of its user's budget is used up (`limits.cost_rate`;
    1 and more: in debt). Rates are since somebody looked last; null: nobody did.
    """

    node: str
    connection_id: str
    user_id: str
    device: str
    transport: str
    povs: list[str]
    remote_ip: str
    age_s: float
    received_bytes: int
    sent_bytes: int
    unsent_bytes: int
    lag: int
    bytes_per_s: float | None
    cost: float
    token_expires_at: str


class UserRow(Part):
    """A user on a node, in a list: who is connected there, was, or is blocked.

    The sums are of the connections. `last_seen` is now for whoever is connected; null: it is not
    known any more.
    """

    node: str
    user_id: str
    connections: int
    devices: list[str]
    unsent_bytes: int
    lag: int
    bytes_per_s: float | None
    cost: float
    last_seen: str | None
    blocked_until: str | None


class PovRow(Part):
    """A PoV, or with `*` a team's feed, that somebody on the node is subscribed to, in a list.

    `lag` is of whoever is furthest behind, `behind` how many are, and `unsentBytes` what waits for
    them. `deliveriesPerS` is what its activities cost: one for each subscriber.
    """

    node: str
    pov_id: str
    subscribers: int
    offset: int
    behind: int
    lag: int
    unsent_bytes: int
    activities_per_s: float | None
    deliveries_per_s: float | None


class PluginRow(Part):
    """A plugin, in a list. `off` says why it is; `failures` are those since the start."""

    node: str
    name: str
    origin: str
    types: list[str]
    messages: int
    messages_per_s: float | None
    failures: int
    off: str | None


class Listed(Part):
    """What each page of a list says; its rows are under the name of the list.

    `node` was asked, `nodes` are those whose rows are counted, and `missing` those whose are not.
    `total` is how many there are of what was asked for, `more` how many are after this page, and
    `next` is sent as `after` for them.
    """

    node: str
    nodes: list[str]
    missing: list[MissingNode]
    total: int
    more: int
    next: str | UnsetType = UNSET


class ConnectionsPage(Listed):
    """A page of connections."""

    connections: list[ConnectionRow]


class UsersPage(Listed):
    """A page of users."""

    users: list[UserRow]


class PovsPage(Listed):
    """A page of PoVs."""

    povs: list[PovRow]


class PluginsPage(Listed):
    """A page of plugins."""

    plugins: list[PluginRow]


class EngineState(Part):
    """How a node's engine is.

    `state` is `ok`, `degraded` or `deaf`, `what` is wrong with what mends it, and since when.
    `survives` is what an acknowledged activity survives now.
    """

    state: str
    what: str
    since: str | None
    survives: str


class NodeState(Part):
    """A node in numbers. Those that only rise count since its start.

    `notReady` says why it is not ready. `actions` tells whether this port does what operators may,
    or only shows (`server.admin_actions`). `operator` is whose token asks, `since` when the node
    began. `behind` are connections that were not sent all yet, `unsentS` is how long the oldest of
    what waits does so, `lagS` the longest delay of the event loop in the last minute. Within
    `deliveryS` half of what was published was handed out, and 99 of 100; null: nothing was.
    """

    node: str
    version: str
    operator: str
    since: str
    not_ready: str | None
    engine: EngineState
    actions: bool
    connections: int
    users: int
    behind: int
    published: int
    delivered: int
    unsent_bytes: int
    unsent_s: float
    lag_s: float
    delivery_s: tuple[float, float] | None
    refused: dict[str, int]
    off: dict[str, str]


class NodesState(Part):
    """All nodes in numbers, the one that was asked first; `missing` are those that said nothing."""

    nodes: list[NodeState]
    missing: list[MissingNode]


class NodeSample(Part):
    """The numbers of a node at an instant; `refused` counts all."""

    at: str
    connections: int
    behind: int
    lag_s: float
    published: int
    delivered: int
    refused: int


class NodeHour(Part):
    """The last hour of a node, oldest first, and what it had refused by code when that began."""

    node: str
    samples: list[NodeSample]
    refused_before: dict[str, int]


class Happened(Part):
    """An activity that was just published, and how many connections here follow its PoV or feed."""

    at: str
    pov_id: str
    id: str
    type: str
    action: str
    user_id: str
    to: int


class Happenings(Part):
    """What a node published since somebody began to look there, newest first."""

    node: str
    activities: list[Happened]


class Station(Part):
    """One station of the line: `passed` is null where nobody knows, `text` says more."""

    name: str
    passed: bool | None
    at: str | UnsetType = UNSET
    text: str | UnsetType = UNSET


class DeviceLane(Part):
    """How far the activity came on its way to one device, and why not further.

    `answer` says so in words. `connectionId` is its last connection, as far as known, `node` where
    that is, and `connected` whether it has one now.
    """

    device: str
    cause: str
    answer: str
    since: str | UnsetType = UNSET
    connection_id: str | UnsetType = UNSET
    node: str
    connected: bool
    stations: list[Station]


class ExplainedActivity(Part):
    """Where the activity is; `publisher` and `traceparent` where they are known."""

    id: str
    pov_id: str | UnsetType = UNSET
    epoch: str
    offset: int
    at: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    action: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    publisher: str | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET


class Explained(Part):
    """The answer: what happened (`cause`, and in words `answer`), since when, what comes next.

    `delivered`: a device has it. `events` are the user's last ones, as the trace has them, which
    begins at `traceSince`; those of another node than the asked one (`node`) name theirs. What
    nodes know that are `missing` is left out.
    """

    node: str
    missing: list[MissingNode]
    id: str
    user_id: str
    cause: str
    answer: str
    since: str | UnsetType = UNSET
    next: str
    delivered: bool
    activity: ExplainedActivity | UnsetType = UNSET
    lanes: list[DeviceLane]
    events: list[dict[str, Any]]
    trace_since: str | UnsetType = UNSET


class FoundActivity(Part):
    """An activity, with where it is; without `activity` nothing is kept of it but the place."""

    pov_id: str
    epoch: str
    offset: int
    publisher: str | UnsetType = UNSET
    activity: Raw | UnsetType = UNSET


class FoundActivities(Part):
    """All activities of one id: several, where several publishers or PoVs have it."""

    activities: list[FoundActivity]

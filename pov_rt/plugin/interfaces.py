"""What the server offers to plugins: the interfaces `Host`, `Context` and `Request`.

The room `dispatch` implements them; plugins get them through `pov_rt.plugin`.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, overload

import msgspec
from msgspec import UNSET, UnsetType
from typing_extensions import TypeVar

from pov_rt.activities.cursors import Marked, Read
from pov_rt.activities.digest import Digest
from pov_rt.activities.durable import Durable
from pov_rt.activities.shown import Reason, Shown
from pov_rt.auth.grants import Action, Grants
from pov_rt.auth.tokens import Identity
from pov_rt.connections.directory import Closed, Order
from pov_rt.delivery.filters import Only, Since
from pov_rt.engine.base import Leases, Marks, Position, Sets
from pov_rt.plugin.storage import Storage
from pov_rt.protocol.bodies import MissingNode, Published
from pov_rt.protocol.errors import ClientError, CloseCode
from pov_rt.protocol.messages import Activity, Event, Message, NewActivity, NewNotification
from pov_rt.runtime.bounds import Bounds, Shares
from pov_rt.runtime.clock import Clock

S_co = TypeVar("S_co", default=None, covariant=True)
StructT = TypeVar("StructT", bound=msgspec.Struct)
ValueT = TypeVar("ValueT")
AnswerT = TypeVar("AnswerT")


class Guarantee(msgspec.Struct, frozen=True, rename="camel"):
    """What is promised of an acknowledged activity, and for how long.

    `survives` is `process`, `primary`, `second`, `disk` or `replicated` (docs/protocol.md), and may
    be another one a moment later. It can be recovered while the PoV has had fewer
    than `entries` newer ones, and for `seconds`.
    """

    survives: str
    entries: int
    seconds: float


class Subscribed(msgspec.Struct, frozen=True):
    """The log's state at the instant of the subscription; everything after `offset` is pushed.

    With `recovered` True everything after the offset `after` is pushed before that; with False
    nothing is, and `missed` says how many activities lie between (None: nobody knows). `newest` is
    the log's newest offset: ahead of `offset` if the connection was subscribed already and has not
    been sent everything.
    """

    pov_id: str
    epoch: str
    offset: int
    oldest_offset: int
    guarantee: Guarantee
    recovered: bool | None = None
    missed: int | None = None
    newest: int = 0
    after: int | UnsetType = UNSET


class Access(msgspec.Struct, frozen=True):
    """What plugins that authorise are asked: whether a user may do something on a PoV now.

    `pov_id` is `*` for the team feed. All that is known of the user is here, so that one answer is
    good for all connections about which the same is asked. `owner` is who pays for the question.
    """

    user_id: str
    pov_id: str
    action: Action
    role: str | None
    email: str | None
    team_id: str
    owner: str


class Allowed(msgspec.Struct, frozen=True):
    """A yes that stands for `for_s` seconds, and if nobody can say then, for `grace_s` more."""

    for_s: float
    grace_s: float = 0.0


class ConnectionInfo(msgspec.Struct, frozen=True, rename="camel"):
    """A connection of this node. Times are RFC 3339 or seconds, bytes since the handshake."""

    connection_id: str
    user_id: str
    device: str
    povs: Sequence[str]
    remote_ip: str
    age_s: float
    received_bytes: int
    sent_bytes: int
    unsent_bytes: int
    token_expires_at: str


class Revoked(NamedTuple):
    """What a revocation did: `before` is the instant that is in force now, None for one token.

    `closed` and `missing` are as `Closed` has them.
    """

    before: float | None
    closed: int
    missing: Sequence[MissingNode]


class HistoryPage(msgspec.Struct, frozen=True):
    """Activities with their offsets, and the log's state when they were read.

    `next` is from where to read on; None: there is nothing more. `size` is how many bytes of stored
    activities the page has: who fills an answer from several pages takes it off the `max_bytes` of
    the next one.
    """

    activities: Sequence[tuple[int, Activity]]
    epoch: str
    offset: int
    oldest_offset: int
    next: int | None = None
    size: int = 0


class Response(msgspec.Struct, frozen=True):
    """What another server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetch(Protocol):
    """Makes HTTP requests."""

    async def __call__(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 5.0,
    ) -> Response:
        """Make a request; any status is an answer. Raises `Unavailable` if there was none."""


class Host(Protocol[S_co]):
    """The server, as a plugin sees it outside of a message. One per plugin."""

    @property
    def name(self) -> str:
        """The plugin's name."""

    @property
    def state(self) -> S_co:
        """What the plugin's lifespan yielded (None without one). Not there before the yield."""

    @property
    def clock(self) -> Clock:
        """The time; take it from here and tests can move it."""

    @property
    def marks(self) -> Marks:
        """Watermarks in the engine. Topics: `topic(pov_id)`."""

    @property
    def leases(self) -> Leases:
        """Members that vanish with their node."""

    @property
    def sets(self) -> Sets:
        """Sets with expiry. Start names with the plugin's own."""

    @property
    def store(self) -> Storage:
        """What the plugin keeps, by key."""

    @property
    def data_dir(self) -> Path:
        """A folder of the plugin's own in `server.data`, made when it is asked for (mode 0700).

        For what is no value: files, a library's database. No backup of the log has it. Raises
        `Unavailable` where there is no `server.data`, or the folder cannot be made.
        """

    @property
    def durable(self) -> Durable:
        """Subscriptions that outlast connections."""

    @property
    def node(self) -> str:
        """The name of this node; it stays over restarts, where the node has a data folder."""

    @property
    def run(self) -> str:
        """The name of this server process, another one each time it starts."""

    @property
    def bounds(self) -> Bounds:
        """What users share on this node; a plugin adds its own."""

    def connections(
        self,
        user_id: str | None = None,
        *,
        limit: int | None = None,
        tenant: str | None = None,
    ) -> Sequence[ConnectionInfo]:
        """Return the connections of this node, or a user's, the oldest first; at most `limit`.

        With `tenant` (`Grants.tenant`) those of its users alone.
        """

    def count_connections(self, user_id: str | None = None, *, tenant: str | None = None) -> int:
        """Return how many connections this node has, or a user has on it; `tenant` as above."""

    def devices(self, pov_id: str, user_id: str) -> Sequence[str]:
        """Return on which devices a user is subscribed to a PoV on this node, each once, sorted."""

    def topic(self, pov_id: str) -> str:
        """Return the engine's name for a PoV."""

    def inbox(self, user_id: str) -> str:
        """Return the engine's name for a user's inbox."""

    def options(self, kind: type[StructT]) -> StructT:
        """Return `[plugins.NAME]` as the class that the plugin declared with `options=`."""

    def broadcast(
        self,
        pov_id: str,
        message: Message,
        *,
        listeners: bool = False,
        here: bool = False,
        states: Mapping[str, Message] | None = None,
    ) -> None:
        """Send to the PoV's subscribers on all nodes: at most once, unstored, encoded now.

        With `listeners` to those connections only that asked this plugin for it (`Context.listen`).
        With `here` to those of this node alone: what each node hears by itself (`Plugin.gone`).

        Those do not get it who are still being sent what they missed. `states` says what it tells
        in parts, each under a name of the plugin's choice: once they are up to date they get the
        newest of each name that they have not had, of at most 1,000 names. It is not for what other
        nodes send.
        """

    def channel(self, pov_id: str, plugin: str | None = None) -> str:
        """Return the engine's name for what this plugin, or another, keeps of a PoV, as leases."""

    def send_user(self, user_id: str, message: Message, *, pov_id: str | None = None) -> None:
        """Send to every connection of a user on all nodes: at most once, unstored.

        With `pov_id` only to those whose token covers the PoV.
        """

    async def publish(self, activity: NewActivity, *, user_id: str | None = None) -> Published:
        """Publish in the plugin's own name; returns when the activity is durable.

        `user_id` is used when the activity names none. Raises `InvalidId`, `InvalidActivity`,
        `TooLarge`, `IdConflict`, `Unavailable`, or what a `before_publish` hook raised.
        """

    async def amend(
        self,
        pov_id: str,
        activity_id: str,
        details: dict[str, Any],
        *,
        sender: Identity | None = None,
        change_id: str | UnsetType = UNSET,
        user_id: str | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
        offset: int | UnsetType = UNSET,
    ) -> Published:
        """Give an activity other details, wherever it is shown; return where it says so.

        All else of an activity stays. With a `sender` in that token's name, who may change what
        they published as long as its id is remembered, or with `operate` anybody's; without, the
        plugin may change anybody's. `user_id` is who did it, which only a service or a plugin says
        (without it: the author), `reason` what they say, `change_id` the change's own id, for
        retries. `offset` says where an old one is. Raises what `publish` does, `NotFound`,
        `Forbidden`, or `Retracted`.
        """

    async def retract(
        self,
        pov_id: str,
        activity_id: str,
        *,
        sender: Identity | None = None,
        change_id: str | UnsetType = UNSET,
        user_id: str | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
        offset: int | UnsetType = UNSET,
    ) -> Published:
        """Withdraw an activity: its details are gone for good. All else is as with `amend`."""

    async def notify(
        self, user_id: str, notification: NewNotification, *, sender: Identity | None = None
    ) -> Published:
        """Put a notification into a user's inbox; returns when it is durable.

        It reaches the user's connections on all nodes, and each device that is away when it comes
        back. Ids are remembered per `sender` (without one: per plugin), so that a retry is no
        second one. Raises `InvalidId`, `InvalidActivity`, `TooLarge`, `IdConflict`, `Unavailable`.
        """

    async def digest(self, pov_id: str, after: int, *, within_s: float = 0.3) -> Digest | None:
        """Return what happened after an offset, in numbers; None if that takes too long.

        It may be some seconds old. A user in debt is told None.
        """

    def shown(self, user_id: str, pov_id: str | None = None) -> Mapping[str, Shown]:
        """Return by device what it said last of a PoV, or of the inbox: was it shown, why not.

        What was said to this node, and not long ago: little is remembered.
        """

    async def history(
        self,
        pov_id: str,
        *,
        after: int = 0,
        limit: int = 100,
        reverse: bool = False,
        only: Only | None = None,
        max_bytes: int | None = None,
        raw: bool = False,
    ) -> HistoryPage:
        """Read up to `limit` (1,000) activities after an offset; `reverse`: before it (0: newest).

        What `only` leaves out counts towards `limit`. With `max_bytes` the page ends with the
        activity that reaches them. With `raw` each one's `details` are JSON that is not decoded,
        which is enough to send them on. What cannot be read, such as a damaged entry, is left out.
        """

    @property
    def fetch(self) -> Fetch:
        """HTTP requests out: `answer = await host.fetch(url)`."""

    def announce(self, event: Event) -> None:
        """Tell the plugins of this node that hear it, now; what fails in one of them is logged.

        Raises TypeError for an event that is none of those the plugin `announces`.
        """

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside: `host.spawn(tell(user_id))`. It ends, cancelled, with the plugin.

        That is before the lifespan goes on behind its `yield`. What it raises is logged, and
        counted. Raises `Unavailable` if 10,000 are at work.
        """

    def count(self, name: str, value: int = 1) -> None:
        """Add to a counter of this plugin's: `pov_rt_plugin_total{plugin, name}` in the metrics.

        With 0 it is there before the first one happens, which `rate()` and alerts need: do so where
        the plugin starts. The 33rd name and those after it are counted as `other`. Raises
        ValueError for a name that is not like `calls_failed`.
        """

    def charge(self, cost: float) -> None:
        """Charge as `Context.charge` does, whoever it is for whom the current task works.

        That is the user whose message or request began it; the node's own tasks are free.
        """

    def shares(self, name: str, limit: float, each: float) -> Shares:
        """Return a bound that users share, `limit` in all and `each` for one.

        The metrics and the log have it as `PLUGIN_NAME`.
        """

    def disconnect(
        self,
        *,
        user_id: str | None = None,
        connection_id: str | None = None,
        code: CloseCode = CloseCode.DISCONNECTED,
    ) -> Order:
        """Close the matching connections on all nodes; one of the two ids is needed."""

    async def closed(self, order: Order) -> Closed:
        """Return how many connections `disconnect` has closed, on all nodes that say so.

        To be asked right behind it; it takes a second at most.
        """

    async def revoke(
        self,
        *,
        token_id: str | None = None,
        user_id: str | None = None,
        before: float | None = None,
        tenant: str | None = None,
    ) -> Revoked:
        """Refuse tokens on all nodes, after restarts too, and close the connections with one.

        One by its id (`jti`), or those of a user, or without a user of everybody, that were issued
        before an instant (seconds since 1970; for a user now, if none is given). A socket token
        counts as issued when its access token was. None undoes one before. With `tenant`
        (`Grants.tenant`) only its tokens, whatever is asked for. `InvalidRequest`: the
        instant lies ahead by more than `auth.leeway_s`; `InvalidId`: that can be no user.
        `Unavailable`: it is in force, but only until the nodes restart.
        """

    def verify(self, token: str) -> Identity:
        """Verify a socket token. Raises `TokenError` or a subclass."""

    def regrant(self, connection_id: str, identity: Identity) -> Sequence[str]:
        """Give a connection of this node a newer token of the same user.

        Returns the PoVs it may be subscribed to no longer, and so is not. Raises `TokenError` for
        another user or a token issued earlier (where one does not say: with an earlier expiry),
        `NotFound` for an unknown connection.
        """


class Context(Protocol[S_co]):
    """One connection, as a handler sees it. Valid during the call and after it."""

    @property
    def state(self) -> S_co:
        """What the plugin's lifespan yielded."""

    @property
    def host(self) -> Host[S_co]:
        """The server."""

    @property
    def user(self) -> Identity:
        """Who is connected, from the token."""

    @property
    def grants(self) -> Grants:
        """What the token allows now."""

    @property
    def device(self) -> str:
        """The user's device, as the client named it (`default` if it did not)."""

    @property
    def connection_id(self) -> str:
        """The connection's id, unique over all nodes."""

    @property
    def subprotocol(self) -> bool:
        """Whether the client speaks `pov-rt.v1`, and so knows more than the first messages."""

    @property
    def remote_ip(self) -> str:
        """The client's address."""

    @property
    def user_agent(self) -> str:
        """The client's User-Agent header, cut at 200 characters."""

    def subscribed(self, pov_id: str) -> bool:
        """Tell whether this connection is subscribed to the PoV."""

    async def may(self, grant: str, pov_id: str) -> bool:
        """Tell whether this user may do now what needs a grant on a PoV.

        Token and plugins are asked, as before a message is handled; if nobody can say it is no.
        """

    async def check_pov(self, pov_id: str, grant: str, field: str = "povId") -> None:
        """Raise unless this user may do now what needs a grant on a PoV, or with `*` on the feed.

        For a `PovOrFeed`, which nobody has checked. Raises `InvalidId`, `Forbidden`, and what a
        plugin refuses with.
        """

    def require_subscribed(self, pov_id: str, field: str = "povId") -> None:
        """Raise `Forbidden` naming the field unless this connection is subscribed to the PoV."""

    async def subscribe(
        self,
        pov_id: str,
        since: Since | None = None,
        only: Only | None = None,
        *,
        durable: bool = False,
    ) -> Subscribed:
        """Subscribe this connection; activities follow the handler's reply.

        With `since`, those after that position, or that number of the newest, come first. What
        `only` leaves out is not sent; without it a second subscription ends the filter of the
        first. `*` is the team feed. A `durable` one is remembered for the user. It
        ends when the user may not see the PoV any more.

        It is done in the step in which the handler is answered: if that is an error, all is left as
        it was. Until then the connection is sent nothing of the PoV.

        Raises `InvalidId`, `Forbidden`, `LimitExceeded`, `Unavailable`, and what a plugin refuses
        with.
        """

    async def several(
        self,
        attempts: Mapping[str, Callable[[Context[S_co]], Coroutine[Any, Any, ValueT]]],
        then: Callable[[dict[str, ValueT]], Coroutine[Any, Any, None]] | None = None,
    ) -> Mapping[str, ValueT | ClientError]:
        """Do something for several PoVs at the same time, most likely subscribe to them.

        Returns by PoV what came of it, or the error, in the order of the attempts. One with an
        error leaves a subscription to its PoV as it was; `timeout` is the error of those that take
        up most of the time that a handler has. What anything else raises, this raises. `then` is
        called with the good results, for what can be done for all of them at once.
        """

    async def amend(
        self,
        pov_id: str,
        activity_id: str,
        details: dict[str, Any],
        *,
        change_id: str | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
        offset: int | UnsetType = UNSET,
    ) -> Published:
        """Amend an activity in the connected user's name; see `Host.amend`."""

    async def retract(
        self,
        pov_id: str,
        activity_id: str,
        *,
        change_id: str | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
        offset: int | UnsetType = UNSET,
    ) -> Published:
        """Retract an activity in the connected user's name; see `Host.amend`."""

    async def cursor(self, pov_id: str) -> Position | None:
        """Return up to where this device acknowledged the PoV; None if it never did.

        The device is remembered; of too many the user's longest unused is forgotten.
        """

    async def acknowledge(self, position: Position, pov_id: str | None = None) -> Position:
        """Move this device's cursor on the PoV, or on the user's inbox; return where it is.

        It never goes back within an epoch. Where nothing is (offset 0) none is made.
        """

    def report(
        self, position: Position, pov_id: str | None = None, reason: Reason | None = None
    ) -> None:
        """Remember that this device has shown an entry of the PoV or the inbox, or why it did not.

        The last one of a device and PoV is there for `Host.shown`.
        """

    async def mark_read(self, position: Position, pov_id: str | None = None) -> Read:
        """Move up to where the user has read the PoV, or the inbox, as `acknowledge` does.

        What was marked unread again up to there is read, too.
        """

    async def mark_seen(self, position: Position, pov_id: str | None = None) -> tuple[Marked, bool]:
        """Move up to where the user has seen the PoV, or the inbox; what was read was seen.

        Returns the user's marks, and whether this moved one.
        """

    async def mark_unread(self, position: Position, pov_id: str) -> tuple[Marked, bool]:
        """Have everything of the PoV from a position on count as unread again, on all devices.

        What the user is said to have read stays. The last one counts; behind what was read it
        takes the one before away. Returns the user's marks, and whether anything changed.
        """

    async def marked(self, subscribed: Sequence[Subscribed]) -> Mapping[str, Marked]:
        """Return by PoV up to where the user has read and seen it, on whatever device.

        Empty if that cannot be said in time, or the client has no subprotocol; the team feed has no
        marks. What is answered in this step is so: no mark moves before.
        """

    def topic(self, pov_id: str) -> str:
        """Return the engine's name for a PoV, or with `*` for the feed of the user's team."""

    def delivered(
        self, offset: int, pov_id: str | None = None, epoch: str | UnsetType = UNSET
    ) -> Position:
        """Return the position of an offset of a PoV, or of the user's inbox.

        Raises `Forbidden` if this connection is not sent that, `EpochChanged` if `epoch` is
        another, and `InvalidMessage` if the connection was not sent as much.
        """

    def follow_inbox(self) -> None:
        """Deliver the user's notifications, beginning with those this device has not had."""

    def unsubscribe(self, pov_id: str) -> bool:
        """Unsubscribe; return whether it was subscribed. Nothing of the PoV follows the reply."""

    async def listen(self, pov_id: str) -> None:
        """Have this connection get what the plugin broadcasts to listeners, from now on.

        Until it unsubscribes from the PoV, or its user may not collaborate on it any more. What is
        broadcast before the handler's reply comes before it. Raises `Forbidden` without the grant
        `collaborate` or without a subscription, `Unavailable`.
        """

    async def digest(self, pov_id: str, after: int) -> Digest | None:
        """Return what `Host.digest` does; all those of a message have 0.3 s together."""

    def charge(self, cost: float) -> None:
        """Charge the user what the message cost beside its price, which could not know it.

        1 is about a tenth of a millisecond of the server's time, a row that was read is 0.02. While
        a user's budget is in debt, further messages are `rate_limited`.
        """

    def send(self, message: Message) -> None:
        """Send to this connection, before the reply."""

    def broadcast(self, pov_id: str, message: Message) -> None:
        """As `Host.broadcast`; a subscribed caller gets it too, before the reply.

        Unless that is the same message, returned in the step of the broadcast (no `await` between
        them): then the reply is the caller's copy.
        """

    @overload
    def publish(
        self,
        activity: NewActivity,
        *,
        instead: Callable[[Published], Message] | None = None,
        field: str = "",
    ) -> Future[Published]: ...

    @overload
    def publish(
        self,
        activity: NewActivity,
        *,
        answer: Callable[[Published], AnswerT],
        instead: Callable[[Published], Message] | None = None,
        field: str = "",
    ) -> Future[AnswerT]: ...

    def publish(
        self,
        activity: NewActivity,
        *,
        answer: Callable[[Published], Any] | None = None,
        instead: Callable[[Published], Message] | None = None,
        field: str = "",
    ) -> Future[Any]:
        """Publish in the connected user's name; await what it returns, or return that.

        A handler that is not `async` may return the future: it has the activity's place, or what
        `answer` makes of that. Whoever stops waiting for it leaves the publication to finish.

        A subscribed publisher gets its activity like everybody else. With `instead` it gets, in the
        activity's place in the stream, the message that this makes; it is the answer to the
        handler's message, and the handler's own result then is not sent. What it raises, this
        raises, though the activity is published; the publisher then gets that, too.

        `field` is that of the handler's message which is the activity, as it came: it was decoded,
        so less of it is checked again, and errors name what is wrong with it within the message.

        Raises, at once or when it is awaited, `Forbidden` without the grant `publish` or once the
        token has expired, what a plugin refuses with, and what `Host.publish` raises.
        """


class Request(Protocol[S_co]):
    """An HTTP request to a plugin's route, already authenticated and authorised."""

    @property
    def state(self) -> S_co:
        """What the plugin's lifespan yielded."""

    @property
    def host(self) -> Host[S_co]:
        """The server."""

    @property
    def user(self) -> Identity:
        """Whose token it is."""

    @property
    def path(self) -> Mapping[str, str]:
        """The path's parameters, decoded: `{"pov_id": ...}`.

        `pov_id` and `user_id` are good ids, and the token covers the PoV.
        """

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters; of a repeated one the last.

        The token covers what is named like a PoV.
        """

    def body(self, kind: type[StructT]) -> StructT:
        """Return the JSON body, of the class that the route was declared with (`body=`).

        Its ids are good ones, and the token covers each `PovId`.
        """

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """Read a number of the query, of at most 16 digits; `default` where it is not given.

        Raises `InvalidRequest` with its name as the field.
        """

    def charge(self, cost: float) -> None:
        """Charge the user as `Context.charge` does."""

    async def check_pov(self, pov_id: str | None, field: str = "povId") -> None:
        """Raise `InvalidId`, or `Forbidden` unless this may be done on a PoV that no `PovId` named.

        Without one the token must cover every PoV.
        """

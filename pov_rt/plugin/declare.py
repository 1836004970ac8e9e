"""What a plugin declares: message types, hooks, timers, routes, each with where it stands."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple

import msgspec
from typing_extensions import TypeVar

from pov_rt.plugin.interfaces import Access, Allowed, Context, Host, Request
from pov_rt.protocol.bodies import Published
from pov_rt.protocol.messages import Activity, Event, Message

StateT = TypeVar("StateT", default=None)
MessageT = TypeVar("MessageT", bound=Message)
ResultT = TypeVar("ResultT")
ReplyT = TypeVar("ReplyT", bound=Message | Awaitable[Message | None] | None)
BodyT = TypeVar("BodyT", bound=msgspec.Struct | Awaitable[msgspec.Struct | None] | None)
EventT = TypeVar("EventT", bound=Event)
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
StructT = TypeVar("StructT", bound=msgspec.Struct)

ConnectionHook = Callable[[Context[StateT]], None]
PovHook = Callable[[str, Context[StateT]], None]
AuthoriseHook = Callable[[Access, Host[StateT]], Awaitable[Allowed | None] | Allowed | None]
BeforePublish = Callable[[Activity, Host[StateT]], Activity | Awaitable[Activity | None] | None]
PublishedHook = Callable[[Activity, Published, Host[StateT]], None]
ErasedHook = Callable[[str, Host[StateT]], Awaitable[None] | None]
ExportedHook = Callable[[str, Host[StateT]], AsyncIterator[Any]]
ExpiredHook = Callable[[str, str, Host[StateT]], None]
GoneHook = Callable[[str, Sequence[str], Host[StateT]], None]
LapsedHook = Callable[[Host[StateT]], None]
Follower = Callable[[Activity, Published, Host[StateT]], Awaitable[None] | None]
Listener = Callable[[EventT, Host[StateT]], None]


@dataclass(frozen=True, slots=True)
class Source:
    """Where something was declared, for errors and the documentation."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def source_of(function: Any) -> Source:
    """Return where a function was defined, or that of a coroutine."""
    code = getattr(function, "cr_code", None) or getattr(inspect.unwrap(function), "__code__", None)
    return Source(code.co_filename, code.co_firstlineno) if code else Source("?", 0)


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """A message type's handler, as declared."""

    message: type[Message]
    function: Callable[..., Any]
    grant: str | None
    rate: str | None
    price: float | Callable[[Any], float]
    unordered: bool
    pipelined: bool | Callable[[Any], bool]
    source: Source


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """An HTTP route, as declared; `path` is below /api."""

    method: str
    path: str
    function: Callable[..., Any]
    grant: str
    service: bool
    price: float
    body: type[msgspec.Struct] | None
    source: Source


@dataclass(frozen=True, slots=True)
class TimerSpec:
    """Something to do every few seconds, as declared."""

    seconds: float
    function: Callable[..., Any]
    source: Source


@dataclass(frozen=True, slots=True)
class FollowSpec:
    """What is called with all that is published, as declared; `pov_id` may be `*`."""

    pov_id: str
    since: str
    function: Callable[..., Any]
    source: Source


@dataclass(frozen=True, slots=True)
class ActivitySpec:
    """What the details of some activities are, as declared; `key` is TYPE.ACTION."""

    key: str
    details: type[msgspec.Struct]
    source: Source


@dataclass(frozen=True, slots=True)
class ListenerSpec:
    """What hears an event, as declared."""

    event: type[Event]
    function: Callable[..., Any]
    source: Source


class Unfinished(NamedTuple):
    """A decorator that was made and has decorated nothing yet: `argument` is what it was given."""

    what: str
    argument: Any
    source: Source


class HookSpec(NamedTuple):
    """A hook's function, as declared; `name` is one of `HOOKS`."""

    name: str
    function: Callable[..., Any]
    source: Source


class HookRule(NamedTuple):
    """How many arguments a hook's function takes, and whether it may be `async`, or has to yield.

    Somebody waits for the one, and for what the other yields.
    """

    arguments: int
    may_be_async: bool = False
    yields: bool = False

    @property
    def is_waited_for(self) -> bool:
        """Whether what it does is not done before it ends."""
        return self.may_be_async or self.yields


HOOKS: Mapping[str, HookRule] = {
    "connected": HookRule(1),
    "disconnected": HookRule(1),
    "subscribed": HookRule(2),
    "unsubscribed": HookRule(2),
    "published": HookRule(3),
    "expired": HookRule(3),
    "gone": HookRule(3),
    "lapsed": HookRule(1),
    "before_publish": HookRule(2, may_be_async=True),
    "authorise": HookRule(2, may_be_async=True),
    "lost": HookRule(2),
    "erased": HookRule(2, may_be_async=True),
    "exported": HookRule(2, yields=True),
}


class OnMessage(Generic[MessageT, StateT]):
    """What `Plugin.on` returns: a decorator that knows the message's and the state's type."""

    def __init__(self, register: Callable[[Callable[..., Any]], None]) -> None:
        self._register = register

    def __call__(
        self, handler: Callable[[MessageT, Context[StateT]], ReplyT]
    ) -> Callable[[MessageT, Context[StateT]], ReplyT]:
        """Register the handler and return it unchanged, so that tests can call it."""
        self._register(handler)
        return handler


class OnRequest(Generic[StateT]):
    """What `Plugin.http` returns."""

    def __init__(self, register: Callable[[Callable[..., Any]], None]) -> None:
        self._register = register

    def __call__(
        self, handler: Callable[[Request[StateT]], BodyT]
    ) -> Callable[[Request[StateT]], BodyT]:
        """Register the handler and return it unchanged."""
        self._register(handler)
        return handler


@dataclass(eq=False)
class Plugin(Generic[StateT]):
    """A named set of message types, hooks, timers and HTTP routes: `plugin = Plugin("poll")`.

    `options` is the class of `[plugins.NAME]` in the settings; while the option that `needs` names
    is empty, the plugin is off, as with `enabled = false`. `pushes` are the messages it sends
    that are no handler's answer, for the documentation; `announces` are the events that others can
    hear, and `grants` those that its messages and routes need beside the server's own. The
    declarations are read once, when the server starts; adding to them later has no effect.
    """

    name: str
    options: type[msgspec.Struct] | None = None
    needs: str | None = None
    pushes: Sequence[type[Message]] = ()
    announces: Sequence[type[Event]] = ()
    grants: Sequence[str] = ()
    handlers: list[HandlerSpec] = field(default_factory=list, init=False, repr=False)
    hooks: list[HookSpec] = field(default_factory=list, init=False, repr=False)
    listeners: list[ListenerSpec] = field(default_factory=list, init=False, repr=False)
    timers: list[TimerSpec] = field(default_factory=list, init=False, repr=False)
    followers: list[FollowSpec] = field(default_factory=list, init=False, repr=False)
    routes: list[RouteSpec] = field(default_factory=list, init=False, repr=False)
    activities: list[ActivitySpec] = field(default_factory=list, init=False, repr=False)
    lifespans: list[Callable[[Host], AsyncIterator[Any]]] = field(
        default_factory=list, init=False, repr=False
    )
    unfinished: list[Unfinished] = field(default_factory=list, init=False, repr=False)

    def on(
        self,
        message: type[MessageT],
        *,
        grant: str | None = None,
        rate: str | None = None,
        price: float | Callable[[MessageT], float] = 1,
        unordered: bool = False,
        pipelined: bool | Callable[[MessageT], bool] = False,
    ) -> OnMessage[MessageT, StateT]:
        """Handle a message type: `(message, context) -> reply or None`, plain or `async`.

        A plain one that is declared so (`-> Future[Reply]`) may return a future of its reply, such
        as that of `Context.publish`: no task is needed to wait for it.

        `grant` must be in the token's `can`. `rate` (`5/s`) is per connection. Every field of type
        `PovId` is checked against the token before the handler is called, and the plugins that
        authorise are asked: whether the user may see the PoV (no grant, or `subscribe`),
        collaborate (`collaborate`), or write (`publish`, or any other grant) on it.

        `price`, or what it returns for a message, is taken off the user's budget
        (`limits.cost_rate`) first: 1 is about a tenth of a millisecond of the server's time; one of
        0 is never refused for a debt.

        The messages of a connection are handled one after the other, in the order they came. Two
        options change that:

        - `unordered`: the handler begins at once, whatever the connection's other handlers do.
        - `pipelined` (for all messages, or those for which the function returns True): the next
          pipelined message begins as soon as this handler waits for the first time, or has returned
          a Future. So whatever has to happen in order belongs before that. Answers stay in order.
          It has no effect while any plugin has a `before_publish` hook, or one that authorises.
        """
        begun = self._begin("on", message)

        def register(function: Callable[..., Any]) -> None:
            self._finish(begun)
            self.handlers.append(
                HandlerSpec(
                    message,
                    function,
                    grant,
                    rate,
                    price,
                    unordered,
                    pipelined,
                    source_of(function),
                )
            )

        return OnMessage(register)

    def lifespan(
        self, function: Callable[[Host[Any]], AsyncIterator[StateT]]
    ) -> Callable[[Host[Any]], AsyncIterator[StateT]]:
        """Run at start-up to its one `yield`, which gives the state; the rest at shut-down."""
        self.lifespans.append(function)
        return function

    def connected(self, function: ConnectionHook[StateT]) -> ConnectionHook[StateT]:
        """Call after a connection was opened."""
        return self._hook("connected", function)

    def disconnected(self, function: ConnectionHook[StateT]) -> ConnectionHook[StateT]:
        """Call after a connection was closed, for whatever reason; it can't be sent to any more."""
        return self._hook("disconnected", function)

    def subscribed(self, function: PovHook[StateT]) -> PovHook[StateT]:
        """Call with the PoV's id after a connection subscribed."""
        return self._hook("subscribed", function)

    def unsubscribed(self, function: PovHook[StateT]) -> PovHook[StateT]:
        """Call with the PoV's id after a connection unsubscribed or was closed."""
        return self._hook("unsubscribed", function)

    def published(self, function: PublishedHook[StateT]) -> PublishedHook[StateT]:
        """Call after an activity became durable, on the node that published it; not for retries."""
        return self._hook("published", function)

    def expired(self, function: ExpiredHook[StateT]) -> ExpiredHook[StateT]:
        """Call with the PoV and the member after one of the plugin's leases has ended.

        Those of `host.leases` under `host.channel(pov_id)`, on one node for each: when the time
        given with `leave` is over, or when the node that held it is gone. On none, should the node
        that was to call it end just then.
        """
        return self._hook("expired", function)

    def gone(self, function: GoneHook[StateT]) -> GoneHook[StateT]:
        """Call with the PoV and the members when leases of the plugin have ended, on every node.

        That is every one with connections that asked for what happens on the PoV
        (`Context.listen`), in the order of what the plugin's other nodes broadcast to them: who is
        told with `Host.broadcast(..., here=True)` at once, and hears of all that comes after, knows
        who is there. It is called for members that are on this node, too, if another node took this
        one for dead.
        """
        return self._hook("gone", function)

    def lapsed(self, function: LapsedHook[StateT]) -> LapsedHook[StateT]:
        """Call after the other nodes took this one for dead, as when it stood still for long.

        What it held as leases may have ended; enter again what is to stay.
        """
        return self._hook("lapsed", function)

    def before_publish(self, function: BeforePublish[StateT]) -> BeforePublish[StateT]:
        """Call before an activity is stored: return a changed one, None to keep it, or raise.

        A `ClientError` refuses the activity with that error. Its id and PoV can't be changed.
        """
        return self._hook("before_publish", function)

    def authorise(self, function: AuthoriseHook[StateT]) -> AuthoriseHook[StateT]:
        """Call before a user sees a PoV, collaborates or writes on it: `(access, host)`, or raise.

        At every door, once the token allows it; services are not asked about. `access.pov_id` is
        `*` for the team feed. A `ClientError` refuses with that error, anything else with
        `internal`. The answer `Allowed(for_s, grace_s)` stands for so long, then it is asked for
        again where somebody stays subscribed; None stands as long as the token.
        """
        return self._hook("authorise", function)

    def lost(self, function: PovHook[StateT]) -> PovHook[StateT]:
        """Call with the PoV's id after a connection was unsubscribed for it may not see it now.

        As `unsubscribed` was before: its newer token does not cover the PoV, or a plugin that was
        asked again refused.
        """
        return self._hook("lost", function)

    def erased(self, function: ErasedHook[StateT]) -> ErasedHook[StateT]:
        """Call when all that is kept of a user is erased: `(user_id, host)`, plain or `async`.

        Remove what the plugin keeps of the user in places of its own; what it put into `host.store`
        with the user's id is gone by then. It may be called again, also for a user of whom nothing
        is there. If it fails the operator is told, and erases the user once more.
        """
        return self._hook("erased", function)

    def exported(self, function: ExportedHook[StateT]) -> ExportedHook[StateT]:
        """Yield what the plugin keeps of a user in places of its own: `async`, `(user_id, host)`.

        Structs, or whatever else can be JSON: a line of the export each. What it put into
        `host.store` with the user's id is exported without that.
        """
        return self._hook("exported", function)

    def hears(
        self, event: type[EventT]
    ) -> Callable[[Listener[EventT, StateT]], Listener[EventT, StateT]]:
        """Call with each event of the kind that another plugin announces on this node, at once.

        Nothing is heard from a plugin that is off.
        """
        begun = self._begin("hears", event)

        def register(function: Listener[EventT, StateT]) -> Listener[EventT, StateT]:
            self._finish(begun)
            self.listeners.append(ListenerSpec(event, function, source_of(function)))
            return function

        return register

    def every(
        self, seconds: float
    ) -> Callable[[Callable[[Host[StateT]], ResultT]], Callable[[Host[StateT]], ResultT]]:
        """Call every `seconds`, never two at once; a failure is logged and it goes on."""
        begun = self._begin("every", seconds)

        def register(
            function: Callable[[Host[StateT]], ResultT],
        ) -> Callable[[Host[StateT]], ResultT]:
            self._finish(begun)
            self.timers.append(TimerSpec(seconds, function, source_of(function)))
            return function

        return register

    def follows(
        self, pov_id: str = "*", *, since: Literal["now", "beginning"] = "now"
    ) -> Callable[[Follower[StateT]], Follower[StateT]]:
        """Call with every activity of a PoV, or of all (`*`): `(activity, published, host)`.

        Plain or `async`, one after the other in the order of the log, at least once each, over
        restarts and failures: how far it got is kept in the engine, under the function's name. One
        that fails is tried again, later and later, and what is behind it waits; so a function that
        cannot do anything with an activity returns. A call may take 60 s.

        The first time it begins with what is published from now on, or with the oldest that is
        kept. What retention removes before it was called is missed, and the log says so.
        `published` says where the activity is in the log that is followed: with `*` a team's feed.
        """
        begun = self._begin("follows", pov_id)

        def register(function: Follower[StateT]) -> Follower[StateT]:
            self._finish(begun)
            self.followers.append(FollowSpec(pov_id, since, function, source_of(function)))
            return function

        return register

    def http(
        self,
        method: str,
        path: str,
        *,
        grant: str,
        service: bool = False,
        body: type[msgspec.Struct] | None = None,
        price: float = 1,
    ) -> OnRequest[StateT]:
        """Serve `/api` + path, such as `/povs/{pov_id}/presence`, to tokens with the grant.

        With `service` only to service tokens: no user's own will do, whatever it grants. `body` is
        what `request.body` then gives. Before the handler is called, `{pov_id}` in the path, every
        `PovId` of the body and every parameter of the query that is named like a PoV is checked
        against the token, as a message's are. The handler returns a struct (200) or None (204), or
        raises a `ClientError`. `price` is as for messages.
        """
        begun = self._begin("http", method)

        def register(function: Callable[..., Any]) -> None:
            self._finish(begun)
            self.routes.append(
                RouteSpec(method, path, function, grant, service, price, body, source_of(function))
            )

        return OnRequest(register)

    def activity(self, key: str) -> Callable[[type[StructT]], type[StructT]]:
        """Declare the details of activities: `@plugin.activity("task.completed")` above a struct.

        The key is their type and action with a dot between them; `task.*` is for each action of
        `task` that has no declaration of its own. Whoever publishes one whose `details` are not so
        is refused, with the field (no details count as an empty object). `pov-rt schema` describes
        them. A `Part` has camelCase on the wire; `msgspec.convert(activity.details, TaskCompleted)`
        makes one of what was published.
        """
        begun = self._begin("activity", key)

        def register(details: type[StructT]) -> type[StructT]:
            self._finish(begun)
            self.activities.append(ActivitySpec(key, details, begun.source))
            return details

        return register

    def _begin(self, what: str, argument: Any) -> Unfinished:
        """Remember a decorator until it decorates something: `_finish`."""
        caller = inspect.currentframe()
        for _ in range(2):  # this function, and the decorator
            caller = caller and caller.f_back
        source = Source(caller.f_code.co_filename, caller.f_lineno) if caller else Source("?", 0)
        begun = Unfinished(what, argument, source)
        self.unfinished.append(begun)
        return begun

    def _finish(self, begun: Unfinished) -> None:
        self.unfinished[:] = [each for each in self.unfinished if each is not begun]

    def _hook(self, name: str, function: FunctionT) -> FunctionT:
        self.hooks.append(HookSpec(name, function, source_of(function)))
        return function

"""What is on a node, as operators look at it: connections, users, PoVs, plugins.

All are lists of one kind: filtered, sorted with what is worst first, in pages. A page begins behind
the last row of the one before, by its place in the order: what changes in between moves rows, but
makes none that does not change appear twice or never.

Over several nodes each row is one node's, a user on two of them has two, and a row's place is the
same whichever node is asked. So pages of several nodes, all begun at one place, are merged by the
places of their rows (`nodes/pages`).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from pov_rt.auth.revocations import Revocations
from pov_rt.connections.connection import Connection
from pov_rt.connections.directory import Directory
from pov_rt.delivery.topic import Topic
from pov_rt.dispatch.dispatcher import Dispatcher
from pov_rt.dispatch.hooks import Hooks
from pov_rt.dispatch.host import Services, describe
from pov_rt.protocol.bodies import ConnectionRow, PluginRow, PovRow, UserRow
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import InvalidRequest
from pov_rt.protocol.tenants import team_of, wire_of
from pov_rt.registry.discovery import Found
from pov_rt.runtime import turns
from pov_rt.runtime.clock import Clock, rfc3339

ThingT = TypeVar("ThingT")

MOST_ROWS = 1000
"""In one page, for which all others wait (docs/measurements.md, lists)."""
PAGE_BYTES = 1024 * 1024
"""Of a page's rows: it has fewer if they are large, so that it can go to another node."""
LOOK_S = 1.0
"""Rates are of at least this time; who looks again before sees the same."""
STALE_S = 60.0
"""After this time without a look there is no rate, for it would hide what happens now."""
RATE = "rate"


class Cursor(NamedTuple):
    """A row's place in the order: how bad it is, its name, and its node's run."""

    badness: float
    name: str
    node: str = ""


@dataclass(frozen=True)
class Query:
    """What somebody wants to see of a list. `tenant` None: of all teams.

    `filters` are texts by their names, one of which a row must have; `search` is looked for in all
    of them.
    """

    sort: str = ""
    reverse: bool = False
    filters: Mapping[str, str] = field(default_factory=dict)
    search: str = ""
    limit: int = 100
    after: Cursor | None = None
    tenant: str | None = None


class Page(NamedTuple):
    """Encoded rows with their places. `total` fit the query, `more` of them come after these."""

    rows: Sequence[tuple[Cursor, bytes]]
    total: int
    more: int


@dataclass(frozen=True)
class Listing(Generic[ThingT]):
    """One list: what is in it, and how its things are named, sorted, filtered and shown.

    The first of `sorts` is the usual one. `counted` is what the rate is the rate of.
    """

    things: Callable[[], Iterable[ThingT]]
    name: Callable[[ThingT], str]
    tenant: Callable[[ThingT], str | None]
    counted: Callable[[ThingT], int]
    sorts: Mapping[str, Callable[[ThingT], float]]
    filters: Mapping[str, Callable[[ThingT], Iterable[str]]]
    row: Callable[[ThingT, float | None], msgspec.Struct]


class Rates:
    """How fast counters rise, while somebody looks. Owner: the listings, one for each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._at = -math.inf
        self._rates: dict[str, float] = {}

    @property
    def is_due(self) -> bool:
        """Whether the counters are to be looked at once more."""
        return self._clock.monotonic() - self._at >= LOOK_S

    def get(self, name: str) -> float | None:
        """Return how fast a counter rose between the last two looks; None: it was not there."""
        return self._rates.get(name)

    def look(self, counts: dict[str, int]) -> None:
        """Take over what the counters are now."""
        now = self._clock.monotonic()
        passed = now - self._at
        if passed < LOOK_S:  # somebody else has looked meanwhile
            return
        before = self._counts if passed <= STALE_S else {}
        self._rates = {
            name: max(0, count - before[name]) / passed
            for name, count in counts.items()
            if name in before
        }
        self._counts, self._at = counts, now


@dataclass
class User:
    """A user with all connections on the node."""

    id: str
    connections: Sequence[Connection]


class Listings:
    """Every list of a node. Owner: the server."""

    def __init__(
        self, services: Services, revocations: Revocations, hooks: Hooks, dispatcher: Dispatcher
    ) -> None:
        self._services = services
        self._clock = services.clock
        self._directory: Directory = services.directory
        self._revocations = revocations
        self._conduct = hooks.conduct
        self._counts = dispatcher.counts
        registry = services.registry
        self._since = services.clock.time() - services.clock.monotonic()
        """Makes instants of the monotonic clock such as other nodes can compare with theirs."""
        self._types: dict[str, list[str]] = {}
        for handler in sorted(registry.handlers.values(), key=lambda each: each.tag):
            self._types.setdefault(handler.plugin.name, []).append(handler.tag)
        self._idle = {each.plugin.name: each.why for each in registry.idle}
        self.all: Mapping[str, Listing[Any]] = {
            "connections": self._connections(),
            "users": self._users(),
            "povs": self._povs(),
            "plugins": self._plugins(),
        }
        """By the names of their paths."""
        self._rates = {name: Rates(services.clock) for name in self.all}

    def check(self, name: str, query: Query) -> None:
        """Raise `InvalidRequest` for a sort or a filter that the list does not have."""
        listing = self.all[name]
        if query.sort and query.sort not in listing.sorts:
            known = ", ".join(listing.sorts)
            raise InvalidRequest(f"{name} are sorted by one of: {known}", field="sort")
        for each in query.filters:
            if each not in listing.filters:
                raise InvalidRequest(f"{name} have no {each} to look for", field=each)

    async def page(self, name: str, query: Query) -> Page:
        """Return a page of this node's rows of a list; raises as `check` does.

        Other work gets its turn between pieces of a long list.
        """
        self.check(name, query)
        listing, rates = self.all[name], self._rates[name]
        sort = query.sort or next(iter(listing.sorts))
        if rates.is_due:
            counts = dict[str, int]()
            async for thing in turns.spread(listing.things(), turns.LISTED):
                counts[listing.name(thing)] = listing.counted(thing)
            rates.look(counts)
        value = listing.sorts[sort]
        if sort == RATE:
            value = lambda thing: rates.get(listing.name(thing)) or 0.0  # noqa: E731
        sign = 1 if query.reverse else -1
        total = 0
        found: list[tuple[Cursor, Any]] = []
        async for thing in turns.spread(listing.things(), turns.LISTED):
            if _fits(listing, thing, query):
                total += 1
                place = Cursor(sign * value(thing), listing.name(thing), self._services.run)
                if query.after is None or place > query.after:
                    found.append((place, thing))
        shown = heapq.nsmallest(query.limit, found, key=itemgetter(0))
        rows = list[tuple[Cursor, bytes]]()
        size = 0
        for place, thing in shown:
            row = encode(listing.row(thing, rates.get(place.name)))
            if rows and (size := size + len(row)) > PAGE_BYTES:
                break
            rows.append((place, row))
        return Page(rows, total, len(found) - len(rows))

    # The lists:

    def _connections(self) -> Listing[Connection]:
        return Listing(
            things=self._directory.all,
            name=lambda each: each.id,
            tenant=lambda each: each.identity.grants.tenant,
            counted=lambda each: sum(each.transport.traffic),
            sorts={
                "unsent": lambda each: each.transport.unsent_bytes,
                "lag": _lag,
                RATE: lambda each: 0.0,
                # In the order of what is used up, which does not change while time passes.
                "cost": lambda each: self._since + each.budget.paid_at,
                "age": lambda each: -(self._since + each.opened_at),
            },
            filters={
                "userId": lambda each: [each.identity.user_id],
                "povId": _povs,
                "device": lambda each: [each.device],
                "ip": lambda each: [each.remote_ip],
                "transport": lambda each: [each.transport.framing.transport],
                "connectionId": lambda each: [each.id],
            },
            row=self._connection_row,
        )

    def _connection_row(self, connection: Connection, rate: float | None) -> ConnectionRow:
        info = describe(connection, self._clock.monotonic())
        return ConnectionRow(
            node=self._services.node,
            **msgspec.structs.asdict(info),
            transport=connection.transport.framing.transport,
            lag=_lag(connection),
            bytes_per_s=rate,
            cost=round(self._cost(connection), 4),
        )

    def _cost(self, connection: Connection) -> float:
        return connection.budget.used(self._clock.monotonic())

    def _users(self) -> Listing[User]:
        return Listing(
            things=self._all_users,
            name=lambda each: each.id,
            tenant=lambda each: team_of(each.id),
            counted=lambda each: sum(sum(one.transport.traffic) for one in each.connections),
            sorts={
                "unsent": lambda each: sum(one.transport.unsent_bytes for one in each.connections),
                "lag": lambda each: sum(map(_lag, each.connections)),
                RATE: lambda each: 0.0,
                "cost": lambda each: max(
                    (self._since + one.budget.paid_at for one in each.connections), default=0.0
                ),
                "connections": lambda each: len(each.connections),
                "seen": self._last_seen,
            },
            filters={
                "userId": lambda each: [each.id],
                "povId": lambda each: [pov for one in each.connections for pov in _povs(one)],
                "device": lambda each: [one.device for one in each.connections],
                "ip": lambda each: [one.remote_ip for one in each.connections],
                "state": self._states,
            },
            row=self._user_row,
        )

    def _all_users(self) -> list[User]:
        here = self._directory.users()
        known = dict.fromkeys([*here, *self._directory.last_seen.left_at])
        known.update(dict.fromkeys(self._revocations.blocked))
        return [User(each, self._directory.of(each)) for each in known]

    def _user_cost(self, user: User) -> float:
        # All of a user's connections have one budget, but for those of services.
        return max(map(self._cost, user.connections), default=0.0)

    def _last_seen(self, user: User) -> float:
        if user.connections:
            return self._clock.time()
        return self._directory.last_seen.left_at.get(user.id, 0.0)

    def _states(self, user: User) -> list[str]:
        states = ["online" if user.connections else "offline"]
        return states if self._revocations.blocked_until(user.id) is None else [*states, "blocked"]

    def _user_row(self, user: User, rate: float | None) -> UserRow:
        seen, blocked = self._last_seen(user), self._revocations.blocked_until(user.id)
        return UserRow(
            node=self._services.node,
            user_id=user.id,
            connections=len(user.connections),
            devices=sorted({each.device for each in user.connections}),
            unsent_bytes=sum(each.transport.unsent_bytes for each in user.connections),
            lag=sum(map(_lag, user.connections)),
            bytes_per_s=rate,
            cost=round(self._user_cost(user), 4),
            last_seen=rfc3339(seen) if seen else None,
            blocked_until=None if blocked is None else rfc3339(blocked),
        )

    def _povs(self) -> Listing[Topic]:
        return Listing(
            things=lambda: [each for each in self._services.hub.all() if each.is_subscription],
            name=lambda each: each.name,
            tenant=_tenant_of,
            counted=lambda each: each.offset,
            sorts={
                "lag": lambda each: max(map(each.behind, each.catching_up), default=0),
                "unsent": _unsent,
                RATE: lambda each: 0.0,
                "cost": lambda each: (self._rates["povs"].get(each.name) or 0.0) * each.users,
                "subscribers": lambda each: each.users,
            },
            filters={"povId": lambda each: [each.pov_id]},
            row=lambda each, rate: _pov_row(self._services.node, each, rate),
        )

    def _plugins(self) -> Listing[Found]:
        registry = self._services.registry
        return Listing(
            things=lambda: [*registry.found, *(each.found for each in registry.idle)],
            name=lambda each: each.plugin.name,
            tenant=lambda each: None,
            counted=self._handled,
            sorts={
                "failures": self._failures,
                RATE: lambda each: 0.0,
                "messages": self._handled,
            },
            filters={
                "name": lambda each: [each.plugin.name],
                "origin": lambda each: [each.origin],
                "type": lambda each: self._types.get(each.plugin.name, []),
                "state": lambda each: ["on" if self._off(each) is None else "off"],
            },
            row=lambda each, rate: PluginRow(
                node=self._services.node,
                name=each.plugin.name,
                origin=each.origin,
                types=self._types.get(each.plugin.name, []),
                messages=self._handled(each),
                messages_per_s=rate,
                failures=self._failures(each),
                off=self._off(each),
            ),
        )

    def _handled(self, found: Found) -> int:
        return sum(self._counts.get(tag, 0) for tag in self._types.get(found.plugin.name, []))

    def _failures(self, found: Found) -> int:
        counts = self._conduct.counts.items()
        return sum(count for (plugin, _), count in counts if plugin == found.plugin.name)

    def _off(self, found: Found) -> str | None:
        name = found.plugin.name
        return self._conduct.off.get(name) or self._idle.get(name)


def _fits(listing: Listing[ThingT], thing: ThingT, query: Query) -> bool:
    if query.tenant is not None and listing.tenant(thing) != query.tenant:
        return False
    if any(text not in listing.filters[name](thing) for name, text in query.filters.items()):
        return False
    if not query.search:
        return True
    wanted = query.search.casefold()
    texts = (text for texts in listing.filters.values() for text in texts(thing))
    return any(wanted in wire_of(text).casefold() for text in texts)


def _lag(connection: Connection) -> int:
    return sum(topic.behind(connection) for topic in connection.topics.values())


def _povs(connection: Connection) -> list[str]:
    return [each.pov_id for each in connection.topics.values() if each.is_subscription]


def _unsent(topic: Topic) -> int:
    """Return what waits for those who are behind: nobody who is not has much."""
    return sum(each.transport.unsent_bytes for each in topic.catching_up)


def _tenant_of(topic: Topic) -> str | None:
    return topic.name.partition("/")[2] if topic.kind == "team" else team_of(topic.pov_id)


def _pov_row(node: str, topic: Topic, rate: float | None) -> PovRow:
    lags = [lag for each in topic.catching_up if (lag := topic.behind(each))]
    return PovRow(
        node=node,
        pov_id=topic.pov_id,
        subscribers=topic.users,
        offset=topic.offset,
        behind=len(lags),
        lag=max(lags, default=0),
        unsent_bytes=_unsent(topic),
        activities_per_s=rate,
        deliveries_per_s=None if rate is None else rate * topic.users,
    )

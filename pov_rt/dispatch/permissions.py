"""May this identity see a PoV, collaborate or write on it now? The one question behind every door.

The token is judged first (`auth/grants`), then the plugins that authorise are asked, about users
and not about services. Without such a plugin nothing of this is on a message's way: handlers that
ask first are made when the server is (`guard`).

An answer stands for as long as it says. Who stays subscribed is then asked about again, once for
all connections about which the same is asked: a no ends the subscriptions, and if nobody can say
they stay for the grace that the last yes gave.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from pov_rt.auth.grants import Action, Kind, action_of
from pov_rt.auth.tokens import Identity
from pov_rt.connections.borders import Borders
from pov_rt.connections.connection import Connection
from pov_rt.delivery.hub import Hub
from pov_rt.plugin.interfaces import Access, Allowed
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import ClientError
from pov_rt.protocol.messages import ErrorMessage, Message, Unsubscribed
from pov_rt.protocol.topics import TEAM_FEED, pov_of, pov_topic, team_topic
from pov_rt.registry.build import Handler
from pov_rt.registry.pov_ids import has_povs
from pov_rt.runtime.bounds import payer
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.containment import Tasks

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Of one request's PoVs, and of one owner's standing subscriptions, so many are asked about at a
time."""
LEAST_S = 1.0
"""Nobody is asked again sooner, however short an answer stands."""
RETRY_S = 5.0
"""How long after a question that nobody could answer it is asked again, at most."""

_STANDING: tuple[Action, ...] = ("see", "collaborate")


class PermissionHooks(Protocol):
    """The plugins, as they are asked and told: `Hooks`."""

    @property
    def authorise(self) -> Callable[[Access], Awaitable[Allowed | None]] | None:
        """What asks all plugins that authorise, and raises what one refuses with; None: none do."""

    def tell(self, hook: str, *arguments: Any, connection: Connection) -> None:
        """Call the hooks of this name with the arguments and the connection."""


class _Standing:
    """An answer on which subscriptions stand.

    It is asked for again in the second `due`, and lasts until `until` if nobody can say then (both
    `Clock.monotonic`).
    """

    __slots__ = ("connections", "due", "until")

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.due = 0
        self.until = 0.0


class Permissions:
    """Judges all doors of a server. Owner: the server, which sets `hooks` before the first one."""

    hooks: PermissionHooks

    def __init__(self, hub: Hub, clock: Clock, borders: Borders) -> None:
        self._hub = hub
        self._borders = borders
        self._clock = clock
        self._standing: dict[Access, _Standing] = {}
        # By the second in which they are due: to take one out costs no search.
        self._due: dict[int, dict[Access, None]] = {}
        self._swept = int(clock.monotonic())
        self._waiting: dict[str, deque[Access]] = {}  # by owner, while a task works them off
        self._tasks = Tasks(log, "asking again who may see a PoV")

    @property
    def asks(self) -> bool:
        """Whether any plugin is asked."""
        return self.hooks.authorise is not None

    @property
    def standing(self) -> int:
        """How many answers subscriptions stand on that are asked for again."""
        return len(self._standing)

    async def require(
        self,
        identity: Identity,
        pov_id: str,
        grant: str | None,
        field: str = "povId",
        *,
        feed: bool = False,
    ) -> Allowed | None:
        """Raise unless a PoV is there for what needs this grant; with `feed` it may be `*`.

        Raises `InvalidId`, `Forbidden`, what a plugin refuses with, or that nobody can say.
        Returns for how long that stands; None: as long as the token.
        """
        grants = identity.grants
        if feed:
            grants.require_pov_or_feed(pov_id, field)
        else:
            grants.require_pov(pov_id, field)
        if grant is not None:
            grants.require(grant)
        if self.hooks.authorise is None or identity.kind is Kind.SERVICE:
            return None
        return await self._ask(_access(identity, pov_id, action_of(grant)))

    async def _ask(self, access: Access) -> Allowed | None:
        """Ask the plugins; raise what one refuses with."""
        if (ask := self.hooks.authorise) is None:
            return None
        try:
            return await ask(access)
        except ClientError as error:
            if (denied := self._borders.denied) is not None:
                denied(access.user_id, _topic(access), error)
            raise

    async def require_all(
        self, identity: Identity, povs: Mapping[str, str], grant: str | None, *, feed: bool = False
    ) -> Mapping[str, Allowed | None]:
        """Do so for several, with their fields, a few at a time; raise what the first one does."""
        if self.hooks.authorise is None or len(povs) < 2:
            return {
                pov_id: await self.require(identity, pov_id, grant, field, feed=feed)
                for pov_id, field in povs.items()
            }
        left, allowed = deque(povs.items()), dict[str, Allowed | None]()
        while left:
            some = [left.popleft() for _ in range(min(AT_ONCE, len(left)))]
            asked = [self.require(identity, pov, grant, field, feed=feed) for pov, field in some]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            for (pov_id, _), answer in zip(some, answers, strict=True):
                if isinstance(answer, BaseException):
                    raise answer
                allowed[pov_id] = answer
        return allowed

    def guard(self, handlers: Mapping[type[Message], Handler]) -> Mapping[type[Message], Handler]:
        """Return the handlers; if there is whom to ask, those do first whose messages have PoVs.

        They are `async` then, and none overtakes another.
        """
        if self.hooks.authorise is None:
            return handlers
        return {
            kind: _asking(handler) if has_povs(kind) else handler
            for kind, handler in handlers.items()
        }

    # What stands:

    def stand(
        self, connection: Connection, pov_id: str, action: Action, allowed: Allowed | None
    ) -> None:
        """Have it asked again when an answer is over that a connection's subscription stands on."""
        if allowed is None or connection.closed:
            return
        access = _access(connection.identity, pov_id, action)
        standing = self._standing.get(access)
        if standing is None:
            standing = self._standing[access] = _Standing()
        standing.connections.add(connection)
        self._renew(access, standing, allowed)

    def forget(self, connection: Connection, pov_id: str) -> None:
        """Ask no more for a connection that is not subscribed to a PoV any more."""
        if self._standing:
            for action in _STANDING:
                self._drop(connection, _access(connection.identity, pov_id, action))

    def replaced(self, connection: Connection, old: Identity) -> None:
        """Ask anew at once about what a connection has, if its new token says who else it is.

        Its identity is the new one already.
        """
        if not self.asks:
            return
        for topic in connection.topics.values():
            if topic.kind == "user":
                continue
            action: Action = "see" if topic.is_subscription else "collaborate"
            before = _access(old, topic.pov_id, action)
            after = _access(connection.identity, topic.pov_id, action)
            if before != after:
                self._drop(connection, before)
                if after in self._standing:
                    self._standing[after].connections.add(connection)
                else:
                    self.stand(connection, topic.pov_id, action, Allowed(0, RETRY_S))

    def leave(self, connection: Connection, name: str) -> bool:
        """End a subscription, with the plugins' channels on its PoV; return whether it was there.

        Nothing else would end those before the connection does. One that no answer has confirmed
        was not there, and no plugin was told of it.
        """
        was_there, pov_id = self._hub.leave(connection, name), pov_of(name)
        self.forget(connection, pov_id)
        self.leave_channels(connection, pov_id)
        if was_there:
            self.hooks.tell("unsubscribed", pov_id, connection=connection)
        return was_there

    def end(self, connection: Connection, pov_id: str, why: ClientError) -> bool:
        """End a subscription, and say so and why; return whether there was one."""
        name = connection.identity.grants.topic(pov_id)
        if not self.leave(connection, name):
            return False
        self.tell_lost(connection, name, why)
        self.hooks.tell("lost", pov_id, connection=connection)
        if not connection.closed:
            told = Unsubscribed(pov_id=pov_id, code=why.code, message=why.message)
            connection.subscription_ended(encode(told))
        return True

    def tell_lost(self, connection: Connection, name: str, why: ClientError) -> None:
        """Tell who wants to know that a subscription was ended from here, and why."""
        if (lost := self._borders.lost) is not None:
            lost(connection, name, why)

    def leave_channels(self, connection: Connection, pov_id: str | None = None) -> None:
        """End what plugins broadcast to listeners, on one PoV or on all."""
        for topic in list(connection.topics.values()):
            if pov_id in (None, topic.pov_id) and topic.kind not in ("pov", "team", "user"):
                self._hub.leave(connection, topic.name)
                self._drop(connection, _access(connection.identity, topic.pov_id, "collaborate"))

    def sweep(self, now: float) -> None:
        """Begin to ask about what is due; called about once a second."""
        last, self._swept = self._swept, int(now)
        passed: Sequence[int] = range(last + 1, self._swept + 1)
        if len(passed) > len(self._due):  # a clock that was stepped by days must not cost seconds
            passed = sorted(each for each in self._due if each <= self._swept)
        for second in passed:
            for access in self._due.pop(second, ()):
                waiting = self._waiting.get(access.owner)
                if waiting is not None:
                    waiting.append(access)
                    continue
                self._waiting[access.owner] = deque([access])
                self._tasks.spawn(self._ask_again(access.owner))

    async def close(self) -> None:
        """Ask no more."""
        await self._tasks.end()

    def _renew(self, access: Access, standing: _Standing, allowed: Allowed) -> None:
        now = self._clock.monotonic()
        standing.until = now + allowed.for_s + allowed.grace_s
        self._set_due(access, standing, now + max(allowed.for_s, LEAST_S))

    def _set_due(self, access: Access, standing: _Standing, due: float) -> None:
        self._unset_due(access, standing)
        standing.due = max(math.ceil(due), self._swept + 1)
        self._due.setdefault(standing.due, {})[access] = None

    def _unset_due(self, access: Access, standing: _Standing) -> None:
        there = self._due.get(standing.due, {})
        there.pop(access, None)
        if not there:
            self._due.pop(standing.due, None)

    def _drop(self, connection: Connection, access: Access) -> bool:
        """Take a connection from those that stand on an answer; return whether it was there."""
        standing = self._standing.get(access)
        if standing is None or connection not in standing.connections:
            return False
        standing.connections.remove(connection)
        if not standing.connections:
            self._unset_due(access, standing)
            del self._standing[access]
        return True

    async def _ask_again(self, owner: str) -> None:
        """Ask about what is due of an owner, a few at a time."""
        payer.set(owner)
        waiting = self._waiting[owner]
        try:
            while waiting:
                some = [waiting.popleft() for _ in range(min(AT_ONCE, len(waiting)))]
                await asyncio.gather(*map(self._ask_about, some))
        finally:
            del self._waiting[owner]

    async def _ask_about(self, access: Access) -> None:
        if access not in self._standing:
            return
        try:
            allowed = await self._ask(access)
        except ClientError as error:
            self._fail(access, error)
            return
        standing = self._standing.get(access)
        if standing is not None and allowed is not None:
            self._renew(access, standing, allowed)

    def _fail(self, access: Access, why: ClientError) -> None:
        """Ask again later what nobody can say now, and end what stood on anything else."""
        standing, now = self._standing.get(access), self._clock.monotonic()
        if standing is None:
            return
        if why.status == 429:
            # What keeps it from being asked is what the user does: no reason for a long grace.
            standing.until = min(standing.until, now + 2 * RETRY_S)
        if (why.status >= 500 or why.status == 429) and now < standing.until:
            wait = RETRY_S * (0.5 + self._clock.random() / 2)
            self._set_due(access, standing, min(now + wait, standing.until))
            return
        for connection in list(standing.connections):
            self._lose(connection, access, why)

    def _lose(self, connection: Connection, access: Access, why: ClientError) -> None:
        """End what stood on an answer, and say so."""
        pov_id = access.pov_id
        if access.action == "see":
            if not self.end(connection, pov_id, why):
                self._drop(connection, access)
            return
        self.leave_channels(connection, pov_id)
        if not connection.closed:
            told = ErrorMessage(message=why.message, code=why.code, detail=pov_id)
            connection.send(encode(told))


def _access(identity: Identity, pov_id: str, action: Action) -> Access:
    return Access(
        user_id=identity.user_id,
        pov_id=pov_id,
        action=action,
        role=identity.role,
        email=identity.email,
        team_id=identity.grants.team_id,
        owner=identity.owner,
    )


def _topic(access: Access) -> str:
    return team_topic(access.team_id) if access.pov_id == TEAM_FEED else pov_topic(access.pov_id)


def _asking(handler: Handler) -> Handler:
    """Return a handler that asks about the message's PoVs before it does anything."""
    function, grant, check_ids = handler.spec.function, handler.spec.grant, handler.check_ids

    async def ask_first(message: Message, context: Any) -> Any:
        povs: dict[str, str] = {}
        if check_ids is not None:
            check_ids(message, povs.setdefault)
        await context.require(povs, grant)
        result = function(message, context)
        return await result if inspect.isawaitable(result) else result

    return replace(
        handler,
        is_async=True,
        may_wait=True,
        spec=replace(handler.spec, function=ask_first, pipelined=False),
    )

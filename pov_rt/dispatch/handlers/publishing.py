"""What a handler publishes, amends and retracts in its user's name."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.activities.publishing import publisher_of
from pov_rt.auth.tokens import Identity
from pov_rt.connections.budgets import DELIVERY
from pov_rt.connections.connection import Connection
from pov_rt.dispatch.host import PluginHost
from pov_rt.engine.base import Position
from pov_rt.plugin.interfaces import Allowed
from pov_rt.protocol.bodies import Published
from pov_rt.protocol.encoding import RequestIdValue, encode_reply
from pov_rt.protocol.errors import ClientError, TokenExpired
from pov_rt.protocol.messages import Message, NewActivity
from pov_rt.protocol.topics import TEAM_FEED, team_topic
from pov_rt.runtime.bounds import payer
from pov_rt.runtime.containment import contain
from pov_rt.runtime.eager import start


def _within(error: ClientError, field: str) -> ClientError:
    """Return an error of an activity for who sent it as the field of a message, if that is one."""
    return error.within(field) if field else error


class PublishingContext:
    """The part of a `ConnectionContext` that publishes."""

    answered = False
    """The message was answered in the stream."""
    has_acted = False
    """Something was done for good."""
    has_published = False
    """Something may be published meanwhile."""
    request_id: RequestIdValue = UNSET

    host: PluginHost
    _connection: Connection

    async def require(
        self, povs: Mapping[str, str], grant: str | None, *, feed: bool = False
    ) -> Mapping[str, Allowed | None]:
        """Raise unless the user may do something on all of these PoVs, plugins asked."""
        raise NotImplementedError

    def publish(
        self,
        activity: NewActivity,
        *,
        answer: Callable[[Published], Any] | None = None,
        instead: Callable[[Published], Message] | None = None,
        field: str = "",
    ) -> Future[Any]:
        services, connection = self.host.services, self._connection
        self.has_published = True
        take = partial(self._take, answer, field)
        if instead is not None or services.permissions.asks:
            # A task of its own: who stops waiting for it gets no answer in the stream, while what
            # is under way in the log goes on.
            return start(self._ask_and_publish(activity, instead, take))
        before = payer.set(connection.budget.owner)
        try:
            user = self._may_publish(activity.pov_id)
            own = self._own(activity, user)
            publisher = publisher_of(user, is_service=False, origin=connection.id)
            return services.publishing.publish_one(own, publisher, take, decoded=field != "")
        except ClientError as error:
            raise _within(error, field) from error.__cause__
        finally:
            payer.reset(before)

    def _take(
        self, answer: Callable[[Published], Any] | None, field: str, one: Callable[[], Published]
    ) -> Any:
        """Return what is answered, or raise what refused the activity, for who sent it."""
        try:
            done = one()
        except ClientError as error:
            raise _within(error, field) from error.__cause__
        self.has_acted = True
        return done if answer is None else answer(done)

    def _own(self, activity: NewActivity, user: Identity) -> NewActivity:
        """Return an activity in the user's name, who pays for it.

        Who makes others be sent something does, whether it is published in the end or not.
        """
        grants = user.grants
        names = grants.topic(activity.pov_id), team_topic(grants.team_id)
        reached = self.host.services.hub.audience(*names)
        self._connection.budget.charge(reached * DELIVERY, self.host.clock.monotonic())
        return msgspec.structs.replace(activity, user_id=user.user_id)

    async def _ask_and_publish(
        self,
        activity: NewActivity,
        instead: Callable[[Published], Message] | None,
        take: Callable[[Callable[[], Published]], Any],
    ) -> Any:
        """As `publish`, where plugins are asked, or the answer has a place in the stream."""
        payer.set(self._connection.budget.owner)
        error: ClientError | None = None
        try:
            done = await self._publish_so(activity, instead)
        except ClientError as refused:
            error = refused

        def one() -> Published:
            if error is not None:
                raise error
            return done

        return take(one)

    async def _publish_so(
        self, activity: NewActivity, instead: Callable[[Published], Message] | None
    ) -> Published:
        services, connection = self.host.services, self._connection
        user = await self._require_publish(activity.pov_id)
        own = self._own(activity, user)
        if instead is None or self.answered:  # a message has one answer
            publisher = publisher_of(user, is_service=False, origin=connection.id)
            done: Published = await services.publishing.publish_one(own, publisher)
            return done
        origin = f"{connection.id}/{services.clock.new_id()}"
        if own.id is UNSET:
            own = msgspec.structs.replace(own, id=services.clock.new_id())
        failures: list[Exception] = []
        services.hub.expect(origin, connection, self._answer_with(own, instead, failures))
        try:
            publisher = publisher_of(user, is_service=False, origin=origin)
            published: Published = await services.publishing.publish_one(own, publisher)
            names = user.grants.topic(own.pov_id), user.grants.topic(TEAM_FEED)
            await services.hub.taken_over(connection, names)
        finally:
            self.answered = services.hub.withdraw(origin)
        self.has_acted = True
        if failures:
            raise failures[0]
        if not self.answered:
            # One that was published before may still be to come.
            answer = self._encode_answer(instead(published))
            self.answered = services.hub.answer_at(connection, names[0], published.offset, answer)
        return published

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
        sender = await self._require_publish(pov_id)
        done = await self.host.amend(
            pov_id,
            activity_id,
            details,
            sender=sender,
            change_id=change_id,
            reason=reason,
            offset=offset,
        )
        self.has_acted = True
        return done

    async def retract(
        self,
        pov_id: str,
        activity_id: str,
        *,
        change_id: str | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
        offset: int | UnsetType = UNSET,
    ) -> Published:
        sender = await self._require_publish(pov_id)
        done = await self.host.retract(
            pov_id, activity_id, sender=sender, change_id=change_id, reason=reason, offset=offset
        )
        self.has_acted = True
        return done

    async def _require_publish(self, pov_id: str) -> Identity:
        """As `_may_publish`, and ask the plugins."""
        self._may_publish(pov_id)
        if self.host.services.permissions.asks:
            await self.require({pov_id: "povId"}, "publish")
        return self._connection.identity

    def _may_publish(self, pov_id: str) -> Identity:
        """Return who may publish on a PoV now, as far as the token says. Raises if nobody may."""
        connection = self._connection
        if self.host.clock.monotonic() >= connection.expires_at:
            raise TokenExpired
        identity = connection.identity
        identity.grants.require("publish")
        identity.grants.require_pov(pov_id)
        return identity

    def _answer_with(
        self,
        own: NewActivity,
        instead: Callable[[Published], Message],
        failures: list[Exception],
    ) -> Callable[[Position], bytes]:
        """Return what encodes the answer once the activity's position is known.

        It runs where the activity is delivered; what it raises is put aside for the publisher.
        """

        def answer(position: Position) -> bytes:
            published = Published(str(own.id), own.pov_id, position.offset, position.epoch)
            try:
                return self._encode_answer(instead(published))
            except BaseException as error:
                failures.append(contain(error))
                raise

        return answer

    def _encode_answer(self, message: object) -> bytes:
        if not isinstance(message, Message):
            raise TypeError(f"`instead` returned {type(message).__name__}; it must be a Message")
        return encode_reply(message, self.request_id)

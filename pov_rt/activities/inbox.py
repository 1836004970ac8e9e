"""A user's inbox: messages that are kept until each device has them."""

from __future__ import annotations

from msgspec import UNSET

from pov_rt.activities.cursors import READ, acked
from pov_rt.activities.publishing import Publishing
from pov_rt.activities.sameness import compared
from pov_rt.connections.connection import Connection
from pov_rt.delivery.hub import Hub
from pov_rt.delivery.replay import AfterMarks
from pov_rt.engine.base import Conflict, Engine, NewEntry
from pov_rt.protocol.bodies import Published
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode, IdConflict, InvalidActivity, Unavailable
from pov_rt.protocol.messages import NewNotification, Notification, check_id
from pov_rt.protocol.topics import user_topic
from pov_rt.runtime.bounds import payer
from pov_rt.runtime.clock import Clock


class Inboxes:
    """The inboxes of all users, as one node serves them. Owner: the server."""

    def __init__(self, engine: Engine, hub: Hub, publishing: Publishing, clock: Clock) -> None:
        self._engine = engine
        self._hub = hub
        self._publishing = publishing
        self._clock = clock

    async def notify(self, user_id: str, new: NewNotification, sender: str) -> Published:
        """Put a notification into a user's inbox; return when it is durable.

        `sender` scopes the ids. Raises what is wrong with it, `IdConflict`, `Unavailable`.
        """
        began = self._clock.monotonic()
        check_id(user_id, "userId")
        notification = self._complete(new)
        topic = user_topic(user_id)
        entry = NewEntry(
            topic,
            sender,
            notification.id,
            encode(notification),
            compared=compared(notification),
        )
        (place,) = await self._publishing.append([entry], began)
        if isinstance(place, Conflict):
            raise IdConflict(field="id")
        return Published(notification.id, user_id, place.offset, place.epoch, place.duplicate)

    def _complete(self, new: NewNotification) -> Notification:
        if new.expires_at is not UNSET and new.expires_at.timestamp() <= self._clock.time():
            raise InvalidActivity("expiresAt has passed already", field="expiresAt")
        self._publishing.check_notification(new)
        return Notification(
            id=self._clock.new_id() if new.id is UNSET else new.id,
            type=new.type,
            pov_id=new.pov_id,
            user_id=new.user_id,
            expires_at=new.expires_at,
            details=new.details,
        )

    def follow(self, connection: Connection) -> None:
        """Deliver the user's notifications to a connection, first those its device has not had."""
        self._hub.tasks.begin(self._follow(connection))

    async def _follow(self, connection: Connection) -> None:
        payer.set(connection.budget.owner)
        user_id = connection.identity.user_id
        name = user_topic(user_id)
        names = (acked(connection.device), READ)
        try:
            (found,) = await self._engine.marks.get_many(user_id, [name], names)
            # Joined once the marks are known, and by place: what comes while they are read counts
            # as unread. A number of entries would be counted back from a newer top, and skip some
            # that the next acknowledgement covers.
            unread = AfterMarks([mark for mark in found if mark is not None])
            joining = await self._hub.join(connection, name, unread)
        except Unavailable:
            connection.close(CloseCode.GAP)
            return
        self._hub.confirm(joining)

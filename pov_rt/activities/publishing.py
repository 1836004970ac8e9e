"""From what a publisher sends to a durable activity: check, ask the plugins, append, tell them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import UNSET

from pov_rt.activities.checks import LONG_NUMBER, ODDITIES, check_name, check_value
from pov_rt.activities.sameness import compared
from pov_rt.auth.tokens import Identity
from pov_rt.config.settings import LimitSettings
from pov_rt.engine.base import Conflict, Engine, NewEntry
from pov_rt.protocol.depth import OPENING, check_details
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import ClientError, IdConflict, TooLarge
from pov_rt.protocol.messages import Activity, NewActivity, NewNotification, check_id
from pov_rt.protocol.topics import pov_topic, team_topic
from pov_rt.runtime import containment
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.eager import start

log = logging.getLogger(__name__)

KNOWN_TEXTS = 50_000
"""Texts found good that are remembered: ids, types and actions, of each."""


class Published(msgspec.Struct, frozen=True):
    """Where an activity is in its PoV's log. `duplicate`: this id was published before."""

    id: str
    pov_id: str
    epoch: str
    offset: int
    duplicate: bool = False


class Publisher(NamedTuple):
    """In whose name something is published: `key` scopes the ids, `team_id` chooses the feed."""

    key: str
    user_id: str
    team_id: str
    origin: str = ""


class InFlight:
    """How many publications of a handler are under way, so that a timeout can say so."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = 0

    def close(self, _: object) -> None:
        """Count one less; for a task that is done."""
        self.open -= 1


in_flight: ContextVar[InFlight | None] = ContextVar("in_flight", default=None)
"""That of the handler that runs; tasks it starts share it."""


class PublishHooks(Protocol):
    """What the plugins want to know of publications; None if none of them does."""

    @property
    def before_publish(self) -> Callable[[Activity], Awaitable[Activity]] | None:
        """What returns the activity as the plugins want it, or raises."""

    @property
    def appended(self) -> Callable[[str], None] | None:
        """What is told each topic, feeds too, that has something new on disk."""

    @property
    def published(self) -> Callable[[Activity, Published], None] | None:
        """What tells the plugins that an activity is durable."""


class Known(set[str]):
    """Texts found good: to find one takes a fraction of a check (docs/measurements.md, known ids).

    `check` raises what is wrong with a text, naming the field.
    """

    def __init__(self, check: Callable[[str, str], None]) -> None:
        super().__init__()
        self._check = check

    def learn(self, text: str, field: str) -> None:
        """Take in a text. Raises what is wrong with it."""
        self._check(text, field)
        if len(self) >= KNOWN_TEXTS:
            self.clear()
        self.add(text)


class Publishing:
    """Publishes activities. Owner: the server, which sets `hooks` before the first one."""

    hooks: PublishHooks

    def __init__(self, engine: Engine, limits: LimitSettings, clock: Clock) -> None:
        self._log = engine.log
        self._limits = limits
        self._clock = clock
        self._ids = Known(check_id)
        self._types = Known(partial(check_name, allowed=limits.types))
        self._actions = Known(partial(check_name, allowed=limits.actions))
        self._tasks: set[asyncio.Future[Any]] = set()
        self.published = 0
        """Activities published since the start, retries not counted."""

    async def publish(
        self,
        batch: Sequence[NewActivity | ClientError],
        publisher: Publisher,
        *,
        decoded: bool = False,
    ) -> list[Published | ClientError]:
        """Publish what is valid in one append; return what became of each, in order.

        An error in the batch is handed through to its place. `decoded` says that all was just
        decoded from JSON, so that there is less to check. Raises `Unavailable`; some of the batch
        may then be published, and a retry with the same ids is safe. A caller that is cancelled
        leaves the publication to finish.
        """
        task = start(self._publish(batch, publisher, decoded=decoded))
        if task.done():
            return task.result()
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        if (mine := in_flight.get()) is not None:
            mine.open += 1
            task.add_done_callback(mine.close)
        return await asyncio.shield(task)

    async def publish_one(self, activity: NewActivity, publisher: Publisher) -> Published:
        """Publish one activity. Raises what is wrong with it, and `Unavailable`."""
        (result,) = await self.publish([activity], publisher)
        if isinstance(result, ClientError):
            raise result
        return result

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that was cancelled has nobody left to tell

    async def _publish(
        self, batch: Sequence[NewActivity | ClientError], publisher: Publisher, *, decoded: bool
    ) -> list[Published | ClientError]:
        results: list[Published | ClientError | None] = [None] * len(batch)
        entries: list[NewEntry] = []
        stored: list[tuple[int, Activity]] = []
        feed = team_topic(publisher.team_id)
        before = self.hooks.before_publish
        for index, new in enumerate(batch):
            if isinstance(new, ClientError):
                results[index] = new
                continue
            failing = "an activity cannot be checked"
            try:
                activity = self._complete(new, publisher)
                body = self._check(activity, decoded=decoded)
                if before is not None:
                    failing = "a before_publish hook failed"
                    changed = await containment.call(
                        before, activity, deadline_s=self._limits.handler_deadline_s
                    )
                    if changed is not activity:
                        body = self._check_change(activity, changed)
                        activity = changed
            except ClientError as error:
                results[index] = error
                continue
            except Exception as error:  # which is no reason to refuse the others
                results[index] = containment.internal(self._clock, log, failing, error=error)
                continue
            stored.append((index, activity))
            entries.append(
                NewEntry(
                    pov_topic(activity.pov_id),
                    publisher.key,
                    activity.id,
                    body,
                    feed,
                    publisher.origin,
                    # Under an id of ours nothing comes twice.
                    b"" if new.id is UNSET else compared(activity),
                )
            )
        appended = await self._log.append(entries) if entries else []
        for (index, activity), place in zip(stored, appended, strict=True):
            if isinstance(place, Conflict):
                results[index] = IdConflict(field="id")
                continue
            done = Published(
                activity.id, activity.pov_id, place.epoch, place.offset, place.duplicate
            )
            results[index] = done
            if not place.duplicate:
                self.published += 1
                if self.hooks.published is not None:
                    self.hooks.published(activity, done)
        if self.hooks.appended is not None:
            _tell_topics(entries, self.hooks.appended)
        return [result for result in results if result is not None]

    def _complete(self, new: NewActivity, publisher: Publisher) -> Activity:
        return Activity(
            id=self._clock.new_id() if new.id is UNSET else new.id,
            type=new.type,
            action=new.action,
            pov_id=new.pov_id,
            user_id=publisher.user_id if new.user_id is UNSET else new.user_id,
            details=new.details,
        )

    def check_notification(self, new: NewNotification) -> None:
        """Raise `InvalidId`, `InvalidActivity` or `TooLarge` naming the field at fault."""
        if new.id is not UNSET:
            check_id(new.id, "id")
        if new.pov_id is not UNSET:
            check_id(new.pov_id, "povId")
        if new.user_id is not UNSET:
            check_id(new.user_id, "userId")
        check_name(new.type, "type")
        if new.details is not UNSET:
            check_details(new.details, self._limits.details_depth)
            check_value(new.details)
            self._check_size(new.details)

    def _check(self, activity: Activity, *, decoded: bool = False) -> bytes:
        """Return the encoded activity; raise as `check_notification` does.

        The lengths are checked again: a plugin's activity was never decoded.
        """
        check_id(activity.id, "id")  # each is new: a memory of good ones would only fill up
        # Looked up here, for each call is felt in a batch.
        if activity.pov_id not in self._ids:
            self._ids.learn(activity.pov_id, "povId")
        if activity.user_id not in self._ids:
            self._ids.learn(activity.user_id, "userId")
        if activity.type not in self._types:
            self._types.learn(activity.type, "type")
        if activity.action not in self._actions:
            self._actions.learn(activity.action, "action")
        limits, details = self._limits, activity.details
        try:
            body = encode(activity)
        except (TypeError, UnicodeEncodeError, RecursionError):
            check_details(details, limits.details_depth)
            check_value(details)
            raise
        if details is UNSET:
            return body
        if len(body) > limits.details_bytes:
            self._check_size(details)
        odd = body.translate(ODDITIES)
        if odd.count(OPENING) > limits.details_depth:
            check_details(details, limits.details_depth)
        if not decoded or LONG_NUMBER in odd:
            check_value(details)
        return body

    def _check_size(self, details: Any) -> None:
        limit, size = self._limits.details_bytes, len(encode(details))
        if size > limit:
            raise TooLarge(
                f"details has {size} bytes, of {limit} that are allowed", field="details"
            )

    def _check_change(self, before: Activity, after: Activity) -> bytes:
        if (before.id, before.pov_id) != (after.id, after.pov_id):
            raise TypeError("a before_publish hook may not change an activity's id or PoV")
        return self._check(msgspec.structs.replace(after, at=UNSET))


def _tell_topics(entries: Sequence[NewEntry], tell: Callable[[str], None]) -> None:
    for topic in {name for entry in entries for name in (entry.topic, entry.feed)}:
        tell(topic)


def publisher_of(identity: Identity, *, is_service: bool, origin: str = "") -> Publisher:
    """Return in whose name the sender of a token publishes."""
    kind = "service" if is_service else "user"
    return Publisher(
        f"{kind}:{identity.user_id}", identity.user_id, identity.grants.team_id, origin
    )

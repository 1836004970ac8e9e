"""From what a publisher sends to a durable activity: check, ask the plugins, append, tell them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import msgspec
from msgspec import UNSET

from pov_rt.activities.checks import LONG_NUMBER, ODDITIES, check_name, check_value
from pov_rt.activities.details.declared import Declared
from pov_rt.activities.sameness import compared
from pov_rt.auth.tokens import Identity
from pov_rt.config.settings import LimitSettings
from pov_rt.connections.borders import Borders, Rejected, Stored
from pov_rt.engine.base import Appended, Conflict, Engine, NewEntry
from pov_rt.protocol.bodies import PublishedActivity
from pov_rt.protocol.details.depth import OPENING, check_details
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import (
    ClientError,
    IdConflict,
    Internal,
    InvalidActivity,
    TooLarge,
    Unavailable,
)
from pov_rt.protocol.messages import (
    MAX_NAME_CHARS,
    Activity,
    NewActivity,
    NewNotification,
    check_id,
)
from pov_rt.protocol.tenants import wire_of
from pov_rt.protocol.topics import pov_topic, team_topic
from pov_rt.runtime import containment
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.eager import start

ResultT = TypeVar("ResultT")

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
    declared: Declared
    """What details have to be. A reload may set another one."""

    def __init__(
        self,
        engine: Engine,
        limits: LimitSettings,
        clock: Clock,
        borders: Borders | None = None,
    ) -> None:
        self._borders = borders or Borders()
        self.declared = Declared()
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
        return await self.finish(self._publish(batch, publisher, decoded=decoded))

    async def finish(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Do what publishes something; a caller that is cancelled leaves it to finish."""
        task = start(work)
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

    def forget(self, text: str) -> None:
        """Check an id anew when it comes again, as its team means it or by its bare name.

        By that services call the users in whose name they publish.
        """
        self._ids -= {text, wire_of(text)}

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
        began = self._clock.monotonic()
        results: list[Published | ClientError | None] = [None] * len(batch)
        entries: list[NewEntry] = []
        stored: list[tuple[int, Activity]] = []
        feed = team_topic(publisher.team_id)
        numbers = _Numbers()
        for index, new in enumerate(batch):
            if isinstance(new, ClientError):
                results[index] = new
                continue
            is_checked = False
            try:
                producer, seq = numbers.of(new)
                activity, body = self._admit(new, publisher, decoded=decoded)
                is_checked = True
                if self.hooks.before_publish is not None:
                    activity, body = await self._ask(activity, body)
            except ClientError as error:
                results[index] = error
                numbers.refused(new, error)
                self._reject(new, publisher, error, by_plugin=is_checked)
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
                    producer,
                    seq,
                )
            )
        appended = await self.append(entries, began) if entries else []
        for (index, activity), place in zip(stored, appended, strict=True):
            if isinstance(place, Conflict):
                results[index] = IdConflict(field="id")
                continue
            epoch, offset, duplicate = place
            done = Published(activity.id, activity.pov_id, epoch, offset, duplicate)
            results[index] = done
            if not duplicate:
                self.tell(activity, done)
        if self.hooks.appended is not None:
            for topic in {name for entry in entries for name in (entry.topic, entry.feed)}:
                self.hooks.appended(topic)
        return cast("list[Published | ClientError]", results)

    async def append(
        self, entries: Sequence[NewEntry], began: float
    ) -> Sequence[Appended | Conflict]:
        """Append what was checked, and is being published since `began` (monotonic)."""
        before = self._clock.monotonic()
        appended = await self._log.append(entries)
        self.stored(entries, appended, began, before)
        return appended

    def stored(
        self,
        entries: Sequence[NewEntry],
        places: Sequence[Appended | Conflict],
        began: float,
        before: float,
    ) -> None:
        """Tell who wants to know that entries are durable.

        `began` is when what they publish arrived, and `before` when the engine was asked.
        """
        if (stored := self._borders.stored) is not None:
            now = self._clock.monotonic()
            stored(Stored(entries, places, now - before, now - began))

    def _reject(
        self, new: NewActivity, publisher: Publisher, error: ClientError, *, by_plugin: bool
    ) -> None:
        if (rejected := self._borders.rejected) is not None:
            topic, own = pov_topic(new.pov_id), "" if new.id is UNSET else new.id
            user_id = publisher.user_id if new.user_id is UNSET else new.user_id
            rejected(Rejected(topic, own, publisher.key, user_id, error, by_plugin))

    async def prepare(self, activity: Activity) -> Activity:
        """Check an activity and ask the plugins; return it as they want it.

        Raises what is wrong with it, what a `before_publish` hook refuses it with, or `Internal`.
        """
        return (await self._ask(activity, self._check(activity)))[0]

    async def _ask(self, activity: Activity, body: bytes) -> tuple[Activity, bytes]:
        """Ask the plugins for an activity as they want it; return that, and encoded."""
        before = self.hooks.before_publish
        if before is None:
            return activity, body
        try:
            changed = await containment.call(
                before, activity, deadline_s=self._limits.handler_deadline_s
            )
            if changed is activity:
                return activity, body
            return changed, self._check_change(activity, changed)
        except ClientError:
            raise
        except Exception as error:
            raise self._fail("a before_publish hook failed", error) from error

    def _fail(self, what: str, error: Exception) -> Internal:
        return containment.internal(self._clock, log, what, error=error)

    def tell(self, activity: Activity, done: Published, topics: Sequence[str] = ()) -> None:
        """Count an activity that is durable now, and tell the plugins of it and of its topics."""
        self.published += 1
        if self.hooks.published is not None:
            self.hooks.published(activity, done)
        if (appended := self.hooks.appended) is not None:
            for topic in topics:
                appended(topic)

    def _admit(
        self, new: NewActivity, publisher: Publisher, *, decoded: bool
    ) -> tuple[Activity, bytes]:
        """Return an activity as it is to be published, and its bytes. Raises what refuses it."""
        activity = Activity(
            id=self._clock.new_id() if new.id is UNSET else new.id,
            type=new.type,
            action=new.action,
            pov_id=new.pov_id,
            user_id=publisher.user_id if new.user_id is UNSET else new.user_id,
            details=new.details,
        )
        try:
            return activity, self._check(activity, decoded=decoded)
        except ClientError:
            raise
        except Exception as error:  # which is no reason to refuse the others
            raise self._fail("an activity cannot be checked", error) from error

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

        The lengths are checked again: a plugin's activity was never decoded. What is declared comes
        last: by then details are plain JSON of a bounded size.
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
        if details is not UNSET:
            if len(body) > limits.details_bytes:
                self._check_size(details)
            odd = body.translate(ODDITIES)
            if odd.count(OPENING) > limits.details_depth:
                check_details(details, limits.details_depth)
            if not decoded or LONG_NUMBER in odd:
                check_value(details)
        if self.declared.types:
            self.declared.check(activity)
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


class _Numbers:
    """The producers' numbers in one batch."""

    def __init__(self) -> None:
        self._stopped: set[tuple[str, str]] = set()
        """PoVs and producers of which something could not be published for now."""

    def of(self, new: NewActivity) -> tuple[str, int]:
        """Return the producer and the number of what has them. Raises `ClientError`."""
        if not isinstance(new, PublishedActivity) or new.producer is new.seq is UNSET:
            return "", 0
        if new.producer is UNSET or new.seq is UNSET:
            missing = "producer" if new.producer is UNSET else "seq"
            raise InvalidActivity("producer and seq belong together", field=missing)
        check_id(new.producer, "producer", longest=MAX_NAME_CHARS)
        if (new.pov_id, new.producer) in self._stopped:
            raise Unavailable("One that its producer numbered before it has to come first")
        return new.producer, new.seq

    def refused(self, new: NewActivity, error: ClientError) -> None:
        """Refuse what is behind something that may be taken when it is sent again.

        To publish that would make the number of what is sent again too low.
        """
        may_pass = error.status >= 500 or error.status == 429
        if may_pass and isinstance(new, PublishedActivity) and new.producer is not UNSET:
            self._stopped.add((new.pov_id, new.producer))


def publisher_of(identity: Identity, *, is_service: bool, origin: str = "") -> Publisher:
    """Return in whose name the sender of a token publishes."""
    kind = "service" if is_service else "user"
    return Publisher(
        f"{kind}:{identity.user_id}", identity.user_id, identity.grants.team_id, origin
    )

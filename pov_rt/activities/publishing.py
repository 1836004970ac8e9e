"""From what a publisher sends to a durable activity: check, ask the plugins, append, tell them."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import UNSET

from pov_rt.activities.checks import LONG_NUMBER, ODDITIES, check_name, check_value
from pov_rt.activities.details.declared import Declared
from pov_rt.activities.sameness import compared
from pov_rt.auth.tokens import Identity
from pov_rt.config.settings import LimitSettings
from pov_rt.connections.borders import Borders, Rejected, Stored
from pov_rt.engine.base import Appended, Conflict, Engine, NewEntry
from pov_rt.protocol.bodies import Published, PublishedActivity
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
from pov_rt.runtime.eager import begun, start

ResultT = TypeVar("ResultT")

log = logging.getLogger(__name__)

KNOWN_TEXTS = 50_000
"""Texts found good that are remembered: ids, types and actions, of each."""


class Publisher(msgspec.Struct, frozen=True, gc=False):
    """In whose name something is published: `key` scopes the ids, `team_id` chooses the feed."""

    key: str
    user_id: str
    team_id: str
    origin: str = ""

    @property
    def feed(self) -> str:
        """The topic of what all of the team publish."""
        return team_topic(self.team_id)


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


_new_entry: Any = partial(tuple.__new__, NewEntry)
"""Of a tuple, past the class, in Python (docs/measurements.md, publications over sockets)."""

_ON_ITS_WAY = Published("", "", 0, "")
"""Stands in for the result of what is being appended."""


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
        self.log = engine.log
        self._limits = limits
        self.clock = clock
        self._ids = Known(check_id)
        self._types = Known(partial(check_name, allowed=limits.types))
        self._actions = Known(partial(check_name, allowed=limits.actions))
        self.works: set[Future[Any]] = set()
        """What is being published."""
        self.published = 0
        """Activities published since the start, retries not counted."""

    @property
    def asks(self) -> bool:
        """Whether plugins are asked before anything is published, for which one has to wait."""
        return self.hooks.before_publish is not None

    def publish(
        self,
        batch: Sequence[NewActivity | ClientError],
        publisher: Publisher,
        take: Callable[[list[Published | ClientError]], Any] | None = None,
        *,
        decoded: bool = False,
    ) -> Future[Any]:
        """Publish what is valid in one append; the future gets what became of each, in order.

        Or what `take` makes of that. An error in the batch is handed through to its place.
        `decoded` says that all was just decoded from JSON, so that there is less to check. The
        future may get `Unavailable`; some of the batch may then be published, and a retry with the
        same ids is safe. Whoever cancels it, or no longer waits for it, leaves the publication to
        finish.
        """
        work = _Batch(self, publisher, decoded=decoded)
        answer = work.result if take is None else lambda: take(work.result())
        if self.asks:
            return self.finish(self._ask_and_append(batch, work, answer))
        for new in batch:
            work.add(new)
        return work.append(answer)

    def publish_one(
        self,
        activity: NewActivity | ClientError,
        publisher: Publisher,
        take: Callable[[Callable[[], Published]], Any] | None = None,
        *,
        decoded: bool = False,
    ) -> Future[Any]:
        """Publish one activity, as `publish` does; the future gets its place, or what refused it.

        Or what `take` makes of that: it is given what returns the one or raises the other.
        """
        work = _Batch(self, publisher, decoded=decoded)
        answer = work.one if take is None else partial(take, work.one)
        if self.asks:
            return self.finish(self._ask_and_append([activity], work, answer))
        work.add(activity)
        return work.append(answer)

    def finish(self, work: Coroutine[Any, Any, ResultT]) -> Future[ResultT]:
        """Do what publishes something; whoever cancels the future leaves it to finish."""
        task = start(work)
        if task.done():
            return task
        self.under_way(task, self._forget)
        outer: Future[ResultT] = asyncio.shield(task)
        return outer

    def under_way(self, work: Future[Any], then: Callable[[Future[Any]], None]) -> None:
        """Take note that something is being published; `then`, when it is, takes that out again."""
        self.works.add(work)
        work.add_done_callback(then)
        if (mine := in_flight.get()) is not None:
            mine.open += 1
            work.add_done_callback(mine.close)

    def forget(self, text: str) -> None:
        """Check an id anew when it comes again, as its team means it or by its bare name.

        By that services call the users in whose name they publish.
        """
        self._ids -= {text, wire_of(text)}

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self.works, return_exceptions=True)

    def _forget(self, work: Future[Any]) -> None:
        self.works.discard(work)
        if not work.cancelled():
            work.exception()  # a caller that was cancelled has nobody left to tell

    async def _ask_and_append(
        self,
        batch: Sequence[NewActivity | ClientError],
        work: _Batch,
        answer: Callable[[], ResultT],
    ) -> ResultT:
        for new in batch:
            await work.ask(new)
        return await work.append(answer)

    async def append(
        self, entries: Sequence[NewEntry], began: float
    ) -> Sequence[Appended | Conflict]:
        """Append what was checked, and is being published since `began` (monotonic)."""
        before = self.clock.monotonic()
        appended = await self.log.append(entries)
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
            now = self.clock.monotonic()
            stored(Stored(entries, places, now - before, now - began))

    def reject(
        self, new: NewActivity, publisher: Publisher, error: ClientError, *, by_plugin: bool
    ) -> None:
        """Tell who wants to know that a check or a plugin refused an activity."""
        if (rejected := self._borders.rejected) is not None:
            topic, own = pov_topic(new.pov_id), "" if new.id is UNSET else new.id
            user_id = publisher.user_id if new.user_id is UNSET else new.user_id
            rejected(Rejected(topic, own, publisher.key, user_id, error, by_plugin))

    async def prepare(self, activity: Activity) -> Activity:
        """Check an activity and ask the plugins; return it as they want it.

        Raises what is wrong with it, what a `before_publish` hook refuses it with, or `Internal`.
        """
        return (await self.ask(activity, self._check(activity)))[0]

    async def ask(self, activity: Activity, body: bytes) -> tuple[Activity, bytes]:
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
        return containment.internal(self.clock, log, what, error=error)

    def tell(self, fresh: Sequence[tuple[Activity, Published]], topics: Iterable[str] = ()) -> None:
        """Count activities that are durable now, and tell the plugins of them and their topics."""
        self.published += len(fresh)
        if (published := self.hooks.published) is not None:
            for activity, done in fresh:
                published(activity, done)
        if (appended := self.hooks.appended) is not None:
            for topic in topics:
                appended(topic)

    def admit(
        self, new: NewActivity, publisher: Publisher, *, decoded: bool
    ) -> tuple[Activity, bytes]:
        """Return an activity as it is to be published, and its bytes. Raises what refuses it."""
        # By position: that takes a third of the time (docs/measurements.md, batches).
        activity = Activity(
            self.clock.new_id() if new.id is UNSET else new.id,
            new.type,
            new.action,
            new.pov_id,
            publisher.user_id if new.user_id is UNSET else new.user_id,
            UNSET,
            new.details,
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
            # By a third faster than `in` (docs/measurements.md, batches).
            if not decoded or odd.find(LONG_NUMBER) >= 0:
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


class _Batch:
    """Activities on their way into the log, and what becomes of each."""

    __slots__ = (
        "_before",
        "_began",
        "_decoded",
        "_entries",
        "_feed",
        "_outer",
        "_publisher",
        "_publishing",
        "_results",
        "_stopped",
        "_stored",
        "_take",
    )  # fmt: skip

    def __init__(self, publishing: Publishing, publisher: Publisher, *, decoded: bool) -> None:
        self._publishing = publishing
        self._publisher = publisher
        self._decoded = decoded
        self._began = self._before = publishing.clock.monotonic()
        self._feed = publisher.feed
        self._stopped: set[tuple[str, str]] | None = None
        """PoVs and producers of which something could not be published for now."""
        self._results: list[Published | ClientError] = []
        self._entries: list[NewEntry] = []
        self._stored: list[tuple[int, Activity]] = []
        """What is appended, and where its result belongs."""
        self._outer: Future[Any] | None = None
        self._take: Callable[[], Any] = self.result

    def add(self, new: NewActivity | ClientError) -> None:
        """Check an activity; an error is handed through."""
        if isinstance(new, ClientError):
            self._results.append(new)
            return
        publishing, publisher = self._publishing, self._publisher
        producer, seq = "", 0
        try:
            if isinstance(new, PublishedActivity) and not (new.producer is new.seq is UNSET):
                producer, seq = self._number(new)
            activity, body = publishing.admit(new, publisher, decoded=self._decoded)
        except ClientError as error:
            self._refuse(new, error, by_plugin=False)
            return
        self._enter(new, activity, body, producer, seq)

    async def ask(self, new: NewActivity | ClientError) -> None:
        """As `add`, and ask the plugins."""
        before = len(self._entries)
        self.add(new)
        if isinstance(new, ClientError) or len(self._entries) == before:
            return
        entry = self._entries.pop()
        _, activity = self._stored.pop()
        self._results.pop()
        try:
            activity, body = await self._publishing.ask(activity, entry.body)
        except ClientError as error:
            self._refuse(new, error, by_plugin=True)
            return
        self._enter(new, activity, body, entry.producer, entry.seq)

    def append(self, take: Callable[[], ResultT]) -> Future[ResultT]:
        """Append what was not refused; the future gets what `take` returns, or raises, then."""
        self._take = take
        outer: Future[ResultT] = Future()
        self._outer = outer
        if not self._entries:
            self._hand_over()
            return outer
        self._before = self._publishing.clock.monotonic()
        try:
            appended = begun(self._publishing.log.append(self._entries))
        except BaseException:
            self._let_go()
            raise
        if appended.done():
            self._done(appended)
        else:
            self._publishing.under_way(appended, self._done)
        return outer

    def result(self) -> list[Published | ClientError]:
        """Return what became of each, in order."""
        return self._results

    def one(self) -> Published:
        """Return what became of the only one. Raises what refused it."""
        (result,) = self._results
        if isinstance(result, ClientError):
            raise result
        return result

    def _number(self, new: PublishedActivity) -> tuple[str, int]:
        """Return the producer and the number of what has either. Raises `ClientError`."""
        if new.producer is UNSET or new.seq is UNSET:
            missing = "producer" if new.producer is UNSET else "seq"
            raise InvalidActivity("producer and seq belong together", field=missing)
        check_id(new.producer, "producer", longest=MAX_NAME_CHARS)
        if self._stopped and (new.pov_id, new.producer) in self._stopped:
            raise Unavailable("One that its producer numbered before it has to come first")
        return new.producer, new.seq

    def _enter(
        self, new: NewActivity, activity: Activity, body: bytes, producer: str, seq: int
    ) -> None:
        publisher = self._publisher
        self._stored.append((len(self._results), activity))
        self._results.append(_ON_ITS_WAY)
        self._entries.append(
            _new_entry(
                (
                    pov_topic(activity.pov_id),
                    publisher.key,
                    activity.id,
                    body,
                    self._feed,
                    publisher.origin,
                    # Under an id of ours nothing comes twice.
                    b"" if new.id is UNSET else compared(activity),
                    producer,
                    seq,
                )
            )
        )

    def _refuse(self, new: NewActivity, error: ClientError, *, by_plugin: bool) -> None:
        self._results.append(error)
        # What is behind something that may be taken when it is sent again: to publish that would
        # make the number of what is sent again too low.
        may_pass = error.status >= 500 or error.status == 429
        if may_pass and isinstance(new, PublishedActivity) and new.producer is not UNSET:
            self._stopped = (self._stopped or set()) | {(new.pov_id, new.producer)}
        self._publishing.reject(new, self._publisher, error, by_plugin=by_plugin)

    def _done(self, appended: Future[Any]) -> None:
        """Take over what the engine says. That nobody waits for it any more changes nothing."""
        self._publishing.works.discard(appended)
        try:
            self._take_over(appended.result())
        except BaseException as error:
            self._fail(error)
        else:
            self._hand_over()

    def _take_over(self, places: Sequence[Appended | Conflict]) -> None:
        publishing, results = self._publishing, self._results
        publishing.stored(self._entries, places, self._began, self._before)
        fresh: list[tuple[Activity, Published]] = []
        for (index, activity), place in zip(self._stored, places, strict=True):
            if isinstance(place, Conflict):
                results[index] = IdConflict(field="id")
                continue
            done = results[index] = Published(
                activity.id, activity.pov_id, place.offset, place.epoch, place.duplicate
            )
            if not place.duplicate:
                fresh.append((activity, done))
        publishing.tell(fresh, self._topics())

    def _topics(self) -> Iterator[str]:
        """Yield what was appended to, feeds too; nothing is looked up unless somebody asks."""
        yield from {name for entry in self._entries for name in (entry.topic, entry.feed)}

    def _hand_over(self) -> None:
        outer, take = self._let_go()
        if outer is None or outer.done():
            return
        try:
            outer.set_result(take())
        except BaseException as error:  # what a plugin makes of it may raise anything
            contained = containment.contain(error)
            if isinstance(contained, ClientError):
                # Nobody is shown it, and it knows this one's frames: both would wait for the
                # collector.
                contained.__traceback__ = None
            outer.set_exception(contained)
            del contained

    def _fail(self, error: BaseException) -> None:
        outer, _ = self._let_go()
        if outer is None or outer.done():
            return
        if isinstance(error, asyncio.CancelledError):
            outer.cancel()
        else:
            outer.set_exception(error)

    def _let_go(self) -> tuple[Future[Any] | None, Callable[[], Any]]:
        """Return who waits, and what makes the result, which knows this: it would be a cycle."""
        outer, take = self._outer, self._take
        del self._outer, self._take
        return outer, take


def publisher_of(identity: Identity, *, is_service: bool, origin: str = "") -> Publisher:
    """Return in whose name the sender of a token publishes."""
    kind = "service" if is_service else "user"
    return Publisher(
        f"{kind}:{identity.user_id}", identity.user_id, identity.grants.team_id, origin
    )

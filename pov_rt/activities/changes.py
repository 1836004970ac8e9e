"""Amending and retracting what was published: the activity itself changes, and an entry says so.

What happened, on which PoV and who did it stays: by that filters, digests and rows go, so another
of these is another activity. An amendment replaces `details`; a retraction removes them, and
nothing can be changed after it. The activity stays at its place, and whoever reads the log from
then on finds it as it is now; those who have it already learn of the change by the entry, which
names it (`original`) and is stored, delivered and recovered as any other. What was said before is
then nowhere: an earlier change loses its `details` to the next one.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.activities.cursors import READ, SEEN
from pov_rt.activities.publishing import Publisher, Publishing
from pov_rt.activities.sameness import compared
from pov_rt.connections.budgets import READ_BYTE, ROW, Budgets
from pov_rt.engine.base import (
    Amended,
    Amendment,
    Conflict,
    Engine,
    Entry,
    NewEntry,
    Page,
    Position,
    Rewrite,
)
from pov_rt.protocol.bodies import Published
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import (
    Forbidden,
    IdConflict,
    InvalidActivity,
    NotFound,
    Retracted,
    Unavailable,
)
from pov_rt.protocol.messages import Activity, Original, check_id
from pov_rt.protocol.tenants import wire_of
from pov_rt.protocol.topics import pov_topic
from pov_rt.runtime.clock import Clock

PAGE, PAGE_BYTES = 500, 1024 * 1024
"""Entries that are looked through at a time; then another's read has its turn."""
TRIES = 5
"""How often one begins anew because another changed the same activity meanwhile."""
IS_CHANGE = b'"original":{'
NO_BODY = b"\0"
"""No entry has this; one that was erased has an empty body."""

_decode = msgspec.json.Decoder(Activity).decode


class Change(NamedTuple):
    """What is to become of an activity: other `details`, or None to retract it.

    `id` is the change's own, by which a retry is known; the server makes one when absent. `offset`
    is where the activity is, for who may change any; `user_id` is who changes it, if that is told.
    """

    pov_id: str
    activity_id: str
    details: dict[str, Any] | None
    id: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET


class Changes:
    """Changes activities. Owner: the server."""

    def __init__(
        self, engine: Engine, publishing: Publishing, budgets: Budgets, clock: Clock
    ) -> None:
        self._log = engine.log
        self._marks = engine.marks
        self._publishing = publishing
        self._budgets = budgets
        self._clock = clock

    async def make(self, change: Change, publisher: Publisher, *, any_ones: bool) -> Published:
        """Amend or retract an activity; return where the entry is that says so, once it is durable.

        Its publisher may, as long as the engine remembers whose the id is (`engine.id_window_s`);
        with `any_ones` the publisher of the change may change anybody's that the log still has.

        Raises `NotFound`, `Forbidden`, `Retracted`, `IdConflict`, `InvalidId`, `InvalidActivity`,
        `TooLarge`, `Unavailable`, or what a `before_publish` hook raised. A caller that is
        cancelled leaves it to finish.
        """
        return await self._publishing.finish(self._make(change, publisher, any_ones=any_ones))

    async def _make(self, change: Change, publisher: Publisher, *, any_ones: bool) -> Published:
        began = self._clock.monotonic()
        check_id(change.activity_id, "activityId")
        if change.id is UNSET:
            change = change._replace(id=self._clock.new_id())
        else:
            check_id(change.id, "changeId")
        if change.user_id is not UNSET:
            check_id(change.user_id, "userId")
        topic = pov_topic(change.pov_id)
        offset = await self._find(topic, change, publisher, any_ones=any_ones)
        for _ in range(TRIES):
            entry, activity = await self._read(topic, offset, change)
            told = await self._tell_of(activity, offset, change, publisher)
            done = await self._amend(topic, entry, activity, told, publisher, began)
            if isinstance(done, Conflict):
                raise IdConflict(field="changeId")
            if done is not None:
                return await self._finish(topic, told, done)
            if activity.retracted is True:
                raise Retracted(field="activityId")
        raise Unavailable("Others are changing this activity; try again")

    async def _find(
        self, topic: str, change: Change, publisher: Publisher, *, any_ones: bool
    ) -> int:
        """Return where the activity is, which the publisher may change."""
        found = await self._log.find(topic, change.activity_id)
        if any_ones and change.offset is not UNSET:
            return change.offset
        for publisher_key, offset in found:
            if publisher_key == publisher.key:
                return offset
        if not any_ones:
            if found:
                raise Forbidden("Only who published an activity may change it", field="activityId")
            raise _not_found()
        if len(found) > 1:
            raise InvalidActivity(
                "Several publishers have an activity with this id; send its offset", field="offset"
            )
        if found:
            return found[0].offset
        return await self._look_for(topic, change)

    async def _look_for(self, topic: str, change: Change) -> int:
        """Return where an activity is whose id is not remembered any more: the newest one."""
        needle = b'{"id":%b,' % encode(change.activity_id)
        at: int | None = 0
        while at is not None:
            page = await self._page(topic, at, reverse=True)
            for entry in page.entries:
                if entry.body.startswith(needle):
                    return entry.offset
            at = page.next(len(page.entries), reverse=True)
        raise _not_found()

    async def _page(self, topic: str, at: int, *, reverse: bool = False) -> Page:
        page = await self._log.read(topic, at, PAGE, reverse=reverse, max_bytes=PAGE_BYTES)
        size = sum(len(entry.body) for entry in page.entries)
        self._budgets.charge(len(page.entries) * ROW + size * READ_BYTE)
        await asyncio.sleep(0)  # an engine in memory lets nobody else have a turn
        return page

    async def _read(self, topic: str, offset: int, change: Change) -> tuple[Entry, Activity]:
        """Return the activity as it is now."""
        page = await self._log.read(topic, offset - 1, 1)
        if not page.entries or page.entries[0].offset != offset or not page.entries[0].body:
            raise _not_found()
        activity = _decode(page.entries[0].body)
        if activity.id != change.activity_id:
            raise _not_found()
        if activity.original is not UNSET:
            raise InvalidActivity(
                "This is a change; change the activity that it is about", field="activityId"
            )
        return page.entries[0], activity

    async def _tell_of(
        self, activity: Activity, offset: int, change: Change, publisher: Publisher
    ) -> Activity:
        """Return the activity that tells of the change, checked as others are."""
        by = UNSET if change.user_id is UNSET else wire_of(change.user_id)
        told = msgspec.structs.replace(
            activity,
            id=change.id,
            pov_id=change.pov_id,
            details=UNSET if change.details is None else change.details,
            original=Original(id=activity.id, offset=offset),
            amended=UNSET if change.details is None else True,
            retracted=True if change.details is None else UNSET,
            by=UNSET if by == activity.user_id else by,
            reason=change.reason,
        )
        if change.details is None:  # which nothing may keep anybody from
            return told
        wanted = (await self._publishing.prepare(told)).details
        return msgspec.structs.replace(told, details={} if wanted is UNSET else wanted)

    async def _amend(
        self,
        topic: str,
        entry: Entry,
        activity: Activity,
        told: Activity,
        publisher: Publisher,
        began: float,
    ) -> Amended | Conflict | None:
        now = msgspec.structs.replace(told, id=activity.id, original=UNSET)
        others: list[Rewrite] = []
        if activity.amended is True:
            others = await self._earlier(topic, entry.offset, activity.id)
        # A retraction is for good; but this may be the retry of one, which its id tells.
        old = NO_BODY if activity.retracted is True else entry.body
        new = NewEntry(topic, publisher.key, told.id, encode(told), compared=compared(told))
        rewrite = Rewrite(topic, entry.offset, old, encode(now))
        before = self._clock.monotonic()
        done = await self._log.amend(Amendment(rewrite, new, others))
        if done is not None:
            place = done if isinstance(done, Conflict) else done.place
            self._publishing.stored([new], [place], began, before)
        return done

    async def _earlier(self, topic: str, offset: int, activity_id: str) -> list[Rewrite]:
        """Return what takes its details from each earlier change of an activity."""
        found: list[Rewrite] = []
        at: int | None = offset
        while at is not None:
            page = await self._page(topic, at)
            for entry in page.entries:
                if IS_CHANGE not in entry.body:
                    continue
                told = _decode(entry.body)
                if told.original == Original(id=activity_id, offset=offset) and told.details:
                    bare = encode(msgspec.structs.replace(told, details=UNSET))
                    found.append(Rewrite(topic, entry.offset, entry.body, bare))
            at = page.next(len(page.entries), reverse=False)
        return found

    async def _finish(self, topic: str, told: Activity, done: Amended) -> Published:
        epoch, offset = done.place.epoch, done.place.offset
        published = Published(told.id, told.pov_id, offset, epoch, done.place.duplicate)
        if not done.place.duplicate:
            self._publishing.tell(
                [(told, published)], [each for each in (topic, done.feed) if each]
            )
            before, here = Position(epoch, offset - 1), Position(epoch, offset)
            # Who has read all before it has nothing new to read.
            for name in (READ, SEEN):
                await self._marks.carry(topic, name, before, here)
        return published


def _not_found() -> NotFound:
    return NotFound("There is no such activity, or it is too old to be changed", field="activityId")

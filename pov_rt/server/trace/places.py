"""Where in a log what is asked about is.

An activity in its team's feed: no engine keeps that by its id, but a feed is in order. And what
happened under an older epoch of a log, which the log may still hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pov_rt.engine.base import Entry, Log, Position
from pov_rt.server.trace.events import Event

PAGE, PAGES = 200, 5
"""Entries of the same instant that are looked at: at most so many at a time, so often."""


async def offset_in(log: Log, feed: str, entry: Entry) -> int | None:
    """Return an entry's offset in a feed; 0: it is not in it, None: the feed may have lost it.

    By halves, for a feed is in the order of time: some twenty entries are read. A clock that was
    set back makes it unknown, not another's.
    """
    top = await log.top(feed)
    low, high = top.oldest, top.offset + 1
    while low < high:  # the first that is not older
        middle = (low + high) // 2
        page = await log.read(feed, middle - 1, 1)
        if not page.entries:
            return None  # retention is at work
        found = page.entries[0]
        if found.at < entry.at:
            low = found.offset + 1
        else:
            high = middle
    after = low - 1
    for _ in range(PAGES):
        page = await log.read(feed, after, PAGE)
        for found in page.entries:
            if found.at != entry.at:
                return _absent(low, top.oldest)
            if found.body == entry.body:
                return found.offset
            after = found.offset
        if len(page.entries) < PAGE:
            return _absent(low, top.oldest)
    return None


def _absent(first: int, oldest: int) -> int | None:
    """Tell "not in it" from "perhaps before all that is kept"."""
    return None if first == oldest and oldest > 1 else 0


async def under_epoch(log: Log, topic: str, epoch: str, events: Sequence[Event]) -> Sequence[Event]:
    """Return events of which those at places of the topic that its log holds are of this epoch."""
    offsets: dict[str, set[int]] = {}
    for event in events:
        if event.topic == topic and event.more.get("epoch", epoch) != epoch:
            offsets.setdefault(event.more["epoch"], set()).add(event.offset)
    held: set[tuple[str, int]] = set()
    for older, found in offsets.items():
        some = sorted(found)
        low, high = 0, len(some)  # by halves: what is held is all up to some offset
        while low < high:
            middle = (low + high) // 2
            if await log.holds(topic, Position(older, some[middle])):
                low = middle + 1
            else:
                high = middle
        held.update((older, offset) for offset in some[:low])
    if not held:
        return events
    return [
        msgspec.structs.replace(event, more={**event.more, "epoch": epoch})
        if event.topic == topic and (event.more.get("epoch"), event.offset) in held
        else event
        for event in events
    ]

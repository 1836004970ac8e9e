"""What happened while somebody was away for too long, in numbers instead of activities."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.connections.budgets import READ_BYTE, ROW, Budgets
from pov_rt.delivery.stored import read_stored
from pov_rt.engine.base import Log, Top
from pov_rt.protocol.encoding import DECODE_ERRORS
from pov_rt.protocol.messages import Part
from pov_rt.runtime.bounds import payer
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.containment import Tasks

logger = logging.getLogger(__name__)

MAX_COUNTED = 10_000
WITHIN_S = 0.3
"""How long an answer waits for its digests."""
REMEMBERED_S = 5.0
MAX_KNOWN, MAX_MAKING = 1000, 1000
"""Digests that are remembered (each names 40 things at most), and that are being made."""
BLOCK = 500
"""Activities that are counted at a time; then another user's read has its turn."""
MAX_HEADS = 200_000
"""Heads in all blocks that are remembered, of 100 bytes or so each."""
MOST = 20
"""Of sorts of activities and of users, those that occur most are named."""


class Sort(Part):
    """How often one sort of activity occurred."""

    type: str
    action: str
    count: int


class Author(Part):
    """How many activities one user caused."""

    user_id: str
    count: int


class Digest(Part):
    """Of the activities that were missed `counted` are still there, by `people` different users.

    `activities` and `users` name the 20 most frequent, the most frequent first. At most the newest
    10,000 are counted.
    """

    counted: int
    people: int
    activities: list[Sort]
    users: list[Author]


class _Change(msgspec.Struct):
    """What tells a change, and what was retracted, from an activity."""

    original: msgspec.Raw | UnsetType = UNSET
    retracted: bool | UnsetType = UNSET


_read_change = msgspec.json.Decoder(_Change).decode


def head_of(body: bytes) -> bytes:
    """Return what is counted of an activity as it is stored; nothing if it cannot be read.

    Nor of what tells that another one changed, or was retracted. Neither types nor actions have
    blanks in them.
    """
    try:
        head = read_stored(body)
        if b'"original":' in body or b'"retracted":' in body:  # perhaps only in its details
            change = _read_change(body)
            if change.original is not UNSET or change.retracted is True:
                return b""
    except DECODE_ERRORS:
        return b""
    return f"{head.type} {head.action} {head.user_id}".encode()


class Digests:
    """Makes digests, one of a topic at a time, and remembers them for some seconds.

    A digest is a nicety: who does not have it in time, or is in debt, goes without. Those who ask
    for the same share one, made no faster than the budget of who asked first allows; where much was
    missed, those do who missed nearly as much. What was counted of a block of a log is remembered,
    for it does not change: a body is looked at once. Owner: the server.
    """

    def __init__(self, log: Log, budgets: Budgets, clock: Clock) -> None:
        self._log = log
        self._budgets = budgets
        self._clock = clock
        self._tasks = Tasks(logger, "a digest")
        self._making: dict[str, asyncio.Task[None]] = {}
        # The oldest first:
        self._known: dict[tuple[str, int], tuple[Digest, float]] = {}
        self._blocks: dict[tuple[str, str, int], Mapping[bytes, int]] = {}
        self._heads = 0

    async def get(self, topic: str, after: int, within_s: float = WITHIN_S) -> Digest | None:
        """Return what was missed on a topic after an offset; None if that takes too long.

        It may be some seconds old, and may leave out the oldest 2 % of what was missed.
        """
        after = bucket(after, await self._log.top(topic))
        until = asyncio.get_running_loop().time() + within_s
        while (known := self._find(topic, after)) is None:
            making = self._making.get(topic)
            if making is None:
                owner = payer.get()
                if len(self._making) >= MAX_MAKING or (owner and self._budgets.debt_s(owner) > 0):
                    return None
                making = self._making[topic] = self._tasks.spawn(self._make(topic, after))
            left_s = until - asyncio.get_running_loop().time()
            if left_s <= 0 or not (await asyncio.wait((making,), timeout=left_s))[0]:
                return None
            if making.cancelled() or making.exception() is not None:
                return None
        return known

    def rewritten(self, topic: str) -> None:
        """Count a topic anew: some of its activities say something else now."""
        if (making := self._making.get(topic)) is not None:
            making.cancel()
        for known in [each for each in self._known if each[0] == topic]:
            del self._known[known]
        for block in [each for each in self._blocks if each[0] == topic]:
            self._heads -= len(self._blocks.pop(block))

    async def close(self) -> None:
        """End what is being made."""
        await self._tasks.end()

    def _find(self, topic: str, after: int) -> Digest | None:
        known = self._known.get((topic, after))
        return known[0] if known is not None and self._clock.monotonic() < known[1] else None

    async def _make(self, topic: str, after: int) -> None:
        try:
            digest = _sum_up(await self._count(topic, after))
        finally:
            del self._making[topic]
        self._known.pop((topic, after), None)
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[topic, after] = (digest, self._clock.monotonic() + REMEMBERED_S)

    async def _count(self, topic: str, after: int) -> Counter[bytes]:
        """Count the newest activities after an offset by their heads."""
        top = await self._log.top(topic)
        first = max(after + 1, top.oldest, top.offset - MAX_COUNTED + 1)
        counts: Counter[bytes] = Counter()
        while first <= top.offset:
            number = (first - 1) // BLOCK
            last = min((number + 1) * BLOCK, top.offset)
            is_whole = last - first + 1 == BLOCK
            key = (topic, top.epoch, number)
            found = self._blocks.get(key) if is_whole else None
            if found is None:
                await self._budgets.spare()
                tally = await self._log.tally(topic, first, last, head_of)
                found = tally.counts
                rows = sum(found.values())
                self._budgets.charge(rows * ROW + tally.size * READ_BYTE)
                if rows == BLOCK:
                    self._remember(key, found)
                await asyncio.sleep(0)  # an engine in memory lets nobody else have a turn
            counts.update(found)
            first = last + 1
        del counts[b""]
        return counts

    def _remember(self, key: tuple[str, str, int], found: Mapping[bytes, int]) -> None:
        self._blocks[key] = found
        self._heads += len(found)
        while self._heads > MAX_HEADS:
            self._heads -= len(self._blocks.pop(next(iter(self._blocks))))


def _sum_up(counts: Mapping[bytes, int]) -> Digest:
    sorts: Counter[tuple[str, str]] = Counter()
    authors: Counter[str] = Counter()
    for head, count in counts.items():
        kind, action, user_id = head.decode().split(" ", 2)
        sorts[kind, action] += count
        authors[user_id] += count
    return Digest(
        counted=sorts.total(),
        people=len(authors),
        activities=[
            Sort(type=kind, action=action, count=count)
            for (kind, action), count in sorts.most_common(MOST)
        ],
        users=[Author(user_id=user, count=count) for user, count in authors.most_common(MOST)],
    )


def bucket(after: int, top: Top) -> int:
    """Return the offset after which is counted for those who missed nearly as much, never more."""
    missed = top.offset - after
    if missed >= MAX_COUNTED or after < top.oldest:
        return 0  # all that is kept, or counted
    step = 1 << (max(missed, 0) // 128).bit_length()
    return min(-(-after // step) * step, max(top.offset, after))

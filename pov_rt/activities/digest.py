"""What happened while somebody was away for too long, in numbers instead of activities."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from pov_rt.connections.budgets import COUNTED, Budgets
from pov_rt.delivery.filters import read_head
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


def make_head(kind: str, action: str, user_id: str) -> bytes:
    """Return what is counted of an activity. Neither types nor actions have blanks in them."""
    return f"{kind} {action} {user_id}".encode()


def head_of(body: bytes) -> bytes:
    """Return the same of an activity as it is stored; nothing for one that cannot be read."""
    try:
        head = read_head(body)
    except DECODE_ERRORS:
        return b""
    return make_head(head.type, head.action, head.user_id)


async def make_digest(log: Log, topic: str, after: int) -> Digest:
    """Count the newest activities of a topic after an offset, at most 10,000."""
    counts = await log.tally(topic, after, MAX_COUNTED, head_of)
    sorts: Counter[tuple[str, str]] = Counter()
    authors: Counter[str] = Counter()
    for head, count in counts.items():
        if not head:
            continue
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


class Digests:
    """Makes digests, one of a topic at a time, and remembers them for some seconds.

    A digest is a nicety: who does not have it in time, or is in debt, goes without. Those who ask
    for the same share one, and where much was missed those do who missed nearly as much. It is paid
    for by who asked first. Owner: the server.
    """

    def __init__(self, log: Log, budgets: Budgets, clock: Clock) -> None:
        self._log = log
        self._budgets = budgets
        self._clock = clock
        self._tasks = Tasks(logger, "a digest")
        self._making: dict[str, asyncio.Task[None]] = {}
        self._known: dict[tuple[str, int], tuple[Digest, float]] = {}  # the oldest first

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

    async def close(self) -> None:
        """End what is being made."""
        await self._tasks.end()

    def _find(self, topic: str, after: int) -> Digest | None:
        known = self._known.get((topic, after))
        return known[0] if known is not None and self._clock.monotonic() < known[1] else None

    async def _make(self, topic: str, after: int) -> None:
        try:
            digest = await make_digest(self._log, topic, after)
        finally:
            del self._making[topic]
        self._budgets.charge(digest.counted * COUNTED)
        self._known.pop((topic, after), None)
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[topic, after] = (digest, self._clock.monotonic() + REMEMBERED_S)


def bucket(after: int, top: Top) -> int:
    """Return the offset after which is counted for those who missed nearly as much, never more."""
    missed = top.offset - after
    if missed >= MAX_COUNTED or after < top.oldest:
        return 0  # all that is kept, or counted
    step = 1 << (max(missed, 0) // 128).bit_length()
    return min(-(-after // step) * step, max(top.offset, after))

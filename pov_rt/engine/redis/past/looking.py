"""Looking through logs that are in Redis, a few entries at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from pov_rt.engine.base import Entry, Match, Matches, Page, Tally, Topics
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.walking import walk

SEARCHED, STEP = 500, 50
"""Entries that one page of a search looks at, and that one step takes out of Redis."""
LOOK = 5
"""Entries that a look costs as much as, should there be none."""
STEP_BYTES = 256 * 1024
TALLIED = 500

Read = Callable[[str, int, int], Awaitable[Page]]
"""`Log.read` of a topic, behind an offset, of so many entries; it may return fewer."""


class Looking:
    """Finds topics and entries; see `base.Log`."""

    def __init__(self, functions: Functions, read: Read) -> None:
        self._functions = functions
        self._partitions = functions.partitions
        self._read = read
        self._names: tuple[int, Sequence[str]] = (-1, ())
        """The topics of the partition that was looked through last, in their order."""

    async def topics(self, prefix: str, after: str = "", limit: int = 1000) -> Topics:
        """Return some topics: of a partition or more, for each is in one of them."""
        partition, _, cursor = (after or "0 0").partition(" ")
        at, found = int(partition), []
        while at < self._partitions.number:
            cursor_bytes, page = await self._topics(at, cursor.encode())
            found += [name for name in page if name.startswith(prefix)]
            cursor = cursor_bytes.decode()
            at += cursor == "0"
            if len(found) >= limit and at < self._partitions.number:
                return Topics(found, f"{at} {cursor}")
        return Topics(found, None)

    async def tally(
        self, topic: str, first: int, last: int, head_of: Callable[[bytes], bytes]
    ) -> Tally:
        counts: Counter[bytes] = Counter()
        size, at = 0, first - 1
        while at < last:
            page = await self._read(topic, at, min(TALLIED, last - at))
            if not page.entries:
                break
            counts.update(head_of(entry.body) for entry in page.entries)
            size += sum(len(entry.body) for entry in page.entries)
            at = page.entries[-1].offset
        return Tally(counts, size)

    async def search(
        self, prefix: str, matches: Callable[[bytes], bool], after: str = ""
    ) -> Matches:
        partition, offset, first = (after or "0 0 ").split(" ", 2)
        found: list[Match] = []
        left, at = SEARCHED, int(offset)
        for number in range(int(partition), self._partitions.number):
            names = await self._sorted(number, is_begun=bool(first))
            for topic in names[bisect_left(names, first) :]:
                if not topic.startswith(prefix):
                    continue
                at = at if topic == first else 0
                top = at + 1
                while at < top:
                    if left <= 0:
                        return Matches(found, f"{number} {at} {topic}")
                    top, last, *page = await self._functions.ask(
                        "look", topic, at, min(STEP, left), STEP_BYTES
                    )
                    for entry in _entries(page):
                        if matches(entry.body):
                            found.append(Match(topic, entry))
                    left -= max(LOOK, last - at)
                    at = max(at, last)
            first, at = "", 0
        return Matches(found, None)

    async def _topics(self, partition: int, cursor: bytes) -> tuple[bytes, list[str]]:
        packed = self._functions.pack("topics", self._partitions.all[partition], cursor)
        ((following, *names),) = await self._functions.call_all([packed])
        return following, [name.decode() for name in names]

    async def _sorted(self, partition: int, *, is_begun: bool) -> Sequence[str]:
        """Return a partition's topics in their order; those of before, while it is looked at."""
        if not (is_begun and self._names[0] == partition):
            found: set[str] = set()
            prefixes = (self._partitions.all[partition],)
            async for _, names in walk(self._functions, "topics", prefixes):
                found.update(name.decode() for name in names)
            self._names = partition, sorted(found)
        return self._names[1]


def _entries(page: Sequence[bytes | int]) -> Sequence[Entry]:
    return [
        Entry(int(offset), bytes(body), int(at) / 1e6, bytes(origin).decode())
        for offset, at, origin, body in zip(*[iter(page)] * 4, strict=True)
    ]

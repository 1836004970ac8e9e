"""What leaves by itself: topics that nothing needs, and last numbers of producers.

A node looks at all of them once an hour, and not within an hour of another node; from four fifths
of a bound on all the time. Entries leave with what is appended, and ids by Redis's own expiry.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from pov_rt.engine.bounds import FULL, ROUND_S
from pov_rt.engine.copying import microseconds
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.appending import Appending
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import Clock

EARLY_S = 60.0
"""Rounds of several nodes that are due within this are one."""
START = b"0"

log = logging.getLogger(__name__)


Chore = Callable[[], Awaitable[None]]


class Tidying:
    """Goes round all partitions, some of what they have in a step.

    `chores` are what other parts do once in a round, and `counts` how they learn how much there is.
    """

    chores: Sequence[Chore] = ()
    counts: Sequence[Chore] = ()

    def __init__(
        self, functions: Functions, appending: Appending, keeping: Keeping, clock: Clock
    ) -> None:
        self._functions = functions
        self._appending = appending
        self._keeping = keeping
        self._clock = clock
        self._due_at = clock.monotonic() + ROUND_S
        self._is_due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look from time to time."""
        self._task = asyncio.create_task(self._run(), name="redis tidying")

    async def close(self) -> None:
        """End it. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def poke(self) -> None:
        """Have what is due be done. Costs nothing where nothing is."""
        if self._clock.monotonic() >= self._due_at or self._is_nearly_full:
            self._is_due.set()

    @property
    def _is_nearly_full(self) -> bool:
        topics, producers = self._appending.topics, self._appending.producers
        return any(each.used() >= FULL * each.limit for each in (topics, producers))

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(EARLY_S):
                    await self._is_due.wait()
            except TimeoutError:
                self.poke()
                continue
            self._is_due.clear()
            try:
                await self.round(is_forced=self._is_nearly_full)
            except Unavailable as error:
                log.info("what is too old was not looked for: %s", error)
                await asyncio.sleep(1.0)  # Redis is away, or has much to do
            except Exception:
                log.exception("what is too old could not be removed")
                await asyncio.sleep(EARLY_S)

    async def count(self) -> None:
        """Learn how many topics and producers there are.

        What this node learned of an append meanwhile is newer than what was asked for before it.
        """
        before = self._appending.number
        number, producers = await self._functions.call(
            "count", "", self._functions.partitions.number
        )
        self._appending.producer_number = producers
        if self._appending.number == before:
            self._appending.number = number
        for count in self.counts:
            await count()

    async def round(self, *, is_forced: bool = False) -> None:
        """Look at everything once, unless another node has just done so. Raises `Unavailable`."""
        for_us = microseconds(ROUND_S - EARLY_S)
        is_due = await self._functions.call("is_due", "", "tidied", 0 if is_forced else for_us)
        self._due_at = self._clock.monotonic() + ROUND_S
        if is_due:
            for prefix in self._functions.partitions.all:
                await self._forget_numbers(prefix)
                await self._forget_topics(prefix)
            for chore in self.chores:
                await chore()
        await self.count()

    async def _forget_numbers(self, prefix: bytes) -> None:
        before = microseconds(self._clock.time()) - self._appending.producer_age_us
        packed = self._functions.pack("forget_numbers", prefix, before)
        while (await self._functions.call_all([packed]))[0]:
            pass

    async def _forget_topics(self, prefix: bytes) -> None:
        now = microseconds(self._clock.time())
        window_us = self._appending.window_us
        cursor = START
        while True:
            packed = self._functions.pack("old_topics", prefix, cursor, now - window_us)
            ((cursor, *page),) = await self._functions.call_all([packed])
            old: list[bytes] = []
            for topic, at in zip(page[::2], page[1::2], strict=True):
                age_us = microseconds(self._keeping.of(topic.decode()).max_age_s)
                if int(at) < now - max(age_us, window_us):
                    old += (topic, at)
            if old:
                packed = self._functions.pack("forget_topics", prefix, *old)
                (gone,) = await self._functions.call_all([packed])
                self._appending.number = max(0, self._appending.number - gone)
            if cursor == START:
                return

"""What a node notices of Redis while it works: refusals, slow answers, a clock that is wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from pov_rt.engine.redis.client.connection import ServerError
from pov_rt.engine.redis.client.link import TEMPORARY
from pov_rt.engine.redis.health.mending import mended
from pov_rt.runtime.clock import Clock

SLOW_S, WINDOW_S = 0.2, 5
"""Redis is slow if more than 1 of 100 answers took longer, in so many seconds."""
LEAST_SLOW = 3
"""Fewer slow answers than these are none: a machine hesitates now and then."""
OFF_S = 2.0
"""How far Redis's clock may be from this node's."""
MOVED_S, REMEMBERED_S = 60.0, 3600.0
"""From which jump of Redis's clock on it is told of, and for how long."""


class Conditions:
    """Judges what it is told; `lines` has what is wrong now. Ages are by the engine's clock."""

    def __init__(self, clock: Clock) -> None:
        self.refusals = 0
        """How often Redis refused what was right."""
        self.unfit = ""
        """Why Redis will not do any more, as it was found at the last look."""
        self._clock = clock
        self._refusal = ""
        self._seconds: deque[list[int]] = deque(maxlen=WINDOW_S + 1)
        """Of each second in which there were answers: which one, how many, and how many slow."""
        self._off_s = 0.0
        self._ahead: float | None = None
        """How far Redis's clock was ahead of this node's monotonic one at the last beat."""
        self._moved_s = 0.0
        self._moved_at = 0.0

    def answered(self, seconds: float) -> None:
        """Note how long a pipeline took."""
        second = int(self._clock.monotonic())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
        newest = self._seconds[-1]
        newest[1] += 1
        newest[2] += seconds > SLOW_S

    def refused(self, error: ServerError) -> None:
        """Note a refusal; those that are about the command are none of ours."""
        if error.code in TEMPORARY:
            self.refusals += 1
            self._refusal = str(error)

    def accepted(self, refusals: int) -> None:
        """Note that a write went well, before which there were so many refusals."""
        if refusals == self.refusals:
            self._refusal = ""

    def told_time(self, redis_s: float, taken_s: float) -> None:
        """Note what time it is at Redis, by an answer that took so long."""
        spare = max(0.0, taken_s)
        off = redis_s - self._clock.time()
        self._off_s = off if abs(off) - spare > OFF_S else 0.0
        now = self._clock.monotonic()
        ahead = redis_s - now
        if self._ahead is not None and abs(ahead - self._ahead) - spare > MOVED_S:
            self._moved_s, self._moved_at = ahead - self._ahead, now
        self._ahead = ahead

    def lines(self) -> Iterator[str]:
        """Yield what is wrong, each with what mends it."""
        if self.unfit:
            yield mended(self.unfit)
        if self._refusal:
            yield mended(f"it refuses: {self._refusal}")
        now = self._clock.monotonic()
        recent = [each for each in self._seconds if each[0] > now - WINDOW_S - 1]
        total, slow = sum(each[1] for each in recent), sum(each[2] for each in recent)
        if slow >= LEAST_SLOW and slow * 100 > total:
            yield (
                f"it is slow: {slow} of {total} answers in {WINDOW_S} s took longer than "
                f"{SLOW_S:g} s. To mend it: look for what keeps it (SLOWLOG GET, INFO "
                "commandstats), or this node, from working"
            )
        if self._off_s:
            where = "ahead of" if self._off_s > 0 else "behind"
            yield (
                f"its clock is {abs(self._off_s):.1f} s {where} this node's. To mend it: have both "
                "machines set theirs by NTP"
            )
        if self._moved_s and now - self._moved_at < REMEMBERED_S:
            yield (
                f"its clock has jumped by {self._moved_s:+.0f} s: what seemed too old is gone, and "
                "ids may have been forgotten. To mend it: have its machine set its clock by NTP"
            )

"""What the users of an engine share: topics and marks, and which part of them is one user's."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from pov_rt.config.settings import EngineSettings
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.limits import KeyedBuckets, Rate

ROUND_S = 3600.0
"""How often all topics are looked at, to forget those that nothing needs. With each round that
forgets one, unknown topics have another epoch: not too often, for positions in empty topics."""
FULL = 0.8
"""From this part of the bound on they are looked at all the time."""
DAY_S = 86400.0
TIME_DIGITS, RANDOM_DIGITS = 12, 8
"""Of an engine's epoch."""


def epoch_of(epoch: str, generation: int) -> str:
    """Return the epoch of a topic's log: the engine's, and how often topics were forgotten before.

    So a topic that comes back after it was forgotten has one that it never had.
    """
    return f"{epoch}-{generation}" if generation else epoch


def make_epoch(now_s: float, before: str = "") -> str:
    """Return the epoch of an engine whose logs begin anew: when that was, and what is random.

    12 hexadecimal digits of milliseconds, and 8. Later than `before`, the one that it had, whatever
    the clock does: so an epoch that is later than a server's own has never been its own.
    """
    at_ms = max(int(now_s * 1000), (_made_at(before) or 0) + 1)
    return f"{at_ms:0{TIME_DIGITS}x}{os.urandom(RANDOM_DIGITS // 2).hex()}"


def is_later(epoch: str, own: str) -> bool:
    """Tell whether an epoch is another engine's: it was made after this one's.

    It may be another's all the same: those of older versions say nothing of when they were made.
    """
    made_at, own_at = _made_at(epoch), _made_at(own)
    return made_at is not None and own_at is not None and made_at > own_at


def _made_at(epoch: str) -> int | None:
    own = epoch.partition("-")[0]
    try:
        return int(own[:TIME_DIGITS], 16) if len(own) == TIME_DIGITS + RANDOM_DIGITS else None
    except ValueError:
        return None


def generation_of(epoch: str) -> int:
    """Return the generation of a log by its epoch."""
    return int(epoch.partition("-")[2] or 0)


class TopicCount:
    """How many topics there are, and who may begin another. Used by one thread."""

    def __init__(self, settings: EngineSettings, clock: Clock) -> None:
        self.number = 0
        self.bound = Bound("topics", "engine.max_topics", settings.max_topics, lambda: self.number)
        # Also where the bound is small, one publisher must leave something to the others.
        self._per_hour = min(settings.topics_per_hour, max(1, settings.max_topics // 2))
        self._begun = KeyedBuckets(Rate(self._per_hour / 3600.0, self._per_hour))
        self._clock = clock

    @property
    def is_nearly_full(self) -> bool:
        """Whether there should be fewer before long."""
        return self.number >= FULL * self.bound.limit

    def check_room(self, number: int, publisher: str) -> None:
        """Raise `Unavailable` unless a publisher may begin so many more topics now."""
        if self.number + number > self.bound.limit:
            why = f"the log has {self.number} topics, as many as engine.max_topics allows"
            self.bound.refuse(publisher, why)
            raise Unavailable(why)
        now = self._clock.monotonic()
        wait_s = max((self._begun.take(publisher, now) for _ in range(number)), default=0.0)
        if wait_s:
            why = (
                f"one publisher may begin {self._per_hour} topics in an hour "
                "(engine.topics_per_hour, and half of engine.max_topics)"
            )
            self.bound.refuse(publisher, why)
            raise Unavailable(why, retry_after_s=max(1.0, float(math.ceil(wait_s))))


class MarkRules:
    """How long marks live, how many a user may have, and how many there are.

    `longest_s` is how long the entries are kept that are kept for longest.
    """

    def __init__(self, settings: EngineSettings, longest_s: float = 0.0) -> None:
        self.number = 0
        self.bound = Bound("marks", "engine.max_marks", settings.max_marks, lambda: self.number)
        # Also where the bound is small, one user must leave something to the others.
        self.each = min(settings.marks_per_user, max(1, settings.max_marks // 10))
        # A mark that goes before the entries that it speaks of would have them unread again.
        self.age_s = max(settings.mark_age_s, settings.max_age_s, longest_s)
        self.renew_s = min(DAY_S, self.age_s / 8)
        """A use is written down at most this often: once a day."""

    def check_room(self, user: str) -> None:
        """Raise `Unavailable` if there are as many as there may be."""
        if self.number >= self.bound.limit:
            why = f"there are {self.number} marks, as many as engine.max_marks allows"
            self.bound.refuse(user, why)
            raise Unavailable(why)


VALUE_BYTES = 64
"""What a value in the store costs beside its names and its body."""


def size_of(key: str, owner: str, body: bytes) -> int:
    """Return what a value in the store counts."""
    return len(key.encode()) + len(owner.encode()) + len(body) + VALUE_BYTES


class StoreRules:
    """How many bytes the store has, in all and by space. Used by one thread."""

    def __init__(self, settings: EngineSettings) -> None:
        self.sizes: dict[str, int] = {}
        self.used = 0
        self.bound = Bound("store", "engine.store_bytes", settings.store_bytes, lambda: self.used)
        # One plugin must leave something to the others.
        self.each = max(1, settings.store_bytes // 2)

    def reset(self, sizes: Mapping[str, int]) -> None:
        """Take over what was counted."""
        self.sizes, self.used = dict(sizes), sum(sizes.values())

    def count(self, space: str, more: int) -> None:
        """Count bytes that came, or left."""
        self.used += more
        self.sizes[space] = self.sizes.get(space, 0) + more
        if not self.sizes[space]:
            del self.sizes[space]

    def check_room(self, space: str, more: int) -> None:
        """Raise `Unavailable` unless a space may have so many bytes more."""
        if more <= 0:
            return
        if self.used + more > self.bound.limit:
            raise self.full(space)
        if self.sizes.get(space, 0) + more > self.each:
            raise self.full(space, is_share=True)

    def full(self, space: str, *, is_share: bool = False) -> Unavailable:
        """Return the refusal of more bytes: there is no room at all, or in the space's share."""
        why = f"the store has {self.used} bytes, of {self.bound.limit} (engine.store_bytes)"
        if is_share:
            why = f"the plugin {space!r} has half of engine.store_bytes, which is its share"
        self.bound.refuse(space, why)
        return Unavailable(why)

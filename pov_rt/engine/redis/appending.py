"""What the function that appends is given of an entry, and what its reply means."""

from __future__ import annotations

import math
from typing import NamedTuple

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Appended, Conflict, NewEntry
from pov_rt.engine.copying import microseconds
from pov_rt.engine.keeping import Keeping, Limits
from pov_rt.engine.redis.client.connection import Reply
from pov_rt.engine.redis.layout import Partitions, digest_of, id_of
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import Bound

Args = tuple[bytes | str | int, ...]


class Done(NamedTuple):
    """What became of an entry: where it is, where in its feed, and whether all who watch know.

    `feed_offset` is 0 of one that is in no feed, and of one that was not appended now.
    """

    result: Appended | Conflict
    feed_epoch: str = ""
    feed_offset: int = 0
    is_told: bool = True


class Appending:
    """Makes the arguments of functions/05_appending.lua, and judges its replies."""

    def __init__(self, settings: EngineSettings, keeping: Keeping, partitions: Partitions) -> None:
        self._keeping = keeping
        self._partitions = partitions
        self.window_us = microseconds(settings.id_window_s)
        self.producer_age_us = microseconds(max(settings.producer_age_s, settings.id_window_s))
        self.number = self.producer_number = 0
        """How many topics and producers there are, as far as this node knows."""
        limit, producers = settings.max_topics, settings.max_producers
        self.topics = Bound("topics", "engine.max_topics", limit, lambda: self.number)
        self.producers = Bound(
            "producers", "engine.max_producers", producers, lambda: self.producer_number
        )
        # Also where a bound is small, one publisher must leave something to the others.
        self._per_hour = min(settings.topics_per_hour, max(1, limit // 2))
        self._producers_each = max(1, producers // 2)

        self._bounds = (
            f"{self.window_us} {limit} {self._per_hour} {producers} {self._producers_each} "
            f"{self.producer_age_us} {partitions.number}"
        )
        self._rules: dict[tuple[Limits, Limits], bytes] = {}
        """One for each pair of limits in the settings: to write them for each entry is much of what
        is done here (docs/measurements.md, appends in Redis)."""

    def rules(self, topic: str, feed: str) -> bytes:
        """Return what is kept of a topic and its feed, and the bounds, as one argument."""
        kept = self._keeping.of(topic)
        both = kept, self._keeping.of(feed) if feed else kept
        found = self._rules.get(both)
        if found is None:
            limits = " ".join(f"{entries} {microseconds(age_s)}" for entries, age_s in both)
            found = self._rules[both] = f"{limits} {self._bounds}".encode()
        return found

    def args(self, new: NewEntry) -> Args:
        """Return the rules, and what `new_entry` reads."""
        topic, publisher, key, body, feed, origin, compared, producer, seq = new
        of = self._partitions.of
        return (
            self.rules(topic, feed),
            topic,
            id_of(topic, key),
            digest_of(compared or body),
            publisher,
            of(publisher),
            feed,
            of(feed) if feed else b"",
            origin,
            producer,
            seq,
            body,
        )

    def judge(self, reply: Reply, publisher: str) -> Done:
        """Return what a reply of `append_entry` means. Raises `Unavailable` for a refusal."""
        kind, *rest = reply
        if kind == b"a":
            epoch, offset, feed_epoch, feed_offset, is_told, number = rest
            if number >= 0:
                self.number = number
            place = Appended(epoch.decode(), offset)
            return Done(place, feed_epoch.decode(), feed_offset, bool(is_told))
        if kind == b"d":
            return Done(Appended(rest[0].decode(), rest[1], duplicate=True))
        if kind == b"c":
            return Done(Conflict(rest[0].decode(), rest[1]))
        raise self._refuse(kind, rest[0], publisher)

    def _refuse(self, kind: bytes, number: int, publisher: str) -> Unavailable:
        bound, wait_s = self.topics, 1.0
        if kind == b"t":
            self.number = number
            why = f"the log has {number} topics, as many as engine.max_topics allows"
        elif kind == b"h":
            why = (
                f"one publisher may begin {self._per_hour} topics in an hour "
                "(engine.topics_per_hour, and half of engine.max_topics)"
            )
            wait_s = max(1.0, float(math.ceil(number / 1e6)))
        elif kind == b"p":
            bound, self.producer_number = self.producers, number
            why = f"there are {number} producers, as many as engine.max_producers allows"
        else:
            bound = self.producers
            why = f"one publisher has {number} producers, half of engine.max_producers"
        bound.refuse(publisher, why)
        return Unavailable(why, retry_after_s=wait_s)

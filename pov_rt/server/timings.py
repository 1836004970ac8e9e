"""How long things take at the node's borders, for the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pov_rt.connections.borders import Borders, Flushed, Handled, Joined, Observer, Replayed, Stored
from pov_rt.protocol.topics import user_topic
from pov_rt.runtime.measure.histogram import FAST_S, SLOW_S, Histogram
from pov_rt.runtime.measure.tally import OTHER, Tally

if TYPE_CHECKING:
    from pov_rt.connections.connection import Connection

INBOXES = user_topic("")
SAMPLE = 100
"""So many handlers of a second are timed: to time each is felt (docs/measurements.md, timings)."""


class Sample(Observer):
    """Times handlers, but only some, and is told of none but those."""

    def __init__(self, borders: Borders) -> None:
        self.times = Histogram(FAST_S)
        self._borders = borders
        self._left = 0
        self.begin()

    def begin(self) -> None:
        """Time the next ones."""
        if not self._left:
            self._borders.add(self)
        self._left = SAMPLE

    def handled(self, connection: Connection, done: Handled) -> None:
        """Count a handler, if it was called."""
        if done.took_s is not None:
            self.times.add(done.took_s)
        self._left -= 1
        if not self._left:
            self._borders.remove(self)


class Timings(Observer):
    """Counts what lasts, by how long it did. Owner: the server, which calls `sweep`."""

    def __init__(self, borders: Borders) -> None:
        borders.add(self)
        self._sample = Sample(borders)
        self.publish = Histogram(SLOW_S)
        """Publications, from their arrival until they were stored."""
        self.commit = Histogram(SLOW_S)
        """Of that what the engine took, with what waited before it."""
        self.delivery = Histogram(FAST_S)
        """What was published on a topic, from the engine's news of it until it was handed out."""
        self.handler = self._sample.times
        """Handlers, without the time that their messages waited in line: `SAMPLE` a second."""
        self.replay = Histogram(SLOW_S)
        """Replays, until the connection was live."""
        self.recoveries = Tally(("yes", "no"), OTHER)
        """Subscriptions that asked for what they had missed, by whether they get all of it."""

    def sweep(self) -> None:
        """Time the next handlers; called about once a second."""
        self._sample.begin()

    def stored(self, done: Stored) -> None:
        """Count one publication, however much is in it."""
        self.publish.add(done.whole_s)
        self.commit.add(done.commit_s)

    def flushed(self, done: Flushed) -> None:
        """Count what somebody was handed."""
        if done.messages:
            self.delivery.add(done.waited_s)

    def replayed(self, connection: Connection, done: Replayed) -> None:
        """Count a replay that came to its end."""
        self.replay.add(done.took_s)

    def joined(self, connection: Connection, done: Joined) -> None:
        """Count whether what was missed can be had; an inbox is joined by every connection."""
        if done.recovered is not None and not done.topic.startswith(INBOXES):
            self.recoveries["yes" if done.recovered else "no"] += 1

"""Topics that nothing needs any more leave the database, in rounds over all of them."""

from __future__ import annotations

import sqlite3

from pov_rt.engine.bounds import ROUND_S
from pov_rt.engine.sqlite.tails import Tails
from pov_rt.runtime.clock import Clock

STEP_TOPICS = 250
"""A step's budget of topics that are looked at. A publication that comes meanwhile waits for it."""
STEP_S = 0.5
"""Between two steps of a round at least, however often the writer has time."""

_LAST = "SELECT max(id) FROM (SELECT id FROM topics WHERE id > ? ORDER BY id LIMIT ?)"
_IDLE = """
    SELECT id, name, generation FROM topics WHERE id > ? AND id <= ?
    AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.topic = topics.id AND body > 0)
    AND NOT EXISTS (SELECT 1 FROM keys WHERE keys.topic = topics.id)
    AND NOT EXISTS (SELECT 1 FROM producers WHERE producers.topic = topics.id)
    AND NOT EXISTS (SELECT 1 FROM marks WHERE marks.topic = topics.name)
"""
"""An entry that is too old is emptied (`body` 0) by then, if it is its topic's newest, or gone."""


class Forgetting:
    """Looks at all topics in turn, and removes those without entries, ids, producers and marks.

    But not those that are watched: who is subscribed need not learn of another epoch. Used by the
    writer's thread only.
    """

    def __init__(self, connection: sqlite3.Connection, clock: Clock, tails: Tails) -> None:
        self._connection = connection
        self._clock = clock
        self._tails = tails
        self._after = 0
        self._due_at = clock.monotonic() + ROUND_S

    def step(self) -> None:
        """Look at the next few topics, if a step is due, in the open transaction."""
        now = self._clock.monotonic()
        is_full = self._after == 0 and self._tails.count.is_nearly_full
        if now < self._due_at and not is_full:
            return
        (last,) = self._connection.execute(_LAST, (self._after, STEP_TOPICS)).fetchone()
        if last is None:
            self._after, self._due_at = 0, now + ROUND_S
            return
        idle = self._connection.execute(_IDLE, (self._after, last)).fetchall()
        if gone := [each for each in idle if each[1] not in self._tails.watched]:
            self._tails.remove(gone)
        self._after, self._due_at = last, now + STEP_S

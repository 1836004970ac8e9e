"""What is too much or too old leaves the database: entries with their bodies, and ids.

Topics may be kept for different times (`Keeping`). For each of these ages the bodies are looked at
in the order of the commits, once: what is behind the place that an age has got to is younger, or
not yet looked at. Where an entry is too old in its PoV before it is in a feed, a stub of it stays
there.

Each step is a small transaction between the commits; a group of publications that comes meanwhile
waits for it. A step removes somewhat more than came since the last one, so that nothing piles up.
"""

from __future__ import annotations

import math
import sqlite3
from collections import deque
from typing import NamedTuple

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.sqlite.tails import Tail, Tails
from pov_rt.runtime.clock import SteadyTime

STEP_ROWS, MOST_ROWS = 500, 20_000
"""Bounds of a step's budget of rows, or of bodies that are too old. A publication that comes
meanwhile waits for the whole step (docs/measurements.md, retention)."""
STEP_BYTES = 512 * 1024
"""A step's budget of bytes of bodies, or somewhat more than came. What is removed is overwritten,
which costs as much as to write it."""
SAMPLE = 20
"""How many of a topic's bodies are measured, to estimate the size of the others."""
SLACK = 40
"""A topic may have 1/40 more rows than `max_entries`, `MOST_SLACK` at most, before any are removed:
they lie beside each other, and many at once cost less each (docs/measurements.md, retention)."""
MOST_SLACK = 250
SPANS = 100
"""A step's budget of topics, or a tenth of the rows that came. The more topics wait, the more rows
each loses when its turn comes."""
STEP_KEYS, MOST_KEYS = 2000, 20_000
"""Bounds of a step's budget of ids (docs/measurements.md, retention)."""
SURVEYED = 500
"""A step's budget of topics whose rows are counted, after a start."""
FUTURE_S = 3600.0
"""An entry further ahead of the clock than this has a wrong date, or the clock is wrong now. Its
date does not count: it is removed with the first entry behind it that is too old."""
ROWS_PER_PAGE, PAGE_BYTES = 10, 4096
"""Estimate of what removing adds to the write-ahead log: a page for each `ROWS_PER_PAGE` rows, and
for each `PAGE_BYTES` of bodies."""

_SURVEY = """
    SELECT id, name, generation, epochs,
        (SELECT min("offset") FROM entries WHERE entries.topic = topics.id),
        (SELECT max("offset") FROM entries WHERE entries.topic = topics.id)
    FROM topics WHERE id > ? ORDER BY id LIMIT ?
"""
"""One statement for many topics: at the end of each the interpreter's lock has to be taken back."""

_SPAN = 'topic = :topic AND "offset" >= :first AND "offset" < :before'
DROP_BODIES = f"""
    DELETE FROM bodies WHERE id IN (SELECT body FROM entries WHERE {_SPAN})
    AND NOT EXISTS (SELECT 1 FROM entries AS other
        WHERE other.topic = iif(bodies.topic = :topic, bodies.feed, bodies.topic)
        AND other."offset" = iif(bodies.topic = :topic, bodies.feed_offset, bodies."offset")
        AND other.body = bodies.id)
"""
DROP_ENTRIES = f"DELETE FROM entries WHERE {_SPAN}"
"""Removes a topic's entries, after those of their bodies that have no other place."""

_PLACED = """
    FROM bodies
    LEFT JOIN entries AS own ON own.topic = bodies.topic
        AND own."offset" = bodies."offset" AND own.body = bodies.id
    LEFT JOIN entries AS fed ON fed.topic = bodies.feed
        AND fed."offset" = bodies.feed_offset AND fed.body = bodies.id
"""
_AT = "coalesce(own.at, fed.at, 0)"
_HAS_AGE = "coalesce((SELECT age FROM own_ages WHERE topic = bodies.topic), :default) = :age"
_IS_MEANT = f"""
    ({_HAS_AGE} OR :age = :default AND fed.topic IS NOT NULL)
"""
"""Whether an age is that of a body's PoV, or the body is in a feed, whose age is the default."""
_OLD = "bodies.id > :after AND bodies.id < :before"
FIRST_AT = f"SELECT {_AT} {_PLACED} WHERE bodies.id > :after ORDER BY bodies.id LIMIT 1"
LAST_BODY = "SELECT coalesce(max(id), 0) FROM bodies"
OLDEST = "SELECT id, length(body) FROM bodies WHERE id > :after ORDER BY id LIMIT :most"
FIRST_YOUNG = f"""
    SELECT bodies.id {_PLACED} WHERE {_OLD} AND {_IS_MEANT}
    AND {_AT} BETWEEN :not_before AND :now + {FUTURE_S} ORDER BY bodies.id LIMIT 1
"""
LAST_AGED = f"""
    SELECT max(bodies.id) {_PLACED} WHERE {_OLD} AND {_IS_MEANT} AND {_AT} < :not_before
"""
NEXT_MEANT = f"SELECT bodies.id {_PLACED} WHERE {_OLD} AND {_IS_MEANT} ORDER BY bodies.id LIMIT 1"
_AGED = f"""
    WITH aged (topic, last, newest) AS (
        SELECT topic, max("offset"),
            (SELECT max("offset") FROM entries WHERE entries.topic = places.topic)
        FROM (
            SELECT own.topic, own."offset" {_PLACED}
            WHERE {_OLD} AND own.topic IS NOT NULL AND {_HAS_AGE}
            UNION ALL SELECT fed.topic, fed."offset" {_PLACED}
            WHERE {_OLD} AND fed.topic IS NOT NULL AND :age = :default
        ) AS places GROUP BY topic
    )
"""
DROP_AGED = (
    f"""
    {_AGED} DELETE FROM entries WHERE (topic, "offset") IN (
        SELECT entries.topic, entries."offset" FROM aged CROSS JOIN entries
        ON entries.topic = aged.topic AND entries."offset" <= min(aged.last, aged.newest - 1))
    """,
    # A topic's newest row stays, for the offset's sake. With an instant that stays too old, should
    # the clock or the age be changed.
    f"""
    {_AGED} UPDATE entries SET body = 0, at = 0 WHERE (topic, "offset") IN (
        SELECT topic, last FROM aged WHERE last = newest)
    """,
    f"""
    DELETE FROM bodies WHERE id IN (
        SELECT bodies.id {_PLACED} WHERE {_OLD} AND own.topic IS NULL AND fed.topic IS NULL)
    """,
    f"""
    UPDATE bodies SET topic = feed, "offset" = feed_offset, feed = 0, feed_offset = 0,
        origin = x'', body = stub(body)
    WHERE {_OLD} AND :age < :default AND {_HAS_AGE}
    """,
)
"""Removes the oldest bodies of an age, and their entries. Bodies are in the order of the commits,
so that the first ones are the oldest. Of what is in a feed then, which keeps longer, a stub is
left, and the body is the feed's own."""

_OWN_AGES = """
    DROP TRIGGER IF EXISTS temp.topic_entered;
    DROP TRIGGER IF EXISTS temp.topic_removed;
    DROP TABLE IF EXISTS temp.own_ages;
    CREATE TEMP TABLE own_ages (topic INTEGER PRIMARY KEY, age REAL NOT NULL);
"""
_FILL_OWN_AGES = """
    CREATE TEMP TRIGGER topic_entered AFTER INSERT ON topics WHEN own_age(NEW.name) IS NOT NULL
        BEGIN INSERT INTO own_ages VALUES (NEW.id, own_age(NEW.name)); END;
    CREATE TEMP TRIGGER topic_removed AFTER DELETE ON topics
        BEGIN DELETE FROM own_ages WHERE topic = OLD.id; END;
    INSERT INTO own_ages
        SELECT id, own_age(name) FROM topics WHERE own_age(name) IS NOT NULL;
"""
"""The topics whose age is not the default. For very many topics that takes a second at the start,
which only those pay who keep some otherwise."""

Key = tuple[int, bytes]
FIRST_KEY: Key = (0, b"")
LAST_KEY: Key = (1 << 62, b"")
_KEYS = "FROM keys WHERE (topic, name) > (?, ?) AND (topic, name) <= (?, ?)"


class Round(NamedTuple):
    """A look at all keys, in steps: when it began, and the oldest that it has left."""

    began: float
    oldest: float


class Retention:
    """Decides what leaves, and removes it. Used by the writer's thread only."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        settings: EngineSettings,
        steady: SteadyTime,
        tails: Tails,
        keeping: Keeping,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._keeping = keeping
        self._steady = steady
        self._tails = tails
        self._ages = deque(keeping.ages)
        """The first is the next one that is looked after."""
        self._passed = dict.fromkeys(keeping.ages, 0)
        """The last body that each of them need not look at again."""
        self._surplus = 0
        """Rows of overdue topics that may go."""
        self._came = 0
        self._next_topic: int | None = 0
        """Where the survey goes on; None when it is over."""
        self._next_key = FIRST_KEY
        self._round = Round(0.0, math.inf)
        self._no_key_before = 0.0
        self.is_aged = False
        """Whether more is too old than the last step removed, or was not looked at."""
        connection.create_function("stub", 1, keeping.stub, deterministic=True)
        connection.executescript(_OWN_AGES)
        if keeping.has_rules:
            connection.create_function("own_age", 1, keeping.own_age_of, deterministic=True)
            connection.executescript(_FILL_OWN_AGES)

    @property
    def is_behind(self) -> bool:
        """Whether enough rows may go that a step is worth it."""
        return self._surplus >= STEP_ROWS

    def forget(self) -> None:
        """Forget what is known of the tails, which are forgotten, too."""
        self._surplus = 0
        self._next_topic = 0
        self._passed = dict.fromkeys(self._ages, 0)

    def count(self, tail: Tail, came: int = 0) -> None:
        """Count how many of a topic's rows may go, after `came` more were appended."""
        self._came += came
        most = self._keeping.of(tail.name).max_entries
        surplus = tail.top - most + 1 - tail.stored
        if surplus < 1 and not tail.surplus:
            return
        if surplus < max(1, min(MOST_SLACK, most // SLACK)):
            surplus = 0
        self._surplus += surplus - tail.surplus
        tail.surplus = surplus
        overdue = self._tails.overdue
        if surplus:
            overdue[tail.name] = tail  # where it is already, it keeps its turn
        else:
            overdue.pop(tail.name, None)

    def survey(self) -> None:
        """Count which rows of the next few topics may go, until each was counted once.

        From then on `count` keeps that up to date.
        """
        if self._next_topic is None:
            return
        rows = self._connection.execute(_SURVEY, (self._next_topic, SURVEYED)).fetchall()
        for topic_id, name, generation, epochs, stored, top in rows:
            if top is not None and self._tails.find(name) is None:
                epoch = self._tails.epoch(generation, epochs)
                self.count(Tail(topic_id, name, epoch, top, stored))
        self._next_topic = rows[-1][0] if len(rows) == SURVEYED else None

    def drop_surplus(self, appended_bytes: int) -> float:
        """Remove rows of which there are too many, topic after topic, within a step's budget.

        Return how many pages that adds to the write-ahead log, more or less.
        """
        room = min(max(STEP_ROWS, self._came * 5 // 4), MOST_ROWS)
        size_left = float(max(STEP_BYTES, appended_bytes * 5 // 4))
        spans = max(SPANS, self._came // 10)
        self._came = 0
        overdue = self._tails.overdue
        pages = 0.0
        while overdue and spans > 0 and room > 0 and size_left > 0:
            spans -= 1
            tail = next(iter(overdue.values()))
            each = self._average_size(tail)
            number = max(1, min(tail.surplus, room, int(size_left / each)))
            span = {"topic": tail.id, "first": tail.stored, "before": tail.stored + number}
            bodies = self._connection.execute(DROP_BODIES, span).rowcount
            pages += _pages(self._connection.execute(DROP_ENTRIES, span).rowcount, bodies * each)
            room -= number
            size_left -= bodies * each
            tail.stored += number
            self.count(tail)
        return pages

    def _average_size(self, tail: Tail) -> float:
        """Return how large the bodies of a topic's oldest rows are, of some of them; at least 1."""
        (size,) = self._connection.execute(
            "SELECT avg(length(bodies.body)) FROM (SELECT body FROM entries WHERE topic = ? "
            'AND "offset" >= ? ORDER BY "offset" LIMIT ?) AS oldest '
            "JOIN bodies ON bodies.id = oldest.body",
            (tail.id, tail.stored, SAMPLE),
        ).fetchone()
        return max(1.0, size or 0.0)

    def drop_aged(self, appended: int, appended_bytes: int) -> float:
        """Remove what is too old, within a step's budget, which grows with what was appended.

        Return how many pages that adds to the write-ahead log, more or less. The tails stay as they
        are: they say that there is nothing below `stored`, which remains true.
        """
        self.is_aged = False
        most = min(max(STEP_ROWS, appended * 5 // 4), MOST_ROWS // 2)
        most_bytes = max(STEP_BYTES, appended_bytes * 5 // 4)
        pages = 0.0
        for _ in range(len(self._ages)):
            age = self._ages[0]
            self._ages.rotate(-1)
            pages += self._drop_of_age(age, most, most_bytes)
            if self.is_aged:
                break  # that was a whole step; the next one begins with another age
        self.bodies_dropped()
        return pages

    def bodies_dropped(self) -> None:
        """See to it that no age has passed a number that a body to come may have again."""
        (last,) = self._connection.execute(LAST_BODY).fetchone()
        for age, passed in self._passed.items():
            self._passed[age] = min(passed, last)

    def _drop_of_age(self, age: float, most: int, most_bytes: int) -> float:
        """Do so for the topics that are kept for this long, and look at so many bodies for it."""
        execute, now = self._connection.execute, self._steady.now()
        span = {
            "age": age,
            "default": self._keeping.default.max_age_s,
            "after": self._passed[age],
            "most": most,
            "now": now,
            "not_before": now - age,
        }
        first = execute(FIRST_AT, span).fetchone()
        if first is None or now - age <= first[0] <= now + FUTURE_S:
            return 0.0
        oldest = execute(OLDEST, span).fetchall()
        last, size = oldest[0]
        for body, length in oldest[1:]:
            if size + length > most_bytes:
                break
            last, size = body, size + length
        span["before"] = last + 1
        young = execute(FIRST_YOUNG, span).fetchone()
        end = span["before"] = last + 1 if young is None else young[0]
        (aged,) = execute(LAST_AGED, span).fetchone()
        removed = 0
        if aged is not None:
            span["before"] = aged + 1
            removed = sum(execute(each, span).rowcount for each in DROP_AGED)
            span["after"] = self._passed[age] = aged
        span["before"] = end
        meant = execute(NEXT_MEANT, span).fetchone()
        if meant is None:
            self._passed[age] = end - 1
        is_cut = last != oldest[-1][0] or len(oldest) == most
        is_stuck = aged is None and meant is not None
        self.is_aged = young is None and is_cut and not is_stuck
        return _pages(removed, size if removed else 0.0)

    def drop_keys(self, appended: int) -> float:
        """Remove those of the next few ids that are older than `id_window_s`.

        Return how many pages that adds to the write-ahead log, more or less.

        A step looks at twice as many as were appended, so that old ones cannot pile up. An index on
        their age would find them at once, but slow down each append (docs/measurements.md,
        retention). After a round over all, the oldest that is left says when the next is due.
        """
        not_before = self._steady.now() - self._settings.id_window_s
        if not_before <= self._no_key_before:
            return 0.0
        if self._next_key == FIRST_KEY:
            self._round = Round(self._steady.now(), math.inf)
        number = min(max(STEP_KEYS, 2 * appended), MOST_KEYS)
        last = self._connection.execute(
            "SELECT topic, name FROM keys WHERE (topic, name) > (?, ?) "
            "ORDER BY topic, name LIMIT 1 OFFSET ?",
            (*self._next_key, number - 1),
        ).fetchone()
        span = (*self._next_key, *(last or LAST_KEY))
        (oldest,) = self._connection.execute(f"SELECT min(at) {_KEYS}", span).fetchone()
        dropped = 0
        if oldest is not None and oldest < not_before:
            dropped = self._connection.execute(
                f"DELETE {_KEYS} AND at < ?", (*span, not_before)
            ).rowcount
            oldest = not_before
        if oldest is not None:
            self._round = self._round._replace(oldest=min(self._round.oldest, oldest))
        self._next_key = last or FIRST_KEY
        if last is None:
            # What was appended where the round had passed already is younger than its beginning.
            self._no_key_before = min(self._round)
        return _pages(dropped, 0)


def _pages(rows: int, size: float) -> float:
    return rows / ROWS_PER_PAGE + size / PAGE_BYTES

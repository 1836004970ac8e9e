"""Changing what is in the logs already: the writer's part of `amend`, `edit`, `drop`, `disown`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, cast

from pov_rt.engine.base import Amended, Amendment, Appended, Conflict, NewEntry, Rewrite
from pov_rt.engine.sqlite.jobs import Outcome, ResultT
from pov_rt.engine.sqlite.log import LogStore
from pov_rt.engine.sqlite.retention import DROP_BODIES, DROP_ENTRIES, Key

STEP_ENTRIES, STEP_KEYS = 250, 2000
"""What a step of `drop` removes. A publication that comes meanwhile waits for it."""

_PLACED = """
    SELECT bodies.id, own.name, fed.name FROM entries
    JOIN bodies ON bodies.id = entries.body
    LEFT JOIN topics AS own ON own.id = bodies.topic
    LEFT JOIN topics AS fed ON fed.id = bodies.feed
    WHERE entries.topic = (SELECT id FROM topics WHERE name = :topic)
    AND entries."offset" = :offset AND bodies.body = :old
"""
_SPAN = 'entries.topic = :topic AND entries."offset" < :before'
_FED = f"""
    SELECT bodies.id, bodies.body, topics.name FROM entries
    JOIN bodies ON bodies.id = entries.body AND bodies.topic = :topic
    JOIN entries AS fed ON fed.topic = bodies.feed
        AND fed."offset" = bodies.feed_offset AND fed.body = bodies.id
    JOIN topics ON topics.id = bodies.feed
    WHERE {_SPAN}
"""
_LEAVE_TO_FEED = """
    UPDATE bodies SET topic = feed, "offset" = feed_offset, feed = 0, feed_offset = 0,
        origin = x'', body = ? WHERE id = ?
"""
_TAKE_FROM_FEED = f"""
    UPDATE bodies SET feed = 0, feed_offset = 0
    WHERE feed = :topic AND id IN (SELECT body FROM entries WHERE {_SPAN})
"""
_DROP_KEYS = """
    DELETE FROM keys WHERE topic = :topic AND name IN
    (SELECT name FROM keys WHERE topic = :topic LIMIT :limit)
"""


class Rewritten(NamedTuple, Generic[ResultT]):
    """What became of a change, the topics whose bodies are other ones now, and what is to tell."""

    result: ResultT
    topics: frozenset[str] = frozenset()
    telling: Telling | None = None


class Dropped(NamedTuple):
    """Whether a topic is gone; `epoch` is what it has then, "" if it was not there."""

    is_done: bool
    epoch: str = ""


class Telling(NamedTuple):
    """The entry that tells of an amendment, and what became of it."""

    entry: NewEntry
    outcome: Outcome


class Rewriting:
    """Changes entries that are there, each call in the open transaction. The writer's thread's."""

    def __init__(self, connection: sqlite3.Connection, store: LogStore) -> None:
        self._connection = connection
        self._store = store

    def amend(self, amendment: Amendment) -> Rewritten[Amended | Conflict | None]:
        """Rewrite entries and append another, or nothing. Raises `Unavailable`."""
        rewrite, new, others = amendment
        new = new._replace(topic=rewrite.topic, feed="")
        known = self._store.look_up(new)
        if known is not None:
            return Rewritten(known if isinstance(known, Conflict) else Amended(known))
        placed = self._find(rewrite)
        if placed is None or any(self._find(each) is None for each in others):
            return Rewritten(None)
        _, own, feed = placed
        # The feed's own entries have no other.
        new = new._replace(feed=feed or "" if own == rewrite.topic else "")
        (outcome,) = self._store.append([[new]])
        if outcome.error is not None:
            raise outcome.error
        topics = self.edit([rewrite, *others]).topics
        place = cast("Appended", outcome.results[0])
        return Rewritten(Amended(place, new.feed), topics, Telling(new, outcome))

    def edit(self, rewrites: Sequence[Rewrite]) -> Rewritten[Sequence[bool]]:
        """Rewrite entries that have the body they are to have."""
        done: list[bool] = []
        topics: frozenset[str] = frozenset()
        for rewrite in rewrites:
            placed = self._find(rewrite)
            if placed is not None:
                self._replace(placed[0], rewrite.body)
                topics |= _named(*placed[1:])
            done.append(placed is not None)
        return Rewritten(done, topics)

    def drop(self, name: str, stub: Callable[[bytes], bytes]) -> Rewritten[Dropped]:
        """Remove some of a topic, in the end all of it."""
        store, connection = self._store, self._connection
        store.is_stale = True
        row = connection.execute(
            "SELECT id, generation FROM topics WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            self._drop_marks(name)
            return Rewritten(Dropped(is_done=True))
        topic, generation = row
        border = connection.execute(
            'SELECT "offset" FROM entries WHERE topic = ? ORDER BY "offset" LIMIT 1 OFFSET ?',
            (topic, STEP_ENTRIES),
        ).fetchone()
        limit = {"topic": topic, "limit": STEP_KEYS}
        keys = connection.execute(_DROP_KEYS, limit).rowcount
        if border is None and keys == STEP_KEYS:
            return Rewritten(Dropped(is_done=False))
        span = {"topic": topic, "first": 0, "before": border[0] if border else 1 << 62}
        fed = connection.execute(_FED, span).fetchall()
        connection.executemany(_LEAVE_TO_FEED, [(stub(body), number) for number, body, _ in fed])
        connection.execute(_TAKE_FROM_FEED, span)
        connection.execute(DROP_BODIES, span)
        store.bodies_replaced()
        store.bodies_dropped()
        feeds = frozenset(feed for _, _, feed in fed)
        if border is not None:
            connection.execute(DROP_ENTRIES, span)
            store.shorten(name, border[0])
            return Rewritten(Dropped(is_done=False), feeds)
        self._drop_marks(name)
        store.remove((topic, name, generation))
        return Rewritten(Dropped(is_done=True, epoch=store.tails.unknown), feeds)

    def drop_keys(self, keys: Sequence[Key], _: sqlite3.Connection) -> int:
        """Forget keys; return how many were there."""
        self._store.is_stale = True
        return self._connection.executemany(
            "DELETE FROM keys WHERE topic = ? AND name = ?", keys
        ).rowcount

    def drop_producers(self, publisher: str, _: sqlite3.Connection) -> None:
        """Forget the last numbers of a publisher's producers."""
        self._store.is_stale = True
        self._store.producers.drop_publisher(publisher)

    def _find(self, rewrite: Rewrite) -> tuple[int, str | None, str | None] | None:
        """Return a body with the names of its topic and feed, if it is the one that is meant."""
        found: tuple[int, str | None, str | None] | None = self._connection.execute(
            _PLACED, {"topic": rewrite.topic, "offset": rewrite.offset, "old": rewrite.old}
        ).fetchone()
        return found

    def _replace(self, number: int, body: bytes) -> None:
        self._connection.execute("UPDATE bodies SET body = ? WHERE id = ?", (body, number))
        self._store.bodies_replaced()

    def _drop_marks(self, topic: str) -> None:
        dropped = self._connection.execute("DELETE FROM marks WHERE topic = ?", (topic,)).rowcount
        self._store.state.count(-dropped)


def _named(*names: str | None) -> frozenset[str]:
    return frozenset(name for name in names if name)

"""Reading a topic's log from the database."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from sys import maxsize
from typing import NamedTuple

from pov_rt.engine.base import Entry, Found, Located, Match, Matches, Page, Tally, Top
from pov_rt.engine.bounds import epoch_of
from pov_rt.engine.copying import Epochs, hashed_name
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.sqlite.schema import read_generation

SEARCHED, SEARCHED_BYTES, SEARCHED_KEYS = 500, 1024 * 1024, 20_000
"""What is looked at for a page of a search; then another's read has its turn."""
LOCATED = 100
"""Places of one key that are told of."""

_SEARCHED = """
    SELECT bodies.id, coalesce(own."offset", fed."offset"), coalesce(own.at, fed.at),
        bodies.origin, bodies.body, coalesce(topics.name, '')
    FROM (SELECT * FROM bodies WHERE id > :after ORDER BY id LIMIT :limit) AS bodies
    LEFT JOIN entries AS own ON own.topic = bodies.topic
        AND own."offset" = bodies."offset" AND own.body = bodies.id
    LEFT JOIN entries AS fed ON fed.topic = bodies.feed
        AND fed."offset" = bodies.feed_offset AND fed.body = bodies.id
    LEFT JOIN topics ON topics.id = coalesce(own.topic, fed.topic)
    ORDER BY bodies.id
"""


class Kept(NamedTuple):
    """What a topic keeps: its newest `max_entries`, but none from before; in which database.

    With `fading` an entry that is too old by now for the PoV that it came from is read as a stub.
    """

    epoch: str
    max_entries: int
    not_before: float
    now: float
    fading: Keeping | None = None

    @property
    def source(self) -> str:
        """What selects the name of the topic that an entry came from, where it matters."""
        name = "(SELECT name FROM topics WHERE id = bodies.topic)"
        return "''" if self.fading is None else f"coalesce({name}, '')"

    def body(self, body: bytes, source: str, at: float) -> bytes:
        """Return what is left of an entry's body."""
        if self.fading is None or at >= self.now - self.fading.of(source).max_age_s:
            return body
        return self.fading.stub(body)


class Span(NamedTuple):
    """Which entries are wanted, as in `Log.read`; `limit` 0: the log's state only."""

    after: int
    limit: int
    reverse: bool
    max_bytes: int | None = None


def tally(
    connection: sqlite3.Connection,
    topic: str,
    kept: Kept,
    span: tuple[int, int],
    head_of: Callable[[bytes], bytes],
) -> Tally:
    """Count the entries between two offsets by their heads."""
    rows = connection.execute(
        f"SELECT bodies.body, {kept.source}, at FROM entries "
        "JOIN bodies ON bodies.id = entries.body "
        "WHERE entries.topic = (SELECT id FROM topics WHERE name = ?) "
        'AND entries."offset" BETWEEN ? AND ?',
        (topic, *span),
    )
    counts: Counter[bytes] = Counter()
    size = 0
    for whole, source, at in rows:  # one at a time: together they may be large
        body = kept.body(whole, source, at)
        counts[head_of(body)] += 1
        size += len(body)
    return Tally(counts, size)


def search(
    connection: sqlite3.Connection, prefix: str, matches: Callable[[bytes], bool], after: int
) -> Matches:
    """Look at the bodies behind one, as many as a thread may be busy with."""
    found: list[Match] = []
    number, size, last = 0, 0, after
    rows = connection.execute(_SEARCHED, {"after": after, "limit": SEARCHED})
    for body_id, offset, at, origin, body, topic in rows:
        number, size, last = number + 1, size + len(body), body_id
        if topic and topic.startswith(prefix) and matches(body):
            found.append(Match(topic, Entry(offset, body, at, origin.decode())))
        if size >= SEARCHED_BYTES:
            break
    rows.close()
    return Matches(found, str(last) if number == SEARCHED or size >= SEARCHED_BYTES else None)


def find(
    connection: sqlite3.Connection, topic: str, key: str, not_before: float
) -> Sequence[Found]:
    """Return whose entries have a key that is remembered, and where they are."""
    found: list[Found] = []
    for start, end in _key_spans(key):
        rows = connection.execute(
            'SELECT name, "offset" FROM keys WHERE topic = (SELECT id FROM topics WHERE name = ?) '
            "AND name >= ? AND name < ? AND at >= ?",
            (topic, start, end, not_before),
        )
        found += [Found(name[len(start) :].decode(), offset) for name, offset in rows]
    # The rest of a longer key, with a line break in it, is no publisher.
    return [each for each in found if "\n" not in each.publisher]


def locate(connection: sqlite3.Connection, key: str, not_before: float) -> Sequence[Located]:
    """Return what `find` does, of all topics: some, where there are many."""
    found: list[Located] = []
    for start, end in _key_spans(key):
        rows = connection.execute(
            # In this order: a seek for each topic, and no look at every key.
            'SELECT topics.name, keys.name, keys."offset" FROM topics '
            "CROSS JOIN keys ON keys.topic = topics.id AND keys.name >= ? AND keys.name < ? "
            "WHERE keys.at >= ? LIMIT ?",
            (start, end, not_before, LOCATED),
        )
        for topic, name, offset in rows:
            found.append(Located(topic, name[len(start) :].decode(), offset))
    return [each for each in found if "\n" not in each.publisher]


def _key_spans(key: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield between which names a key's are, with whatever publisher: by itself and by its hash."""
    for name in (key, hashed_name(key)):
        yield f"{name}\n".encode(), f"{name}\x0b".encode()


def keys_of(
    connection: sqlite3.Connection, publisher: str, after: tuple[int, bytes]
) -> tuple[Sequence[tuple[int, bytes]], tuple[int, bytes] | None]:
    """Look at the keys behind one; return those of a publisher, and from where to look on."""
    rows = connection.execute(
        "SELECT topic, name FROM keys WHERE (topic, name) > (?, ?) ORDER BY topic, name LIMIT ?",
        (*after, SEARCHED_KEYS),
    ).fetchall()
    end = f"\n{publisher}".encode()
    mine = [(topic, name) for topic, name in rows if name.endswith(end)]
    return mine, rows[-1] if len(rows) == SEARCHED_KEYS else None


def read_page(connection: sqlite3.Connection, topic: str, kept: Kept, span: Span) -> Page:
    """Read a page and the log's state at one instant."""
    after, limit, reverse, max_bytes = span
    connection.execute("BEGIN")
    try:
        row = connection.execute(
            "SELECT id, generation, epochs FROM topics WHERE name = ?", (topic,)
        ).fetchone()
        topic_id, *log_epoch = row or (0, read_generation(connection), "")
        epoch = own_epoch(kept.epoch, *log_epoch)
        top = edge(connection, topic_id, "max")
        if top is None:
            return Page(Top(epoch, 0, 1), ())
        first = first_kept(connection, topic_id, kept.not_before)
        oldest = top + 1 if first is None else max(first, top - kept.max_entries + 1)
        state = Top(epoch, top, oldest)
        if not limit:
            return Page(state, ())
        if reverse:
            span_sql, low, high = "DESC", oldest, after - 1 if after > 0 else top
        else:
            span_sql, low, high = "ASC", max(after + 1, oldest), top
        rows = connection.execute(
            f'SELECT entries."offset", bodies.body, at, origin, {kept.source} FROM entries '
            "JOIN bodies ON bodies.id = entries.body WHERE entries.topic = ? "
            f'AND entries."offset" BETWEEN ? AND ? ORDER BY entries."offset" {span_sql} LIMIT ?',
            (topic_id, low, high, limit),
        )
        entries, left = [], maxsize if max_bytes is None else max_bytes
        for offset, whole, at, origin, source in rows:
            body = kept.body(whole, source, at)
            entries.append(Entry(offset, body, at, origin.decode()))
            left -= len(body)
            if left <= 0:
                break
        rows.close()
        return Page(state, entries)
    finally:
        connection.execute("COMMIT")


def own_epoch(epoch: str, generation: int, epochs: str) -> str:
    """Return the epoch of a topic's log; `epoch` is the database's."""
    return epochs.partition(" ")[0] or epoch_of(epoch, generation)


def older_epochs(connection: sqlite3.Connection, topic: str) -> Epochs:
    """Return the epochs that a log had before its own, the newest first.

    One that began here, in the database's first generation, may have begun elsewhere before: there
    it was empty when the database was copied.
    """
    row = connection.execute(
        "SELECT generation, epochs FROM topics WHERE name = ?", (topic,)
    ).fetchone()
    generation, epochs = row or (read_generation(connection), "")
    if epochs:
        return parse_epochs(epochs.partition(" ")[2])
    if generation:
        return ()
    row = connection.execute("SELECT value FROM meta WHERE name = 'epochs'").fetchone()
    return parse_epochs(row[0]) if row else ()


def parse_epochs(text: str) -> Epochs:
    """Return what `epoch@last ...` says."""
    found = (each.rpartition("@") for each in text.split())
    return tuple((epoch, int(last)) for epoch, _, last in found)


def edge(connection: sqlite3.Connection, topic_id: int, which: str) -> int | None:
    """Return the lowest (`min`) or highest (`max`) stored offset of a topic."""
    (found,) = connection.execute(
        f'SELECT {which}("offset") FROM entries WHERE topic = ?', (topic_id,)
    ).fetchone()
    return None if found is None else int(found)


def first_kept(connection: sqlite3.Connection, topic_id: int, not_before: float) -> int | None:
    """Return the offset of a topic's oldest entry that is not too old."""
    row = connection.execute(
        'SELECT "offset" FROM entries WHERE topic = ? AND at >= ? ORDER BY "offset" LIMIT 1',
        (topic_id, not_before),
    ).fetchone()
    return None if row is None else int(row[0])

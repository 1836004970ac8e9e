"""What is in the database as records, and records as a database; see `engine.copying`."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.bounds import MarkRules
from pov_rt.engine.copying import (
    Begun,
    CopiedEntry,
    CopiedId,
    CopiedLog,
    CopiedMark,
    CopiedMember,
    CopiedNumber,
    CopiedValue,
    Record,
    Records,
    hash_of_name,
    microseconds,
    name_of_hash,
)
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.sqlite.pages import own_epoch, parse_epochs
from pov_rt.engine.sqlite.schema import begin, read_epoch, read_generation
from pov_rt.engine.sqlite.state import Database

PAGE, PAGE_BYTES = 1000, 1024 * 1024
"""Records of a page, or bytes of its bodies."""

_LOGS = """
    SELECT id, name, generation, epochs,
        (SELECT max("offset") FROM entries WHERE topic = topics.id),
        max(coalesce((SELECT max(at) FROM entries WHERE topic = topics.id), 0),
            coalesce((SELECT max(at) FROM keys WHERE topic = topics.id), 0))
    FROM topics WHERE id > ? ORDER BY id LIMIT ?
"""
_ENTRIES = """
    SELECT entries.topic, entries."offset", topics.name, at, origin, bodies.body,
        bodies.topic = entries.topic AND bodies."offset" = entries."offset",
        coalesce(own.name, ''), bodies."offset", coalesce(fed.name, ''), bodies.feed_offset,
        (SELECT max("offset") FROM entries AS newer WHERE newer.topic = entries.topic)
    FROM entries
    JOIN topics ON topics.id = entries.topic
    JOIN bodies ON bodies.id = entries.body
    LEFT JOIN topics AS own ON own.id = bodies.topic
    LEFT JOIN topics AS fed ON fed.id = bodies.feed
    WHERE (entries.topic, entries."offset") > (?, ?)
    ORDER BY entries.topic, entries."offset" LIMIT ?
"""
_IDS = """
    SELECT topic, keys.name, topics.name, digest, "offset", at
    FROM keys JOIN topics ON topics.id = topic
    WHERE (topic, keys.name) > (?, ?) ORDER BY topic, keys.name LIMIT ?
"""
_NUMBERS = """
    SELECT topic, publisher, producers.name, topics.name, seq, at
    FROM producers JOIN topics ON topics.id = topic
    WHERE (topic, publisher, producers.name) > (?, ?, ?)
    ORDER BY topic, publisher, producers.name LIMIT ?
"""
_MARKS = """
    SELECT topic, name, user, epoch, "offset", at FROM marks
    WHERE (topic, name, user) > (?, ?, ?) ORDER BY topic, name, user LIMIT ?
"""
_MEMBERS = """
    SELECT "set", member, body, expires_at FROM members
    WHERE ("set", member) > (?, ?) ORDER BY "set", member LIMIT ?
"""
_VALUES = """
    SELECT space, key, owner, body FROM store
    WHERE (space, key) > (?, ?) ORDER BY space, key LIMIT ?
"""

# A body is known by its places until all are there; then it gets its number, by its time: what is
# too old is looked for in that order (`retention`).
_PREPARE = (
    """
    CREATE TABLE copied_bodies (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, topic INTEGER NOT NULL, "offset" INTEGER NOT NULL,
        feed INTEGER NOT NULL, feed_offset INTEGER NOT NULL,
        origin BLOB NOT NULL, body BLOB NOT NULL
    )
    """,
    "CREATE INDEX copied_by_age ON copied_bodies (at)",
)
_FIND_BODY = """
    SELECT copied_bodies.id FROM entries JOIN copied_bodies ON copied_bodies.id = entries.body
    WHERE entries.topic = :other AND entries."offset" = :other_offset
    AND copied_bodies.topic = :topic AND copied_bodies."offset" = :offset
    AND copied_bodies.feed = :feed AND copied_bodies.feed_offset = :feed_offset
"""
_ADD_BODY = """
    INSERT INTO copied_bodies (at, topic, "offset", feed, feed_offset, origin, body)
    VALUES (:at, :topic, :offset, :feed, :feed_offset, :origin, :body)
"""
_FINISH = (
    "CREATE TABLE copied_numbers (id INTEGER PRIMARY KEY, old INTEGER NOT NULL UNIQUE)",
    "INSERT INTO copied_numbers (old) SELECT id FROM copied_bodies ORDER BY at, id",
    """
    INSERT INTO bodies SELECT copied_numbers.id, topic, "offset", feed, feed_offset, origin, body
        FROM copied_numbers CROSS JOIN copied_bodies ON copied_bodies.id = copied_numbers.old
        ORDER BY copied_numbers.id
    """,
)
# One topic after the other: SQLite keeps in memory which rows it changes.
_RENUMBER = """
    UPDATE entries SET body = (SELECT id FROM copied_numbers WHERE old = entries.body)
    WHERE topic = ? AND body > 0
"""
_CLEAR = ("DROP TABLE copied_numbers", "DROP TABLE copied_bodies")


_After = tuple[Any, ...]
"""The key of the row that was looked at last."""


class _At(NamedTuple):
    """What is kept at an instant, `now`."""

    now: int
    keeping: Keeping
    settings: EngineSettings
    mark_age_s: float

    def since(self, age_s: float) -> int:
        """Return before which instant something is older than that."""
        return self.now - microseconds(age_s)


class _Page(NamedTuple):
    """Records, and the place behind the last row that was looked at; None at the end."""

    records: Records
    after: _After | None


Look = Callable[[_At, _After, sqlite3.Connection], _Page]


class SqliteCopying:
    """What is in a database; see `copying.Copying`.

    `forget` is called, where the database is written, after it was changed.
    """

    def __init__(
        self,
        database: Database,
        settings: EngineSettings,
        keeping: Keeping,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._settings = settings
        self._keeping = keeping
        self._mark_age_s = MarkRules(settings, keeping.ages[-1]).age_s
        self._forget = forget

    async def dump(self, at: float) -> AsyncIterator[Records]:
        kept = _At(microseconds(at), self._keeping, self._settings, self._mark_age_s)
        yield [await self._database.read(_read_begun)]
        for look, first in _LOOKS:
            after: _After | None = first
            while after is not None:
                page = await self._database.read(partial(look, kept, after))
                after = page.after
                if page.records:
                    yield page.records

    async def restore(self, records: Records) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            begin(connection)
            _RESTORES[type(records[0])](connection, records)
            self._forget()

        size = sum(len(getattr(each, "body", b"")) for each in records)
        await self._database.write(operation, size)

    async def finish(self) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            begin(connection)
            for statement in _FINISH:
                connection.execute(statement)
            connection.executemany(_RENUMBER, connection.execute("SELECT id FROM topics"))
            for statement in _CLEAR:
                connection.execute(statement)
            self._forget()

        await self._database.write(operation)


# Reading:


def _read_begun(connection: sqlite3.Connection) -> Begun:
    return Begun((own_epoch(read_epoch(connection), read_generation(connection), ""),))


def _look_at_logs(kept: _At, after: _After, connection: sqlite3.Connection) -> _Page:
    database = read_epoch(connection)
    rows = connection.execute(_LOGS, (*after, PAGE)).fetchall()
    found = [
        CopiedLog(
            name,
            offset,
            (
                (own_epoch(database, generation, epochs), offset),
                *parse_epochs(epochs.partition(" ")[2]),
            ),
            microseconds(at),
        )
        for _, name, generation, epochs, offset, at in rows
        if offset is not None
    ]
    return _Page(found, _behind(rows, 1))


def _look_at_entries(kept: _At, after: _After, connection: sqlite3.Connection) -> _Page:
    *place, shown = after
    found: list[CopiedEntry] = []
    number, size = 0, 0
    rows = connection.execute(_ENTRIES, (*place, PAGE))
    for topic, offset, name, at, origin, body, is_own, *places, top in rows:
        number, size, place = number + 1, size + len(body), [topic, offset]
        own, own_offset, fed, fed_offset = places
        most, age_s = kept.keeping.of(name)
        # As it is read: from the first on that is not too old, and no more than so many.
        is_young = microseconds(at) >= kept.since(age_s)
        if topic != shown and is_young and offset > top - most:
            shown = topic
        if topic == shown:
            other = (">", fed, fed_offset) if is_own else ("<", own, own_offset)
            entry = CopiedEntry(name, offset, microseconds(at), origin.decode(), body, *other)
            found.append(_shown(entry, kept))
        if size >= PAGE_BYTES:
            break
    rows.close()
    is_last = number < PAGE and size < PAGE_BYTES
    return _Page(found, None if is_last else (*place, shown))


def _shown(entry: CopiedEntry, kept: _At) -> CopiedEntry:
    """Return an entry as it is read, which may be a stub by now."""
    if not entry.other:
        return entry.alone()
    if entry.side == "<" and kept.keeping.fades:
        if entry.at < kept.since(kept.keeping.of(entry.other).max_age_s):
            return entry.alone(kept.keeping.stub(entry.body))
    return entry


def _look_at_ids(kept: _At, after: _After, connection: sqlite3.Connection) -> _Page:
    not_before = kept.since(kept.settings.id_window_s)
    rows = connection.execute(_IDS, (*after, PAGE)).fetchall()
    found = []
    for _, name, topic, digest, offset, at in rows:
        key, _, publisher = name.decode().rpartition("\n")
        if microseconds(at) >= not_before:
            hashed = hash_of_name(key)
            found.append(CopiedId(topic, hashed, publisher, digest, offset, microseconds(at)))
    return _Page(found, _behind(rows, 2))


def _look_at_numbers(kept: _At, after: _After, connection: sqlite3.Connection) -> _Page:
    settings = kept.settings
    not_after = kept.since(max(settings.producer_age_s, settings.id_window_s))
    rows = connection.execute(_NUMBERS, (*after, PAGE)).fetchall()
    found = [
        CopiedNumber(topic, publisher, name, seq, microseconds(at))
        for _, publisher, name, topic, seq, at in rows
        if microseconds(at) > not_after
    ]
    return _Page(found, _behind(rows, 3))


def _look_at_marks(kept: _At, after: _After, connection: sqlite3.Connection) -> _Page:
    not_before = kept.now // 1_000_000 - int(kept.mark_age_s)
    rows = connection.execute(_MARKS, (*after, PAGE)).fetchall()
    found = [
        CopiedMark(topic, name, user, epoch, offset, int(at))
        for topic, name, user, epoch, offset, at in rows
        if int(at) >= not_before
    ]
    return _Page(found, _behind(rows, 3))


def _look_at_members(kept: _At, after: _After, connection: sqlite3.Connection) -> _Page:
    rows = connection.execute(_MEMBERS, (*after, PAGE)).fetchall()
    found = [
        CopiedMember(name, member, bytes(body), microseconds(expires_at or 0))
        for name, member, body, expires_at in rows
        if expires_at is None or microseconds(expires_at) > kept.now
    ]
    return _Page(found, _behind(rows, 2))


def _look_at_values(kept: _At, after: _After, connection: sqlite3.Connection) -> _Page:
    # They may be large, so fewer at a time.
    limit = PAGE // 10
    rows = connection.execute(_VALUES, (*after, limit)).fetchall()
    found = [CopiedValue(space, key, owner, bytes(body)) for space, key, owner, body in rows]
    return _Page(found, _behind(rows, 2, limit))


def _behind(rows: Sequence[tuple[Any, ...]], width: int, limit: int = PAGE) -> _After | None:
    return tuple(rows[-1][:width]) if len(rows) == limit else None


_LOOKS: tuple[tuple[Look, _After], ...] = (
    (_look_at_logs, (0,)),
    (_look_at_entries, (0, 0, 0)),
    (_look_at_ids, (0, b"")),
    (_look_at_numbers, (0, "", "")),
    (_look_at_marks, ("", "", "")),
    (_look_at_members, ("", "")),
    (_look_at_values, ("", "")),
)


# Writing:


def _restore_begun(connection: sqlite3.Connection, records: Records) -> None:
    (begun,) = cast("Sequence[Begun]", records)
    epochs = " ".join(f"{epoch}@0" for epoch in dict.fromkeys(begun.epochs))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('epochs', ?)", (epochs,))
    for statement in _PREPARE:
        connection.execute(statement)


def _restore_logs(connection: sqlite3.Connection, records: Records) -> None:
    for log in cast("Sequence[CopiedLog]", records):
        (own, _), *older = log.epochs
        epochs = " ".join([own, *(f"{epoch}@{last}" for epoch, last in older)])
        cursor = connection.execute(
            "INSERT INTO topics (name, generation, epochs) VALUES (?, 0, ?)", (log.topic, epochs)
        )
        # Its top, which stays as it is if nothing of the log is kept.
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, 0, 0)", (cursor.lastrowid, log.offset)
        )


def _restore_entries(connection: sqlite3.Connection, records: Records) -> None:
    entries = cast("Sequence[CopiedEntry]", records)
    names = {name for each in entries for name in (each.topic, each.other)}
    numbers = _numbers_of(connection, names)
    for entry in entries:
        here = numbers[entry.topic], entry.offset
        there = numbers.get(entry.other, 0), entry.other_offset
        if not there[0]:
            there = 0, 0
        own, fed = (there, here) if there[0] and entry.side == "<" else (here, there)
        body = {
            "at": entry.at / 1e6,
            "topic": own[0],
            "offset": own[1],
            "feed": fed[0],
            "feed_offset": fed[1],
            "other": there[0],
            "other_offset": there[1],
            "origin": entry.origin.encode(),
            "body": entry.body,
        }
        found = connection.execute(_FIND_BODY, body).fetchone()
        number = found[0] if found else connection.execute(_ADD_BODY, body).lastrowid
        connection.execute(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", (*here, body["at"], number)
        )


def _restore_ids(connection: sqlite3.Connection, records: Records) -> None:
    ids = cast("Sequence[CopiedId]", records)
    numbers = _numbers_of(connection, {each.topic for each in ids})
    connection.executemany(
        "INSERT INTO keys VALUES (?, ?, ?, ?, ?)",
        [
            (
                numbers[each.topic],
                f"{name_of_hash(each.key)}\n{each.publisher}".encode(),
                each.offset,
                each.digest,
                each.at / 1e6,
            )
            for each in ids
        ],
    )
    newest = max(each.at for each in ids) / 1e6
    connection.execute(
        "INSERT INTO meta VALUES ('ids_copied', :at) ON CONFLICT (name) "
        "DO UPDATE SET value = max(CAST(value AS REAL), :at)",
        {"at": newest},
    )


def _restore_numbers(connection: sqlite3.Connection, records: Records) -> None:
    found = cast("Sequence[CopiedNumber]", records)
    numbers = _numbers_of(connection, {each.topic for each in found})
    connection.executemany(
        "INSERT INTO producers VALUES (?, ?, ?, ?, ?)",
        [(numbers[each.topic], *each[1:4], each.at / 1e6) for each in found],
    )


def _restore_marks(connection: sqlite3.Connection, records: Records) -> None:
    connection.executemany("INSERT INTO marks VALUES (?, ?, ?, ?, ?, ?)", records)


def _restore_members(connection: sqlite3.Connection, records: Records) -> None:
    connection.executemany(
        "INSERT INTO members VALUES (?, ?, ?, ?)",
        [
            (*each[:3], each.expires_at / 1e6 if each.expires_at else None)
            for each in cast("Sequence[CopiedMember]", records)
        ],
    )


def _restore_values(connection: sqlite3.Connection, records: Records) -> None:
    connection.executemany("INSERT INTO store VALUES (?, ?, ?, ?)", records)


_RESTORES: Mapping[type[Record], Callable[[sqlite3.Connection, Records], None]] = {
    Begun: _restore_begun,
    CopiedLog: _restore_logs,
    CopiedEntry: _restore_entries,
    CopiedId: _restore_ids,
    CopiedNumber: _restore_numbers,
    CopiedMark: _restore_marks,
    CopiedMember: _restore_members,
    CopiedValue: _restore_values,
}


def _numbers_of(connection: sqlite3.Connection, names: set[str]) -> dict[str, int]:
    """Return the numbers of topics that are here."""
    found = {}
    for name in names:
        row = connection.execute("SELECT id FROM topics WHERE name = ?", (name,)).fetchone()
        if row is not None:
            found[name] = int(row[0])
    return found

"""The database file: whose it is, what is in it, how to open it, what may be wrong with it."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pov_rt.engine.bounds import make_epoch
from pov_rt.engine.sqlite.packing import prepare
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.process.private import make_private, narrow, open_private, warn_of_folder

log = logging.getLogger(__name__)

APPLICATION_ID = 0x506F5652
"""`PoVR`, in the file's header: says whose database it is (`file` and SQLite show it)."""

MIGRATIONS = (
    # `entries` keeps the newest entry of a topic for ever, emptied once it is too old: it is what
    # remembers the offset. Text is compared byte for byte. `keys` is apart from the entries because
    # ids are remembered for a time of their own, whatever the retention.
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE entries (
        topic INTEGER NOT NULL, "offset" INTEGER NOT NULL, at REAL NOT NULL,
        origin BLOB NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (topic, "offset")
    ) WITHOUT ROWID;
    CREATE TABLE keys (
        topic INTEGER NOT NULL, name BLOB NOT NULL, "offset" INTEGER NOT NULL,
        digest INTEGER NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (topic, name)
    ) WITHOUT ROWID;
    CREATE TABLE marks (
        topic TEXT NOT NULL, name TEXT NOT NULL, user TEXT NOT NULL,
        epoch TEXT NOT NULL, "offset" INTEGER NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (topic, name, user)
    ) WITHOUT ROWID;
    CREATE INDEX marks_by_age ON marks (at);
    CREATE TABLE members (
        "set" TEXT NOT NULL, member TEXT NOT NULL, body BLOB NOT NULL, expires_at REAL,
        PRIMARY KEY ("set", member)
    ) WITHOUT ROWID;
    CREATE INDEX members_by_expiry ON members (expires_at) WHERE expires_at IS NOT NULL;
    """,
    # Each body once, in the order of the commits, and not with every log that it is in: a batch
    # changes fewer pages (docs/measurements.md, pages). A body knows its places, so that it goes
    # with the last of them; `entries.body` is 0 for an emptied one. What is there gets a body for
    # each place, as it had; in the order of its time.
    """
    ALTER TABLE entries RENAME TO whole_entries;
    CREATE TABLE bodies (
        id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, "offset" INTEGER NOT NULL,
        feed INTEGER NOT NULL, feed_offset INTEGER NOT NULL,
        origin BLOB NOT NULL, body BLOB NOT NULL
    );
    CREATE TABLE entries (
        topic INTEGER NOT NULL, "offset" INTEGER NOT NULL, at REAL NOT NULL, body INTEGER NOT NULL,
        PRIMARY KEY (topic, "offset")
    ) WITHOUT ROWID;
    INSERT INTO entries SELECT topic, "offset", at, row_number() OVER (ORDER BY at, topic, "offset")
        FROM whole_entries WHERE at > 0 ORDER BY topic, "offset";
    INSERT INTO bodies
        SELECT entries.body, entries.topic, entries."offset", 0, 0, origin, whole.body FROM entries
        CROSS JOIN whole_entries AS whole ON whole.topic = entries.topic
        AND whole."offset" = entries."offset" ORDER BY entries.body;
    INSERT INTO entries SELECT topic, "offset", 0, 0 FROM whole_entries WHERE at <= 0;
    DROP TABLE whole_entries;
    """,
    # The name of a key is the id and then the publisher, no longer the other way round. Where ids
    # count up, those that come together are beside each other, whoever they are from, and a commit
    # changes fewer pages (docs/measurements.md, pages).
    """
    ALTER TABLE keys RENAME TO old_keys;
    CREATE TABLE keys (
        topic INTEGER NOT NULL, name BLOB NOT NULL, "offset" INTEGER NOT NULL,
        digest INTEGER NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (topic, name)
    ) WITHOUT ROWID;
    INSERT INTO keys SELECT topic,
        CAST(substr(name, instr(name, x'0a') + 1) || x'0a'
            || substr(name, 1, instr(name, x'0a') - 1) AS BLOB) AS turned,
        "offset", digest, at FROM old_keys ORDER BY topic, turned;
    DROP TABLE old_keys;
    """,
    # A topic may be forgotten, and come back: its `generation` says as which one, so that it has
    # another epoch. The longest unused marks of a user are found at once. Until now a subscription
    # and who follows the PoV were written one after the other: what stands alone is mended.
    """
    ALTER TABLE topics ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
    INSERT INTO meta VALUES ('generation', '0');
    CREATE INDEX marks_by_user ON marks (user, at);
    INSERT OR IGNORE INTO members
        SELECT 'followers/' || member, substr("set", length('durable/') + 1), x'', NULL
        FROM members WHERE "set" >= 'durable/' AND "set" < 'durable0';
    DELETE FROM members WHERE "set" >= 'followers/' AND "set" < 'followers0'
        AND NOT EXISTS (SELECT 1 FROM members AS mine
            WHERE mine."set" = 'durable/' || members.member
            AND mine.member = substr(members."set", length('followers/') + 1));
    """,
    # What plugins keep, each in a space of its own; `owner` is the user whose it is, or empty.
    """
    CREATE TABLE store (
        space TEXT NOT NULL, key TEXT NOT NULL, owner TEXT NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (space, key)
    ) WITHOUT ROWID;
    CREATE INDEX store_by_owner ON store (owner) WHERE owner <> '';
    """,
    # The last number of each producer in a topic. `at` is when it came.
    """
    CREATE TABLE producers (
        topic INTEGER NOT NULL, publisher TEXT NOT NULL, name TEXT NOT NULL,
        seq INTEGER NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (topic, publisher, name)
    ) WITHOUT ROWID;
    CREATE INDEX producers_by_age ON producers (at);
    """,
    # A log that was taken over from another engine keeps its epochs: "own older@last ...", the
    # newest first. Empty: its epoch is that of the database, with its generation.
    """
    ALTER TABLE topics ADD COLUMN epochs TEXT NOT NULL DEFAULT '';
    """,
)
"""The statements that lead from each version of the schema to the next."""

EPOCHS_SINCE = 7
"""The first version with `topics.epochs`."""
_MOVE_MARKS = """
    UPDATE marks SET epoch = :new || substr(marks.epoch, length(own.epoch) + 1)
    FROM (SELECT name, substr(epochs, 1, instr(epochs || ' ', ' ') - 1) AS epoch FROM topics
        WHERE epochs <> '') AS own
    WHERE own.name = marks.topic AND (marks.epoch = own.epoch
        OR substr(marks.epoch, 1, length(own.epoch) + 1) = own.epoch || '-')
"""

WAL_PAGES = 4000
"""Size of the write-ahead log (16 MB) at which SQLite copies it into the database within a commit,
if the writer had no time to before. The larger, the longer that commit takes (docs/measurements.md,
commits)."""
CACHE_KIB = 32 * 1024


KEPT = ".before-restore"
STRANGE_JOURNAL = "-wal.old"
WITNESS = ".witness"
OWN_FILES = (
    "", "-wal", "-shm", "-journal", ".lock", WITNESS, STRANGE_JOURNAL, KEPT, f"{KEPT}-wal",
)  # fmt: skip
"""What all files of a database end with."""


class FileLock:
    """Holds a database for one process: SQLite would let two in, and each has its own followers."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Without a buffer, which a full disk would have fail again when the file is closed.
            file = open(f"{path}.lock", "a+b", buffering=0, opener=open_private)
            give_to_owner(file.fileno(), path.parent)
        except OSError as error:
            raise Unavailable(f"cannot use {error.filename}: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read(20).decode(errors="replace").strip() or "unknown"
            file.close()
            raise Unavailable(
                f"{path} is in use by another process (pid {holder}); only one may have it: "
                "end that one first, or choose another folder (server.data)"
            ) from error
        self._file = file
        try:
            file.truncate(0)
            file.write(b"%d\n" % os.getpid())
        except OSError:
            pass  # a full disk: the number is for people, the lock holds without it

    def release(self) -> None:
        """Let another process have it."""
        if self._file is not None:
            self._file.close()
            self._file = None


def keep_private(path: Path) -> None:
    """See to it that nobody else reads the database: its file has all activities in it.

    SQLite gives its other files the mode of this one.
    """
    make_private(path)
    give_to_owner(path, path.parent)
    narrow([Path(f"{path}{suffix}") for suffix in OWN_FILES])
    warn_of_folder(path.parent)


def open_writer(path: Path) -> sqlite3.Connection:
    """Open the database for its one writer; make it, or bring its schema up to date.

    Raises `Unavailable` with one line that says what is wrong with the file.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise Unavailable(explain(error, path)) from error
    try:
        _check_owner(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        # A commit returns when the log is on disk; with NORMAL it could be lost with the power.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {4096 * WAL_PAGES * 2}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        # What retention removes is not to be found in the file. Debian's SQLite does so by default.
        connection.execute("PRAGMA secure_delete = ON")
        _migrate(connection, path)  # sorts in files: it may be more than there is memory
        # In memory: a disk that is full must not keep the rest from being said.
        connection.execute("PRAGMA temp_store = MEMORY")
        prepare(connection)
    except sqlite3.Error as error:
        connection.close()
        raise Unavailable(explain(error, path)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open the database for reading.

    A reader never checkpoints: with two connections that do, SQLite before 3.51.3 can corrupt the
    write-ahead log.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB // 4}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_plain(path: Path) -> sqlite3.Connection:
    """Open the database once more for its one writer, who looks after the write-ahead log alone."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA secure_delete = ON")
    return connection


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database that may be another process's for reading. Raises `Unavailable`."""
    if not path.exists():
        raise Unavailable(f"there is no database {path}")
    try:
        connection = open_reader(path)
        try:
            _check_owner(connection, path)
            if read_version(connection) == 0:
                raise Unavailable(f"{path} is an empty database")
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise Unavailable(explain(error, path)) from error


def file_size(path: Path) -> int:
    """Return how many bytes a file has; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def give_to_owner(file: int | Path, owner: Path) -> None:
    """Give a file that root made to the user of another one: the server runs as that user."""
    status = owner.stat()
    if os.geteuid() == 0 and status.st_uid != 0:
        with suppress(PermissionError):  # a root that may not; then neither are others at work here
            os.chown(file, status.st_uid, status.st_gid)


def begin(connection: sqlite3.Connection) -> None:
    """Begin to write, unless that is under way."""
    if not connection.in_transaction:
        connection.execute("BEGIN IMMEDIATE")


def commit(connection: sqlite3.Connection) -> None:
    """Commit what is open; it is on disk when this returns."""
    if connection.in_transaction:
        connection.execute("COMMIT")


def new_epoch(connection: sqlite3.Connection) -> str:
    """Give the database another epoch: offsets that clients have of the old one are void.

    Marks go over to it: they speak of the logs beside them.
    """
    old = read_epoch(connection)
    epoch = make_epoch(time.time(), old)
    begin(connection)
    if read_version(connection) >= EPOCHS_SINCE:
        # Those that logs had elsewhere end as well, before the marks have other ones.
        connection.execute(_MOVE_MARKS, {"new": epoch})
        connection.execute("UPDATE topics SET epochs = '' WHERE epochs <> ''")
        connection.execute("DELETE FROM meta WHERE name = 'epochs'")
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (epoch,))
    connection.execute(
        "UPDATE marks SET epoch = :new || substr(epoch, length(:old) + 1) "
        "WHERE epoch = :old OR substr(epoch, 1, length(:old) + 1) = :old || '-'",
        {"old": old, "new": epoch},
    )
    return epoch


def read_epoch(connection: sqlite3.Connection) -> str:
    """Return the epoch of the database: its logs can only be lost together."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
    return str(row[0]) if row else ""


def read_generation(connection: sqlite3.Connection) -> int:
    """Return the newest generation of topics; any that was forgotten had an older one."""
    (number,) = connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()
    return int(number)


def read_version(connection: sqlite3.Connection) -> int:
    """Return the version of the schema; 0 for a database that nobody has written to."""
    return _pragma(connection, "user_version")


def explain(error: sqlite3.Error, path: Path) -> str:
    """Say in one line what is wrong with the database."""
    name = getattr(error, "sqlite_errorname", None) or ""
    for prefix, text in (
        ("SQLITE_FULL", f"there is no room left for {path}"),
        ("SQLITE_READONLY", f"{path} cannot be written: it, its folder or its disk is read-only"),
        ("SQLITE_CANTOPEN", f"{path} cannot be opened: is its folder there, and writable?"),
        ("SQLITE_NOTADB", f"{path} is no database"),
        ("SQLITE_CORRUPT", f"{path} is damaged; bring back a backup with: pov-rt db restore"),
        ("SQLITE_IOERR", f"{path} cannot be read or written: the disk fails or is full ({name})"),
        ("SQLITE_BUSY", f"{path} is locked by another program"),
    ):
        if name.startswith(prefix):
            return text
    return f"{path}: {error}"


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    owner = _pragma(connection, "application_id")
    version = read_version(connection)
    if owner != APPLICATION_ID and (owner or version or _pragma(connection, "schema_version")):
        raise Unavailable(f"{path} is a database of another program")
    if version > len(MIGRATIONS):
        raise Unavailable(
            f"{path} was written by a newer pov-rt (schema {version}, of {len(MIGRATIONS)} that "
            "this one knows); start that one, or bring back an older backup"
        )


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = read_version(connection)
    is_older = 0 < version < len(MIGRATIONS)
    if is_older:
        (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        log.info(
            "bringing %s with %d rows from schema %d to %d; nobody is served meanwhile",
            path, count, version, len(MIGRATIONS),
        )  # fmt: skip
    began = time.monotonic()
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        # One transaction, so that a crash leaves either version and nothing between.
        connection.executescript(f"BEGIN IMMEDIATE; {statements}")
        if number == 1:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            new_epoch(connection)
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    if is_older:
        log.info("%s is up to date: %d rows, %.1f s", path, count, time.monotonic() - began)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

"""Whether the database is the one that was here, or one that somebody put into its place.

Who copies a backup over the database, or brings a snapshot of its folder back, takes away what
clients have: the offsets behind it are given to other entries, and a client would be told that it
has missed nothing. So a small file beside the database bears witness: which run of a server wrote
last, and how many entries there were. A database that it does not know gets another epoch.

- Each start is a *run*, with a name in the database and in the witness. A copy that was made before
  the last start has another one; `pov-rt db backup` gives its copies none that was ever here.
- Each commit writes the number of all entries that ever were into the witness, so that a copy of
  the same run is known by its having fewer.
- The witness is a new file at each start, each stop and every ten minutes, and says when it came
  into being, which no copy of it can say: so a folder is known that was brought back as a whole.
- The name of the run is in the database's main file, too, not only in its write-ahead log: so a log
  is known that is another file's, and would spoil the one that was put beside it.

What an image of a whole disk brings back nothing on that disk can tell: `pov-rt db renew` is for
that.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sqlite3
import sys
import time
import uuid
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from pov_rt.engine.sqlite.schema import (
    STRANGE_JOURNAL,
    WITNESS,
    begin,
    commit,
    give_to_owner,
    new_epoch,
)
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.process.private import open_private

log = logging.getLogger(__name__)

COPY = "copy"
"""The run of a copy that was made to be kept."""
RENEW_S = 600.0
"""How long one file is the witness at most, while something is written. What was copied since, with
the witness, and is copied back over the same files after a crash, is not known."""

_DIGITS = 20
_AT_EMPTY_PATH, _STATX_BTIME = 0x1000, 0x800
_STATX_BYTES, _BTIME_AT = 256, 80


class _Testimony(msgspec.Struct, forbid_unknown_fields=True):
    """What a witness says, beside how many entries there were.

    `born` is when its own file came into being. `runs` may be the database's, one of `files` that
    of its main file alone; "" for a database without one. Two while a start is under way.
    """

    born: str
    runs: list[str]
    files: list[str]


class _Said(NamedTuple):
    total: int
    testimony: _Testimony


class Witness:
    """The witness of one database. Owner: the engine, after it has the database's lock."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = Path(f"{database}{WITNESS}")
        self._file: int | None = None
        self._made_at = 0.0
        self._runs: list[str] = []
        self._files: list[str] = []
        self._total = 0

    def part_from_journal(self) -> None:
        """Set a write-ahead log aside that is not this database's: SQLite would mix the two."""
        journal, said = Path(f"{self._database}-wal"), self._read()
        if said is None or not journal.exists() or not journal.stat().st_size:
            return
        uri = f"{self._database.absolute().as_uri()}?mode=ro&immutable=1"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                run = read_run(connection)
        except sqlite3.Error:
            return  # a file without any table yet, or damage, which is told when it is opened
        if run in said.testimony.files:
            return
        aside = Path(f"{self._database}{STRANGE_JOURNAL}")
        journal.rename(aside)
        Path(f"{self._database}-shm").unlink(missing_ok=True)
        log.warning(
            "%s was written for another file than %s, which was put beside it: it is now %s",
            journal, self._database, aside,
        )  # fmt: skip

    def admit(self, connection: sqlite3.Connection) -> int:
        """Begin a run with a database, of which offsets are void if it is not the one that was.

        Return how many entries there ever were. Raises `Unavailable` where that cannot be written.
        """
        run, total, said = read_run(connection), read_total(connection), self._read()
        is_known = run == "" if said is None else run in said.testimony.runs and total >= said.total
        new = uuid.uuid4().hex
        self._runs, self._files, self._total = [run, new], [run, new], total
        try:
            self._make()
            if not is_known:
                epoch = new_epoch(connection)
                log.warning(
                    "%s is not as it was left here: it, or its folder, was copied into place. It "
                    "has a new epoch, %s: clients learn that they may have missed something",
                    self._database, epoch,
                )  # fmt: skip
            begin(connection)
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('run', ?)", (new,))
            commit(connection)
            # Emptied, not only copied: what was replaced before a crash is not to stay there.
            copying = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._runs = [new]
            if copying[1] == copying[2]:
                self._files = [new]
            self._make()
        except OSError as error:
            self._refuse(is_known, f"cannot use {self._path}: {error.strerror}", error)
        except sqlite3.OperationalError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if not is_known:
                raise
            log.warning("%s: no run could be noted: %s", self._database, error)
        return total

    def note(self, total: int) -> None:
        """Note how many entries there ever were; called after each commit."""
        self._total = total
        if self._file is None:
            return
        try:
            if time.monotonic() - self._made_at > RENEW_S:
                self._make()
            else:
                os.pwrite(self._file, b"%0*d" % (_DIGITS, total), 0)
        except OSError as error:
            log.warning("%s is written no more: %s", self._path, error.strerror)
            self.let_go()

    def close(self) -> None:
        """Leave it for the next run: what was copied before now is not what is here."""
        if self._file is not None:
            try:
                self._make()
            except OSError as error:
                log.warning("%s stays as it is: %s", self._path, error.strerror)
            self.let_go()

    def remove(self) -> None:
        """Forget what was here: the database that is has an epoch of its own."""
        self._path.unlink(missing_ok=True)

    def _refuse(self, is_known: bool, words: str, error: OSError) -> None:
        # On a disk that is full the server starts, and reads. But not with offsets that are wrong.
        if not is_known:
            raise Unavailable(words) from error
        log.warning("%s: the witness stays that of the run before", words)
        if self._file is not None:
            return
        with suppress(OSError):  # there may be none; without one nothing is noted
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)

    def _read(self) -> _Said | None:
        """Return what the witness says; None if there is none.

        One that cannot be read, or is a copy, knows no run.
        """
        try:
            with open(self._path, "rb") as file:
                content, born = file.read(), _born(file.fileno())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"cannot use {self._path}: {error.strerror}") from error
        with suppress(ValueError, msgspec.DecodeError):
            testimony = msgspec.json.decode(content[_DIGITS:], type=_Testimony)
            if testimony.born == born:
                return _Said(int(content[:_DIGITS]), testimony)
            return _Said(0, _Testimony(born, [], testimony.files))
        return _Said(0, _Testimony(born, [], []))

    def _make(self) -> None:
        """Put a new file into its place; on an `OSError` the old one is still there."""
        fresh = f"{self._path}.new"
        with suppress(FileNotFoundError):
            os.unlink(fresh)
        file = open_private(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC)
        try:
            testimony = _Testimony(_born(file), self._runs, self._files)
            os.write(file, b"%0*d" % (_DIGITS, self._total) + msgspec.json.encode(testimony))
            give_to_owner(file, self._path.parent)
            os.fsync(file)
            os.rename(fresh, self._path)
        except BaseException:
            os.close(file)
            os.unlink(fresh)
            raise
        self.let_go()
        self._file, self._made_at = file, time.monotonic()

    def let_go(self) -> None:
        """Leave it as a process does that is killed."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read_run(connection: sqlite3.Connection) -> str:
    """Return the run that wrote last to a database; "" for none that has a name."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'run'").fetchone()
    return str(row[0]) if row else ""


def name_copy(connection: sqlite3.Connection) -> None:
    """Mark a copy of a database, so that it is known should it be put into the other's place."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('run', ?)", (COPY,))


def forget_run(connection: sqlite3.Connection) -> None:
    """Make a database one that has run nowhere yet."""
    connection.execute("DELETE FROM meta WHERE name = 'run'")


def note_moved(connection: sqlite3.Connection) -> None:
    """Note that a database was copied to another engine, which goes on with its epochs."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('moved', '')")


def part_from_moved(connection: sqlite3.Connection, database: Path) -> None:
    """Begin another epoch if a database was copied: what came where it went to is not here."""
    begin(connection)
    if connection.execute("DELETE FROM meta WHERE name = 'moved'").rowcount:
        epoch = new_epoch(connection)
        log.warning(
            "%s was copied by pov-rt db copy, and is used again: it has a new epoch, %s, for what "
            "has come since to where it was copied is not here",
            database, epoch,
        )  # fmt: skip
    commit(connection)


def read_total(connection: sqlite3.Connection) -> int:
    """Return how many entries of all topics there ever were."""
    (total,) = connection.execute(
        'SELECT coalesce(sum((SELECT max("offset") FROM entries WHERE topic = topics.id)), 0) '
        "+ coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'gone'), 0) FROM topics"
    ).fetchone()
    return int(total)


def add_gone(connection: sqlite3.Connection, number: int) -> None:
    """Count entries of topics that are forgotten, in an open transaction."""
    connection.execute(
        "INSERT INTO meta VALUES ('gone', :number) ON CONFLICT (name) "
        "DO UPDATE SET value = CAST(value AS INTEGER) + :number",
        {"number": number},
    )


def _born(file: int) -> str:
    """Return what no copy of a file has: its number, and when it came into being if that is known.

    Its mode, owner and times of use may change, as when a volume is given to another user.
    """
    number = str(os.fstat(file).st_ino)
    try:
        libc = ctypes.CDLL(None)
        answer = ctypes.create_string_buffer(_STATX_BYTES)
        failed = libc.statx(file, b"", _AT_EMPTY_PATH, _STATX_BTIME, answer)
    except AttributeError:  # a C library without it
        failed = True
    if not failed and int.from_bytes(answer.raw[:4], sys.byteorder) & _STATX_BTIME:
        return f"{number} {answer.raw[_BTIME_AT : _BTIME_AT + 12].hex()}"
    return number

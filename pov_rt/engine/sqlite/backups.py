"""Copies of the database: making one while a server runs, putting one into its place."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from pov_rt.engine.sqlite.remnants import NO_REMNANTS
from pov_rt.engine.sqlite.schema import (
    KEPT,
    FileLock,
    commit,
    explain,
    give_to_owner,
    new_epoch,
    open_plain,
    reading,
)
from pov_rt.engine.sqlite.witness import Witness, forget_run, name_copy
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.process.private import MODE, narrow

Progress = Callable[[int, int], None]
"""Is told how many pages of how many are copied."""

COPY_PAGES = 4096
_BESIDE = ("-wal", "-shm", "-journal")


def back_up(path: Path, target: Path, progress: Progress | None = None) -> None:
    """Copy the database to a new file, as it is at one instant; a server may be running.

    Raises `Unavailable` with a line for people, if the target is there already, too.
    """
    if target.exists():
        raise Unavailable(f"{target} is there already; nothing was written")
    with reading(path) as connection:
        _copy(connection, target, progress)


def restore(path: Path, source: Path, progress: Progress | None = None) -> Path | None:
    """Put a backup into the database's place, with a new epoch; return where the old one is kept.

    What users have read and devices acknowledged goes over to it, as it is in the backup.

    Nothing has changed when it raises `Unavailable`, with a line for people.
    """
    lock = FileLock(path)
    fresh = path.with_name(f"{path.name}.restored")
    try:
        kept = _find_place(path)
        with reading(source) as connection:
            if kept and path.samefile(source):
                raise Unavailable(f"{source} is the database itself")
            _check_whole(connection, source)
            # With the journal that a restore left which died while it renewed its copy: SQLite
            # would play it back into this one.
            remove(fresh)
            _copy(connection, fresh, progress)
        _renew(fresh)
        if kept:
            narrow([path, *(Path(f"{path}{suffix}") for suffix in _BESIDE)])
        give_to_owner(fresh, path if kept else path.parent)
        _put_in_place(fresh, path, kept)
        Witness(path).remove()
    except sqlite3.Error as error:
        raise Unavailable(explain(error, fresh)) from error
    except OSError as error:
        raise Unavailable(f"cannot use {error.filename}: {error.strerror}") from error
    finally:
        remove(fresh)
        lock.release()
    return kept


def renew(path: Path) -> str:
    """Give the database a new epoch, and return it; for what was brought back by other means.

    Raises `Unavailable`, if a server runs, too.
    """
    with reading(path):
        lock = FileLock(path)
    try:
        Witness(path).part_from_journal()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            epoch = new_epoch(connection)
            forget_run(connection)
            commit(connection)
        Witness(path).remove()
    except sqlite3.Error as error:
        raise Unavailable(explain(error, path)) from error
    finally:
        lock.release()
    return epoch


def scrub(path: Path) -> None:
    """Write the database anew, without what SQLite left in its pages of what was removed.

    Raises `Unavailable`, if a server runs, too.
    """
    with reading(path):
        lock = FileLock(path)
    try:
        Witness(path).part_from_journal()
        with closing(open_plain(path)) as connection:
            connection.execute("VACUUM")
            connection.execute(NO_REMNANTS)
    except sqlite3.Error as error:
        raise Unavailable(explain(error, path)) from error
    finally:
        lock.release()


def _copy(source: sqlite3.Connection, target: Path, progress: Progress | None) -> None:
    """Copy a whole database to a file that is there only once it is complete and on disk."""
    partial = target.with_name(f"{target.name}.partial")
    remove(partial)
    try:
        # Nobody else's to read, as the database is not.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MODE))
        with closing(sqlite3.connect(partial, isolation_level=None)) as copied:
            source.execute("BEGIN")  # a snapshot: else each commit of a server starts it anew
            source.execute("SELECT * FROM meta").fetchone()
            source.backup(
                copied,
                pages=COPY_PAGES,
                progress=progress and (lambda _, left, pages: progress(pages - left, pages)),
            )
            source.execute("COMMIT")
            copied.execute("PRAGMA journal_mode = DELETE")  # all in one file
            name_copy(copied)
        flush(partial)
        partial.rename(target)
        flush(target.parent)
    except OSError as error:
        raise Unavailable(f"cannot write {error.filename}: {error.strerror}") from error
    except sqlite3.Error as error:
        if (error.sqlite_errorname or "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise  # that is the source
        raise Unavailable(explain(error, target)) from error
    finally:
        remove(partial)


def _find_place(path: Path) -> Path | None:
    """Return where the old database will be kept, None if there is no old one."""
    if not path.exists():
        return None
    kept = path.with_name(path.name + KEPT)
    if kept.exists() and not kept.samefile(path):  # the same file: a crash of a restore left it
        raise Unavailable(
            f"{kept}, which an earlier restore kept, would be lost; move or delete it first"
        )
    return kept


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict != "ok":
        raise Unavailable(f"{path} is damaged: {' '.join(verdict.split())}")


def _renew(path: Path) -> None:
    """Void the offsets that clients have: after them other entries will come than came before."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        new_epoch(connection)
        forget_run(connection)
        commit(connection)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        _check_whole(connection, path)
    flush(path)


def _put_in_place(fresh: Path, path: Path, kept: Path | None) -> None:
    """Swap the databases so that a crash at any instant leaves the old one or the new one."""
    if kept is not None:
        remove(kept)
        _settle(path)
        os.link(path, kept)
        # A write-ahead log that is still there would spoil the new database.
        with suppress(FileNotFoundError):
            os.rename(f"{path}-wal", f"{kept}-wal")
    for suffix in _BESIDE:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    flush(path.parent)
    fresh.rename(path)
    flush(path.parent)


def _settle(path: Path) -> None:
    """Have the write-ahead log copied into its database and removed, if nothing hinders that.

    Damage does, and somebody who reads: a backup under way.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint")


def remove(path: Path) -> None:
    """Remove a database with the files beside it, if they are there."""
    for suffix in ("", *_BESIDE):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have a file, or what a folder has, be on disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)

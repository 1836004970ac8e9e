"""Databases for outboxes: SQLite's file, and a PostgreSQL server that a test module runs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from pov_rt.client import Outbox
from pov_rt.client.publishing.database import Dialect
from tests.processes import running

NOBODY = 65534
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


class Place(NamedTuple):
    """A database with the outbox's tables in it."""

    dialect: Dialect
    name: str
    """A file, or a connection string."""

    def connect(self) -> Any:
        if self.dialect == "sqlite":
            return sqlite3.connect(self.name, timeout=20)
        return psycopg.connect(self.name)

    def clear(self) -> None:
        """Begin with empty tables."""
        connection = self.connect()
        for table in ("pov_rt_outbox", "pov_rt_outbox_producer", "tasks"):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute("CREATE TABLE tasks (title TEXT NOT NULL)")
        Outbox.create(connection, self.dialect)
        connection.commit()
        connection.close()

    def rows(self) -> int:
        connection = self.connect()
        ((count,),) = connection.execute("SELECT count(*) FROM pov_rt_outbox").fetchall()
        connection.close()
        return int(count)


def find_postgresql() -> str | None:
    """Return where its programs are, or None."""
    return shutil.which("initdb") or (str(BINARIES[-1]) if BINARIES else None)


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL server on a Unix socket in a folder of its own; yield where it is.

    As nobody, if this is root, whom it refuses.
    """
    found = find_postgresql()
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="pov-rt-pg-"))
    data = folder / "data"
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    try:
        subprocess.run(
            [found, "-D", data, "-A", "trust", "-U", "app", "--no-sync", "-E", "UTF8"],
            check=True,
            capture_output=True,
            cwd=folder,
            **who,
        )
        program = Path(found).resolve().with_name("postgres")
        command: list[str | Path] = [program, "-D", data, "-k", folder, "-F"]
        options = ["-c", "listen_addresses=", "-c", "max_connections=40"]
        log = (folder / "log").open("w")
        with running([*command, *options], cwd=folder, stdout=log, stderr=log, **who):
            where = f"host={folder} user=app dbname=postgres"
            wait_for(where)
            yield where
        log.close()
    finally:
        shutil.rmtree(folder)


def wait_for(where: str) -> None:
    """Wait until a server takes connections, which libpq does not by itself."""
    folder = Path(where.split()[0].removeprefix("host="))
    while True:
        try:
            psycopg.connect(where).close()
        except psycopg.OperationalError as error:
            words = str(error)
            if "starting up" not in words and (folder / "log").read_text().find("FATAL") >= 0:
                raise
        else:
            return

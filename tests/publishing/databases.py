"""The apps' databases: what is in them, and how a relay is told where they are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.client.publishing.databases import Place

DEEDS = "CREATE TABLE deeds (lane TEXT NOT NULL, number BIGINT NOT NULL)"


class AppDatabase(NamedTuple):
    """A database with an outbox, and with `deeds`: a row for each activity, written with it."""

    place: Place

    @property
    def url(self) -> str:
        """Where it is, for `pov-rt relay`."""
        if self.place.dialect == "sqlite":
            return f"sqlite:///{self.place.name}"
        parts = dict(part.split("=") for part in self.place.name.split())
        return f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}"

    def kept(self) -> dict[str, set[int]]:
        """Return the numbers of which there is a row, by lane."""
        connection = self.place.connect()
        found: dict[str, set[int]] = {}
        for lane, number in connection.execute("SELECT lane, number FROM deeds").fetchall():
            found.setdefault(lane, set()).add(number)
        connection.close()
        return found

    def left(self) -> int:
        """Return how many rows the outbox has."""
        return self.place.rows()


def sqlite(folder: Path) -> AppDatabase:
    """Return an app's file, with empty tables."""
    return created(Place("sqlite", str(folder / "app.db")))


def postgresql(where: str) -> AppDatabase:
    """Return the database of a PostgreSQL server, with empty tables."""
    return created(Place("postgresql", where))


def created(place: Place) -> AppDatabase:
    place.clear()
    connection = place.connect()
    connection.execute(DEEDS)
    connection.commit()
    connection.close()
    return AppDatabase(place)

"""An app that publishes until it is told to end: `launcher app WAY NAME FOLDER PLACE URL TOKEN`.

By way of a spool, or by the transactions of SQLite (SQLAlchemy) or PostgreSQL (psycopg), of which
some are rolled back, and some are committed in another order than they were begun in.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from pov_rt.client import Outbox, Publisher, SpoolFull
from tests.publishing.activities import make, povs
from tests.publishing.ledger import SAFE, VOID, Lane

THREADS = 4
"""Of an app that has a spool."""
TRANSACTIONS = 2
"""Threads of one that has a database."""
MOST_WAIT = 4000
"""Of an app's activities: then it waits for its relay."""
LOOKS = 20
"""So many transactions until an app looks how many wait."""
PAUSE_S = 0.05
ROLLED_BACK = 0.15
MOST_ACTIVITIES = 5
"""Of a transaction."""
LOCKED_S = 60.0
"""How long SQLite may be another's."""
KEEP = "INSERT INTO deeds VALUES ({}, {})"
COUNT = "SELECT count(*) FROM pov_rt_outbox"

Work = Callable[[Random], None]


class App:
    """The threads of an app; each has lanes of its own."""

    def __init__(self, way: str, name: str, folder: Path) -> None:
        self.stop = threading.Event()
        self.povs = povs(way)
        self._prefix = f"{way}-{name}"
        self._ledger = folder / "ledger"

    def lane(self, name: str) -> Lane:
        """Return a lane, which goes on where it was in the app's life before."""
        return Lane(self._ledger, f"{self._prefix}-{name}")

    def run(self, works: Sequence[Work]) -> None:
        """Let each thread work until the app is told to end."""
        signal.signal(signal.SIGTERM, lambda *_: self.stop.set())
        threads = [threading.Thread(target=self._repeat, args=[work]) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _repeat(self, work: Work) -> None:
        random = Random()
        while not self.stop.is_set():
            work(random)

    def wait(self) -> None:
        """Let some time pass, unless this is the end."""
        self.stop.wait(PAUSE_S)


def by_spool(app: App, place: str, url: str, token: str) -> None:
    """Publish by way of a spool, which several such apps may share."""
    publisher = Publisher(url, token, place, max_rows=MOST_WAIT)

    def work(lane: Lane, random: Random) -> None:
        number = lane.begin()
        try:
            publisher.publish(make(lane.name, number, random.choice(app.povs)))
        except SpoolFull:
            lane.tell(VOID, number)
            app.wait()
        else:
            lane.tell(SAFE, number)

    lanes = [app.lane(str(index)) for index in range(THREADS)]
    app.run([lambda random, lane=lane: work(lane, random) for lane in lanes])  # type: ignore[misc]
    publisher.close(0)


def by_sqlite(app: App, place: str, *_: str) -> None:
    """Publish with the transactions of SQLAlchemy's sessions."""
    from sqlalchemy import create_engine, text  # which takes a while: no other app does
    from sqlalchemy.orm import Session

    engine = create_engine(f"sqlite:///{place}", connect_args={"timeout": LOCKED_S})
    row = text(KEEP.format(":lane", ":number"))

    def work(lane: Lane, random: Random) -> None:
        with Session(engine) as session:
            numbers = list[int]()
            for _ in range(random.randint(1, MOST_ACTIVITIES)):
                numbers.append(lane.begin())
                session.execute(row, {"lane": lane.name, "number": numbers[-1]})
                Outbox.add(session, make(lane.name, numbers[-1], random.choice(app.povs)))
            finish(random, lane, numbers, session)
            while not lane.last % LOOKS and session.scalar(text(COUNT)) > MOST_WAIT:
                session.rollback()
                app.wait()
                if app.stop.is_set():
                    return

    lanes = [app.lane(str(index)) for index in range(TRANSACTIONS)]
    app.run([lambda random, lane=lane: work(lane, random) for lane in lanes])  # type: ignore[misc]
    engine.dispose()


def by_postgresql(app: App, place: str, *_: str) -> None:
    """Publish with two transactions at a time, which end in any order."""
    import psycopg

    def work(random: Random, lanes: Sequence[Lane], connections: Sequence[Any]) -> None:
        begun = list[tuple[Lane, list[int], Any]]()
        for lane, connection in zip(lanes, connections, strict=True):
            numbers = list[int]()
            for _ in range(random.randint(1, MOST_ACTIVITIES)):
                numbers.append(lane.begin())
                connection.execute(KEEP.format("%s", "%s"), (lane.name, numbers[-1]))
                Outbox.add(connection, make(lane.name, numbers[-1], random.choice(app.povs)))
            begun.append((lane, numbers, connection))
        random.shuffle(begun)
        for lane, numbers, connection in begun:
            finish(random, lane, numbers, connection)
        ((waiting,),) = connections[0].execute(COUNT).fetchall()
        connections[0].rollback()
        if waiting > MOST_WAIT:
            app.wait()

    def prepare(index: int) -> Work:
        lanes = [app.lane(f"{index}{which}") for which in ("early", "late")]
        connections = [psycopg.connect(place) for _ in lanes]
        return lambda random: work(random, lanes, connections)

    app.run([prepare(index) for index in range(TRANSACTIONS)])


def finish(random: Random, lane: Lane, numbers: Sequence[int], transaction: Any) -> None:
    """Commit, or roll back, and note what became of it."""
    if random.random() < ROLLED_BACK:
        transaction.rollback()
        lane.tell(VOID, *numbers)
    else:
        transaction.commit()
        lane.tell(SAFE, *numbers)


WAYS: dict[str, Callable[..., None]] = {
    "spool": by_spool,
    "sqlite": by_sqlite,
    "postgresql": by_postgresql,
}


def main(way: str, name: str, folder: str, place: str, url: str, token: str) -> None:
    """Be an app."""
    WAYS[way](App(way, name, Path(folder)), place, url, token)

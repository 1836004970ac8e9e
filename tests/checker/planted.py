"""The server with a bug that the checker has to find: `python -m tests.checker.planted BUG serve`.

`early=SECONDS` acknowledges before it commits, `drop=NUMBER` leaves out one of so many.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from random import Random
from typing import Any

from pov_rt.cli.main import main
from pov_rt.delivery.hub import Hub
from pov_rt.delivery.topic import Pending, Topic
from pov_rt.engine.sqlite.jobs import Job
from pov_rt.engine.sqlite.writer import Writer


def acknowledge_early(seconds: float) -> None:
    """Acknowledge, and commit so much later."""

    def commit(writer: Writer, group: Sequence[Job[Any]]) -> None:
        writer.connection.execute("BEGIN IMMEDIATE")
        results = writer.store.apply(group)
        writer._loop.call_soon_threadsafe(writer._deliver, group, results)
        time.sleep(seconds)
        writer.connection.execute("COMMIT")

    setattr(Writer, "_commit", commit)  # noqa: B010  (mypy refuses the assignment)


def drop_one_of(number: int) -> None:
    """Leave out about one activity of so many for those who are subscribed to its topic."""
    add, chance = Hub._add, Random()  # no count, which each kill would begin anew

    def add_some(hub: Hub, topic: Topic, item: Pending) -> None:
        if item.body is None or chance.randrange(number):
            add(hub, topic, item)

    setattr(Hub, "_add", add_some)  # noqa: B010


if __name__ == "__main__":
    bug, _, value = sys.argv.pop(1).partition("=")
    if bug == "early":
        acknowledge_early(float(value))
    else:
        drop_one_of(int(value))
    main()

"""Relays that are killed before their n-th step: python -m tests.client.publishing.dying ...

A relay's steps are all that others could see of it: each statement and commit, and each request,
before it is sent and after it was answered. For each line of the standard input, a number and a
token, a relay is forked that dies before that step; it ends by itself, with 0, if it has not so
many. How each ended is a line of the output, as `Popen.returncode` has it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from pov_rt.client.publishing import Relay
from pov_rt.client.publishing.database import Database, Dialect
from pov_rt.remote.http import Http
from tests.client.publishing.databases import Place
from tests.client.publishing.reading import PATIENCE_S

left = 0


def step() -> None:
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def with_steps(kind: type, name: str) -> None:
    inner = getattr(kind, name)

    def outer(*given: Any, **named: Any) -> Any:
        step()
        found = inner(*given, **named)
        step()
        return found

    setattr(kind, name, outer)


def with_step_at_the_end(kind: type, name: str) -> None:
    inner = getattr(kind, name)

    @contextmanager
    def outer(*given: Any) -> Iterator[None]:
        with inner(*given):
            yield
        step()

    setattr(kind, name, outer)


def be_relay(place: Place, url: str, bearer: str, steps: int) -> int:
    """Die before a step, or return the status."""
    global left
    left = steps
    return int(not Relay(place.connect, url, bearer, poll_s=0.01).drain(PATIENCE_S))


if __name__ == "__main__":
    _, dialect, name, url = sys.argv
    for method in ("query", "many"):
        with_steps(Database, method)
    with_step_at_the_end(Database, "transaction")
    with_steps(Http, "request")
    place = Place(cast("Dialect", dialect), name)
    for line in sys.stdin:
        number, token = line.split()
        if not (child := os.fork()):
            os._exit(be_relay(place, url, token, int(number)))
        status = os.waitpid(child, 0)[1]
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()

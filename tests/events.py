"""A reader of server-sent events, which keeps to the standard and to nothing of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any, NamedTuple

from pov_rt.testing import RunningServer

WAIT_S = 30.0


class Event(NamedTuple):
    """One event, its data decoded."""

    name: str
    data: Any
    id: str | None


class Events:
    """What an answer brings, in order; it ends with its connection."""

    def __init__(self, connection: HTTPConnection, answer: HTTPResponse) -> None:
        self.connection = connection
        self.answer = answer
        self.heartbeats = 0
        self.raw = b""
        """All that was read."""

    def __iter__(self) -> Iterator[Event]:
        return iter(self.next, None)

    def next(self) -> Event | None:
        """Return the next event, None at the end; an event that is cut there is none."""
        name, last, data = "message", None, list[str]()
        for line in self.lines():
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line and data:
                return Event(name, json.loads("\n".join(data)), last)
            if line.startswith(":"):
                self.heartbeats += 1
            elif field == "event":
                name = value
            elif field == "id":
                last = value
            elif field == "data":
                data.append(value)
        return None

    def lines(self) -> Iterator[str]:
        while line := self.answer.readline():
            self.raw += line
            yield line.decode().rstrip("\n")

    def heartbeat(self) -> None:
        """Wait for a comment."""
        line = next(self.lines())
        assert line.startswith(":"), line

    def items(self, count: int) -> list[Any]:
        """Return the items of the next events, so many at least, with the event behind the last."""
        found: list[Any] = []
        while len(found) < count:
            event = self.next()
            assert event is not None, f"it ended after {len(found)} items"
            if event.name == "data":
                found += event.data
        assert self.control()["streamNextOffset"].endswith(f"{found[-1]['offset']:016d}")
        return found

    def control(self) -> dict[str, Any]:
        """Return what the next event says, which has to be no data."""
        event = self.next()
        assert event is not None, "it ended"
        assert event.name == "control", event
        found: dict[str, Any] = event.data
        return found


@contextmanager
def follow(
    server: RunningServer, path: str, token: str | None = None, **headers: str
) -> Iterator[Events]:
    """Ask for a log's events; an answer that is none is for the caller to look at."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        given["Authorization"] = f"Bearer {token}"
    connection = HTTPConnection(server.address, timeout=WAIT_S)
    try:
        connection.request("GET", path, headers=given)
        with connection.getresponse() as answer:
            yield Events(connection, answer)
    finally:
        connection.close()

"""Each border is told of as it is crossed, in order; what nobody wants is not told of at all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from pov_rt.config.settings import Settings
from pov_rt.connections.borders import (
    BORDERS,
    Borders,
    Flushed,
    Handled,
    Joined,
    Left,
    Observer,
    Refused,
    Rejected,
    Replayed,
    Stored,
)
from pov_rt.connections.connection import Connection
from pov_rt.engine.base import Appended, Conflict, Position
from pov_rt.protocol.errors import ClientError, CloseCode, Forbidden
from pov_rt.testing import Http, RunningServer, make_settings

TASK = {"type": "task", "action": "done", "povId": "acme", "userId": "ana"}


class Ledger(Observer):
    """Writes down all it is told, and lets a test wait for something of it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self._changed = threading.Condition()

    def _note(self, name: str, what: Any) -> None:
        with self._changed:
            self.told.append((name, what))
            self._changed.notify_all()

    def wait(self, name: str, is_it: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the first of what was told of a border that is it, when there is one."""

        def found() -> list[Any]:
            return [what for each, what in self.told if each == name and is_it(what)]

        with self._changed:
            assert self._changed.wait_for(found, timeout=30), f"{name}: {self.told}"
            return found()[0]

    def names(self) -> list[str]:
        with self._changed:
            return [name for name, _ in self.told]

    def received(self, connection: Connection, size: int) -> None:
        self._note("received", size)

    def admitted(self, connection: Connection, tag: str, message: Any) -> None:
        self._note("admitted", tag)

    def handled(self, connection: Connection, done: Handled) -> None:
        self._note("handled", done)

    def stored(self, done: Stored) -> None:
        self._note("stored", done)

    def rejected(self, done: Rejected) -> None:
        self._note("rejected", done)

    def failed(self, connection: Connection, done: Handled) -> None:
        self._note("failed", done)

    def withheld(self, connection: Connection, pov_id: str, why: ClientError) -> None:
        self._note("withheld", (pov_id, why.code))

    def denied(self, user_id: str, topic: str, why: ClientError) -> None:
        self._note("denied", (user_id, topic, why.code))

    def marked(self, connection: Connection, topic: str, name: str, position: Position) -> None:
        self._note("marked", (topic, name, position.offset))

    def shown(
        self, connection: Connection, topic: str, position: Position, reason: str | None
    ) -> None:
        self._note("shown", (topic, position.offset, reason))

    def flushed(self, done: Flushed) -> None:
        self._note("flushed", done)

    def written(self, connection: Connection, unsent: int) -> None:
        self._note("written", unsent)

    def opened(self, connection: Connection) -> None:
        self._note("opened", connection.identity.user_id)

    def closed(self, connection: Connection, reason: str) -> None:
        self._note("closed", reason)

    def joined(self, connection: Connection, done: Joined) -> None:
        self._note("joined", done)

    def replayed(self, connection: Connection, done: Replayed) -> None:
        self._note("replayed", done)

    def held(self, connection: Connection, topic: str, offset: int) -> None:
        self._note("held", (topic, offset))

    def lost(self, connection: Connection, topic: str, why: ClientError) -> None:
        self._note("lost", (topic, why.code))

    def left(self, connection: Connection, done: Left) -> None:
        self._note("left", done)

    def refused(self, done: Refused) -> None:
        self._note("refused", done)


@pytest.fixture
def settings() -> Settings:
    """Nobody else wants anything."""
    return make_settings(trace={"enabled": False})


@pytest.fixture
def ledger(server: RunningServer) -> Iterator[Ledger]:
    made = Ledger()
    borders = server.web.server.borders
    wanted = [getattr(borders, name) is not None for name in BORDERS]
    server.call(lambda: borders.add(made))
    yield made
    server.call(lambda: borders.remove(made))
    assert [getattr(borders, name) is not None for name in BORDERS] == wanted


def test_a_message_and_an_activity_cross_the_borders_in_order(
    server: RunningServer, ledger: Ledger
) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    ben = server.connect("ben")
    ledger.wait("opened", lambda user: user == "ben")
    ledger.wait("joined", lambda each: each.topic == "user/ben")  # which comes by itself
    at = len(ledger.names())
    own = {"type": "task", "action": "done", "povId": "acme", "id": "one"}
    ben.request({"type": "publish", "data": own})
    assert ana.receive()["data"]["id"] == "one"
    flushed = ledger.wait("flushed", lambda each: each.topic == "pov/acme")
    order = ledger.names()[at:]
    assert order[:2] == ["received", "admitted"]
    assert sorted(order[2:]) == ["flushed", "handled", "stored"]
    assert order.index("stored") < order.index("handled"), "its answer comes after"
    assert (flushed.offset, flushed.messages) == (1, 1)
    stored = ledger.wait("stored")
    assert [(each.topic, each.key) for each in stored.entries] == [("pov/acme", "one")]
    assert stored.places == [Appended(flushed.epoch, 1)]
    assert 0 <= stored.commit_s <= stored.whole_s
    assert 0 <= flushed.waited_s
    joined = ledger.wait("joined", lambda each: each.topic == "pov/acme")
    assert joined == Joined("pov/acme", flushed.epoch, 0, 0, None, None, None, True)
    done = ledger.wait("handled", lambda each: each.tag == "publish")
    assert (done.error, done.message.data.id) == (None, "one")
    assert done.took_s >= 0
    ana.request({"type": "ack", "povId": "acme", "offset": 1, "shown": True})
    assert ledger.wait("marked") == ("pov/acme", "acked", 1)
    assert ledger.wait("shown") == ("pov/acme", 1, None)
    ana.request({"type": "read", "povId": "acme", "offset": 1})
    assert ledger.wait("marked", lambda each: each[1] == "read") == ("pov/acme", "read", 1)
    ana.request({"type": "unsubscribe", "povId": "acme"})
    assert ledger.wait("left") == Left("pov/acme", flushed.epoch, 1)


def test_what_is_refused_is_told_with_its_reason(
    server: RunningServer, http: Http, ledger: Ledger
) -> None:
    ana = server.connect("ana", povs=["other"])
    ana.request({"type": "subscribe", "povId": "acme"})
    refused = ledger.wait("handled")
    assert (refused.tag, refused.error.code, refused.message.pov_id) == (
        "subscribe",
        "forbidden",
        "acme",
    )
    assert ledger.wait("failed") == refused
    ana.request({"type": "subscribe", "povIds": ["acme", "other"]})
    assert ledger.wait("withheld") == ("acme", "forbidden")
    ana.request({"type": "dance"})
    unknown = ledger.wait("handled", lambda each: each.tag == "")
    assert (unknown.error.code, unknown.message, unknown.took_s) == ("unknown_type", None, None)
    large = {**TASK, "id": "large", "details": {"text": "x" * 20_000}}
    http.post("/api/activities", [large], user="app", service=True)
    rejected = ledger.wait("rejected")
    assert rejected[:4] == ("pov/acme", "large", "service:app", "ana")
    assert rejected.error.code == "too_large"
    http.get("/api/povs/acme/activities", user="ana", povs=["other"])
    turned = ledger.wait("refused")
    assert (turned.user_id, turned.path, turned.error.code) == (
        "ana",
        "/api/povs/acme/activities",
        "forbidden",
    )


def test_a_token_that_came_too_late_says_whose_it_was(
    server: RunningServer, ledger: Ledger
) -> None:
    token = server.token("late", ttl_s=10)
    server.advance(20)
    connection = HTTPConnection(server.address, timeout=40)
    connection.request("GET", "/ws/", headers={"Authorization": f"Bearer {token}"})
    assert connection.getresponse().status == 401
    connection.close()
    refused = ledger.wait("refused")
    assert (refused.user_id, refused.error.code) == ("late", "token_expired")


def test_the_same_id_for_something_else_is_stored_as_a_conflict(
    server: RunningServer, http: Http, ledger: Ledger
) -> None:
    for action in ("done", "other"):
        http.post("/api/activities", {**TASK, "action": action, "id": "one"}, service=True)
    assert ledger.wait("stored", lambda each: isinstance(each.places[0], Conflict))


def test_who_was_away_is_told_of_as_replayed_and_what_the_server_ends_as_lost(
    server: RunningServer, http: Http, ledger: Ledger
) -> None:
    for number in range(3):
        http.post("/api/activities", {**TASK, "id": str(number)}, service=True)
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme", "since": {"last": 2}})
    joined = ledger.wait("joined", lambda each: each.topic == "pov/acme")
    assert (joined.offset, joined.top, joined.recovered, joined.missed) == (1, 3, True, 0)
    replayed = ledger.wait("replayed", lambda each: each.topic == "pov/acme")
    assert replayed.offset == 3
    assert replayed.took_s >= 0
    node = server.web.server
    (connection,) = server.call(lambda: node.directory.of("ana"))
    server.call(lambda: node.permissions.end(connection, "acme", Forbidden()))
    assert ledger.wait("lost") == ("pov/acme", "forbidden")
    server.call(lambda: connection.close(CloseCode.DISCONNECTED))
    assert ledger.wait("closed") == CloseCode.DISCONNECTED.reason


class Failing(Observer):
    def opened(self, connection: Connection) -> None:
        raise ZeroDivisionError


def test_an_observer_that_fails_is_told_of_nothing_more_and_breaks_nothing(
    server: RunningServer, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    borders = server.web.server.borders
    server.call(lambda: borders.add(Failing()))
    for user in ("ana", "ben"):
        server.connect(user)
        ledger.wait("opened", user.__eq__)
    failures = [each for each in caplog.records if "an observer of" in each.message]
    assert [each.levelno for each in failures] == [logging.ERROR]


def test_what_nobody_wants_has_nobody_to_call() -> None:
    borders = Borders()
    assert all(getattr(borders, name) is None for name in BORDERS)
    failing = Failing()
    borders.add(failing)
    assert [name for name in BORDERS if getattr(borders, name) is not None] == ["opened"]
    borders.remove(failing)
    assert borders.opened is None

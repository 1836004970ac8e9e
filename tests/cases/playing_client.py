"""Plays the client of a case against a real server, and compares what the server says."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from pov_rt.protocol.errors import CloseCode
from pov_rt.testing import (
    WAIT_S,
    Client,
    Http,
    MovableClock,
    RunningServer,
    make_settings,
)
from tests.cases.case import (
    AnyStep,
    App,
    Away,
    Case,
    Connects,
    Drops,
    Happens,
    Names,
    Refused,
    Says,
    Sends,
    Shows,
    filled,
    mismatch,
)

OPERATE = ["subscribe", "publish", "operate"]


def play(case: Case) -> None:
    """Play a case that is not scripted. Raises AssertionError where the server does not fit."""
    with ExitStack() as stack:
        player = Player(case, lambda: stack.enter_context(_server(case)))
        for number, step in enumerate(case.steps, 1):
            try:
                player.step(step)
            except (AssertionError, TimeoutError, ConnectionClosed) as error:
                raise AssertionError(f"step {number}, {step}: {error!r}") from error
        player.no_more()


def _server(case: Case) -> RunningServer:
    return RunningServer(make_settings(**case.settings), None, MovableClock())


class Player:
    """The client; `start` starts a server that knows nothing yet."""

    def __init__(self, case: Case, start: Callable[[], RunningServer]) -> None:
        self._case = case
        self._start = start
        self._server = start()
        self._client: Client | None = None
        self._names: Names = {}

    def step(self, step: AnyStep) -> None:
        """Do what the client does in a step, or look at what the server does."""
        match step:
            case Connects():
                self._client = self._server.connect("ana", **self._case.claims)
                # The next one: a server takes none that is older than the one in use.
                self._names["token2"] = self._server.token("ana", **self._case.claims)
            case Refused(status, code):
                assert self._refusal() == (status, code)
            case Sends(message):
                self._open.send(filled(message, self._names))
            case Says(message):
                found = self._open.receive()
                told = mismatch(message, found, self._names)
                assert told is None, f"the server sends {found}: {told}"
            case Drops():
                self._drop(step)
            case Happens():
                self._do(step)
            case App() | Shows() | Away():
                pass  # these are between the app and its client

    def no_more(self) -> None:
        """Look whether the server has sent something that the case has not."""
        if self._client is not None:
            answer = self._client.request({"type": "ping"})
            assert answer["type"] == "pong"
            # How far a filter has come may be said at any time.
            early = [each for each in self._client.early if each["type"] != "position"]
            assert early == [], f"the server sends more than it should: {early}"

    @property
    def _open(self) -> Client:
        assert self._client is not None, "the case has no connection here"
        return self._client

    def _refusal(self) -> tuple[int, str]:
        connection = HTTPConnection(self._server.address, timeout=WAIT_S)
        try:
            connection.request("GET", "/ws/", headers={"Authorization": "Bearer nobody's"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())["error"]["code"]
        finally:
            connection.close()

    def _drop(self, step: Drops) -> None:
        client, self._client = self._open, None
        code = step.code
        if code is None:
            client.socket.abort()
            return
        why = CloseCode((code, step.reason))
        directory = self._server.web.server.directory
        self._server.call(lambda: directory.disconnect(user_id="ana", connection_id=None, code=why))
        closing = client.receive()
        assert (closing["type"], closing["code"]) == ("closing", code)
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code

    def _do(self, step: Happens) -> None:
        if step.forget_all:
            self._server = self._start()
        if step.advance_s:
            self._server.advance(step.advance_s)
        if step.publish is not None:
            first = [step.publish["id"]]
            ids = first if step.times == 1 else [f"{first[0]}-{n}" for n in range(step.times)]
            batch = [step.publish | {"id": each} for each in ids]
            self._ask("POST", "/api/activities", batch)
        for verb, change in (("amend", step.amend), ("retract", step.retract)):
            if change is not None:
                body = {key: value for key, value in change.items() if key != "id"}
                self._ask("POST", f"/api/activities/{change['id']}/{verb}", body)
        if step.delete_pov is not None:
            self._ask("DELETE", f"/api/povs/{step.delete_pov}")

    def _ask(self, method: str, path: str, body: Any = None) -> None:
        answer = Http(self._server).request(
            method, path, body, user="app", service=True, can=OPERATE
        )
        assert answer.status in (200, 201), answer

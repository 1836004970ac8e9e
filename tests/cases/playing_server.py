"""Plays the server of a case against a client: any program that does what README.md says."""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

import jwt
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

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
from tests.processes import running

WAIT_S = 30.0
"""How long a client may take for a step: it may wait for a while before it comes back."""
AT = "2026-01-01T00:00:00Z"
LATER = "2036-01-01T00:00:00Z"
TOKENS = 3


class Failure(AssertionError):
    """The client did something else than the case says."""


class Shown:
    """What a client says on its standard output: statuses, answers, and what there is of each PoV.

    Between these there is no order.
    """

    def __init__(self, output: IO[str]) -> None:
        self._lines: dict[str, queue.Queue[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._broken: str | None = None
        self._thread = threading.Thread(target=self._read, args=[output], daemon=True)
        self._thread.start()

    def _read(self, output: IO[str]) -> None:
        for text in output:
            try:
                line = json.loads(text)
                self._of(line).put(line)
            except (ValueError, KeyError, TypeError):
                self._broken = text

    def _of(self, line: dict[str, Any]) -> queue.Queue[dict[str, Any]]:
        place = line["shows"] if line["shows"] in ("status", "answer") else line["povId"]
        with self._lock:
            return self._lines.setdefault(place, queue.Queue())

    def expect(self, pattern: dict[str, Any], names: Names) -> None:
        """Wait for the next line, of statuses for the first one that is meant."""
        found = None
        while True:
            try:
                found = self._of(pattern).get(timeout=WAIT_S)
            except queue.Empty:
                raise Failure(f"it does not show {pattern}{self.rest(found)}") from None
            told = mismatch(pattern, found, names)
            if told is None:
                return
            if pattern["shows"] != "status":
                raise Failure(f"it shows {found}, not {pattern}: {told}")

    def rest(self, last: object) -> str:
        """Say what else there is to know of a line that does not come."""
        broken = f"; no line of JSON with its fields: {self._broken!r}" if self._broken else ""
        return broken + (f"; the last one was {last}" if last else "")

    def end(self) -> None:
        """Wait for the output's end. Raises Failure if something was shown that nobody expects."""
        self._thread.join(WAIT_S)
        if self._broken:
            raise Failure(f"a line is none of those that a client says: {self._broken!r}")
        for place, lines in self._lines.items():
            if place != "status" and not lines.empty():
                raise Failure(f"it shows more than it should: {lines.get()}")


class Play:
    """One case, against one run of a client."""

    def __init__(self, case: Case) -> None:
        self.names: Names = {f"at{number}": AT for number in range(1, 10)}
        self.names |= {"soon": LATER, "later": LATER, "guarantee": {"survives": "process"}}
        for number in range(1, TOKENS + 1):
            claims = {"userId": "ana", "exp": int(time.time()) + 3600, "jti": str(number)}
            self.names[f"token{number}"] = jwt.encode(claims, "x" * 32)
        self._case = case
        self._refuse = next((each for each in case.steps if isinstance(each, Refused)), None)
        self._refused = threading.Event()
        self._connections: queue.Queue[ServerConnection] = queue.Queue()
        self._over = threading.Event()
        self._connection: ServerConnection
        self._ended_at = 0.0
        self._shown: Shown
        self._input: IO[str]

    def run(self, command: Sequence[str | Path]) -> None:
        """Play it. Raises Failure, which says at which step, what happened instead."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with (
            serve(
                self._accept,
                "127.0.0.1",
                0,
                process_request=self._answer,
                subprotocols=[Subprotocol("pov-rt.v1")],
                ping_interval=None,
                compression=None,
            ) as server,
            tempfile.TemporaryFile("w+") as errors,
            running(command, stderr=errors, **pipes) as process,
        ):
            serving = threading.Thread(target=server.serve_forever)
            serving.start()
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                self._input, self._shown = process.stdin, Shown(process.stdout)
                self._play(server, process)
            except Failure as failure:
                errors.seek(0)
                raise Failure(f"{failure}\nIt said:\n{errors.read()}") from failure
            finally:
                self._over.set()
                server.shutdown()
                serving.join()

    def _play(self, server: Server, process: subprocess.Popen[str]) -> None:
        tokens = [self.names[f"token{number}"] for number in range(1, TOKENS + 1)]
        url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        self._tell({"do": "connect", "url": url, "tokens": tokens})
        for number, step in enumerate(self._case.steps, 1):
            try:
                self._step(step)
            except (Failure, ConnectionClosed) as failure:
                raise Failure(f"step {number}, {step}: {failure}") from failure
        self._tell({"do": "close"})
        self._input.close()
        try:
            code = process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            raise Failure(f"it does not end within {WAIT_S:g} s of `close`") from None
        if code:
            raise Failure(f"it ends with {code}")
        self._shown.end()
        self._no_more()

    def _no_more(self) -> None:
        """Look at what the client did that the case has not."""
        if not self._connections.empty():
            raise Failure("it opens one more connection")
        while hasattr(self, "_connection"):
            try:
                message = self._receive(WAIT_S)
            except (ConnectionClosed, TimeoutError):
                return
            if message["type"] not in ("ping", "unsubscribe"):
                raise Failure(f"it sends more than it should: {message}")

    def _step(self, step: AnyStep) -> None:
        match step:
            case App(does):
                self._tell(filled(does, self.names))
            case Connects():
                self._connect(step)
            case Refused():
                if not self._refused.wait(WAIT_S):
                    raise Failure("it opens no connection")
            case Sends(message):
                self._expect(message)
            case Says(message):
                self._connection.send(json.dumps(filled(message, self.names)))
            case Drops():
                self._drop(step)
            case Shows(line):
                self._shown.expect(line, self.names)
            case Away(seconds):
                self._stay_away(seconds)
            case Happens():
                pass  # what comes of it are the messages that follow

    def _tell(self, what: dict[str, Any]) -> None:
        try:
            self._input.write(json.dumps(what) + "\n")
            self._input.flush()
        except BrokenPipeError:
            raise Failure("it has ended") from None

    def _connect(self, step: Connects) -> None:
        try:
            self._connection = self._connections.get(timeout=WAIT_S)
        except queue.Empty:
            raise Failure("it opens no connection") from None
        waited_s = time.monotonic() - self._ended_at
        if waited_s < step.after_s:
            raise Failure(f"it comes after {waited_s:.2f} s, not {step.after_s:g}")
        welcome = {"type": "welcome", "connectionId": "c", "userId": "ana", "device": "default"}
        more = {"expiresAt": LATER, "pingInterval": step.ping_interval, "version": "1"}
        self._connection.send(json.dumps(welcome | more))

    def _receive(self, within_s: float) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._connection.recv(timeout=within_s))
        return found

    def _expect(self, pattern: dict[str, Any]) -> None:
        while True:
            try:
                found = self._receive(WAIT_S)
            except TimeoutError:
                raise Failure("it does not send that") from None
            if found["type"] == "ping" != pattern["type"]:  # it may always ask for a sign of life
                self._connection.send(json.dumps({"type": "pong", "id": found.get("id")}))
                continue
            told = mismatch(pattern, found, self.names)
            if told is not None:
                raise Failure(f"it sends {found}: {told}")
            return

    def _drop(self, step: Drops) -> None:
        connection = self._connection
        self._ended_at = time.monotonic()
        if step.code is None:
            connection.socket.shutdown(2)  # both ways, and no word of the protocol
            return
        after = {} if step.retry_after is None else {"retryAfter": step.retry_after}
        closing = {"type": "closing", "code": step.code, "reason": step.reason}
        connection.send(json.dumps(closing | after))
        connection.close(step.code, step.reason)

    def _stay_away(self, seconds: float) -> None:
        try:
            self._connections.get(timeout=seconds)
        except queue.Empty:
            return
        raise Failure("it opens a connection")

    # ---- in the server's threads ----

    def _accept(self, connection: ServerConnection) -> None:
        self._connections.put(connection)
        self._over.wait()

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse a token over HTTP as well: a browser's client asks there why."""
        step = self._refuse
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        said = f"{request.headers.get('Authorization', '')} {offered} {request.path}"
        if step is None or self.names["token1"] not in said:
            return None
        self._refused.set()
        error = {"error": {"code": step.code, "message": "The token is not accepted"}}
        response = connection.respond(HTTPStatus(step.status), json.dumps(error))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

"""A server that others call, and what it was told."""

from __future__ import annotations

import hashlib
import hmac
import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

SECRET = "the tests' own secret, which nobody sees"
WAIT_S = 30.0


class Call(NamedTuple):
    """A call as the receiver got it."""

    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """What it says."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def events(self) -> list[str]:
        """Its events and whom they are about."""
        return [f"{each['event']} {each['userId']}" for each in self.json["events"]]


class Server(ThreadingHTTPServer):
    """One that many may call at a time."""

    request_queue_size = 128


class Receiver:
    """A server that keeps what it is told, and answers with the next of `answers`, or as `decide`
    does: 204 unless told otherwise.
    """

    def __init__(self) -> None:
        self.calls: queue.Queue[Call] = queue.Queue()
        self.answers: queue.Queue[int] = queue.Queue()
        self.decide: Callable[[Call], int] = lambda _: 204
        self.open = threading.Event()
        """Unset, and nothing is answered."""
        self.open.set()
        self.at_once = self.most_at_once = 0
        self.port = 0
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """Where it is, or will be."""
        return f"http://127.0.0.1:{self.port}/hook"

    def start(self) -> None:
        """Listen, on the same port each time."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.at_once += 1
                receiver.most_at_once = max(receiver.most_at_once, receiver.at_once)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                call = Call(dict(self.headers.items()), body)
                receiver.calls.put(call)
                receiver.open.wait(WAIT_S)
                receiver.at_once -= 1
                try:
                    self.send_response(receiver.answers.get_nowait())
                except queue.Empty:
                    self.send_response(receiver.decide(call))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        server = Server(("127.0.0.1", self.port), Handler)
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self._running.callback(thread.join)
        self._running.callback(server.server_close)
        self._running.callback(server.shutdown)

    def stop(self) -> None:
        """Listen no more."""
        self._running.close()

    def next(self) -> Call:
        """Return the next call."""
        return self.calls.get(timeout=WAIT_S)

    def collect(self, count: int) -> list[str]:
        """Return so many events, of as many calls as it takes."""
        found: list[str] = []
        while len(found) < count:
            found += self.next().events
        return found


@contextmanager
def receive() -> Iterator[Receiver]:
    """Run a receiver."""
    made = Receiver()
    made.start()
    try:
        yield made
    finally:
        made.open.set()
        made.stop()


def is_signed(call: Call) -> bool:
    """Verify as docs/operations.md says."""
    timestamp = call.headers["Pov-Rt-Timestamp"]
    wanted = hmac.new(SECRET.encode(), timestamp.encode() + b"." + call.body, hashlib.sha256)
    return hmac.compare_digest(wanted.hexdigest(), call.headers["Pov-Rt-Signature"])

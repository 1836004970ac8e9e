"""A server that takes activities, or does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

WAIT_S = 30.0


class Answer(NamedTuple):
    """What is answered; with a `status` of 0 nothing is, and the connection stays."""

    status: int
    body: bytes = b""
    retry_after: str = ""
    closes: bool = False


def taken(items: list[Any], *refused: str) -> Answer:
    """Return the answer of a server that takes all but the first ones, which it refuses."""
    results: list[Any] = [{"error": {"code": code}} for code in refused]
    results += [{"id": "x"} for _ in items[len(refused) :]]
    return Answer(200, json.dumps({"results": results}).encode())


class Server(ThreadingHTTPServer):
    """One that many may call at a time."""

    request_queue_size = 128


class Taker:
    """A server that answers with the next of `answers`, which may be asked what to say; else it
    takes all. It keeps the batches, the tokens they came with, and when (`time.monotonic`).
    """

    def __init__(self, *answers: Answer | Callable[[list[Any]], Answer]) -> None:
        self.answers = list(answers)
        self.batches: list[list[dict[str, Any]]] = []
        self.tokens: list[str] = []
        self.connections: set[Any] = set()
        self.silence = threading.Event()
        self._came = threading.Condition()
        taker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                items = [json.loads(line) for line in body.split(b"\n")]
                answer = taker.answers.pop(0) if taker.answers else taken
                answer = answer(items) if callable(answer) else answer
                with taker._came:
                    taker.batches.append(items)
                    taker.tokens.append(self.headers["Authorization"].removeprefix("Bearer "))
                    taker.connections.add(self.client_address)
                    taker._came.notify_all()
                if not answer.status:
                    taker.silence.wait(WAIT_S)
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(answer.body)))
                if answer.retry_after:
                    self.send_header("Retry-After", answer.retry_after)
                self.end_headers()
                self.wfile.write(answer.body)
                self.close_connection = answer.closes

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def wait(self, count: int) -> None:
        """Wait until so many batches came."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.batches) >= count, WAIT_S), self.batches

    @property
    def items(self) -> list[dict[str, Any]]:
        """All that came, in order."""
        return [item for batch in self.batches for item in batch]

    def start(self) -> threading.Thread:
        """Answer from now on; until then connections are taken by the system alone."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        return thread

    def stop(self) -> None:
        """Listen no more."""
        self.silence.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def taking(*answers: Answer | Callable[[list[Any]], Answer]) -> Iterator[Taker]:
    """Run such a server."""
    taker = Taker(*answers)
    thread = taker.start()
    try:
        yield taker
    finally:
        taker.stop()
        thread.join()

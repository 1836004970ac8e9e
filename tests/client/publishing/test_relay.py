"""What a relay makes of the server's answers; test_outbox has who dies when."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pov_rt.client import Outbox, Relay
from pov_rt.client.publishing.outbox import Counts
from pov_rt.client.publishing.relay import BATCH, Step
from pov_rt.testing import RunningServer
from tests.client.publishing.databases import Place
from tests.client.publishing.reading import PATIENCE_S, activity, numbers, service
from tests.clients import span

pytestmark = pytest.mark.timeout(3 * PATIENCE_S)
Answer = Callable[[list[dict[str, Any]]], tuple[int, Any]]


class Receiver(HTTPServer):
    """A server that answers what a test says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.came: list[list[int]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        items = [json.loads(line) for line in body.split(b"\n")]
        self.server.came.append([each["details"]["n"] for each in items])
        status, answer = (self.server.answers.pop(0) if self.server.answers else taken)(items)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def taken(items: list[dict[str, Any]]) -> tuple[int, Any]:
    return 200, {"results": [{"id": each["id"]} for each in items]}


def status(number: int, body: Any = None) -> Answer:
    return lambda items: (number, body)


def refusing(code: str, which: int) -> Answer:
    """Refuse one, and what its producer numbered behind it if it may pass."""

    def answer(items: list[dict[str, Any]]) -> tuple[int, Any]:
        refusal = {"error": {"code": code, "message": "words"}}
        return 200, {
            "results": [
                refusal if each["details"]["n"] == which else {"id": each["id"]} for each in items
            ]
        }

    return answer


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def outbox(tmp_path: Path) -> Place:
    found = Place("sqlite", str(tmp_path / "app.db"))
    found.clear()
    return found


def add(outbox: Place, *added: int, **more: Any) -> None:
    connection = outbox.connect()
    for number in added:
        Outbox.add(connection, activity(number, **more))
    connection.commit()
    connection.close()


@pytest.fixture
def relay(outbox: Place, receiver: Receiver) -> Iterator[Relay]:
    made = Relay(outbox.connect, f"127.0.0.1:{receiver.server_port}", "token", poll_s=0.25)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (status(503), "answers 503"),
        (status(401), "the token is always the same"),
        (status(200, {"hello": "world"}), "is no pov-rt server"),
        (status(200, {"results": []}), "is no pov-rt server"),
        (status(400, {"error": {"code": "invalid_request", "message": "m"}}), "invalid_request"),
    ],
)
def test_what_is_not_taken_stays(
    outbox: Place, receiver: Receiver, relay: Relay, answer: Answer, why: str
) -> None:
    add(outbox, 1)
    receiver.answers.append(answer)
    step = relay.step()
    assert why in step.why
    assert relay.counts() == Counts(1, 0)
    assert relay.drain(PATIENCE_S)
    assert receiver.came == [[1], [1]]


def test_it_waits_as_long_as_it_is_asked_to_and_says_why_once(
    outbox: Place, receiver: Receiver, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    add(outbox, 1)
    receiver.answers += [status(429), status(429)]
    assert [relay.work(), relay.work()] == [7.0, 7.0]
    assert relay.is_failing
    assert caplog.text.count("activities wait in the outbox") == 1
    assert (relay.work(), relay.is_failing) == (0.25, False)


def test_one_that_may_pass_is_sent_again_and_one_that_will_not_is_kept(
    outbox: Place, receiver: Receiver, relay: Relay
) -> None:
    add(outbox, *span(1, 3))
    receiver.answers += [refusing("unavailable", 2), refusing("forbidden", 2)]
    assert relay.step() == Step(2, full=True)
    assert relay.counts() == Counts(1, 0)
    assert relay.drain(PATIENCE_S)
    assert relay.counts() == Counts(0, 1)
    ((body, why),) = relay.refusals()
    assert (json.loads(body)["details"]["n"], why) == (2, "forbidden: words")
    add(outbox, 4)
    assert relay.drain(PATIENCE_S)
    assert relay.retry() == 1
    assert relay.drain(PATIENCE_S)
    assert receiver.came == [[1, 2, 3], [2], [4], [2]]


def test_a_pov_that_cannot_be_taken_holds_up_no_other(
    outbox: Place, receiver: Receiver, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    add(outbox, *span(1, BATCH + 9), pov="stuck")
    add(outbox, 1000, pov="other")

    def stuck(items: list[dict[str, Any]]) -> tuple[int, Any]:
        refusal = {"error": {"code": "internal", "message": "words"}}
        is_stuck = [each["povId"] == "stuck" for each in items]
        return 200, {"results": [refusal if each else {} for each in is_stuck]}

    receiver.answers += [stuck] * 50
    while [1000] not in receiver.came:
        relay.work()
    assert relay.counts() == Counts(BATCH + 9, 0)
    receiver.answers.clear()
    receiver.came.clear()
    assert relay.drain(PATIENCE_S)
    assert [each for batch in receiver.came for each in batch] == span(1, BATCH + 9)
    assert caplog.text.count("activities of 'stuck' wait in the outbox: internal: words") == 1


def test_what_is_too_much_is_sent_in_halves_and_one_alone_is_kept(
    outbox: Place, receiver: Receiver, relay: Relay
) -> None:
    add(outbox, *span(1, 4))
    receiver.answers += [status(413), status(413), status(413)]
    assert relay.drain(PATIENCE_S)
    assert receiver.came == [[1, 2, 3, 4], [1, 2], [1], [2], [3, 4]]
    assert relay.counts() == Counts(0, 1)


def test_many_are_sent_in_batches_of_so_many_and_of_so_many_bytes(
    outbox: Place, receiver: Receiver, relay: Relay
) -> None:
    add(outbox, *span(1, BATCH + 1))
    assert relay.drain(PATIENCE_S)
    assert [len(each) for each in receiver.came] == [BATCH, 1]
    receiver.came.clear()
    connection = outbox.connect()
    for number in span(1, 100):
        large = {"n": number, "text": "x" * 30_000}
        Outbox.add(connection, msgspec.structs.replace(activity(number), details=large))
    connection.commit()
    connection.close()
    assert relay.drain(PATIENCE_S)
    assert [each for batch in receiver.came for each in batch] == span(1, 100)
    assert [len(each) for each in receiver.came] == [34, 34, 32]


def test_a_database_that_is_away_is_tried_again(
    tmp_path: Path, outbox: Place, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    add(outbox, 1)
    there = [False]

    def connect() -> Any:
        if not there[0]:
            raise OSError("the database starts")
        return outbox.connect()

    relay = Relay(connect, f"127.0.0.1:{receiver.server_port}", "x")
    assert relay.work() > 0
    assert "the outbox cannot be read: OSError: the database starts" in caplog.text
    there[0] = True
    assert relay.drain(PATIENCE_S)
    relay.close()


def test_the_token_is_asked_for_each_time(outbox: Place, server: RunningServer) -> None:
    asked: list[str] = []

    def token() -> str:
        asked.append(service(server))
        if len(asked) == 1:
            raise OSError("no token yet")
        return asked[-1]

    add(outbox, 1)
    relay = Relay(outbox.connect, server.address, token)
    assert "no token yet" in relay.step().why
    assert relay.drain(PATIENCE_S)
    relay.close()
    assert (numbers(server), len(asked)) == ([1], 2)

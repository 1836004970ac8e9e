"""Activities get to a real server from a thread, whatever it answers, and from every process."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Event, active_count
from typing import Any

import msgspec
import pytest

from bench.peers import free_port
from pov_rt.auth.grants import Kind
from pov_rt.config.settings import Settings
from pov_rt.runtime.clock import new_id
from pov_rt.testing import SECRET, RunningServer, make_settings
from pov_rt.tracker import NewActivity, sender
from pov_rt.tracker.sender import ActivitySender
from tests.auth.apps import app_token
from tests.processes import read_until, running
from tests.tracker.takers import WAIT_S, Answer, Taker, taken, taking

ROOT = Path(__file__).parent.parent.parent
ONE = NewActivity(type="t", action="a", pov_id="p", user_id="ana")
BYTES = len(msgspec.json.encode(msgspec.structs.replace(ONE, id=new_id())))
REFUSED = b'{"error":{"code":"token_expired","message":"The token has expired; fetch a new one"}}'


@contextmanager
def sending(url: str, token: sender.Token = "token", **options: Any) -> Iterator[ActivitySender]:
    made = ActivitySender(url, token, **options)
    try:
        yield made
    finally:
        made.close(0.0)


def put(outbox: ActivitySender, count: int) -> None:
    for _ in range(count):
        outbox.put(ONE)


def send_all(outbox: ActivitySender) -> None:
    while not outbox.flush(WAIT_S):
        pass


def counts(outbox: ActivitySender) -> tuple[int, int, int, int]:
    return outbox.sent, outbox.rejected, outbox.dropped, outbox.queued


class Lines(logging.Handler):
    """What the sender's log says, as it says it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._more = Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._more:
            self.lines.append(record.getMessage())
            self._more.notify_all()

    def wait(self, words: str) -> str:
        def found() -> str:
            return next((line for line in self.lines if words in line), "")

        with self._more:
            assert self._more.wait_for(found, WAIT_S), self.lines
        return found()


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    sender.log.addHandler(handler)
    yield handler
    sender.log.removeHandler(handler)


@pytest.mark.parametrize(
    "failure",
    [
        Answer(500),
        Answer(503, b"<html>"),
        Answer(401, REFUSED),
        Answer(429, retry_after="1"),
        Answer(599, b'{"error":"x"}'),
        # What something else than a pov-rt server may answer.
        *(
            Answer(200, body)
            for body in (b"<html>", b"[]", b'{"results":[]}', b"\xff", b"[" * 9999)
        ),
    ],
)
def test_a_failure_is_tried_again_with_the_same_ids_and_a_new_token(failure: Answer) -> None:
    tokens = iter(f"token-{number}" for number in range(100))
    with taking(failure, failure) as taker, sending(taker.url, lambda: next(tokens)) as outbox:
        put(outbox, 3)
        send_all(outbox)
        assert counts(outbox) == (3, 0, 0, 0)
        assert taker.batches[0] == taker.batches[1] == taker.batches[2]
        assert len({each["id"] for each in taker.items}) == 3
        assert taker.tokens == ["token-0", "token-1", "token-2"]


def test_a_server_that_is_away_gets_them_when_it_is_back() -> None:
    taker = Taker()
    with sending(taker.url, timeout_s=0.05) as outbox:
        put(outbox, 3)
        assert not outbox.flush(), "the system takes the connection, and nobody answers"
        assert counts(outbox) == (0, 0, 0, 3)
        thread = taker.start()
        send_all(outbox)
        assert outbox.sent == 3
        assert len({each["id"] for each in taker.items}) == 3
    taker.stop()
    thread.join()


def test_it_waits_as_long_as_the_server_asks_for() -> None:
    came: list[float] = []

    def answer(items: list[Any]) -> Answer:
        came.append(time.monotonic())
        return Answer(429, retry_after="1") if len(came) == 1 else taken(items)

    with taking(answer, answer) as taker, sending(taker.url) as outbox:
        outbox.put(ONE)
        taker.wait(2)
    assert came[1] - came[0] >= 1


def test_many_travel_together_in_order_over_one_connection() -> None:
    all_wait = Event()

    def hold(items: list[Any]) -> Answer:
        assert all_wait.wait(WAIT_S)
        return taken(items)

    with taking(hold) as taker, sending(taker.url) as outbox:
        for number in range(1201):
            outbox.put(NewActivity(type="t", action=str(number), pov_id="p"))
        all_wait.set()
        send_all(outbox)
        sizes = [len(batch) for batch in taker.batches]
        assert (max(sizes), sizes[1]) == (500, 500), "the first has what came in time, at most 500"
        assert [each["action"] for each in taker.items] == [str(number) for number in range(1201)]
        assert len(taker.connections) == 1


def test_a_connection_that_the_server_ended_meanwhile_is_no_failure(lines: Lines) -> None:
    with taking(lambda items: taken(items)._replace(closes=True)) as taker:
        with sending(taker.url) as outbox:
            for _ in range(2):
                outbox.put(ONE)
                assert outbox.flush(WAIT_S)
        assert len(taker.connections) == 2
    assert lines.lines == []


def test_what_the_server_refuses_is_counted_and_not_sent_again(lines: Lines) -> None:
    with taking(lambda items: taken(items, "invalid_activity")) as taker:
        with sending(taker.url) as outbox:
            put(outbox, 3)
            assert outbox.flush(WAIT_S)
            assert (counts(outbox), len(taker.batches)) == ((2, 1, 0, 0), 1)
            assert "2 sent, 1 refused" in lines.wait("the server refuses some: invalid_activity")
    body = b'{"error":{"code":"invalid_request","message":"The body is no JSON"}}'
    with taking(Answer(400, body)) as taker, sending(taker.url) as outbox:
        put(outbox, 3)
        assert outbox.flush(WAIT_S)
        assert counts(outbox) == (0, 3, 0, 0)
        lines.wait("invalid_request: The body is no JSON")


def test_a_batch_that_is_too_large_is_halved_and_a_single_activity_given_up(lines: Lines) -> None:
    with taking(Answer(413)) as taker, sending(taker.url) as outbox:
        put(outbox, 5)
        assert outbox.flush(WAIT_S)
        assert [len(batch) for batch in taker.batches] == [5, 2, 3]
        taker.answers = [Answer(413)]
        outbox.put(ONE)
        assert outbox.flush(WAIT_S)
        assert counts(outbox) == (5, 1, 0, 0)
        lines.wait("it is too large")


def test_what_json_cannot_hold_is_dropped_and_holds_nothing_up(lines: Lines) -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    deep: Any = []
    for _ in range(20_000):
        deep = [deep]
    with taking() as taker, sending(taker.url) as outbox:
        for details in ({"a": deep}, endless, {"a": object()}, {"a": "\ud800"}, {"a": 1}):
            outbox.put(NewActivity(type="t", action="a", pov_id="p", details=details))
        assert outbox.flush(WAIT_S)
        assert counts(outbox) == (1, 0, 4, 0)
        lines.wait("JSON cannot hold them")


@pytest.mark.parametrize("bounds", [{"capacity": 5}, {"capacity_bytes": 7 * BYTES}])
def test_of_too_many_the_newest_are_dropped_and_counted(bounds: dict[str, int]) -> None:
    with taking(Answer(0)) as taker, sending(taker.url, "token", **bounds) as outbox:
        put(outbox, 2)
        outbox.flush(0.0)
        taker.wait(1)  # two are under way, and nobody answers
        put(outbox, 1000)
        assert counts(outbox) == (0, 0, 995, 7)
        taker.silence.set()
        send_all(outbox)
        assert counts(outbox) == (7, 0, 995, 0)


def test_the_log_has_one_line_and_after_a_minute_another_with_numbers(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sending(f"http://127.0.0.1:{free_port()}", capacity=2) as outbox:
        put(outbox, 1000)
        while outbox.dropped < 1500:
            outbox.flush(WAIT_S)
            put(outbox, 100)
        first = lines.wait("activities since")
        assert len(lines.lines) == 1, "for the next one has its time in a minute"
        assert "no success at http://127.0.0.1" in first or "the queue of 2 is full" in first
    last = lines.wait("0 wait")  # at the end, for the minute is not over
    assert len(lines.lines) == 2
    assert "0 sent, 0 refused" in last
    monkeypatch.setattr(sender, "REPORT_S", 0.01)
    with sending(f"http://127.0.0.1:{free_port()}") as outbox:
        put(outbox, 3)
        while len(lines.lines) < 5:
            outbox.flush(WAIT_S)
    assert "3 wait" in lines.lines[-2]


def test_a_token_that_is_too_old_is_named_with_the_way_out(
    server: RunningServer, lines: Lines
) -> None:
    old = app_token(SECRET, exp=1e9, aud="pov-rt.service")
    with sending(f"http://{server.address}", old) as outbox:
        outbox.put(ONE)
        assert not outbox.flush(WAIT_S)
        line = lines.wait("no success")
    assert (
        "(401 token_expired: The token has expired; fetch a new one); the token is always" in line
    )
    assert "give a ServiceToken, or a function" in line


def test_a_token_that_was_renewed_brings_what_waits(server: RunningServer) -> None:
    tokens = [app_token(SECRET, exp=1e9, aud="pov-rt.service")]
    tokens.append(server.token("app", Kind.SERVICE))

    async def renew() -> str:
        return tokens.pop(0)

    with sending(f"http://{server.address}", renew) as outbox:
        put(outbox, 3)
        assert not outbox.flush(WAIT_S)
        assert outbox.flush(WAIT_S)
        assert counts(outbox) == (3, 0, 0, 0)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("secret\nsecret", "the token is none"),
        ("s\u00e4cret", "the token is none"),
        (b"secret", "the token is a bytes and no str"),
        (None, "the token is a NoneType and no str"),
    ],
)
def test_a_token_that_is_none_is_told_without_it(token: Any, words: str, lines: Lines) -> None:
    with taking() as taker, sending(taker.url, lambda: token) as outbox:
        outbox.put(ONE)
        assert not outbox.flush(WAIT_S)
        lines.wait(words)
        assert taker.batches == []
    assert "cret" not in "".join(lines.lines)


def test_what_its_token_raises_is_a_failure_like_others(lines: Lines) -> None:
    def fail() -> str:
        raise KeyError("no such setting")

    with taking() as taker, sending(taker.url, fail) as outbox:
        outbox.put(ONE)
        assert not outbox.flush(WAIT_S)
        lines.wait("KeyError('no such setting')")


def test_nothing_is_taken_after_the_end_and_what_is_left_is_counted() -> None:
    with taking(Answer(0)) as taker:
        outbox = ActivitySender(taker.url, "token")
        put(outbox, 3)
        outbox.flush(0.0)
        taker.wait(1)
        outbox.close(0.05)
        assert not outbox.put(ONE)
        assert counts(outbox) == (0, 0, 4, 0)


def test_what_went_wrong_is_in_the_log_when_close_returns() -> None:
    closed, told = Event(), list[str]()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # It is the last one to be ready, unless somebody waits for it.
            closed.wait(0.2)
            told.append(record.getMessage())

    handler = Slow()
    sender.log.addHandler(handler)
    try:
        refused = Answer(400, b'{"error":{"code":"invalid_request","message":"no JSON"}}')
        with taking(refused) as taker, sending(taker.url) as outbox:
            put(outbox, 1)
            send_all(outbox)
            outbox.close()
            closed.set()
            assert len(told) == 1
    finally:
        sender.log.removeHandler(handler)


def test_without_activities_there_is_no_thread_and_after_a_while_none_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with taking() as taker, sending(taker.url) as outbox:
        before = active_count()
        assert outbox.flush()
        assert active_count() == before
        monkeypatch.setattr(sender, "IDLE_S", 0.0)
        for number in (1, 2):
            outbox.put(ONE)
            assert outbox.flush(WAIT_S)
            assert outbox.sent == number
            while outbox.works:
                time.sleep(0.01)


class TestUnix:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return make_settings(server={"port": 0, "admin_port": 0, "unix": str(tmp_path / "rt.sock")})

    def test_a_server_at_a_unix_socket_gets_them(
        self, server: RunningServer, tmp_path: Path
    ) -> None:
        token = server.token("app", Kind.SERVICE)
        with sending(f"unix:{tmp_path}/rt.sock", token) as outbox:
            outbox.put(ONE)
            assert outbox.flush(WAIT_S)
            assert counts(outbox) == (1, 0, 0, 0)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", ""])
def test_what_is_no_servers_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="write it like http://"):
        ActivitySender(url, "token")


def program(url: str, code: str) -> Any:
    """Run a program that has a sender `outbox` and an activity `ONE`."""
    head = (
        "import os, sys, threading, time\n"
        "from pov_rt.tracker import NewActivity\n"
        "from pov_rt.tracker.sender import ActivitySender\n"
        "outbox = ActivitySender(sys.argv[1], 'token')\n"
        "ONE = NewActivity(type='t', action='a', pov_id='p')\n"
    )
    return running(
        [sys.executable, "-c", head + code, url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("numbers", ["another number", "the same number"])
def test_a_child_has_a_sender_of_its_own_and_nothing_of_its_parents(numbers: str) -> None:
    """Both may be number 1, in containers of their own."""
    same = "number = os.getpid()\nos.getpid = lambda: number\n"
    code = (same if numbers == "the same number" else "") + (
        "outbox.put(ONE)\n"
        "if os.fork() == 0:\n"
        "    assert outbox.queued == 0\n"
        "    outbox.put(ONE)\n"
        "    assert outbox.queued == 1\n"
        "    sys.exit(0)\n"
        "assert os.wait()[1] == 0\n"
        "assert outbox.queued + outbox.sent == 1\n"
    )
    with taking() as taker, program(taker.url, code) as process:
        assert process.wait(WAIT_S) == 0, process.stderr.read()
        assert len(taker.items) == len({each["id"] for each in taker.items}) == 2
        assert len(taker.connections) == 2


def test_children_of_a_process_whose_threads_publish_all_the_time_lose_nothing() -> None:
    """A lock is held at most of these forks, and nobody releases it in the child.

    It connects at once: what the first connection imports has a lock, too.
    """
    code = (
        "from pov_rt.tracker import sender\n"
        "sender.GATHER_S = 0.0\n"
        "outbox = ActivitySender(sys.argv[1], 'token', capacity=100)\n"
        "ended = threading.Event()\n"
        "def work():\n"
        "    while not ended.is_set():\n"
        "        outbox.put(ONE)\n"
        "threads = [threading.Thread(target=work) for _ in range(3)]\n"
        "for thread in threads: thread.start()\n"
        "for number in range(20):\n"
        "    if os.fork() == 0:\n"
        "        outbox.put(NewActivity(type='t', action='child', pov_id='p'))\n"
        "        outbox.close(15)\n"
        "        os._exit(outbox.dropped)\n"
        "statuses = [os.wait()[1] for _ in range(20)]\n"
        "ended.set()\n"
        "for thread in threads: thread.join()\n"
        "assert statuses == [0] * 20, statuses\n"
    )
    with taking() as taker, program(taker.url, code) as process:
        assert process.wait(WAIT_S) == 0, process.stderr.read()
        assert sum(each["action"] == "child" for each in taker.items) == 20


def test_before_a_process_answers_requests_there_is_no_thread(lines: Lines) -> None:
    with taking() as taker, sending(taker.url, waits=True) as outbox:
        threads = active_count()
        put(outbox, 2)
        outbox.refuse("no such activity")
        assert (outbox.works, outbox.queued, active_count()) == (False, 2, threads)
        outbox.serve()
        assert outbox.works
        lines.wait("no such activity")
        send_all(outbox)
        assert counts(outbox) == (2, 0, 1, 0)


@pytest.mark.parametrize("told", [True, False])
def test_what_waits_for_a_first_request_is_sent_by_all_that_are_forked_with_one_id(
    told: bool,
) -> None:
    """Python is not told of every fork: then the process has another number."""
    fork = "os.fork" if told else "ctypes.PyDLL(None).fork"
    code = (
        "import ctypes\n"
        "outbox = ActivitySender(sys.argv[1], 'token', waits=True)\n"
        "outbox.put(ONE)\n"
        "for number in range(2):\n"
        f"    if {fork}() == 0:\n"
        "        assert (outbox.queued, outbox.works) == (1, False)\n"
        "        outbox.serve()\n"
        "        outbox.put(ONE)\n"
        "        outbox.close(15)\n"
        "        os._exit(outbox.dropped)\n"
        "assert [os.wait()[1] for _ in range(2)] == [0, 0]\n"
        "assert (outbox.queued, outbox.works) == (1, False)\n"
    )
    with taking() as taker, program(taker.url, code) as process:
        assert process.wait(WAIT_S) == 0, process.stderr.read()
        ids = Counter(each["id"] for each in taker.items)
        assert sorted(ids.values()) == [1, 1, 3]


def test_what_waited_longer_for_a_request_than_ids_are_known_is_dropped(
    monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    monkeypatch.setattr(sender, "KNOWN_S", -1.0)
    with taking() as taker, sending(taker.url, waits=True) as outbox:
        outbox.put(ONE)
        outbox.serve()
        assert counts(outbox) == (0, 0, 1, 0)
        lines.wait("no request came for too long")
        outbox.put(ONE)
        send_all(outbox)
        assert (len(taker.items), outbox.sent) == (1, 1)


@pytest.mark.parametrize("case", ["takes", "down", "silent"])
def test_a_process_sends_what_waits_when_it_ends_within_two_seconds(case: str) -> None:
    with taking(*[Answer(0)] * (case == "silent")) as taker:
        url = f"http://127.0.0.1:{free_port()}" if case == "down" else taker.url
        code = "for _ in range(600): outbox.put(ONE)\nprint('ends', flush=True)\n"
        with program(url, code) as process:
            read_until(process.stdout, "ends")
            began = time.monotonic()
            assert process.wait(WAIT_S) == 0
            took_s = time.monotonic() - began
            said = process.stderr.read()
        assert took_s < 2
        if case == "takes":
            assert (len(taker.items), said) == (600, "")
        else:
            assert "0 sent, 0 refused, 600 dropped" in said

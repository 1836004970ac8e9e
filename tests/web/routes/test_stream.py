"""Logs over HTTP: pages, requests that wait, and events."""

from __future__ import annotations

import json
import logging
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import Settings
from pov_rt.testing import (
    Answer,
    Connect,
    Http,
    RunningServer,
    TestClock,
    make_settings,
)
from tests.events import follow

POV = "/api/povs/acme/stream"
SSE = f"{POV}?offset=-1&live=sse"
NEXT, TOP, CURSOR = "Stream-Next-Offset", "Stream-Up-To-Date", "Stream-Cursor"


@pytest.fixture
def settings() -> Settings:
    return make_settings(
        streams={"poll_s": 30.0, "read_rate": "1000/s"}, limits={"cost_rate": "1000000/s"}
    )


def publish(http: Http, *numbers: int, pov: str = "acme", **more: Any) -> None:
    batch = [
        {"type": "t", "action": "a", "povId": pov, "userId": "eve", "details": {"n": n}, **more}
        for n in numbers
    ]
    answer = http.post("/api/activities", batch, service=True)
    assert answer.status == 200, answer.body


def numbers(items: list[Any]) -> list[int]:
    return [item["data"]["details"]["n"] for item in items]


def error_of(answer: Answer) -> tuple[int, str, str | None]:
    error = answer.body["error"]
    return answer.status, error["code"], error.get("field")


def connections(server: RunningServer) -> int:
    return server.call(lambda: len(server.web.server.directory))


def wait_for(server: RunningServer, condition: Callable[[], bool]) -> None:
    """Let the server's loop turn until something has come true."""
    for _ in range(10_000):
        if server.call(condition):
            return
    pytest.fail("it did not come true")


# Pages:


def test_a_page_has_the_messages_of_the_socket_and_says_where_it_ends(
    http: Http, connect: Connect
) -> None:
    ana = connect()
    ana.request({"type": "subscribe", "povId": "acme"})
    publish(http, 1, 2)
    answer = http.get(POV)
    assert answer.status == 200
    assert answer.body == [ana.receive(), ana.receive()]
    epoch, _, offset = answer.headers[NEXT].partition("_")
    assert offset == "0000000000000002"
    assert answer.headers[TOP] == "true"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    head = http.request("HEAD", POV)
    assert (head.status, head.headers[NEXT]) == (200, answer.headers[NEXT])
    assert head.headers["Cache-Control"] == "no-store"
    start = f"{POV}?offset={epoch}_{0:016d}"
    assert http.get(start).body == http.get(f"{POV}?offset=-1").body == answer.body
    rest = http.get(f"{POV}?offset={epoch}_{1:016d}")
    assert rest.body == answer.body[1:]
    assert http.get(f"{POV}?offset={answer.headers[NEXT]}").body == []


def test_now_is_where_the_log_ends(http: Http) -> None:
    publish(http, 1)
    answer = http.get(f"{POV}?offset=now")
    assert (answer.body, answer.headers[TOP]) == ([], "true")
    assert "Etag" not in answer.headers
    publish(http, 2)
    rest = http.get(f"{POV}?offset={answer.headers[NEXT]}").body
    assert numbers(rest) == [2]


def test_what_does_not_fit_a_page_is_in_the_next_one(http: Http) -> None:
    publish(http, *range(1000))
    publish(http, *range(1000, 1500))
    first = http.get(POV)
    assert len(first.body) == 1000
    assert TOP not in first.headers
    second = http.get(f"{POV}?offset={first.headers[NEXT]}")
    assert second.headers[TOP] == "true"
    assert numbers(first.body + second.body) == list(range(1500))


def test_a_page_ends_at_a_mebibyte(http: Http) -> None:
    for n in range(80):
        body = {"type": "t", "action": "a", "povId": "acme", "userId": "e"}
        details = {"n": n, "text": "x" * 16_000}
        assert http.post("/api/activities", {**body, "details": details}, service=True).body
    first = http.get(POV)
    assert 60 < len(first.body) < 70
    assert TOP not in first.headers


def test_a_page_that_did_not_change_is_not_sent_again(http: Http, server: RunningServer) -> None:
    publish(http, 1)
    page = http.get(POV)
    asked = HTTPConnection(server.address)
    with closing(asked):
        headers = {
            "Authorization": f"Bearer {server.token()}",
            "If-None-Match": page.headers["Etag"],
        }
        asked.request("GET", POV, headers=headers)
        answer = asked.getresponse()
        assert (answer.status, answer.read()) == (304, b"")
        assert answer.headers[NEXT] == page.headers[NEXT]
        publish(http, 2)
        asked.request("GET", POV, headers=headers)
        answer = asked.getresponse()
        assert (answer.status, len(json.loads(answer.read()))) == (200, 2)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("offset=", "offset"),
        ("offset=1", "offset"),
        ("offset=a,b_0000000000000001", "offset"),
        ("offset=e_9999999999999999", "offset"),
        ("offset=-1&offset=-1", "offset"),
        ("live=sse", "offset"),
        ("live=long-poll", "offset"),
        ("offset=-1&live=yes", "live"),
        ("offset=-1&live=sse&live=sse", "live"),
        ("types=", "types[0]"),
        ("offset=-1&live=sse&device=a&device=b", "device"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(http: Http, query: str, field: str) -> None:
    assert error_of(http.get(f"{POV}?{query}")) == (400, "invalid_request", field)


def test_what_is_unknown_is_passed_over(http: Http) -> None:
    publish(http, 1)
    assert numbers(http.get(f"{POV}?offset=-1&whatever=1").body) == [1]


@pytest.mark.parametrize("live", ["", "&live=long-poll", "&live=sse"])
def test_a_lost_position_is_gone_and_says_what_there_is(http: Http, live: str) -> None:
    publish(http, 1, 2, 3)
    known = http.get(POV).headers[NEXT]
    for lost in (f"x{known[1:]}", f"{known[:-1]}9"):
        answer = http.get(f"{POV}?offset={lost}{live}")
        assert error_of(answer) == (410, "position_lost", None)
        assert answer.body["error"]["epoch"] == known.partition("_")[0]
        assert answer.body["error"]["offset"] == 3
        assert answer.body["error"]["oldestOffset"] == 1
        assert "missed" not in answer.body["error"]


class TestRetention:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(engine={"url": "memory://", "max_entries": 5})

    @pytest.mark.parametrize("live", ["", "&live=long-poll", "&live=sse"])
    def test_who_was_away_for_too_long_is_told_how_much_is_gone(
        self, http: Http, live: str
    ) -> None:
        publish(http, 1)
        known = http.get(POV).headers[NEXT]
        publish(http, *range(2, 10))
        oldest = http.get(POV).body[0]["offset"]
        error = http.get(f"{POV}?offset={known}{live}").body["error"]
        assert (error["code"], error["oldestOffset"]) == ("position_lost", oldest)
        assert error["missed"] == oldest - 2


def test_there_is_no_writing(http: Http) -> None:
    for method in ("POST", "PUT", "DELETE"):
        answer = http.request(method, POV)
        assert error_of(answer) == (405, "method_not_allowed", None)
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_a_filter_leaves_out_and_the_offset_goes_on(http: Http) -> None:
    publish(http, 1, 2)
    publish(http, 3, type="u", userId="ben")
    answer = http.get(f"{POV}?types=u&types=v")
    assert numbers(answer.body) == [3]
    publish(http, 4)
    for query in ("types=u", "users=ben", "notUsers=eve"):
        answer = http.get(f"{POV}?offset={answer.headers[NEXT]}&{query}")
        assert answer.body == []
    assert answer.headers[NEXT].endswith("4")
    assert answer.headers[TOP] == "true"


# Who may:


def test_a_token_of_any_kind_that_may_see_the_pov_is_let_in(
    http: Http, server: RunningServer
) -> None:
    assert http.get(POV, service=True).status == 200
    assert error_of(http.get(POV, user=None))[:2] == (401, "token_invalid")
    assert error_of(http.get(POV, povs=["beta"]))[:2] == (403, "forbidden")
    assert error_of(http.get(POV, can=["publish"]))[:2] == (403, "forbidden")


def test_a_token_in_the_url_is_for_events_alone(server: RunningServer, http: Http) -> None:
    token, service = server.token(), server.token("app", Kind.SERVICE)
    with follow(server, f"{SSE}&token={token}") as events:
        assert events.control()["upToDate"]
    for path, sent in (
        (f"{POV}?offset=-1&token={token}", None),
        (f"{SSE}&token={service}", None),
        (f"{SSE}&token={token}", token),
        (f"{SSE}&token={token}&token={token}", None),
    ):
        with follow(server, path, sent) as refused:
            assert refused.answer.status == 401, path


def test_a_token_in_the_url_is_logged_nowhere(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    token = server.token()
    with caplog.at_level(logging.DEBUG), follow(server, f"{SSE}&token={token}") as events:
        events.control()
        with follow(server, f"{POV}?offset=-1&live=nothing&token={token}") as refused:
            assert refused.answer.status == 401
    wait_for(server, lambda: not len(server.web.server.directory))
    written = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert token.rpartition(".")[2] not in written


class TestPages:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(server={"allowed_origins": ["https://app.example"]})

    def test_a_page_elsewhere_may_ask_and_read_every_header(
        self, server: RunningServer, http: Http
    ) -> None:
        asked = HTTPConnection(server.address)
        with closing(asked):
            asked.request("OPTIONS", POV, headers={"Origin": "https://app.example"})
            answer = asked.getresponse()
            allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
            assert {"Authorization", "If-None-Match", "Last-Event-ID"} <= set(allowed)
        for path in (POV, SSE, f"{POV}?offset=x"):
            with follow(server, path, server.token(), Origin="https://app.example") as events:
                head = events.answer.headers
                exposed = set(head["Access-Control-Expose-Headers"].split(", "))
                assert {NEXT, TOP, CURSOR, "ETag", "Retry-After"} <= exposed
                assert head["Access-Control-Allow-Origin"] == "https://app.example"
                assert head["Cross-Origin-Resource-Policy"] == "cross-origin"
                assert head["X-Content-Type-Options"] == "nosniff"
        with follow(server, POV, server.token(), Origin="https://evil.example") as events:
            assert events.answer.status == 403


class TestRate:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(streams={"read_rate": "1/h"}, limits={"connections_per_user": 1})

    def test_reads_and_connections_of_a_user_are_bounded(
        self, http: Http, server: RunningServer, connect: Connect
    ) -> None:
        connect("ben")
        refused = http.get(f"{POV}?offset=now&live=long-poll", user="ben")
        assert error_of(refused)[:2] == (429, "limit_exceeded")
        for _ in range(2):
            assert http.get(POV).status == 200
        refused = http.get(POV)
        assert error_of(refused)[:2] == (429, "rate_limited")
        assert int(refused.headers["Retry-After"]) > 1000
        assert http.get(POV, user="cy").status == 200


class TestDisabled:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(streams={"enabled": False})

    def test_there_are_none_if_the_settings_say_so(self, http: Http) -> None:
        for path in (POV, "/api/activities/stream", "/api/inbox/stream"):
            assert http.get(path).status == 404


# Requests that wait:


def poll(http: Http, offset: str, more: str = "", **options: Any) -> Answer:
    return http.get(f"{POV}?offset={offset}&live=long-poll{more}", **options)


def test_a_request_waits_for_what_comes_next(http: Http, server: RunningServer) -> None:
    publish(http, 1)
    first = poll(http, "-1")
    assert (numbers(first.body), first.headers[TOP]) == ([1], "true")
    with ThreadPoolExecutor() as threads:
        for offset in (first.headers[NEXT], "now"):
            waits = threads.submit(poll, http, offset, f"&cursor={10**14}")
            wait_for(server, lambda: server.web.server.hub.audience("pov/acme") == 1)
            publish(http, 2, 3)
            answer = waits.result()
            assert numbers(answer.body) == [2, 3]
            assert answer.headers[NEXT].endswith(str(answer.body[-1]["offset"]))
            assert answer.headers[CURSOR] == str(10**14 + 1)
            assert answer.headers["Cache-Control"] == "no-store"
            wait_for(server, lambda: not len(server.web.server.directory))
            wait_for(server, lambda: server.web.server.hub.audience("pov/acme") == 0)


class TestShort:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(streams={"poll_s": 0.05})

    def test_a_request_for_which_nothing_comes_has_no_content(self, http: Http) -> None:
        publish(http, 1)
        known = http.get(POV).headers[NEXT]
        for offset in (known, "now"):
            answer = poll(http, offset)
            assert (answer.status, answer.body) == (204, None)
            assert (answer.headers[NEXT], answer.headers[TOP]) == (known, "true")
            assert int(answer.headers[CURSOR]) > 10**12


def test_a_filter_moves_a_request_that_waits_on(http: Http, server: RunningServer) -> None:
    with ThreadPoolExecutor() as threads:
        waits = threads.submit(poll, http, "now", "&types=u")
        wait_for(server, lambda: server.web.server.hub.audience("pov/acme") == 1)
        publish(http, *range(300))
        answer = waits.result()
    assert (answer.status, answer.body) == (204, None)
    assert answer.headers[NEXT].endswith("300")


def test_a_client_that_goes_away_waits_no_more(server: RunningServer, http: Http) -> None:
    gone = HTTPConnection(server.address)
    headers = {"Authorization": f"Bearer {server.token()}"}
    gone.request("GET", f"{POV}?offset=now&live=long-poll", headers=headers)
    wait_for(server, lambda: server.web.server.hub.audience("pov/acme") == 1)
    gone.close()
    wait_for(server, lambda: not len(server.web.server.directory))
    closes = server.call(lambda: +Counter(server.web.server.arrivals.closes))
    assert closes == {("poll", "the client went away"): 1}
    assert http.get(POV).status == 200


def test_whose_token_is_revoked_waits_no_more_and_is_refused_then(
    server: RunningServer, http: Http
) -> None:
    token = server.token()
    with ThreadPoolExecutor() as threads:
        waits = threads.submit(poll, http, "now")
        wait_for(server, lambda: server.web.server.hub.audience("pov/acme") == 1)
        body = {"userId": "ana"}
        assert http.post("/api/tokens/revoke", body, service=True, can=["operate"]).status == 200
        assert waits.result().status == 204
    with follow(server, POV, token) as refused:
        assert refused.answer.status == 401


def test_a_server_that_ends_answers_who_waits_and_refuses_who_comes(
    server: RunningServer, http: Http
) -> None:
    with ThreadPoolExecutor() as threads, follow(server, SSE, server.token()) as events:
        events.control()
        waits = threads.submit(poll, http, "now")
        wait_for(server, lambda: len(server.web.server.directory) == 2)
        server.run(server.web.server.drain)
        assert waits.result().status == 204
        assert events.next() is None
        for path in (f"{POV}?offset=now&live=long-poll", SSE):
            refused = http.get(path)
            assert error_of(refused)[:2] == (503, "unavailable")
            assert int(refused.headers["Retry-After"]) >= 1


# Events:


def test_events_are_what_was_missed_and_then_what_comes(server: RunningServer, http: Http) -> None:
    publish(http, 1, 2)
    with follow(server, SSE, server.token()) as events:
        head = events.answer.headers
        assert head["Content-Type"] == "text/event-stream"
        assert head["X-Accel-Buffering"] == "no"
        assert head["Connection"] == "close"
        assert not {"Content-Length", "Transfer-Encoding"} & set(head)
        found = events.next()
        assert found is not None
        assert (found.name, found.data) == ("data", http.get(POV).body)
        control = events.control()
        assert control["streamNextOffset"] == found.id == http.get(POV).headers[NEXT]
        assert control["upToDate"] is True
        assert int(control["streamCursor"]) > 10**12
        publish(http, 3)
        assert numbers(events.items(1)) == [3]


def test_who_missed_nothing_is_told_so_at_once(server: RunningServer, http: Http) -> None:
    publish(http, 1)
    with follow(server, f"{POV}?offset=now&live=sse", server.token()) as events:
        assert events.control()["streamNextOffset"] == http.get(POV).headers[NEXT]
        publish(http, 2)
        assert numbers(events.items(1)) == [2]


def test_a_browsers_last_event_counts_more_than_the_url(server: RunningServer, http: Http) -> None:
    publish(http, 1)
    known = http.get(POV).headers[NEXT]
    publish(http, 2)
    with follow(server, SSE, server.token(), Last_Event_ID=known) as events:
        assert numbers(events.items(1)) == [2]
    with follow(server, f"{POV}?live=sse", server.token(), Last_Event_ID=known) as events:
        assert numbers(events.items(1)) == [2]


def test_five_thousand_come_once_and_in_order(server: RunningServer, http: Http) -> None:
    for start in range(0, 5000, 1000):
        publish(http, *range(start, start + 1000))
    with follow(server, SSE, server.token()) as events:
        publish(http, 5000)
        found = [item for item in events.items(5001)]
        assert numbers(found) == list(range(5001))
        last = [line for line in events.raw.decode().splitlines() if "streamNextOffset" in line]
        assert ['"upToDate":true' in line for line in last].count(True) <= 2


def test_a_filter_says_with_events_how_far_it_is(server: RunningServer, http: Http) -> None:
    publish(http, *range(250))
    publish(http, 250, type="u")
    publish(http, *range(251, 260))
    with follow(server, f"{SSE}&types=u", server.token()) as events:
        read, items = events.control(), list[Any]()
        while not read.get("upToDate"):
            event = events.next()
            assert event is not None
            if event.name == "data":
                items += event.data
            else:
                read = event.data
        assert numbers(items) == [250]
        assert read["streamNextOffset"].endswith("260")
        publish(http, *range(300))
        assert events.control()["streamNextOffset"].endswith("560")


def test_an_answer_ends_after_its_time_in_a_whole_pair(
    server: RunningServer, http: Http, clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    publish(http, 1)
    with caplog.at_level(logging.INFO), follow(server, SSE, server.token()) as events:
        events.items(1)
        clock.advance(30)
        server.call(server.web.server.sweep)
        events.heartbeat()
        clock.advance(40)
        server.call(server.web.server.sweep)
        assert events.next() is None
        wait_for(server, lambda: any(server.web.server.arrivals.closes.values()))
    assert server.call(lambda: +Counter(server.web.server.arrivals.closes)) == {
        ("sse", "its time was over"): 1
    }
    assert "connection closed" not in caplog.text, "it is routine"


def test_an_answer_ends_with_its_token(server: RunningServer, http: Http, clock: TestClock) -> None:
    with follow(server, SSE, server.token(ttl_s=10)) as events:
        events.control()
        clock.advance(12)
        server.call(server.web.server.sweep)
        assert events.next() is None
        closes = server.call(lambda: server.web.server.arrivals.closes)
        wait_for(server, lambda: any(closes.values()))
        assert +Counter(closes) == {("sse", "token expired or revoked"): 1}


def test_what_a_client_sends_behind_its_request_is_passed_over(
    server: RunningServer, http: Http
) -> None:
    with follow(server, SSE, server.token()) as events:
        events.control()
        sock = socket.socket(fileno=socket.dup(events.answer.fileno()))
        with closing(sock):
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
            publish(http, 1)
            assert numbers(events.items(1)) == [1]
            # More than any client has reason to send.
            with suppress(OSError):
                while True:
                    sock.sendall(bytes(100_000))
            wait_for(server, lambda: not len(server.web.server.directory))
            wait_for(server, lambda: any(server.web.server.arrivals.closes.values()))
            closes = server.call(lambda: server.web.server.arrivals.closes)
            assert +Counter(closes) == {("sse", "too many messages"): 1}


def test_a_slow_reader_gets_all_in_whole_pairs(server: RunningServer, http: Http) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", server.web.port))
    with closing(sock):
        bearer = f"Authorization: Bearer {server.token()}"
        sock.sendall(f"GET {SSE} HTTP/1.1\r\nHost: x\r\n{bearer}\r\n\r\n".encode())
        wait_for(server, lambda: server.web.server.hub.audience("pov/acme") == 1)
        body = {"type": "t", "action": "a", "povId": "acme", "userId": "e"}
        for start in range(0, 400, 100):
            batch = [
                {**body, "details": {"n": n, "text": "x" * 10_000}}
                for n in range(start, start + 100)
            ]
            assert http.post("/api/activities", batch, service=True).status == 200
        found: list[int] = []
        data = b""
        while len(found) < 400:
            data += sock.recv(65536)
            *whole, data = data.split(b"\n\n")
            for event in whole:
                if event.startswith(b"event: data"):
                    found += numbers(json.loads(event.partition(b"data:[")[2].join([b"[", b""])))
        assert found == list(range(400))


def test_who_follows_is_nobody_on_the_pov_unless_it_says_so(
    server: RunningServer, http: Http, connect: Connect
) -> None:
    ana = connect()
    ana.request({"type": "subscribe", "povId": "acme"})
    ana.request({"type": "presence", "povId": "acme"})
    with (
        follow(server, SSE, server.token("ben")) as silent,
        follow(server, f"{SSE}&presence=1&device=phone", server.token("cy")) as present,
    ):
        silent.control()
        present.control()
        (joined,) = ana.receive()["joined"]
        assert (joined["userId"], joined["devices"]) == ("cy", ["phone"])
        assert [each["userId"] for each in http.get("/api/povs/acme/presence").body["users"]] == [
            "ana",
            "cy",
        ]


def test_the_metrics_tell_transports_apart(server: RunningServer, http: Http) -> None:
    with follow(server, SSE, server.token()) as events:
        events.control()
        publish(http, 1)
        events.items(1)
        connection = HTTPConnection("127.0.0.1", server.web.admin_port)
        with closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
    for line in (
        'pov_rt_connections{transport="sse"} 1.0',
        'pov_rt_connections{transport="ws"} 0.0',
        'pov_rt_connections_opened_total{transport="sse"} 1.0',
        'pov_rt_messages_delivered_total{transport="sse"} 1.0',
    ):
        assert line in text, text


# Other logs:


def test_the_feed_is_for_tokens_of_every_pov(server: RunningServer, http: Http) -> None:
    publish(http, 1)
    publish(http, 2, pov="beta")
    path = "/api/activities/stream"
    assert error_of(http.get(path, povs=["acme", "beta"]))[:2] == (403, "forbidden")
    assert error_of(http.get(path, can=["publish"]))[:2] == (403, "forbidden")
    items = http.get(path).body
    assert [(item["data"]["povId"], item["feed"], item["offset"]) for item in items] == [
        ("acme", "*", 1),
        ("beta", "*", 2),
    ]
    with follow(server, f"{path}?offset=-1&live=sse", server.token()) as events:
        assert events.items(2) == items


def test_the_inbox_is_ones_own(server: RunningServer, http: Http, clock: TestClock) -> None:
    path = "/api/inbox/stream"
    with follow(server, f"{path}?offset=-1&live=sse", server.token("ben")) as events:
        events.control()
        for number, more in enumerate(({}, {"expiresAt": "9999-01-01T00:00:00Z"}, {})):
            sent = {"id": f"n-{number}", "type": "mention", **more}
            answer = http.post("/api/users/ben/notifications", sent, service=True)
            assert answer.status == 200, answer.body
        found = events.items(3)
    assert [item["type"] for item in found] == ["notification"] * 3
    assert http.get(path, user="ben").body == found
    assert http.get(path).body == []
    assert error_of(http.get(path, service=True))[:2] == (401, "token_invalid")
    assert error_of(http.get(f"{path}?types=t"))[2] == "types"


class TestAsked:
    @pytest.fixture
    def plugins_dir(self, tmp_path: Path) -> Path:
        (tmp_path / "judge.py").write_text(
            '''"""Lets in whoever is not away."""
from pov_rt.plugin import Access, Allowed, Forbidden, Host, Plugin

plugin = Plugin[set[str]]("judge")

@plugin.lifespan
async def away(host: Host[set[str]]):
    yield set()

@plugin.authorise
async def judge(access: Access, host: Host[set[str]]) -> Allowed:
    """Refuse who is away."""
    if access.user_id in host.state:
        raise Forbidden("You left")
    return Allowed(1.0)
'''
        )
        return tmp_path

    def test_who_loses_the_pov_follows_it_no_more(
        self, server: RunningServer, http: Http, clock: TestClock
    ) -> None:
        with ThreadPoolExecutor() as threads, follow(server, SSE, server.token("ben")) as events:
            events.control()
            waits = threads.submit(poll, http, "now", user="ben")
            wait_for(server, lambda: len(server.web.server.directory) == 2)
            away = server.web.server.hooks.hosts["judge"].state
            server.call(lambda: away.add("ben"))
            clock.advance(3)
            server.call(server.web.server.sweep)
            assert events.next() is None
            assert waits.result().status == 204
            assert error_of(http.get(POV, user="ben"))[:2] == (403, "forbidden")
            closes = server.call(lambda: server.web.server.arrivals.closes)
            assert closes["sse", "its subscription was ended"] == 1

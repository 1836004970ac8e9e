"""A publication is asked the same and answered the same, whichever way it takes."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import cache
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, ServerSettings, Settings
from pov_rt.connections.borders import Observer, Rejected
from pov_rt.testing import Plugins, RunningServer, make_settings
from pov_rt.web.http import SERVICE
from tests.web.upgrade.test_entry import functions

HANDLED = ("http1connection.py", "httputil.py", "web.py")
"""Tornado's, in which a request is read and handled."""
POV = "pov-0000"
GOOD = {"id": "a", "type": "task", "action": "completed", "povId": POV, "userId": "ana"}
END = b"GET /end HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""The last request of a connection."""
LONG = "Content-Encoding: identity"
"""Says nothing, but has a request take the long way."""
NDJSON = "Content-Type: application/x-ndjson"
JSON = "Content-Type: application/json; charset=utf-8"

PLUGIN = """
from pov_rt.plugin import Activity, Forbidden, Host, Plugin

plugin = Plugin("doubts")


@plugin.before_publish
async def doubt(activity: Activity, host: Host) -> Activity:
    if activity.action == "refused":
        raise Forbidden("not today")
    if activity.action == "broken":
        raise ZeroDivisionError
    return activity
"""


@pytest.fixture(scope="module")
def plugins_dir(tmp_path_factory: pytest.TempPathFactory) -> Plugins:
    folder: Path = tmp_path_factory.mktemp("plugins")
    (folder / "doubts.py").write_text(PLUGIN)
    return folder


@pytest.fixture(scope="module")
def server(
    plugins_dir: Plugins, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    data = str(tmp_path_factory.mktemp("data"))
    chosen = make_settings(
        server=ServerSettings(port=0, admin_port=0, data=data),
        limits=LimitSettings(failed_rate="10000/s", publish_batch=300, details_bytes=5000),
    )
    with RunningServer(chosen, plugins_dir) as running:
        yield running


def text(**changed: object) -> str:
    return json.dumps({**GOOD, **changed}, separators=(",", ":"))


@cache
def token(server: RunningServer) -> str:
    """Return one that the server knows from its second use on."""
    return server.token("app", Kind.SERVICE)


def post(server: RunningServer, body: str | bytes, *more: str, **changed: str | None) -> bytes:
    """Return a request; `None` leaves a header out."""
    content = body.encode() if isinstance(body, str) else body
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Authorization": f"Bearer {token(server)}",
        "Content-Length": str(len(content)),
    }
    fields |= {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    first = "POST /api/activities HTTP/1.1"
    return "\r\n".join([first, *lines, *more, "", ""]).encode() + content


def told(server: RunningServer, requests: Sequence[bytes], pieces: Sequence[int] = ()) -> str:
    """Return what is answered until the connection's end, without what differs each time.

    What is sent is cut at so many bytes, and the server reads each piece for itself.
    """
    sent = b"".join(requests) + END
    found = b""
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=30)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BrokenPipeError):  # it was answered for the last time before its end
            for size in pieces:
                sock.sendall(sent[:size])
                sent = sent[size:]
                for _ in range(3):
                    server.call(lambda: None)
            sock.sendall(sent)
        while data := sock.recv(65536):
            found += data
    server.incidents.clear()
    shown = re.sub(r'\r\nDate: [^\r]*|"(epoch|incident)":"[^"]*"', "", found.decode())
    return re.sub(POV[:4] + r"\d{4}", POV, shown)


NUMBERS = count(1)


def elsewhere(requests: Sequence[bytes]) -> list[bytes]:
    """Return requests that go to a PoV that nobody else uses."""
    name = f"{POV[:4]}{next(NUMBERS):04}".encode()
    return [each.replace(POV.encode(), name) for each in requests]


def long_way(requests: Sequence[bytes]) -> list[bytes]:
    return [each.replace(b"\r\n\r\n", f"\r\n{LONG}\r\n\r\n".encode(), 1) for each in requests]


def cases(server: RunningServer) -> Iterator[list[bytes]]:
    """Yield what is sent on one connection."""
    one = post(server, text())
    tokens = {
        "socket": server.token(),
        "narrow": server.token("app", Kind.SERVICE, povs=["other"]),
        "idle": server.token("app", Kind.SERVICE, can=["subscribe"]),
    }
    yield [one]
    yield [one, one]
    yield [one, post(server, text(type="other"))]
    yield [post(server, text(id=None)), one]
    yield [post(server, text(), JSON), post(server, text(id="b"), NDJSON)]
    yield [post(server, f"{text()}\n\n{text(id='b')}\r\n{text(id='b', type='x')}\nx\n", NDJSON)]
    yield [post(server, f"[{text()}, {text(id='')}, {{}}, 1]")]
    yield [post(server, "[]"), post(server, "\n", NDJSON), post(server, " ")]
    yield [post(server, "\ufeff" + text()), post(server, text(id="b", details={"é": ["ü"]}))]
    yield [post(server, b"\xff"), post(server, "nonsense"), post(server, "[1"), one]
    yield [post(server, text(povId="")), post(server, text(more=1)), one]
    yield [post(server, text(producer="p", seq=2)), post(server, text(id="b", producer="p", seq=1))]
    yield [post(server, text(producer="p")), one]
    yield [post(server, text(details={"a": 6000 * "x"})), one]
    yield [post(server, text(details={"a": 2**60})), one]
    yield [post(server, text(action="refused")), one]
    yield [post(server, text(action="broken")), one]
    yield [post(server, f"[{text()}, {text(id='b', action='broken')}]")]
    yield [post(server, "\n".join(300 * ["{}"]), NDJSON), one]
    yield [post(server, "\n".join(301 * ["{}"]), NDJSON), one]
    for other in (*tokens.values(), "x", "", "a b"):
        yield [one, post(server, text(id="b"), Authorization=f"Bearer {other}"), one]
    yield [one, post(server, text(), Authorization=None), one]
    yield [one, post(server, text(), Authorization="Basic eDp5")]
    for host in ("LOCALHOST:80", "127.0.0.1", "evil.example", "a b", None):
        yield [one, post(server, text(), Host=host), one]
    yield [one, post(server, text(), "Origin: http://localhost"), one]
    yield [one, post(server, text(), "Origin: http://evil.example"), one]
    yield [one, post(server, text(), "Sec-Fetch-Site: cross-site"), one]
    yield [one, post(server, text(), "X-Forwarded-For: 192.0.2.1"), one]
    yield [one, post(server, text(), "Connection: keep-alive"), one]
    yield [one, post(server, text(), "Connection: close"), one]
    yield [one, b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", one, one]
    yield [one, b"nonsense\r\n\r\n", one]


def test_both_ways_are_answered_the_same(server: RunningServer) -> None:
    statuses = Counter[str]()
    for requests in cases(server):
        long = told(server, elsewhere(long_way(requests)))
        short = told(server, elsewhere(requests))
        assert short == long, requests
        assert told(server, elsewhere(requests), [1] * 40 + [100] * 20) == long, requests
        statuses.update(re.findall(r"HTTP/1\.1 (\d+)", short))
    assert statuses.keys() == {"200", "201", "400", "401", "403", "404", "409", "413", "421", "500"}


def some(server: RunningServer, pad: str) -> Sequence[bytes]:
    """Return requests, usual ones and others, whose bodies end with what means nothing."""
    return [
        *(post(server, text(id=each) + pad) for each in "abcd"),
        post(server, text(id="a", type="other") + pad),
        post(server, f"[{text(id='e')},{text(id='f')}]" + pad),
        post(server, text(userId=7) + pad),
        post(server, text(action="broken") + pad),
        b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
        post(server, text(id="g") + pad, "Expect: 100-continue"),
    ]


@given(
    chosen=st.lists(
        st.tuples(
            st.integers(0, 9),
            # Most of them together fill more than one read, and some alone.
            st.integers(0, 800) | st.integers(0, 18_000) | st.integers(60_000, 140_000),
        ),
        min_size=1,
        max_size=40,
    ),
    pieces=st.lists(st.integers(1, 700) | st.integers(1, 70_000), max_size=12),
)
@hypothesis_settings(max_examples=60)
def test_what_comes_on_one_connection_is_answered_in_its_order_however_it_is_cut(
    server: RunningServer, chosen: list[tuple[int, int]], pieces: list[int]
) -> None:
    requests = [some(server, size * " ")[number] for number, size in chosen]
    expected = told(server, elsewhere(long_way(requests)))
    assert told(server, elsewhere(requests), pieces) == expected


@pytest.mark.parametrize("many", [50, 120])
@pytest.mark.parametrize(
    "between", ["refused", "get", "large", "much", "refused large", "get much large", "large get"]
)
def test_of_what_is_sent_without_waiting_nothing_is_lost_behind_another(
    server: RunningServer, between: str, many: int
) -> None:
    """Together it is more than is read at once: of a head, or of a body."""
    others = {
        "refused": post(server, text(type="")),
        "get": TestWhichWay.OTHER,
        "large": post(server, text() + 14_000 * " "),
        "much": post(server, text() + 200_000 * " "),
    }
    some = [others[each] for each in between.split()]
    good = [post(server, text(id=f"n{each}", details={"t": 200 * "x"})) for each in range(many)]
    half = many // 2
    requests = [good[0], *some, *good[1:half], *some, *good[half:]]
    short = told(server, elsewhere(requests))
    assert re.findall(r'"id":"n(\d+)"', short) == [str(each) for each in range(many)]
    assert short == told(server, elsewhere(long_way(requests)))


class TestWhichWay:
    """For most publications nothing of HTTP's is made, and for the others all."""

    OTHER = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def calls(self, server: RunningServer, first: bytes, *requests: bytes) -> Counter[str]:
        """Return what is called from the answer to the first on, until the last is answered."""
        told(server, [post(server, text())])  # from here on its token is known
        with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=30)) as sock:

            def ask(request: bytes) -> None:
                sock.sendall(request)
                answer = sock.recv(65536)
                assert answer.startswith(b"HTTP/1.1 "), answer

            def ask_all() -> None:
                for each in requests:
                    ask(each)

            ask(first)
            return functions(server, ask_all)

    def test_a_usual_one_takes_the_short_way(self, server: RunningServer) -> None:
        found = self.calls(server, *3 * [post(server, text(), JSON)])
        assert found["kept.py"] > 0
        assert not found.keys() & set(HANDLED)

    def test_so_does_one_behind_another_request(self, server: RunningServer) -> None:
        one = post(server, text())
        found = self.calls(server, self.OTHER, one, one)
        assert found["kept.py"] > 0
        assert not found.keys() & {"httputil.py", "web.py"}

    def test_one_that_says_anything_unusual_takes_the_long_way(self, server: RunningServer) -> None:
        usual = post(server, text())
        for other in (
            *long_way([usual]),
            post(server, text(), "Expect: more"),
            post(server, text() + 20_000 * " "),
        ):
            assert self.calls(server, usual, other).keys() >= set(HANDLED), other

    def test_a_token_is_looked_at_the_long_way_first(self, server: RunningServer) -> None:
        usual = post(server, text())
        fresh = server.token("app-3", Kind.SERVICE)
        other = post(server, text(), Authorization=f"Bearer {fresh}")
        assert self.calls(server, usual, other).keys() >= set(HANDLED)
        assert not self.calls(server, usual, other).keys() & set(HANDLED)


class Rejections(Observer):
    """Remembers what could not be read, or was refused."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def rejected(self, done: Rejected) -> None:
        self.seen.append((done.id, done.error.code))


def test_who_wants_to_know_is_told_of_a_fault_once(server: RunningServer) -> None:
    seen = Rejections()
    server.call(lambda: server.web.server.borders.add(seen))
    told(server, [post(server, text(id="bad", userId=1))])
    told(server, [post(server, text(id="no", action="refused"))])
    assert seen.seen == [("bad", "invalid_activity"), ("no", "forbidden")]


def test_both_ways_are_logged_the_same(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    one = post(server, text())
    with caplog.at_level(logging.DEBUG, "pov_rt.web.http"):
        for requests in ([one], long_way([one])):
            told(server, elsewhere(requests))
    said = [each for each in caplog.records if "/api/activities" in each.getMessage()]
    assert [each.getMessage() for each in said] == 2 * ["POST /api/activities: 201"]
    assert [vars(each)["ip"] for each in said] == 2 * ["127.0.0.1"]
    assert all(vars(each)["ms"] >= 0 for each in said)


def test_an_answer_is_charged_to_who_publishes_either_way_and_no_other(
    server: RunningServer,
) -> None:
    one, budgets = post(server, text()), server.web.server.budgets

    def debt_s(requests: Sequence[bytes]) -> float:
        """Return what is owed after more answers than are free."""
        owner = server.web.server.tokens.verify(token(server), SERVICE).owner
        before = server.call(lambda: budgets.of(owner).paid_at)
        told(server, 20 * elsewhere(requests))
        return server.call(lambda: budgets.of(owner).paid_at) - before

    assert debt_s([one]) > 0
    assert debt_s(long_way([one])) > 0


def test_what_is_refused_after_it_was_read_is_published_once(server: RunningServer) -> None:
    (good,) = elsewhere([post(server, text())])
    (other,) = [good.replace(b'"task"', b'"tusk"')]
    before = server.call(lambda: server.web.server.publishing.published)
    assert " 409 " in told(server, [good, other])
    assert server.call(lambda: server.web.server.publishing.published) == before + 1


def test_a_token_that_is_revoked_is_refused_where_it_was_good_before(server: RunningServer) -> None:
    given = server.token("app-2", Kind.SERVICE)
    one = post(server, text(), Authorization=f"Bearer {given}")
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=30)) as sock:
        for _ in range(2):
            sock.sendall(one)
            assert sock.recv(65536).startswith(b"HTTP/1.1 20")
        directory = server.web.server.directory
        server.run(lambda: directory.revoke(token_id=None, user_id="app-2", before=None))
        sock.sendall(one)
        assert sock.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_hosts_that_are_listed_later_count_for_connections_that_are_there(
    server: RunningServer,
) -> None:
    one = post(server, text())
    before = server.web.settings
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=30)) as sock:

        def status(request: bytes) -> bytes:
            sock.sendall(request)
            return sock.recv(65536)[9:12]

        assert status(one) in (b"200", b"201")
        other = one.replace(b"localhost", b"pov.example")
        changed = make_settings(
            server=ServerSettings(
                port=0, admin_port=0, data=before.server.data, allowed_hosts=["pov.example"]
            ),
            limits=before.limits,
        )
        try:
            server.call(lambda: server.web.apply(changed))
            assert [status(each) for each in (one, other, other)] == 3 * [b"200"]
            server.call(lambda: server.web.apply(before))
            assert status(other) == b"421"
        finally:
            server.call(lambda: server.web.apply(before))


def test_of_what_is_sent_without_waiting_nothing_is_lost_when_settings_change(
    server: RunningServer,
) -> None:
    (one,) = elsewhere([post(server, text())])
    good = [post(server, text(id=f"n{each}", details={"t": 200 * "x"})) for each in range(120)]
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=30)) as sock:
        for _ in range(2):
            sock.sendall(one)
            assert sock.recv(65536).startswith(b"HTTP/1.1 20")
        server.call(lambda: server.web.apply(replace(server.web.settings)))
        sock.sendall(b"".join(elsewhere(good)) + END)
        found = b""
        while data := sock.recv(65536):
            found += data
    assert re.findall(rb'"id":"n(\d+)"', found) == [b"%d" % each for each in range(120)]
    assert found.count(b"HTTP/1.1 201 ") == 120


class TestLittleRoom:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(bodies_bytes=2000, publish_bytes=400))

    @pytest.fixture
    def server(self, pov_rt_server: RunningServer) -> RunningServer:
        return pov_rt_server

    def test_a_body_beyond_the_bound_is_refused_either_way(self, server: RunningServer) -> None:
        for size, status in ((100, "201"), (500, "413")):
            one = post(server, text(details={"a": size * "x"}))
            short = told(server, elsewhere([one]))
            assert short[9:12] == status
            assert short == told(server, elsewhere(long_way([one])))
        (bound,) = (each for each in server.web.server.bounds if each.name == "bodies")
        assert bound.used() == 0

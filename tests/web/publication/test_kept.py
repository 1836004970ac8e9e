"""A connection on which nothing but publications comes: whom it keeps waiting, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from pov_rt.config.settings import EngineSettings, LimitSettings, Settings
from pov_rt.runtime import turns
from pov_rt.runtime.limits import parse_rate
from pov_rt.testing import Plugins, RunningServer, make_settings
from pov_rt.web.addresses import Failures
from pov_rt.web.bodies import BODY_S, Bodies
from pov_rt.web.hosts import HostRules
from pov_rt.web.http import SERVICE, AccessLog
from pov_rt.web.publication.intake import Intake
from pov_rt.web.publication.kept import Done, Kept
from tests.transport.test_wire import wait_until
from tests.web.publication.test_intake import HANDLED, NDJSON, elsewhere, post, text, token
from tests.web.test_http_conformance import read_answer
from tests.web.test_listener import is_open
from tests.web.upgrade.test_entry import functions

MANY = 3 * turns.REQUESTS

PLUGIN = """
import asyncio

from pov_rt.plugin import Activity, Forbidden, Host, Plugin

plugin = Plugin("gate")
opened = asyncio.Event()


@plugin.before_publish
async def hold(activity: Activity, host: Host) -> Activity:
    if activity.action == "opens":
        opened.set()
    if activity.action in ("waits", "refused"):
        await opened.wait()
    if activity.action == "refused":
        raise Forbidden("too late")
    return activity
"""


@pytest.fixture
def plugins_dir(tmp_path: Path) -> Plugins:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "gate.py").write_text(PLUGIN)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(
        engine=EngineSettings(url=f"sqlite:///{tmp_path}/pov-rt.db"),
        limits=LimitSettings(handler_deadline_s=60.0),
    )


@contextmanager
def connected(server: RunningServer, many: int = 1) -> Iterator[list[socket.socket]]:
    """Open connections, on each of which a publication was answered."""
    with ExitStack() as stack:
        address = ("127.0.0.1", server.web.port)
        found = [
            stack.enter_context(closing(socket.create_connection(address, timeout=30)))
            for _ in range(many)
        ]
        for sock in found:
            for _ in range(2):  # only the second is no HTTP's: the token is known by then
                sock.sendall(post(server, text()))
                assert answers(sock, 1)[0] in ("200", "201")
        yield found


def answers(sock: socket.socket, many: int) -> list[str]:
    """Return the statuses of so many answers; fewer, if the connection ends before."""
    received = b""
    while len(found := re.findall(rb"HTTP/1\.1 (\d+)", received)) < many or received[-1:] != b"}":
        data = sock.recv(65536)
        if not data:
            break
        received += data
    return [each.decode() for each in found]


def let_go(server: RunningServer) -> None:
    """Open the gate for what waits."""
    with connected(server) as (sock,):
        sock.sendall(post(server, text(id="o", action="opens")))
        assert answers(sock, 1) == ["201"]


def bodies(server: RunningServer) -> float:
    """Return how many bytes of bodies there are; to be asked on the server's loop."""
    (bound,) = (each for each in server.web.server.bounds if each.name == "bodies")
    return bound.used()


def test_what_is_sent_without_waiting_is_answered_in_its_order(server: RunningServer) -> None:
    with connected(server) as (sock,):
        requests = [post(server, text(id=f"n{number}")) for number in range(MANY)]
        sock.sendall(b"".join(elsewhere(requests)))
        received = b""
        while received.count(b'"offset"') < MANY or not received.endswith(b"}"):
            received += sock.recv(65536)
        found = re.findall(rb'"id":"n(\d+)","povId":"[^"]*","offset":(\d+)', received)
        assert [(int(number), int(offset)) for number, offset in found] == [
            (number, number + 1) for number in range(MANY)
        ]


def test_more_than_a_turn_takes_are_answered_in_later_ones(server: RunningServer) -> None:
    with connected(server, MANY) as socks:
        one = post(server, text())

        # All are there before the loop looks again, those who have gone among them.
        def ask() -> None:
            for sock in socks:
                sock.sendall(one)
            for sock in socks[-3:]:
                sock.close()

        server.call(ask)
        for sock in socks[:-3]:
            assert answers(sock, 1) == ["200"]
        wait_until(server, lambda: server.web.http_connections == MANY - 3)


def test_who_has_said_all_is_answered_nevertheless(server: RunningServer) -> None:
    with connected(server) as (sock,):
        sock.sendall(post(server, text(id="b", action="waits")) + post(server, text(id="c")))
        wait_until(server, lambda: bodies(server) > 0)
        sock.shutdown(socket.SHUT_WR)
        let_go(server)
        assert answers(sock, 3) == ["201", "201"]
        wait_until(server, lambda: server.web.http_connections == 0)


def test_who_goes_while_it_is_published_leaves_nothing_behind(server: RunningServer) -> None:
    with connected(server) as (sock,):
        sock.sendall(post(server, text(id="b", action="waits")))
        wait_until(server, lambda: bodies(server) > 0)
    let_go(server)
    wait_until(server, lambda: server.web.http_connections == 0)
    assert server.call(lambda: bodies(server)) == 0


def test_a_node_that_drains_meanwhile_says_that_it_was_the_last(server: RunningServer) -> None:
    with connected(server, 2) as (sock, other):
        sock.sendall(post(server, text(id="b", action="waits")) + post(server, text(id="c")))
        wait_until(server, lambda: bodies(server) > 0)
        leaving = server.web.server.leaving
        server.call(leaving.set)
        try:
            other.sendall(post(server, text(id="o", action="opens")))
            assert b"\r\nConnection: close\r\n" in other.recv(65536)
            received = b""
            while data := sock.recv(65536):
                received += data
        finally:
            server.call(leaving.clear)
        assert received.count(b"\r\nConnection: close\r\n") == received.count(b"HTTP/1.1") == 1


def test_an_answer_that_is_large_is_given_the_long_way(server: RunningServer) -> None:
    with connected(server) as (sock,):
        sock.sendall(post(server, "\n".join(1000 * ["{}"]), NDJSON))
        found = functions(server, lambda: answers(sock, 1))
        assert found.keys() >= set(HANDLED)


class TestReading:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings()

    def test_who_reads_nothing_is_read_no_more_and_misses_nothing(
        self, server: RunningServer
    ) -> None:
        lines = "\n".join(text(id=f"{number}") for number in range(100))
        many, one = 100, post(server, lines, NDJSON)
        with connected(server) as (sock,):

            def ask() -> None:
                sock.sendall(many * one)
                for _ in range(10 * many):
                    server.call(lambda: None)

            before = server.web.server.publishing.published
            # HTTP waits until there is room to send.
            assert functions(server, ask)["iostream.py"] > 0
            assert server.web.server.publishing.published == before + 100
            buffer = bytearray()
            for _ in range(many):
                answer = read_answer(sock, buffer, has_body=True)
                assert answer is not None
                assert len(json.loads(answer.body)["results"]) == 100
            # And who reads again is answered without.
            sock.sendall(one)
            assert answers(sock, 1) == ["200"]
            sock.sendall(one)
            assert not functions(server, lambda: answers(sock, 1)).keys() & set(HANDLED)


class TestPlaces:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(connections=20, connections_per_user=20))

    @pytest.mark.parametrize("begun", [b"", b"P"])
    def test_who_is_silent_between_two_makes_room(
        self, server: RunningServer, begun: bytes
    ) -> None:
        with connected(server, 20) as socks:
            socks[0].sendall(post(server, text()) + begun)
            assert answers(socks[0], 1) == ["200"]
            for sock in socks[1:]:
                sock.sendall(post(server, text()))
                assert answers(sock, 1) == ["200"]
            with closing(socket.create_connection(("127.0.0.1", server.web.port))) as sock:
                sock.sendall(post(server, text()))
                assert answers(sock, 1) == ["200"]
            assert not is_open(socks[0])
            assert all(is_open(each) for each in socks[1:])


class TestPatience:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(handshake_s=1, keepalive_s=1))

    @pytest.mark.parametrize("begun", [b"", b"POST /api/activities HTTP/1.1\r\nHost:"])
    def test_who_asks_nothing_more_is_hung_up_on(self, server: RunningServer, begun: bytes) -> None:
        with connected(server) as (sock,):
            sock.sendall(begun)
            assert sock.recv(1) == b""
            wait_until(server, lambda: server.web.http_connections == 0)


class Seen:
    """A listener that notes what it hears."""

    def __init__(self) -> None:
        self.requests = turns.Slots(turns.REQUESTS)
        self.events: list[str] = []

    def waits(self, caller: Kept) -> None:
        self.events.append("waits")

    def asks(self, caller: Kept) -> None:
        self.events.append("asks")

    def speaks(self, caller: Kept, received: bytes, *, outcome: Done, unsent: bytes) -> None:
        self.events.append("speaks")
        caller.key.close()

    def ended(self, caller: Kept) -> None:
        self.events.append("ended")

    def read_away(self, sock: socket.socket) -> None:
        self.events.append("read away")


@pytest.fixture
def intake(server: RunningServer) -> Intake:
    """Return one that knows the token."""
    node, limits, known = server.web.server, server.web.settings.limits, token(server)
    server.call(lambda: node.tokens.verify(known, SERVICE))
    return Intake(
        node,
        HostRules(is_local=True),
        Failures(parse_rate(limits.failed_rate), node.clock),
        Bodies(limits, node.clock),
        AccessLog(node.clock),
    )


def test_each_part_of_a_request_has_its_time(server: RunningServer, intake: Intake) -> None:
    one = post(server, text())

    async def run() -> None:
        seen = Seen()
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        kept = Kept(near, None, "127.0.0.1", None, seen, intake)

        def is_overdue(now: float) -> bool:
            return kept.is_overdue(now, request_s=10.0, idle_s=75.0)

        with far:
            kept.begin(one[:40])
            assert [is_overdue(now) for now in (100.0, 109.9, 110.0)] == [False, False, True]
            assert seen.events == ["waits"]
            far.send(one[40:-1])
            while len(seen.events) < 2:  # noqa: ASYNC110  (the condition has no event to wait for)
                await asyncio.sleep(0)
            assert [is_overdue(200.0 + wait) for wait in (0, BODY_S - 0.1, BODY_S)] == [
                False,
                False,
                True,
            ]
            far.send(one[-1:])
            loop = asyncio.get_running_loop()
            assert (await loop.sock_recv(far, 65536)).startswith(b"HTTP/1.1 20")
            assert seen.events == ["waits", "asks", "asks", "waits"]
            assert [is_overdue(now) for now in (300.0, 374.9, 375.0)] == [False, False, True]
            kept.close()
            kept.close()
            assert seen.events[4:] == ["ended"]

    server.run(run)


def test_who_has_always_begun_the_next_has_the_time_of_one_for_each(
    server: RunningServer, intake: Intake
) -> None:
    one = post(server, text())

    async def run() -> None:
        seen, loop = Seen(), asyncio.get_running_loop()
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        kept = Kept(near, None, "127.0.0.1", None, seen, intake)
        with far:
            kept.begin(one[:20])
            for now in (100.0, 109.0, 118.0, 127.0):
                assert not kept.is_overdue(now, request_s=10.0, idle_s=75.0)
                seen.events.clear()
                far.send(one[20:] + one[:20])
                assert (await loop.sock_recv(far, 65536)).startswith(b"HTTP/1.1 20")
                while seen.events[-1:] != ["waits"]:  # noqa: ASYNC110  (as above)
                    await asyncio.sleep(0)
            assert not kept.is_overdue(136.0, request_s=10.0, idle_s=75.0)
            assert kept.is_overdue(146.0, request_s=10.0, idle_s=75.0)
            kept.close()

    server.run(run)


def test_what_is_refused_behind_the_end_is_told_nobody(
    server: RunningServer, intake: Intake, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()

    async def run() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            kept = Kept(near, None, "127.0.0.1", None, seen, intake)
            kept.begin(post(server, text(id="b", action="refused")))
            kept.close()
            assert intake.bodies.shares.used > 0

    server.run(run)
    let_go(server)
    wait_until(server, lambda: intake.bodies.shares.used == 0)
    server.call(gc.collect)
    assert seen.events[-1] == "ended"
    assert not [each for each in caplog.records if each.name == "asyncio"]


def test_no_more_begin_in_a_turn_than_it_has_room_for(
    server: RunningServer, intake: Intake
) -> None:
    one = post(server, text())

    async def run() -> None:
        seen = Seen()
        for _ in range(2 * turns.REQUESTS + 1):
            near, far = socket.socketpair()
            near.setblocking(False)
            Kept(near, None, "127.0.0.1", None, seen, intake).begin(one)
            far.close()
        before = intake.bodies.shares.used
        assert before == turns.REQUESTS * (len(one) - one.index(b"{"))
        while seen.events.count("ended") <= 2 * turns.REQUESTS:  # noqa: ASYNC110  (as above)
            await asyncio.sleep(0)
        assert intake.bodies.shares.used == 0

    server.run(run)

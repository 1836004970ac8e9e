"""Requests as bytes: bodies, how many bytes of them there may be, and the headers of refusals."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.protocol.errors import ClientError, Unavailable
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web import listener
from pov_rt.web.bodies import Bodies, Body
from tests.processes import serve
from tests.transport.test_wire import wait_until
from tests.web.routes.test_activities import ONE, call
from tests.web.test_handshake import UPGRADE, exchange, request

LIMIT = 100_000


@pytest.fixture
def settings() -> Settings:
    return make_settings(limits=LimitSettings(publish_bytes=LIMIT))


@contextmanager
def connected(server: RunningServer) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as sock:
        yield sock


def read_to_end(sock: socket.socket) -> bytes:
    """Return everything until the server has ended the connection."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def head(server: RunningServer, *lines: str, target: str = "POST /api/activities") -> bytes:
    token = server.token("app", Kind.SERVICE)
    parts = [f"{target} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", *lines]
    return ("\r\n".join(parts) + "\r\n\r\n").encode()


def error_of(answer: bytes) -> tuple[int, str]:
    first, _, body = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(body)["error"]["code"]


def test_a_refused_upgrade_ends_the_connection(server: RunningServer) -> None:
    """Whatever is wrong with it: a proxy may pass on unseen what comes behind an upgrade."""
    token = server.token()
    behind = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for target, changes, status in (
        ("GET /ws/", {}, 401),
        ("GET /ws/?token=x", {}, 401),
        ("GET /elsewhere", {}, 400),
        ("GET /api/activities", {}, 400),
        (f"GET /ws/?token={token}", {"Sec-WebSocket-Version": "12"}, 426),
        (f"GET /ws/?token={token}", {"Sec-WebSocket-Key": "x"}, 400),
        (f"GET /ws/?token={token}", {"Upgrade": "h2c"}, 426),
        (f"GET /ws/?token={token}", {"Host": "evil.example"}, 421),
        (f"GET /ws/?token={token}", {"Origin": "https://evil.example"}, 403),
        (f"POST /ws/?token={token}", {}, 405),
        (f"OPTIONS /ws/?token={token}", {}, 204),
        ("BREW /ws/", {}, 501),
    ):
        lines = "".join(f"{name}: {value}\r\n" for name, value in (UPGRADE | changes).items())
        with connected(server) as sock:
            sock.sendall(f"{target} HTTP/1.1\r\n{lines}\r\n".encode() + behind)
            answer = read_to_end(sock)
            assert answer.count(b"HTTP/1.1 ") == 1
            assert answer.startswith(b"HTTP/1.1 %d " % status), target
            ending = b"Upgrade, close" if status == 426 else b"close"
            assert b"\r\nConnection: " + ending + b"\r\n" in answer


def test_an_upgrade_is_refused_before_the_body_it_may_not_have(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LINGER_S", 0.05)
    token = server.token()
    lines = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
    for body in ("Content-Length: 100", "Transfer-Encoding: chunked"):
        for path in ("/ws/", "/api/activities", "/nowhere"):
            with connected(server) as sock:
                sock.sendall(f"GET {path}?token={token} HTTP/1.1\r\n{lines}{body}\r\n\r\n".encode())
                # All of it comes without a byte of the body, and the connection ends.
                assert error_of(read_to_end(sock)) == (400, "invalid_request")
    with connected(server) as sock:
        sock.sendall(head(server, "Content-Length: 100", target="GET /ws/"))
        assert error_of(read_to_end(sock)) == (401, "token_invalid")


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LINGER_S", 0.05)
    for size in (str(LIMIT + 1), "9" * 18):
        with connected(server) as sock:
            sock.sendall(head(server, f"Content-Length: {size}", "Expect: 100-continue"))
            answer = read_to_end(sock)
            assert error_of(answer) == (413, "too_large")
            assert b"\r\nConnection: close\r\n" in answer


def test_a_client_that_sends_a_too_large_body_all_the_same_gets_the_answer(
    server: RunningServer,
) -> None:
    # Were the connection ended at once, the rest of the body would reset it, and the answer with
    # it. The body is larger than what socket buffers hold.
    body = b" " * 20_000_000
    for headers in ({"Connection": "close"}, {}):
        with closing(http.client.HTTPConnection(server.address, timeout=10)) as client:
            client.request("POST", "/api/activities", body, headers)
            answer = client.getresponse()
            assert answer.status == 413
            assert json.loads(answer.read())["error"]["code"] == "too_large"


def test_a_body_in_chunks_is_refused_where_it_becomes_too_large(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LINGER_S", 0.05)
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    with connected(server) as sock:
        sock.sendall(head(server, "Transfer-Encoding: chunked") + chunk * 7)
        assert error_of(read_to_end(sock)) == (413, "too_large")
    body = json.dumps(ONE).encode()
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    answer = exchange(server, head(server, "Transfer-Encoding: chunked") + pieces)
    assert answer.startswith(b"HTTP/1.1 201")


def test_a_body_of_just_the_limit_is_read(server: RunningServer) -> None:
    body = json.dumps(ONE).encode().ljust(LIMIT)
    token = server.token("app", Kind.SERVICE)
    assert call(server, "/api/activities", method="POST", token=token, body=body).code == 201


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",  # what curl says by default
        "multipart/form-data",
        "multipart/form-data; boundary=x",
    ],
)
def test_json_is_json_whatever_the_content_type_says(server: RunningServer, kind: str) -> None:
    token = server.token("app", Kind.SERVICE)
    activity = {**ONE, "details": {"text": "&a=%zz;" * 2000}}
    answer = call(
        server, "/api/activities", method="POST", token=token, body=activity, Content_Type=kind
    )
    assert answer.code == 201


def test_a_compressed_body_is_refused_by_name(server: RunningServer) -> None:
    token = server.token("app", Kind.SERVICE)
    body = gzip.compress(json.dumps(ONE).encode())
    answer = call(
        server, "/api/activities", method="POST", token=token, body=body, Content_Encoding="gzip"
    )
    assert (answer.code, b"Content-Encoding" in answer.body) == (415, True)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/activities", "POST"),
        ("OPTIONS", "/api/activities", "POST"),
        ("POST", "/api/auth/ws-token", "GET, HEAD, OPTIONS"),
        ("DELETE", "/api/povs/acme/activities", "GET, HEAD, OPTIONS"),
        ("PUT", "/ws/", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    server: RunningServer, method: str, path: str, allowed: str
) -> None:
    answer = exchange(server, head(server, target=f"{method} {path}"))
    assert error_of(answer) == (405, "method_not_allowed")
    assert f"\r\nAllow: {allowed}\r\n".encode() in answer


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        b"POST /api/activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, 2\r\n\r\n",
        b"POST /api/activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/activities HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.x\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_json_error_too_and_ends_the_connection(
    server: RunningServer, raw: bytes
) -> None:
    with connected(server) as sock:
        sock.sendall(raw)
        assert error_of(read_to_end(sock)) == (400, "invalid_request")


def test_a_body_whose_chunks_are_none_ends_the_connection(server: RunningServer) -> None:
    with connected(server) as sock:
        sock.sendall(head(server, "Transfer-Encoding: chunked") + b"z\r\n")
        assert error_of(read_to_end(sock)) == (400, "invalid_request")


class Refused:
    """Takes what is refused."""

    def __init__(self) -> None:
        self.errors: list[ClientError] = []

    def __call__(self, error: ClientError) -> None:
        self.errors.append(error)


def make_bodies(clock: ManualClock) -> Bodies:
    """Return room for 100 bytes, 40 of them for one user."""
    limits = LimitSettings(publish_bytes=30, bodies_bytes=100, bodies_bytes_per_user=40)
    return Bodies(limits, clock)


def test_what_has_come_is_counted_until_the_request_is_answered() -> None:
    bodies = make_bodies(ManualClock())
    body = Body(bodies, "ana", 30, Refused())
    assert bodies.shares.used == 0, "to promise costs nothing"
    body.add(b"x" * 10)
    body.add(b"y" * 10)
    assert (bodies.shares.used, bodies.shares.held("ana")) == (20, 20)
    assert bytes(body.complete()) == b"x" * 10 + b"y" * 10
    assert (body.is_arriving, bodies.shares.used) == (False, 20)
    body.release()
    body.release()
    assert bodies.shares.used == 0


def test_one_piece_is_not_copied() -> None:
    piece = b"x" * 10
    body = Body(make_bodies(ManualClock()), "ana", 10, Refused())
    body.add(piece)
    assert body.complete() is piece


def test_a_user_has_a_share_of_the_room() -> None:
    bodies, refused = make_bodies(ManualClock()), Refused()
    first, second = Body(bodies, "ana", 30, refused), Body(bodies, "ana", 0, refused)
    first.add(b"x" * 20)
    with pytest.raises(Unavailable):
        Body(bodies, "ana", 30, refused)
    Body(bodies, "ben", 30, refused).add(b"x" * 30)
    second.add(b"x" * 20)
    second.add(b"x")
    (error,) = refused.errors
    assert (error.status, error.retry_after_s) == (503, 1.0)
    assert (first.is_arriving, second.is_arriving, bodies.shares.held("ana")) == (True, False, 20)
    second.add(b"what comes after that is not looked at")
    assert bodies.shares.held("ana") == 20


def test_when_there_is_no_room_the_oldest_that_is_under_way_makes_some() -> None:
    clock, slow, late = ManualClock(), Refused(), Refused()
    bodies = make_bodies(clock)
    crowd = []
    for number in range(4):
        crowd.append(Body(bodies, str(number), 30, slow))
        crowd[-1].add(b"x" * 25)
        clock.advance(0.1)
    crowd[1].complete()
    early = Body(bodies, "late", 30, late)
    early.add(b"x")
    assert (len(late.errors), len(slow.errors)) == (1, 0), "nobody has taken long yet"
    clock.advance(1.0)
    for user, expected in (("a", 1), ("b", 1), ("c", 2)):
        Body(bodies, user, 30, late).add(b"x" * 12)
        assert len(slow.errors) == expected
    assert [each.is_arriving for each in crowd] == [False, False, False, True]
    assert bodies.shares.held("1") == 25, "who has sent all is not dropped"
    assert len(late.errors) == 1


def test_a_body_grows_no_larger_than_its_bound() -> None:
    bodies, refused = make_bodies(ManualClock()), Refused()
    body = Body(bodies, "ana", 0, refused)
    body.add(b"x" * 30)
    assert refused.errors == []
    body.add(b"x")
    assert [error.status for error in refused.errors] == [413]
    assert bodies.shares.used == 0


class TestRoom:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            limits=LimitSettings(
                publish_bytes=60_000, bodies_bytes=100_000, bodies_bytes_per_user=60_000
            )
        )

    def send(self, server: RunningServer, sock: socket.socket, user: str, size: int) -> None:
        token = server.token(user, Kind.SERVICE)
        lines = f"Host: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 60000\r\n\r\n"
        sock.sendall(f"POST /api/activities HTTP/1.1\r\n{lines}".encode() + b" " * size)

    def test_a_body_for_which_there_is_no_room_is_503_and_its_bytes_are_given_back(
        self, server: RunningServer
    ) -> None:
        (bound,) = (each for each in server.web.server.bounds if each.name == "bodies")
        with connected(server) as first, connected(server) as own, connected(server) as other:
            self.send(server, first, "app", 50_000)
            wait_until(server, lambda: bound.used() == 50_000)
            self.send(server, own, "app", 0)
            answer = read_to_end(own)
            assert error_of(answer) == (503, "unavailable")
            assert b"\r\nRetry-After: 1\r\n" in answer
            self.send(server, other, "other", 59_000)
            assert error_of(read_to_end(other)) == (503, "unavailable")
            wait_until(server, lambda: bound.used() == 50_000)
        wait_until(server, lambda: bound.used() == 0)


def test_strangers_cost_little_memory_whatever_they_promise(tmp_path: Path) -> None:
    """In a process of its own: 200 connections with bodies of 4 MiB took 830 MiB."""
    many = 200

    def rss_kib() -> int:
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])

    with serve(tmp_path) as running, ExitStack() as stack:
        host, port = running.url.removeprefix("http://").rstrip("/").split(":")
        before = rss_kib()
        for path, token in (
            ("/nowhere", ""),
            ("/api/activities", "Authorization: Bearer x\r\n"),
            ("/api/auth/ws-token", ""),
            ("/ws/", ""),
        ):
            raw = (
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Length: 4194304\r\n\r\n"
            ).encode()
            for _ in range(many // 4):
                sock = socket.create_connection((host, int(port)), timeout=10)
                stack.enter_context(closing(sock))
                with suppress(ConnectionError):  # refused, and then not read for ever
                    sock.sendall(raw + bytes(60_000))
                assert sock.recv(12).startswith(b"HTTP/1.1 4")
        assert rss_kib() - before < many * 64


class TestPages:
    """A browser does not show a page why its socket was refused; it asks, and may read that."""

    ORIGIN = "https://app.example"

    @pytest.fixture
    def settings(self) -> Settings:
        settings = make_settings(limits=LimitSettings(connections_per_user=1))
        settings.server.allowed_origins.append(self.ORIGIN)
        return settings

    def ask(self, server: RunningServer, token: str, query: str = "") -> tuple[int, str]:
        answer = call(server, f"/ws/{query}", token=token, Origin=self.ORIGIN)
        assert answer.headers["Access-Control-Allow-Origin"] == self.ORIGIN
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        error = json.loads(answer.body)["error"]
        assert ("retryAfter" in error) == (answer.code in (429, 503))
        assert ("Retry-After" in answer.headers) == (answer.code in (429, 503))
        assert answer.headers["Access-Control-Expose-Headers"] == "Retry-After"
        return answer.code, error["code"]

    def test_they_learn_why_a_socket_was_refused(self, server: RunningServer) -> None:
        preflight = call(server, "/ws/", method="OPTIONS", Origin=self.ORIGIN)
        assert preflight.code == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == self.ORIGIN
        assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
        assert self.ask(server, "x") == (401, "token_invalid")
        token = server.token("ana")
        assert self.ask(server, token) == (426, "upgrade_required")
        assert self.ask(server, token, "?device=") == (400, "invalid_id")
        server.connect("ana")
        assert self.ask(server, token) == (429, "limit_exceeded")
        server.call(server.web.server.leaving.set)
        assert self.ask(server, token) == (503, "unavailable")

    def test_pages_of_other_origins_can_read_only_that_they_may_not(
        self, server: RunningServer
    ) -> None:
        answer = call(server, "/ws/", token=server.token(), Origin="https://evil.example")
        assert (answer.code, answer.headers["Access-Control-Allow-Origin"]) == (403, "*")
        assert "Access-Control-Allow-Credentials" not in answer.headers
        answer = call(server, "/api/auth/ws-token", Origin="https://evil.example")
        assert (answer.code, "Access-Control-Allow-Origin" in answer.headers) == (403, False)

    def test_a_handshake_needs_no_such_headers(self, server: RunningServer) -> None:
        status, text = request(server, f"/ws/?token={server.token()}", Origin=self.ORIGIN)
        assert (status, "Access-Control" in text) == (101, False)

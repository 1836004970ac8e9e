"""Requests as bytes: bodies, what is refused before they arrive, and the headers of refusals."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web import listener
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
    lines = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
    for target in ("/ws/", "/ws/?token=x", "/elsewhere", "/api/activities"):
        with connected(server) as sock:
            sock.sendall(f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode())
            answer = read_to_end(sock)
            assert b"\r\nConnection: close\r\n" in answer
            assert error_of(answer)[0] == (401 if target.startswith("/ws/") else 400)


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
    assert (answer.code, b"Content-Encoding" in answer.body) == (400, True)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/activities", "POST"),
        ("FOO", "/api/activities", "POST"),
        ("OPTIONS", "/api/activities", "POST"),
        ("POST", "/api/auth/ws-token", "GET, OPTIONS"),
        ("DELETE", "/api/povs/acme/activities", "GET, OPTIONS"),
        ("PUT", "/ws/", "GET, OPTIONS"),
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
        b"GET /nowhere HTTP/1.2\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n",
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
        server.web.server.draining = True
        assert self.ask(server, token) == (503, "unavailable")

    def test_pages_of_other_origins_do_not(self, server: RunningServer) -> None:
        answer = call(server, "/ws/", token=server.token(), Origin="https://evil.example")
        assert (answer.code, "Access-Control-Allow-Origin" in answer.headers) == (403, False)

    def test_a_handshake_needs_no_such_headers(self, server: RunningServer) -> None:
        status, text = request(server, f"/ws/?token={server.token()}", Origin=self.ORIGIN)
        assert (status, "Access-Control" in text) == (101, False)

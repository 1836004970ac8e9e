"""Requests for threads: what is sent, and what may come back."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import Settings
from pov_rt.remote.addresses import Address, parse_url
from pov_rt.remote.answers import LINES, MAX_ANSWER_BYTES, PATH, HttpAnswer, read_results
from pov_rt.remote.http import Http
from pov_rt.testing import RunningServer, make_settings

ONE = b'{"id":"1","type":"t","action":"a","povId":"p","userId":"u"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Raw:
    """A server of one connection: reads requests with the body `x`, answers with bytes as they are.

    After the last answer it hangs up.
    """

    def __init__(self, answers: Sequence[bytes], context: ssl.SSLContext | None) -> None:
        self.requests: list[bytes] = []
        self._answers = answers
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with closing(self._socket):
            plain, _ = self._socket.accept()
            with closing(plain):
                try:
                    with closing(self._wrap(plain)) as connection:
                        self._answer_on(connection)
                except OSError:  # the client did not trust it, or has read enough
                    return

    def _wrap(self, plain: socket.socket) -> socket.socket:
        return self._context.wrap_socket(plain, server_side=True) if self._context else plain

    def _answer_on(self, connection: socket.socket) -> None:
        for answer in self._answers:
            request = b""
            while not request.endswith(b"\r\n\r\nx"):
                request += connection.recv(65536)
            self.requests.append(request)
            connection.sendall(answer)


@contextmanager
def answering(*answers: bytes, context: ssl.SSLContext | None = None) -> Iterator[Raw]:
    server = Raw(answers, context)
    try:
        yield server
    finally:
        server.thread.join(timeout=10)


@contextmanager
def connected(url: str) -> Iterator[Http]:
    with closing(Http(parse_url(url))) as http:
        yield http


def send(http: Http) -> HttpAnswer:
    return http.request("POST", PATH, "token", b"x", kind=LINES)


class TestUnix:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return make_settings(server={"port": 0, "admin_port": 0, "unix": str(tmp_path / "rt.sock")})

    def test_a_server_at_a_unix_socket_is_reached(
        self, server: RunningServer, tmp_path: Path
    ) -> None:
        with connected(f"unix:{tmp_path}/rt.sock") as http:
            answer = http.request("POST", PATH, server.token("app", Kind.SERVICE), ONE, kind=LINES)
        results = read_results(answer, 1)
        assert results is not None
        assert not results[0].error


def test_a_body_goes_with_its_token_below_the_servers_path() -> None:
    with answering(OK) as raw, connected(f"http://127.0.0.1:{raw.port}/rt/") as http:
        assert send(http)[:3] == (200, None, b"{}")
        head = raw.requests[0].decode()
    assert head.startswith("POST /rt/api/activities HTTP/1.1\r\n")
    assert "Authorization: Bearer token\r\n" in head
    assert "Content-Type: application/x-ndjson\r\n" in head


@pytest.mark.parametrize("answer", [b"", b"hello\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000])
def test_what_is_no_answer_is_an_error_of_the_connection(answer: bytes) -> None:
    with answering(answer) as raw, connected(f"http://127.0.0.1:{raw.port}") as http:
        with pytest.raises(OSError, match=r"."):
            send(http)


def test_of_an_endless_answer_a_part_is_read() -> None:
    body = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (3 * MAX_ANSWER_BYTES)
    with answering(body) as raw, connected(f"http://127.0.0.1:{raw.port}") as http:
        assert len(send(http).body) == MAX_ANSWER_BYTES


@pytest.mark.parametrize("encoding", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("is_taken", [True, False])
def test_an_answer_that_was_cut_off_is_none(encoding: bytes, is_taken: bool) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + encoding + b"\r\n\r\n9\r\n{}"
    pieces = list[bytes]()
    with answering(answer) as raw, connected(f"http://127.0.0.1:{raw.port}") as http:
        take = pieces.append if is_taken else None
        with pytest.raises(OSError, match="IncompleteRead"):
            http.request("POST", PATH, "token", b"x", take=take)


def test_pieces_are_taken_whatever_the_size_and_the_connection_is_kept() -> None:
    size = MAX_ANSWER_BYTES + 1
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    taken = list[int]()
    with answering(answer, answer) as raw, connected(f"http://127.0.0.1:{raw.port}") as http:
        for _ in range(2):
            found = http.request(
                "POST", PATH, "token", b"x", take=lambda piece: taken.append(len(piece))
            )
            assert found[:3] == (200, None, b"")
        raw.thread.join()
        # Pieces could come twice if it began anew, which nobody would let it now.
        with pytest.raises(ConnectionError) as it:
            http.request("POST", PATH, "token", b"x", take=lambda _: None)
        assert not isinstance(it.value, ConnectionRefusedError)
    assert sum(taken) == 2 * size


def test_what_is_sent_once_is_not_sent_again_when_the_server_hangs_up() -> None:
    with answering(OK) as raw, connected(f"http://127.0.0.1:{raw.port}") as http:
        assert send(http)[:3] == (200, None, b"{}")
        raw.thread.join()
        # Its end is seen before anything is sent: so another connection is tried.
        with pytest.raises(ConnectionRefusedError):
            http.request("POST", PATH, "token", b"x", once=True)
    with answering(OK, b"") as raw, connected(f"http://127.0.0.1:{raw.port}") as http:
        assert send(http)[:3] == (200, None, b"{}")
        with pytest.raises(OSError, match=r"without response|reset"):
            http.request("POST", PATH, "token", b"x", once=True)
        assert len(raw.requests) == 2


def test_pieces_are_taken_as_they_come() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        came = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\none")
                assert came.wait(20)
                connection.sendall(b"two")

        def take(piece: bytes) -> None:
            pieces.append(piece)
            came.set()

        pieces = list[bytes]()
        thread = threading.Thread(target=serve)
        thread.start()
        with connected(f"http://127.0.0.1:{listener.getsockname()[1]}") as http:
            assert http.request("GET", PATH, "token", take=take).status == 200
        thread.join()
    assert pieces == [b"one", b"two"]


def test_an_answer_without_an_end_ends_when_nobody_waits_for_it() -> None:
    gone = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\none")
                if not connection.recv(1):
                    gone.set()

        async def work() -> None:
            loop, came = asyncio.get_running_loop(), asyncio.Event()
            http = Http(parse_url(f"127.0.0.1:{listener.getsockname()[1]}"))
            taking = http.fetch(
                "GET", PATH, "token", take=lambda _: loop.call_soon_threadsafe(came.set)
            )
            task = asyncio.ensure_future(taking)
            await came.wait()
            task.cancel()
            await asyncio.wait([task])
            assert await asyncio.to_thread(gone.wait, 20)
            http.close()

        thread = threading.Thread(target=serve)
        thread.start()
        asyncio.run(work())
        thread.join()


class Once(BaseHTTPRequestHandler):
    """Answers once on a connection and then hangs up without a word."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hangs_up() -> Iterator[Address]:
    server = HTTPServer(("127.0.0.1", 0), Once)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield parse_url(f"127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_connection_that_was_closed_meanwhile_is_opened_anew(hangs_up: Address) -> None:
    http = Http(hangs_up)
    for _ in range(3):
        assert http.request("GET", "/", "x")[:2] == (200, 7.0)
    http.close()


def test_no_answer_is_an_os_error() -> None:
    with pytest.raises(ConnectionRefusedError):
        Http(parse_url("127.0.0.1:1")).request("GET", "/", "x")


@pytest.mark.parametrize("token", ["", "a b", "a secret\r\nX: y", "\u00e4", "a secret!"])
def test_what_is_no_token_is_not_sent_and_not_said(token: str) -> None:
    with pytest.raises(OSError, match="the token is none") as it:
        Http(parse_url("127.0.0.1:1")).request("GET", "/", token)
    assert "secret" not in str(it.value)


def test_a_cancelled_request_ends_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = parse_url(f"127.0.0.1:{listener.getsockname()[1]}")

        async def work() -> None:
            http = Http(address, timeout_s=60)
            task = asyncio.ensure_future(http.fetch("GET", "/", "x"))
            taken = await asyncio.to_thread(listener.accept)
            await asyncio.to_thread(taken[0].recv, 1)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            taken[0].close()

        asyncio.run(work())  # which waits for its threads


def test_a_request_that_is_cancelled_while_it_connects_is_not_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    connect = HTTPConnection.connect

    def wait_and_connect(connection: HTTPConnection) -> None:
        begun.set()
        assert may_go_on.wait(30)
        connect(connection)

    async def work(http: Http) -> None:
        task = asyncio.ensure_future(http.fetch("GET", "/", "token"))
        assert await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        await asyncio.wait([task])
        may_go_on.set()

    monkeypatch.setattr(HTTPConnection, "connect", wait_and_connect)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        asyncio.run(work(Http(parse_url(f"127.0.0.1:{server.getsockname()[1]}"), 30, threads)))
        peer, _ = server.accept()
        with peer:
            assert peer.recv(1) == b""


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1; return its file, and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_server_with_a_certificate_has_to_be_one_that_the_machine_trusts(
    is_trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    with answering(OK, context=context) as raw, connected(f"https://127.0.0.1:{raw.port}") as http:
        if is_trusted:
            assert send(http).status == 200
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                send(http)

"""What a refused handshake says, in words that say what to do."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pov_rt.client import ConnectionLost, SessionEnded
from pov_rt.client.lines import TokenRefused, explain
from pov_rt.client.lines.socket import open_socket
from pov_rt.remote.addresses import Address, parse_url
from pov_rt.testing import RunningServer


class Answering(BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'{"error":{"code":"c","message":"words"}}'
        self.send_response(int(self.path.partition("?")[0].split("/")[2]))
        self.send_header("Retry-After", "3")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def refusal(address: Address, token: str = "x") -> Exception:
    async def work() -> Exception:
        try:
            line = await open_socket(address, token, "phone")
        except Exception as error:
            return error
        await line.close()
        raise AssertionError("it was let in")

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, TokenRefused, "refuses the token (401): words"),
        (429, ConnectionLost, "answers 429: words"),
        (503, ConnectionLost, "answers 503: words"),
        (403, SessionEnded, "HTTP 403 words"),
        (200, SessionEnded, "is no pov-rt server"),
    ],
)
def test_an_answer_says_whether_to_come_back(
    answering: str, status: int, kind: type[Exception], words: str
) -> None:
    error = refusal(parse_url(f"ws://{answering}/ws/{status}"))
    assert isinstance(error, kind)
    assert words in str(error)
    if isinstance(error, ConnectionLost):
        assert error.retry_after_s == 3


def test_a_server_refuses_a_strangers_token(server: RunningServer) -> None:
    error = refusal(parse_url(server.address))
    assert isinstance(error, TokenRefused)
    assert "signed with another secret" in str(error)


def test_what_is_no_token_is_not_sent_and_not_said() -> None:
    error = refusal(parse_url("127.0.0.1:1"), "a secret\r\nX: y")
    assert isinstance(error, TokenRefused)
    assert "secret" not in str(error)


def test_nobody_there_may_pass() -> None:
    error = refusal(parse_url("127.0.0.1:1"))
    assert isinstance(error, ConnectionLost)
    assert "nobody listens at http://127.0.0.1:1" in str(error)
    assert "no answer in time" in explain(parse_url("h"), TimeoutError())


def test_a_handshake_that_is_cut_may_pass_the_next_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            taken, _ = listener.accept()
            taken.recv(1)
            taken.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = refusal(parse_url(f"127.0.0.1:{listener.getsockname()[1]}"))
        thread.join()
    assert isinstance(error, ConnectionLost)


def test_a_websocket_of_another_kind_is_none() -> None:
    from websockets.sync.server import serve

    with serve(lambda connection: None, "127.0.0.1", 0) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        error = refusal(parse_url(f"127.0.0.1:{other.socket.getsockname()[1]}"))
        other.shutdown()
        thread.join()
    assert isinstance(error, SessionEnded)
    assert "is no pov-rt server" in str(error)

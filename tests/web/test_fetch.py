"""Requests to other servers: any answer is one, and none takes for ever or more than its bound."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pov_rt.protocol.errors import Unavailable
from pov_rt.web.fetch import MAX_FETCHED_BYTES, fetch


class Other(BaseHTTPRequestHandler):
    """Answers `/STATUS/BYTES` with that; `/hang` when the test is over."""

    over: threading.Event

    def answer(self) -> None:
        if self.path.startswith("/hang"):
            self.over.wait()
            return
        status, size = self.path.strip("/").split("/")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(int(status))
        self.send_header("Location", "/200/1")
        self.send_header("X-Told", f"{self.command} {body.decode()} {self.headers.get('X-Mine')}")
        self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(b"x" * int(size))

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    over = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Mine", (Other,), {"over": over}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def get(url: str, **more: Any) -> Any:
    return asyncio.run(fetch(url, **more))


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_method_headers_and_body_arrive(url: str, method: str) -> None:
    body = b"hello" if method == "POST" else None
    answer = get(f"{url}/200/3", method=method, headers={"X-Mine": "yes"}, body=body)
    assert (answer.status, answer.body) == (200, b"xxx")
    assert answer.headers["X-Told"] == f"{method} {'hello' if body else ''} yes"


@pytest.mark.parametrize("status", [302, 404, 503])
def test_any_status_is_an_answer_and_redirects_are_not_followed(url: str, status: int) -> None:
    assert get(f"{url}/{status}/0").status == status


def test_what_is_too_large_is_no_answer(url: str) -> None:
    assert len(get(f"{url}/200/{MAX_FETCHED_BYTES}").body) == MAX_FETCHED_BYTES
    with pytest.raises(Unavailable):
        get(f"{url}/200/{MAX_FETCHED_BYTES + 1}")


def test_who_does_not_answer_in_time_is_named_without_the_query(url: str) -> None:
    with pytest.raises(Unavailable, match=f"^no answer from {url}/hang: ") as raised:
        get(f"{url}/hang?key=hidden", timeout_s=0.1)
    assert "hidden" not in raised.value.message


@pytest.mark.parametrize("nobody", ["http://127.0.0.1:1/", "ftp://127.0.0.1/", "http://[/"])
def test_where_nobody_is_nobody_answers(nobody: str) -> None:
    with pytest.raises(Unavailable):
        get(nobody)


def test_one_that_is_cancelled_ends_its_connection() -> None:
    async def work() -> None:
        came, ended = asyncio.Event(), asyncio.Event()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            came.set()
            await reader.read()
            ended.set()
            writer.close()

        async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            asking = asyncio.create_task(fetch(f"http://127.0.0.1:{port}/", timeout_s=3600.0))
            await came.wait()
            asking.cancel()
            await ended.wait()

    asyncio.run(work())

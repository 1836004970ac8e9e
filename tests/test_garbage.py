"""What a connection leaves behind is freed at once; what waits for the collector stops the loop."""

from __future__ import annotations

import gc
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.testing import RunningServer
from tests.transport.test_wire import wait_until
from tests.web.test_handshake import UPGRADE

ROUNDS = 20
UPGRADING = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
ACTIVITY = '{"type":"t","action":"a","povId":"p","userId":"u"}'


def handshake(server: RunningServer) -> str:
    return f"GET /ws/?token={server.token()} HTTP/1.1\r\n{UPGRADING}\r\n"


def refused(server: RunningServer) -> str:
    return f"GET /ws/?token=x HTTP/1.1\r\n{UPGRADING}\r\n"


def publication(server: RunningServer, more: str = "", content: str = ACTIVITY) -> str:
    token = server.token("app", Kind.SERVICE)
    return (
        f"POST /api/activities HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"{more}Content-Length: {len(content)}\r\n\r\n{content}"
    )


def last_publication(server: RunningServer) -> str:
    return publication(server, "Connection: close\r\n")


def bad_publication(server: RunningServer) -> str:
    return publication(server, content=ACTIVITY.replace('"a"', '"no action"'))


def no_publication(server: RunningServer) -> str:
    return publication(server, content="[" + 1001 * "1," + "1]")


def too_large(server: RunningServer) -> str:
    return "POST /api/activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"


def nonsense(server: RunningServer) -> str:
    return "nonsense\r\n\r\n"


@pytest.mark.parametrize(
    "make",
    [
        handshake,
        refused,
        publication,
        last_publication,
        bad_publication,
        no_publication,
        too_large,
        nonsense,
    ],
)
def test_nothing_waits_for_the_collector(
    server: RunningServer, make: Callable[[RunningServer], str]
) -> None:
    raw = make(server).encode()

    def ask(stack: ExitStack) -> None:
        address = ("127.0.0.1", server.web.port)
        sock = stack.enter_context(closing(socket.create_connection(address, timeout=10)))
        sock.sendall(raw)
        assert sock.recv(65536).startswith(b"HTTP/1.1 ")

    def is_quiet() -> bool:
        return server.web.http_connections == 0

    with ExitStack() as stack:  # what is made once, such as a regular expression
        ask(stack)
    wait_until(server, is_quiet)
    gc.collect()
    gc.disable()
    try:
        with ExitStack() as stack:
            for _ in range(ROUNDS):
                ask(stack)
            if make is not handshake:
                stack.close()
            wait_until(server, is_quiet)
            server.call(lambda: None)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = Counter(type(each).__name__ for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    # Per connection it would be at least one of something.
    assert [name for name, count in left.items() if count >= ROUNDS] == []

"""A connection up to its first request: who waits, who has gone, and whose turn it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.runtime import turns
from pov_rt.testing import RunningServer, make_settings
from tests.transport.test_wire import wait_until
from tests.web.upgrade.test_entry import upgrade

MANY = 3 * turns.HANDSHAKES


@contextmanager
def connections(server: RunningServer, many: int) -> Iterator[list[socket.socket]]:
    """Open connections that say nothing yet."""
    with ExitStack() as stack:
        address = ("127.0.0.1", server.web.port)
        yield [
            stack.enter_context(closing(socket.create_connection(address, timeout=30)))
            for _ in range(many)
        ]


def test_who_asks_later_is_let_in_all_the_same(server: RunningServer) -> None:
    with connections(server, 1) as (sock,):
        wait_until(server, lambda: server.web.http_connections == 1)
        sock.sendall(upgrade(f"/ws/?token={server.token()}"))
        assert sock.recv(12) == b"HTTP/1.1 101"
        assert (server.web.http_connections, server.web.sockets) == (0, 1)


def test_what_comes_behind_the_request_is_the_first_message(server: RunningServer) -> None:
    ping = b"\x89\x80\x00\x00\x00\x00"
    with connections(server, 1) as (sock,):
        sock.sendall(upgrade(f"/ws/?token={server.token()}") + ping)
        found = b""
        while not found.endswith(b"\r\n\r\n\x8a\x00"):
            data = sock.recv(65536)
            assert data, found
            found += data


def test_more_than_a_turn_takes_come_in_one_after_the_other(server: RunningServer) -> None:
    tokens = [server.token(str(number)) for number in range(MANY)]
    with connections(server, MANY) as socks:
        wait_until(server, lambda: server.web.http_connections == MANY)

        # All are there before the loop looks again, those who have gone among them.
        def ask() -> None:
            for sock, token in zip(socks, tokens, strict=True):
                sock.sendall(upgrade(f"/ws/?token={token}"))
            for sock in socks[-3:]:
                sock.close()

        server.call(ask)
        for sock in socks[:-3]:
            assert sock.recv(12) == b"HTTP/1.1 101"
        wait_until(server, lambda: server.web.http_connections == 0)
        wait_until(server, lambda: server.web.sockets == MANY - 3)


def test_who_goes_without_a_word_is_forgotten(server: RunningServer) -> None:
    with connections(server, 2) as socks:
        wait_until(server, lambda: server.web.http_connections == 2)
        socks[0].shutdown(socket.SHUT_WR)
        assert socks[0].recv(1) == b""
        wait_until(server, lambda: server.web.http_connections == 1)


class TestPatience:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(handshake_s=1))

    def test_who_says_nothing_is_hung_up_on(self, server: RunningServer) -> None:
        with connections(server, 1) as (sock,):
            assert sock.recv(1) == b""
            wait_until(server, lambda: server.web.http_connections == 0)

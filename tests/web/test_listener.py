"""Who makes room for whom when all places are taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web.listener import ADMIN_CONNECTIONS
from tests.transport.test_wire import wait_until
from tests.web.test_handshake import request

PLACES = 20
ASK = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def settings() -> Settings:
    return make_settings(limits=LimitSettings(connections=PLACES, connections_per_user=PLACES))


@contextmanager
def crowd(server: RunningServer, many: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open connections, one after the other, on which the server waits for a request."""
    with ExitStack() as stack:
        found = []
        before = server.web.http_connections
        for number in range(1, many + 1):
            address = ("127.0.0.1", server.web.port)
            sock = stack.enter_context(closing(socket.create_connection(address, timeout=10)))
            if said:
                sock.sendall(said)
            found.append(sock)
            wait_until(server, lambda n=number: server.web.http_connections == before + n)
        yield found


def is_open(sock: socket.socket) -> bool:
    """Tell whether the server has not hung up."""
    sock.setblocking(False)
    try:
        return sock.recv(65536, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


@pytest.mark.parametrize("said", [b"", b"GET /ws/ HTTP/1.1\r\nHost:"])
def test_when_all_places_are_taken_the_oldest_that_has_not_asked_goes(
    server: RunningServer, said: bytes
) -> None:
    with crowd(server, PLACES, said) as silent:
        for number in range(3):
            assert request(server, f"/ws/?token={server.token(str(number))}")[0] == 101
        server.call(lambda: None)
        assert not is_open(silent[0])
        assert is_open(silent[-1])
        (bound,) = (each for each in server.web.server.bounds if each.name == "connections")
        assert bound.limit == PLACES
        assert bound.refused >= 1
        assert bound.used() <= PLACES


def test_who_has_asked_before_goes_after_those_who_never_did(server: RunningServer) -> None:
    with crowd(server, 2, ASK) as asked:
        for sock in asked:
            answer = b""
            while not answer.endswith(b"}}"):
                answer += sock.recv(65536)
        with crowd(server, PLACES - 2) as silent:
            assert request(server, f"/ws/?token={server.token()}")[0] == 101
            assert not is_open(silent[0])
            assert all(is_open(sock) for sock in asked)


def test_open_sockets_make_room_for_nobody(server: RunningServer) -> None:
    clients = [server.connect(str(number)) for number in range(PLACES)]
    address = ("127.0.0.1", server.web.port)
    with closing(socket.create_connection(address, timeout=10)) as late:
        late.sendall(ASK)
        for client in clients:
            assert client.request({"type": "ping"})["type"] == "pong"
        assert is_open(late), "it waits in front of the door"
        clients[0].socket.close()
        late.settimeout(10)
        assert late.makefile("rb").readline().startswith(b"HTTP/1.1 404")


class TestPerAddress:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(connections_per_address=5))

    def test_an_address_has_its_own_bound_before_the_upgrade(self, server: RunningServer) -> None:
        for number in range(8):
            server.connect(str(number))
        with crowd(server, 5) as silent:
            assert request(server, f"/ws/?token={server.token()}")[0] == 101
            assert not is_open(silent[0])
            assert all(is_open(sock) for sock in silent[1:])
        assert server.web.sockets >= 8, "sockets are counted by their users"

    class TestProxy:
        @pytest.fixture
        def settings(self) -> Settings:
            settings = make_settings(limits=LimitSettings(connections_per_address=5))
            settings.server.trusted_proxies.append("127.0.0.1")
            return settings

        def test_behind_a_proxy_there_are_all_clients(self, server: RunningServer) -> None:
            with crowd(server, 12) as silent:
                assert all(is_open(sock) for sock in silent)


def test_the_operators_port_has_room_for_who_asks(server: RunningServer) -> None:
    with ExitStack() as stack:
        address = ("127.0.0.1", server.web.admin_port)
        silent = [
            stack.enter_context(closing(socket.create_connection(address, timeout=10)))
            for _ in range(ADMIN_CONNECTIONS + 10)
        ]
        with closing(socket.create_connection(address, timeout=1)) as sock:
            sock.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        # And nobody is silent there for long.
        for sock in silent:
            sock.settimeout(5)
            assert sock.recv(1) == b""

"""How it stands with a socket that is not read: real ones, looked at from outside."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from pov_rt.transport.liveness import has_hung_up, unread_bytes


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    with client, accepted:
        yield client, accepted


def test_what_has_arrived_is_counted_and_stays(pair: tuple[socket.socket, socket.socket]) -> None:
    client, accepted = pair
    assert unread_bytes(accepted.fileno()) == 0
    client.sendall(b"x" * 300)
    accepted.recv(300, socket.MSG_PEEK | socket.MSG_WAITALL)
    assert unread_bytes(accepted.fileno()) == 300
    assert accepted.recv(1000) == b"x" * 300
    assert unread_bytes(accepted.fileno()) == 0


@pytest.mark.parametrize("reset", [False, True])
def test_one_that_hung_up_is_known_though_its_bytes_are_unread(
    pair: tuple[socket.socket, socket.socket], reset: bool
) -> None:
    client, accepted = pair
    client.sendall(b"not read yet")
    accepted.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL)
    assert not has_hung_up(accepted.fileno())
    if reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert has_hung_up(accepted.fileno())

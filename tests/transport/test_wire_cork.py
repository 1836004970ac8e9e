"""What one turn of the loop causes to be sent leaves in one send, in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from pov_rt.config.settings import LimitSettings
from pov_rt.protocol.errors import CloseCode
from pov_rt.transport.bounds import bounds_of
from pov_rt.transport.wire import Wire


class CountingSocket(socket.socket):
    """A socket that knows how often it was sent to."""

    sends = 0

    def send(self, *args: Any) -> int:
        self.sends += 1
        return super().send(*args)


def run(test: Callable[[Wire, CountingSocket, socket.socket], Any]) -> None:
    async def work() -> None:
        near, far = socket.socketpair()
        with far, CountingSocket(near.family, near.type, fileno=near.detach()) as sock:
            sock.setblocking(False)
            far.settimeout(5)
            ended: list[Wire] = []
            wire = Wire(sock, bounds_of(LimitSettings()), asyncio.get_running_loop(), ended.append)
            await test(wire, sock, far)
            wire.abort()
            assert ended == [wire]

    asyncio.run(work())


def test_answers_of_a_turn_leave_together_with_what_comes_between_them() -> None:
    async def test(wire: Wire, sock: CountingSocket, far: socket.socket) -> None:
        wire.send_soon(b"a")
        wire.send(b"b")
        wire.send_soon(b"c")
        assert sock.sends == 0
        await asyncio.sleep(0)
        assert (sock.sends, far.recv(99)) == (1, b"abc")
        wire.send(b"d")
        assert (sock.sends, far.recv(99)) == (2, b"d"), "nothing else is held back"

    run(test)


def test_much_is_not_held_back() -> None:
    async def test(wire: Wire, sock: CountingSocket, far: socket.socket) -> None:
        wire.send_soon(b"x" * 70_000)
        assert sock.sends == 1
        assert len(far.recv(70_000, socket.MSG_WAITALL)) == 70_000

    run(test)


def test_what_is_held_back_comes_before_the_close_frame() -> None:
    async def test(wire: Wire, sock: CountingSocket, far: socket.socket) -> None:
        wire.send_soon(b"a")
        wire.close(CloseCode.RESTARTING, b"last")
        wire.send_soon(b"too late")
        await asyncio.sleep(0)
        assert far.recv(99).startswith(b"a\x81\x04last\x88")
        far.sendall(b"\x88\x80\0\0\0\0")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert far.recv(99) == b"", "and then the end"

    run(test)


def test_a_socket_that_is_gone_lets_go_of_it() -> None:
    async def test(wire: Wire, sock: CountingSocket, far: socket.socket) -> None:
        wire.send_soon(b"a")
        wire.abort()
        await asyncio.sleep(0)
        assert sock.sends == 0

    run(test)
